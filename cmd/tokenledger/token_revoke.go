package main

import (
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
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// manyFlags say which tokens are to be revoked together.
type manyFlags struct {
	account, app, device, scope, before string
	dry, yes, self                      bool
}

func (m *manyFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&m.account, "account", "", "in place of an ID: all tokens of this account, id or login")
	flags.StringVar(&m.app, "app", "", "in place of an ID: all tokens that name this app")
	flags.StringVar(&m.device, "device", "", "in place of an ID: all tokens that name this device")
	flags.StringVar(&m.scope, "scope", "", "in place of an ID: all tokens that may do this, as in admin:site/3; wider ones too, up to superuser")
	flags.StringVar(&m.before, "created-before", "", "in place of an ID: all tokens that were made before, as in 2031-12-31T18:00:00Z")
	flags.BoolVar(&m.dry, "dry-run", false, "with one of these: change nothing, and say what would be")
	flags.BoolVar(&m.yes, "yes", false, "with one of these: yes, revoke all of them")
	flags.BoolVar(&m.self, "include-self", false, "with one of these: your own token too, where it matches")
}

// given reports whether a flag selects tokens.
func (m *manyFlags) given(flags *pflag.FlagSet) bool {
	for _, name := range []string{"account", "app", "device", "scope", "created-before"} {
		if flags.Changed(name) {
			return true
		}
	}
	return false
}

// body is the client.Request, and what it selects in words.
func (m *manyFlags) body(flags *pflag.FlagSet, reason string) (body map[string]any, what string, err error) {
	body = map[string]any{}
	var words []string
	for _, f := range []struct{ flag, field, value, words string }{
		{"account", "account", m.account, "of account "},
		{"app", "app", m.app, "of app "},
		{"device", "device", m.device, "of device "},
		{"scope", "scope", m.scope, "that may do "},
		{"created-before", "created_before", m.before, "made before "},
	} {
		if !flags.Changed(f.flag) {
			continue
		}
		if f.value == "" {
			return nil, "", exit.Inputf("--%s is empty; leave it out, or say which", f.flag)
		}
		body[f.field] = f.value
		words = append(words, f.words+f.value)
	}
	if m.scope != "" {
		if _, err := events.ParseScope(m.scope); err != nil {
			return nil, "", exit.Inputf("--scope: %s", err)
		}
	}
	if m.before != "" {
		if _, err := time.Parse(time.RFC3339, m.before); err != nil {
			return nil, "", exit.Inputf("--created-before: want a time such as 2031-12-31T18:00:00Z")
		}
	}
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
		many   manyFlags
		reason string
		wait   waitFlags
		key    keyFlag
	)
	c := &cobra.Command{
		Use: "revoke ID | --account A | --app X | --device D | --scope S | --created-before T", Short: "End a token, or many, for ever",
		Long: `Ends a token for ever, and waits until no node accepts it any more: each has
applied the revocation, or cannot answer without asking for it first. A node
that is cut off is waited out. Where that takes longer than --wait, the
revocation stands all the same: the command then names the nodes that are
outstanding and exits with 6.

In place of an ID, flags select the tokens that match all of them: of an account,
of an app, of a device, that may do something, or that were made before some time. --dry-run
says how many that are, and --yes revokes them. Your own token is left out, or
the command refused, unless --include-self is there.`,
		Example: `  tokenledger token revoke tok_01jd3qk8z5n0v7m2x4c6b8a9ef --reason 'laptop stolen'
  tokenledger token revoke --account shop --dry-run
  tokenledger token revoke --app 'mobile app' --created-before 2031-12-31T18:00:00Z --yes`,
		Args: func(c *cobra.Command, args []string) error {
			switch selects := many.given(c.Flags()); {
			case selects && len(args) > 0:
				return usagef(c, "give the token's ID, or flags that select tokens, but not both")
			case selects:
				return nil
			case len(args) == 0:
				return usagef(c, "tokenledger token revoke needs the token's ID, or one of --account, --app, --device, --scope and --created-before")
			}
			return takes("the token's ID")(c, args)
		},
		ValidArgsFunction: e.first(e.tokens(unended)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			if len(args) == 0 {
				return e.revokeMany(c, &many, reason, &wait, &key)
			}
			if many.dry || many.yes || many.self {
				return usagef(c, "--dry-run, --yes and --include-self are for flags that select tokens, as in --account")
			}
			id, err := tokenID(args[0])
			if err != nil {
				return err
			}
			r := client.Request{Method: http.MethodPost, Path: []string{"v1", "tokens", id, "revoke"}, Body: map[string]any{}}
			if reason != "" {
				r.Body = map[string]any{"reason": reason}
			}
			return e.end(c, r, &wait, &key, "revoked", "revocation")
		},
	}
	flags := c.Flags()
	many.declare(flags)
	flags.StringVar(&reason, "reason", "", "why; do not name people, the log cannot forget")
	wait.declare(flags, true)
	key.declare(flags)
	e.completeFlag(c, "account", e.accounts)
	e.completeFlag(c, "scope", e.scopes)
	return c
}

// bulkTime is how long the ledger may work on one client.Request, besides the usual.
const bulkTime = 30 * time.Second

// revokeMany revokes what the flags select, request by request until none is
// left, and then waits once for all of them.
func (e *env) revokeMany(c *cobra.Command, many *manyFlags, reason string, wait *waitFlags, key *keyFlag) error {
	body, what, err := many.body(c.Flags(), reason)
	if err != nil {
		return err
	}
	if many.dry && many.yes {
		return exit.Inputf("--dry-run and --yes contradict each other")
	}
	sent, err := key.key()
	if err != nil {
		return err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	var sum api.Revocations
	send := func(dry bool) error {
		sum = api.Revocations{Tokens: []string{}}
		delete(body, "cursor")
		delete(body, "dry_run")
		if dry {
			body["dry_run"] = true
		}
		for {
			a, err := ledger.Do(c.Context(), client.Request{Method: http.MethodPost, Path: []string{"v1", "revocations"}, Body: body, Key: sent, Linger: bulkTime})
			if err != nil {
				return err
			}
			var got api.Revocations
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			e.replayed(a)
			sum.Position, sum.Event = max(sum.Position, got.Position), got.Event
			sum.Matched, sum.Revoked, sum.Already = sum.Matched+got.Matched, sum.Revoked+got.Revoked, sum.Already+got.Already
			sum.Tokens = append(sum.Tokens, got.Tokens...)
			sum.SelfSpare, sum.Uncounted, sum.DryRun = sum.SelfSpare || got.SelfSpare, sum.Uncounted || got.Uncounted, got.DryRun
			if got.NextCursor == "" {
				return nil
			}
			body["cursor"] = got.NextCursor
			if e.watched() {
				e.Note("%d tokens so far", sum.Revoked)
			}
		}
	}
	if !many.yes {
		if err := send(true); err != nil {
			return err
		}
		if many.dry {
			return e.showMany(sum, "would be revoked", nil)
		}
		return exit.Failf(exit.Usage, "needs_confirmation", "%s %s would be revoked, for ever. Add --yes if that is meant, or see which with --dry-run", tokens(sum.Revoked), what)
	}
	if err := send(false); err != nil {
		return err
	}
	got := proven{Position: sum.Position}
	if wait.on {
		if got.Receipt, err = ledger.AwaitReceipt(c.Context(), sum.Position, wait.length()); err != nil {
			return err
		}
		sum.Receipt = got.Receipt
	}
	if err := e.showMany(sum, "revoked", got.Receipt); err != nil {
		return err
	}
	return wait.unproven(e, got, "revocation")
}

// showMany prints what became of many tokens.
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
		e.Printf("%s%s %s at position %d%s\n", atLeast, tokens(sum.Revoked), done, sum.Position, effect(r, "no node accepts them any more"))
		if sum.Already > 0 {
			e.Printf("%s revoked before\n", tokens(sum.Already))
		}
		if sum.SelfSpare {
			e.Printf("your own token matches, and is left; --include-self revokes it too\n")
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
