package main

import (
	"net/http"
	"slices"

	"github.com/spf13/cobra"
)

func newTokenSuspendCmd(e *env) *cobra.Command {
	return e.ending(ending{
		verb: "suspend", done: "suspended", what: "suspension", short: "Stop a token until it is resumed",
		arg: "the token's ID", check: tokenID, path: []string{"v1", "tokens"}, complete: e.tokens(func(state string) bool { return unended(state) && state != "suspended" }),
	})
}

func newTokenRevokeCmd(e *env) *cobra.Command {
	return e.ending(ending{
		verb: "revoke", done: "revoked", what: "revocation", short: "End a token for ever",
		arg: "the token's ID", check: tokenID, path: []string{"v1", "tokens"}, complete: e.tokens(unended),
	})
}

func newTokenResumeCmd(e *env) *cobra.Command {
	var key keyFlag
	c := &cobra.Command{
		Use: "resume ID", Short: "Let a suspended token work again",
		Args: takes("the token's ID"), ValidArgsFunction: e.first(e.tokens(func(state string) bool { return state == "suspended" })),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := tokenID(args[0])
			if err != nil {
				return err
			}
			a, err := e.command(c, &key, request{method: http.MethodPost, path: []string{"v1", "tokens", id, "resume"}})
			if err != nil {
				return err
			}
			return e.changed(a, "resumed")
		},
	}
	key.declare(c.Flags())
	return c
}

// ending is a command that takes something away, and by default waits until
// every node has applied that.
type ending struct {
	verb, done, what, short string
	arg                     string
	check                   func(string) (string, error)
	path                    []string // of the things it is about
	complete                completer
}

func (e *env) ending(n ending) *cobra.Command {
	var (
		reason string
		wait   waitFlags
		key    keyFlag
	)
	c := &cobra.Command{
		Use: n.verb + " ID", Short: n.short,
		Long: n.short + `, and wait until every node has applied it. Where that takes
longer than --wait, the ` + n.what + ` stands all the same: the command then names the
nodes that are outstanding and exits with 6.`,
		Args: takes(n.arg), ValidArgsFunction: e.first(n.complete),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := n.check(args[0])
			if err != nil {
				return err
			}
			r := request{method: http.MethodPost, path: slices.Concat(n.path, []string{id, n.verb}), body: map[string]any{}}
			if reason != "" {
				r.body = map[string]any{"reason": reason}
			}
			if err := wait.apply(c.Flags(), &r); err != nil {
				return err
			}
			a, err := e.command(c, &key, r)
			if err != nil {
				return err
			}
			return wait.report(e, a, n.done, n.what)
		},
	}
	flags := c.Flags()
	flags.StringVar(&reason, "reason", "", "why; do not name people, the log cannot forget")
	wait.declare(flags)
	key.declare(flags)
	return c
}

// command sends a request that changes something.
func (e *env) command(c *cobra.Command, key *keyFlag, r request) (a *answer, err error) {
	if r.key, err = key.key(); err != nil {
		return nil, err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return nil, err
	}
	return ledger.do(c.Context(), r)
}
