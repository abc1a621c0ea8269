package main

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
)

func newTokenCreateCmd(e *env) *cobra.Command {
	var (
		create tokenCreateFlags
		key    keyFlag
	)
	c := &cobra.Command{
		Use: "create", Short: "Create a token and show its secret once", Args: takes(),
		Long: `Creates a token. Its secret is printed on standard output now and never again:
the ledger stores only a digest of it. With --secret-file it goes to a new file
instead, which is created before the token is. With --client-secret this program generates
or reads the secret, and the ledger never sees it; a lost answer then loses
nothing. Without --account the token belongs to your own account.

--app and --device are labels that stay in the log forever: do not name people.`,
		Example: `  tokenledger token create --account shop --app report \
    --scope view:site/3,view:site/4 --expires-in 90d
  tokenledger token create --account shop --app report --scope view:site/3 \
    --secret-file /etc/report/token
  tokenledger token create --account shop --app tracker --scope track:site/3 \
    --cidr 192.0.2.0/24 --secret-only |
    kubectl create secret generic tracker --from-file=token=/dev/stdin`,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := create.body(e, c)
			if err != nil {
				return err
			}
			key, err := key.key()
			if err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			if err := create.confirm(c.Context(), ledger); err != nil {
				return err
			}
			if err := create.out.open(); err != nil {
				return err
			}
			defer create.out.file.close()
			r := client.Request{Method: http.MethodPost, Path: []string{"v1", "tokens"}, Body: body, Key: key}
			if create.own.from != "" {
				return create.own.create(c.Context(), e, ledger, tokenRequest{r, body, create.account, create.out})
			}
			a, err := ledger.Do(c.Context(), r)
			if err != nil {
				return err
			}
			return e.secret(a, "created", create.out)
		},
	}
	create.declare(c.Flags())
	key.declare(c.Flags())
	e.completeFlag(c, "account", e.accounts)
	e.completeFlag(c, "scope", e.scopes)
	e.completeFlag(c, "format", oneOf("standard", "matomo"))
	return c
}

// tokenCreateFlags say which token to create.
type tokenCreateFlags struct {
	account, app, device string
	scopes               []string
	file                 scopesFile
	inherit, hex         bool
	format               string
	lifetime             lifetimeFlags
	limits               constraintFlags
	admin                bool
	out                  secretOutput
	own                  clientSecret
}

func (t *tokenCreateFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&t.account, "account", "", "account of the token, by ID or login (default your own)")
	flags.StringVar(&t.app, "app", "", "label: the app that uses the token, as in \"mobile app\"")
	flags.StringVar(&t.device, "device", "", "label: the device that uses the token, as in \"phone\"")
	group(flags, groupLabels, "account", "app", "device")
	flags.StringSliceVar(&t.scopes, "scope", nil,
		"what the token may do, as in view:site/3; repeat the flag or separate with commas")
	t.file.declare(flags, "scopes-file", "file with more scopes, one a line or separated by commas; - for standard input")
	flags.BoolVar(&t.inherit, "inherit", false, "allow all that its account may do, now and later, in place of --scope")
	declareAdmin(flags, &t.admin)
	group(flags, groupRights, "scope", "scopes-file", "inherit")
	t.lifetime.declare(flags, "lifetime, as in 90d or 1y (default as the policy says)")
	t.limits.declare(flags)
	flags.BoolVar(&t.hex, "hex32", false,
		"generate a secret of 32 hexadecimal characters, for clients that accept no other")
	flags.StringVar(&t.format, "format", "",
		"format of the secret: standard, or matomo, the same as --hex32: as Matomo makes them")
	t.own.declare(flags)
	t.out.declare(flags)
	group(flags, groupSecret, "hex32", "format")
}

// body checks the flags and returns the request's body.
func (t *tokenCreateFlags) body(e *env, c *cobra.Command) (map[string]any, error) {
	scopes, err := scopeList("--scope", t.scopes)
	if err == nil {
		scopes, err = t.file.add(c.Context(), e, scopes)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case t.inherit && len(scopes) > 0:
		return nil, exit.Inputf("--inherit and --scope cannot be used together")
	case !t.inherit && len(scopes) == 0:
		return nil, usagef(c, "the token needs scopes: use --scope, as in --scope view:site/3, or --inherit")
	}
	switch t.format {
	case "", "standard":
	case "matomo", "hex32":
		t.hex = true
	default:
		return nil, exit.Inputf("--format: must be standard or matomo, not %s", events.Quote(t.format))
	}
	if err := t.own.check(e, t.hex, t.out); err != nil {
		return nil, err
	}
	if err := t.out.check(); err != nil {
		return nil, err
	}
	body := map[string]any{"app": t.app, "device": t.device, "inherit": t.inherit}
	if t.account != "" {
		body["account"] = t.account
	}
	if len(scopes) > 0 {
		body["scopes"] = scopes
	}
	if err := t.lifetime.into(body, c.Flags()); err != nil {
		return nil, err
	}
	if t.hex {
		body["format"] = "hex32"
	}
	constraints := constraints{}
	if err := t.limits.change(c.Flags(), constraints); err != nil {
		return nil, err
	}
	if len(constraints) > 0 {
		body["constraints"] = constraints
	}
	return body, confirmScopes(t.admin, scopes)
}

// confirm refuses a token that inherits the right to administer, unless a flag
// allows it.
func (t *tokenCreateFlags) confirm(ctx context.Context, ledger *client.Client) error {
	switch {
	case t.inherit && t.account != "":
		name, err := accountName(t.account)
		if err != nil {
			return err
		}
		return confirmInherit(ctx, ledger, t.admin, name)
	case t.inherit && !t.admin:
		return exit.Failf(exit.Usage, "needs_confirmation",
			"the token would inherit all grants of your account, perhaps admin or superuser. Name the account with "+
				"--account to have that checked, or add --allow-admin to confirm")
	}
	return nil
}

func declareAdmin(flags *pflag.FlagSet, admin *bool) {
	flags.BoolVar(admin, "allow-admin", false, "confirm that the token may have admin or superuser")
	group(flags, groupRights, "allow-admin")
}

// constraintFlags restrict where and how a token may be used.
type constraintFlags struct {
	cidrs, origins, methods, audience []string
	headerOnly                        bool
	rate                              uint
}

func (f *constraintFlags) declare(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.cidrs, "cidr", nil, "accept it only from this network, as in 192.0.2.0/24; repeat for more")
	flags.StringSliceVar(&f.origins, "origin", nil,
		"accept it only from this web page's origin, as in https://example.org; repeat for more")
	flags.StringSliceVar(&f.methods, "method", nil, "accept it only with this HTTP method; repeat for more")
	flags.StringSliceVar(&f.audience, "audience", nil,
		"accept it only under this policy of the verifiers; repeat for more")
	flags.BoolVar(&f.headerOnly, "header-only", false, "refuse it in URLs")
	flags.UintVar(&f.rate, "rate", 0, "requests a second that each verifier allows; 0 for no limit")
	group(flags, groupConstraints, "cidr", "origin", "method", "audience", "header-only", "rate")
}

// constraints are a token's, by the API's names. Constraints that this program
// does not know are kept: losing one would widen the token.
type constraints map[string]any

// change applies the flags to c and keeps the rest.
func (f *constraintFlags) change(flags *pflag.FlagSet, c constraints) error {
	cidrs := make([]string, len(f.cidrs))
	for i, s := range f.cidrs {
		p, err := netip.ParsePrefix(s)
		if address, bad := netip.ParseAddr(s); bad == nil && address.Zone() == "" {
			p, err = address.Prefix(address.BitLen())
		}
		if err != nil {
			return exit.Inputf("--cidr: %s is not a network such as 192.0.2.0/24", events.Quote(s))
		}
		cidrs[i] = p.String()
	}
	for flag, list := range map[string]struct {
		name   string
		values []string
	}{
		"cidr": {"cidrs", cidrs}, "origin": {"origins", f.origins},
		"method": {"methods", f.methods}, "audience": {"audience", f.audience},
	} {
		if !flags.Changed(flag) {
			continue
		}
		if len(list.values) == 0 {
			delete(c, list.name)
			continue
		}
		c[list.name] = list.values
	}
	if flags.Changed("header-only") {
		if delete(c, "header_only"); f.headerOnly {
			c["header_only"] = true
		}
	}
	if flags.Changed("rate") {
		if delete(c, "rate"); f.rate > 0 {
			c["rate"] = f.rate
		}
	}
	return nil
}

// changed reports whether a flag of constraints was given.
func (f *constraintFlags) changed(flags *pflag.FlagSet) bool {
	for _, name := range []string{"cidr", "origin", "method", "audience", "header-only", "rate"} {
		if flags.Changed(name) {
			return true
		}
	}
	return false
}
