package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// selectFlags say which tokens to revoke together.
type selectFlags struct {
	account, app, device, scope string
	before                      timeFlag
	imported                    importedFlags
	dry, yes, self              bool
}

func (m *selectFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&m.account, "account", "", "tokens of this account, by ID or login")
	flags.StringVar(&m.app, "app", "", "tokens with this app label")
	flags.StringVar(&m.device, "device", "", "tokens with this device label")
	flags.StringVar(&m.scope, "scope", "",
		"tokens that may do this, as in admin:site/3; wider tokens too, up to superuser")
	m.before.bare = when.Back
	flags.Var(&m.before, "created-before",
		"tokens created before this time, as in 2031-12-31 (UTC), \"2031-12-31 18:00 UTC\" or 2w, two weeks ago")
	flags.BoolVar(&m.dry, "dry-run", false, "change nothing, and list what would be revoked")
	flags.BoolVar(&m.yes, "yes", false, "confirm that all of them are revoked")
	flags.BoolVar(&m.self, "include-self", false, "revoke your own token too, if it matches")
	m.imported.declare(flags)
	group(flags, groupSelect, "account", "app", "device", "scope", "created-before", "dry-run", "yes", "include-self")
}

// given reports whether a flag selects tokens.
func (m *selectFlags) given(flags *pflag.FlagSet) bool {
	for _, name := range []string{"account", "app", "device", "scope", "created-before"} {
		if flags.Changed(name) {
			return true
		}
	}
	return m.imported.given(flags)
}

// body is the client.Request, and what it selects in words.
func (m *selectFlags) body(flags *pflag.FlagSet, reason string) (body map[string]any, what string, err error) {
	body = map[string]any{}
	var words []string
	for _, f := range []struct{ flag, field, value, words string }{
		{"account", "account", m.account, "of account "},
		{"app", "app", m.app, "of app "},
		{"device", "device", m.device, "of device "},
		{"scope", "scope", m.scope, "that may do "},
		{"created-before", "created_before", m.before.at.UTC().Format(time.RFC3339Nano), "created before "},
	} {
		if !flags.Changed(f.flag) {
			continue
		}
		body[f.field] = f.value
		words = append(words, f.words+f.value)
	}
	if m.scope != "" {
		if _, err := events.ParseScope(m.scope); err != nil {
			return nil, "", exit.Inputf("--scope: %s", err)
		}
	}
	words = append(words, m.imported.body(body)...)
	if reason != "" {
		body["reason"] = reason
	}
	if m.self {
		body["include_self"] = true
	}
	return body, strings.Join(words, " and "), nil
}

func newTokenRevokeCmd(e *env) *cobra.Command {
	var (
		many selectFlags
		f    endFlags
	)
	c := &cobra.Command{
		Use:   "revoke TOKEN | --account A | --app X | --device D | --scope S | --created-before T | --migrated",
		Short: "Revoke a token, or many, forever",
		Long: `Revokes a token forever, and waits until no node accepts it any more: every node
has applied the revocation, or has stopped answering. A node that is cut off stops
when its lease ends. If that takes longer than --wait, the revocation stands, and
the command names the nodes that it waits for and exits with 6.

` + tokenHelp + `

In place of a token, flags select tokens: those that match all of the flags.
--dry-run lists them, and --yes revokes them. Your own token is left out, or the
command is refused, unless you give --include-self.`,
		Example: `  tokenledger token revoke tok_01jd3qk8z5n0v7m2x4c6b8a9ef --reason 'laptop stolen'
  tokenledger token revoke --account shop --dry-run
  tokenledger token revoke --migrated --unused-for 180d --dry-run
  tokenledger token revoke --app 'mobile app' \
    --created-before '2031-12-31 18:00 UTC' --yes`,
		Args: func(c *cobra.Command, args []string) error {
			switch selects := many.given(c.Flags()); {
			case selects && len(args) > 0:
				return usagef(c, "give either a token or flags that select tokens, not both")
			case selects:
				return nil
			case len(args) == 0:
				return usagef(c,
					"tokenledger token revoke needs the token's ID or name, or one of --account, --app, --device, --scope, "+
						"--created-before, --source, --legacy, --migrated and --unused-for")
			}
			return takes(tokenArg)(c, args)
		},
		ValidArgsFunction: e.first(e.tokens(unended)),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				if f.version.version != 0 {
					return usagef(c, "--if-version works only with one token")
				}
				return e.revokeMany(c, &many, &f)
			}
			if many.dry || many.yes || many.self {
				return usagef(
					c,
					"--dry-run, --yes and --include-self work only with flags that select tokens, such as --account",
				)
			}
			id, err := e.tokenNamed(c.Context(), args[0])
			if err != nil {
				return err
			}
			r := client.Request{Method: http.MethodPost, Path: []string{"v1", "tokens", id, "revoke"}, Body: f.body()}
			return e.change(c, change{
				flags: &f.changeFlags, noun: "revocation",
				request: func(context.Context, *client.Client, current) (client.Request, error) { return r, nil },
				show:    func(a *client.Answer, got proven) error { return e.ended(a, "revoked", got) },
			})
		},
	}
	many.declare(c.Flags())
	f.declare(c.Flags())
	e.completeFlag(c, "account", e.accounts)
	e.completeFlag(c, "scope", e.scopes)
	return c
}

// bulkTime is how long the ledger may work on one request, besides the timeout.
const bulkTime = 30 * time.Second

// revokeMany revokes the tokens that the flags select, request by request until
// none is left. The ledger waits for the receipt of all of them in the last request,
// so a caller who may not list receipts gets this one.
func (e *env) revokeMany(c *cobra.Command, many *selectFlags, f *endFlags) error {
	if err := f.wait.check(c.Flags()); err != nil {
		return err
	}
	body, what, err := many.body(c.Flags(), f.reason)
	if err != nil {
		return err
	}
	if many.dry && many.yes {
		return exit.Inputf("--dry-run and --yes cannot be used together")
	}
	key, err := f.key.key()
	if err != nil {
		return err
	}
	ctx := c.Context()
	ledger, err := e.ledger(ctx)
	if err != nil {
		return err
	}
	if body["dry_run"] = true; many.yes {
		delete(body, "dry_run")
	}
	r := client.Request{
		Method: http.MethodPost, Path: []string{"v1", "revocations"}, Body: body, Key: key, Linger: bulkTime,
		Asks: !many.yes,
	}
	if wait := f.wait.length(); many.yes && wait > 0 {
		r.Query = client.Query("wait", wait.String())
		r.Linger += wait
	}
	sum, err := e.sendRevocations(ctx, ledger, r, body)
	switch {
	case err != nil:
		return err
	case many.dry:
		return e.showMany(sum, "would be revoked", nil)
	case !many.yes:
		return exit.Failf(
			exit.Usage,
			"needs_confirmation",
			"this revokes %s %s, forever. To confirm, add --yes; to list them, use --dry-run",
			tokens(sum.Revoked),
			what,
		)
	}
	if err := e.showMany(sum, "revoked", sum.Receipt); err != nil {
		return err
	}
	return f.wait.unproven(e, proven{Position: sum.Position, Receipt: sum.Receipt}, "revocation")
}

// sendRevocations sends a request, whose body is body, until the ledger has worked
// through all tokens that match, and adds its answers up.
func (e *env) sendRevocations(
	ctx context.Context, ledger *client.Client, r client.Request, body map[string]any,
) (sum api.Revocations, err error) {
	sum.Tokens = []string{}
	for {
		a, err := ledger.Do(ctx, r)
		if err != nil {
			if sum.Revoked > 0 {
				e.Note("tokenledger: %s revoked before this error; run the command again for the others.", tokens(sum.Revoked))
			}
			return sum, err
		}
		var got api.Revocations
		if err := json.Unmarshal(a.Body, &got); err != nil {
			return sum, err
		}
		e.replayed(a)
		sum.Position, sum.Event = max(sum.Position, got.Position), got.Event
		sum.Matched += got.Matched
		sum.Revoked += got.Revoked
		sum.Already += got.Already
		sum.Tokens = append(sum.Tokens, got.Tokens...)
		sum.SelfSpare = sum.SelfSpare || got.SelfSpare
		sum.Uncounted = sum.Uncounted || got.Uncounted
		sum.DryRun, sum.Receipt = got.DryRun, got.Receipt
		if got.NextCursor == "" {
			return sum, nil
		}
		body["cursor"] = got.NextCursor
		if e.watched() {
			e.Note("%d tokens so far", sum.Revoked)
		}
	}
}

// showMany prints the result of a bulk revocation.
func (e *env) showMany(sum api.Revocations, done string, r *api.Receipt) error {
	body, err := render.Encode(sum)
	if err != nil {
		return err
	}
	return e.Show(body, func() {
		atLeast := ""
		if sum.Uncounted {
			atLeast = "at least "
		}
		e.Printf("%s%s %s at position %d%s\n", atLeast, tokens(sum.Revoked), done, sum.Position, receiptSummary(r,
			"no node accepts them any more"))
		if sum.Already > 0 {
			e.Printf("%s revoked before\n", tokens(sum.Already))
		}
		if sum.SelfSpare {
			e.Printf("your own token matches and was left out; --include-self revokes it too\n")
		}
		if sum.DryRun {
			for _, id := range sum.Tokens {
				e.Printf("  %s\n", render.Escape(id))
			}
			if more := sum.Revoked - len(sum.Tokens); more > 0 {
				e.Printf("  and %d more\n", more)
			}
		}
	})
}

func tokens(n int) string {
	if n == 1 {
		return "1 token"
	}
	return fmt.Sprintf("%d tokens", n)
}
