package main

import (
	"context"
	"net/http"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
)

func newTokenSuspendCmd(e *env) *cobra.Command {
	return e.ending(ending{
		names: "\n\n" + tokenHelp,
		verb:  "suspend", done: "suspended", noun: "suspension", short: "Suspend a token until you resume it",
		use: "suspend TOKEN", arg: tokenArg, check: e.tokenNamed, path: []string{"v1", "tokens"},
		complete: e.tokens(func(state string) bool { return unended(state) && state != "suspended" }),
		example:  "  tokenledger token suspend tok_01jd3qk8z5n0v7m2x4c6b8a9ef --reason 'laptop missing'",
	})
}

func newTokenResumeCmd(e *env) *cobra.Command {
	var f resumeFlags
	c := &cobra.Command{
		Use: "resume TOKEN", Short: "Let a suspended token work again",
		Example:           `  tokenledger token resume tok_01jd3qk8z5n0v7m2x4c6b8a9ef`,
		Args:              takes(tokenArg),
		ValidArgsFunction: e.first(e.tokens(func(state string) bool { return state == "suspended" })),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := e.tokenNamed(c.Context(), args[0])
			if err != nil {
				return err
			}
			a, err := e.resume(c, &f, "tokens", id)
			if err != nil {
				return err
			}
			return e.changed(a, "resumed", nil)
		},
	}
	f.declare(c.Flags())
	return c
}

// resumeFlags are the flags of a command that ends a suspension.
type resumeFlags struct {
	version versionFlags
	key     keyFlag
}

func (f *resumeFlags) declare(flags *pflag.FlagSet) {
	f.version.declareOnly(flags)
	f.key.declare(flags)
}

// resume ends the suspension of a token or an account.
func (e *env) resume(c *cobra.Command, f *resumeFlags, kind, id string) (*client.Answer, error) {
	return e.command(c, &f.key, client.Request{
		Method: http.MethodPost, Path: []string{"v1", kind, id, "resume"}, IfMatch: f.version.ifMatch(0),
	})
}

// ending is a command that takes something away. By default it waits until no
// node accepts it any more.
type ending struct {
	use, verb, done, noun, short, example string

	arg      string
	check    func(context.Context, string) (string, error)
	names    string   // says in help how to name a thing
	path     []string // of all things of the kind
	complete completer
}

// endFlags are the flags of a command that takes something away.
type endFlags struct {
	reason string
	changeFlags
}

func (f *endFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&f.reason, "reason", "", "why. The reason stays in the log: do not name people")
	allowEmpty(flags, "reason") // a revocation must not fail for want of one
	f.wait.declare(flags, true)
	f.version.declareOnly(flags)
	f.key.declare(flags)
}

// body returns the request's body.
func (f *endFlags) body() map[string]any {
	if f.reason == "" {
		return map[string]any{}
	}
	return map[string]any{"reason": f.reason}
}

func (e *env) ending(n ending) *cobra.Command {
	var f endFlags
	c := &cobra.Command{
		Use: n.use, Short: n.short, Example: n.example,
		Long: n.short + `, and wait until no node accepts it any more: every node
has applied the ` + n.noun + `, or has stopped answering. A node that is cut off
stops when its lease ends. If that takes longer than --wait, the ` + n.noun + `
stands, and the command names the nodes that it waits for and exits with 6.` + n.names,
		Args: takes(n.arg), ValidArgsFunction: e.first(n.complete),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := n.check(c.Context(), args[0])
			if err != nil {
				return err
			}
			r := client.Request{
				Method: http.MethodPost,
				Path:   slices.Concat(n.path, []string{id, n.verb}),
				Body:   f.body(),
			}
			return e.change(c, change{
				flags: &f.changeFlags, noun: n.noun,
				request: func(context.Context, *client.Client, current) (client.Request, error) { return r, nil },
				show:    func(a *client.Answer, got proven) error { return e.ended(a, n.done, got) },
			})
		},
	}
	f.declare(c.Flags())
	return c
}

// ended prints the answer to a command that took something away.
func (e *env) ended(a *client.Answer, done string, got proven) error {
	e.replayed(a)
	return e.Show(a.Body, func() {
		e.Printf(
			"%s at position %d%s\n",
			done,
			got.Position,
			receiptSummary(got.Receipt, "no node accepts it any more"),
		)
		e.drawOwned(a, done)
	})
}

// command sends a request that changes something, and does not wait.
func (e *env) command(c *cobra.Command, key *keyFlag, r client.Request) (a *client.Answer, err error) {
	if r.Key, err = key.key(); err != nil {
		return nil, err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return nil, err
	}
	return ledger.Do(c.Context(), r)
}
