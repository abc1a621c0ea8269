package main

import (
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
		account, app, device string
		scopes               []string
		inherit, hex         bool
		expires              durationFlag
		limits               constraintFlags
		only, admin          bool
		own                  ownSecret
		key                  keyFlag
	)
	c := &cobra.Command{
		Use: "create", Short: "Make a token, and show its secret once", Args: takes(),
		Long: `Makes a token. Its secret is shown now, on standard output, and never again:
the ledger keeps a digest of it alone. With --own-secret this program makes the
secret, or reads it, and the ledger never sees it: an answer that is lost on its
way then loses nothing. Without --account the token is of your own account.

--app and --device are labels that stay in the log for ever: do not name people.`,
		Example: `  tokenledger token create --account shop --app report --scope view:site/3,view:site/4 --expires-in 90d
  tokenledger token create --account shop --app tracker --scope track:site/3 --cidr 192.0.2.0/24 --secret-only |
    kubectl create secret generic tracker --from-file=token=/dev/stdin`,
		RunE: func(c *cobra.Command, _ []string) error {
			scopes, err := scopeList("--scope", scopes)
			if err != nil {
				return err
			}
			switch {
			case inherit && len(scopes) > 0:
				return exit.Inputf("--inherit takes all that the account has; leave --scope out")
			case !inherit && len(scopes) == 0:
				return usagef(c, "say what the token may do with --scope, as in --scope view:site/3, or --inherit")
			}
			if err := own.check(e, hex, only); err != nil {
				return err
			}
			body := map[string]any{"app": app, "device": device, "inherit": inherit}
			if account != "" {
				body["account"] = account
			}
			if len(scopes) > 0 {
				body["scopes"] = scopes
			}
			if c.Flags().Changed("expires-in") {
				body["expires_in"] = expires.String()
			}
			if hex {
				body["format"] = "hex32"
			}
			constraints := constraints{}
			if err := limits.change(c.Flags(), constraints); err != nil {
				return err
			}
			if len(constraints) > 0 {
				body["constraints"] = constraints
			}
			if err := confirmScopes(admin, scopes); err != nil {
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
			switch {
			case inherit && account != "":
				name, err := accountName(account)
				if err == nil {
					err = confirmInherit(c.Context(), ledger, admin, name)
				}
				if err != nil {
					return err
				}
			case inherit && !admin:
				return exit.Failf(exit.Usage, "needs_confirmation", "the token would inherit all that your account has, which may be admin or superuser. Name the account with --account to have that looked at, or add --yes-admin if it is meant to")
			}
			if own.from != "" {
				return own.create(c.Context(), e, ledger, body, account, key, only)
			}
			a, err := ledger.Do(c.Context(), client.Request{Method: http.MethodPost, Path: []string{"v1", "tokens"}, Body: body, Key: key})
			if err != nil {
				return err
			}
			return e.secret(a, "made", only)
		},
	}
	flags := c.Flags()
	flags.StringVar(&account, "account", "", "whose token it is: id or login; by default your own")
	flags.StringVar(&app, "app", "", "what uses it, as in \"mobile app\"")
	flags.StringVar(&device, "device", "", "where, as in \"phone\"")
	flags.StringSliceVar(&scopes, "scope", nil, "what it may do, as in view:site/3; again or with commas for more")
	flags.BoolVar(&inherit, "inherit", false, "it may do all that its account may, now and later; instead of --scope")
	flags.Var(&expires, "expires-in", "how long it lives, as in 90d; by default as the policy says")
	limits.declare(flags)
	flags.BoolVar(&hex, "hex32", false, "a secret of 32 hexadecimal characters, for clients that accept nothing else")
	own.declare(flags)
	declareOnly(flags, &only)
	declareAdmin(flags, &admin)
	key.declare(flags)
	e.completeFlag(c, "account", e.accounts)
	e.completeFlag(c, "scope", e.scopes)
	return c
}

func declareOnly(flags *pflag.FlagSet, only *bool) {
	flags.BoolVar(only, "secret-only", false, "print the secret and nothing else on standard output, whatever --output says")
}

func declareAdmin(flags *pflag.FlagSet, admin *bool) {
	flags.BoolVar(admin, "yes-admin", false, "a token with admin or superuser is meant")
}

// constraintFlags narrow where and how a token may be used.
type constraintFlags struct {
	cidrs, origins, methods, audience []string
	headerOnly                        bool
	rate                              uint
}

func (f *constraintFlags) declare(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.cidrs, "cidr", nil, "network that clients have to be in, as in 192.0.2.0/24; again or with commas for more")
	flags.StringSliceVar(&f.origins, "origin", nil, "page that may use it, as in https://example.org; likewise")
	flags.StringSliceVar(&f.methods, "method", nil, "HTTP method that it may be used with; likewise")
	flags.StringSliceVar(&f.audience, "audience", nil, "policy that may accept it; likewise")
	flags.BoolVar(&f.headerOnly, "header-only", false, "refuse it in URLs")
	flags.UintVar(&f.rate, "rate", 0, "most requests a second that each verifier lets through; 0 for any number")
}

// constraints are a token's, by the API's names. Those that this program does
// not know are kept as they are: to lose one would widen the token.
type constraints map[string]any

// change puts what the flags say into c, and leaves the rest of it.
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
