package main

import (
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
)

func newTokenSuspendCmd(e *env) *cobra.Command {
	return e.ending(ending{
		verb: "suspend", done: "suspended", what: "suspension", short: "Stop a token until it is resumed",
		arg: "the token's ID", check: tokenID, path: []string{"v1", "tokens"}, complete: e.tokens(func(state string) bool { return unended(state) && state != "suspended" }),
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
			a, err := e.command(c, &key, client.Request{Method: http.MethodPost, Path: []string{"v1", "tokens", id, "resume"}})
			if err != nil {
				return err
			}
			return e.changed(a, "resumed", nil)
		},
	}
	key.declare(c.Flags())
	return c
}

// ending is a command that takes something away, and by default waits until no
// node answers as before any more.
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
		Long: n.short + `, and wait until no node accepts it any more: each has applied the
` + n.what + `, or cannot answer without asking for it first. A node that is cut off is
waited out. Where that takes longer than --wait, the ` + n.what + ` stands all the
same: the command then names the nodes that are outstanding and exits with 6.`,
		Args: takes(n.arg), ValidArgsFunction: e.first(n.complete),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := n.check(args[0])
			if err != nil {
				return err
			}
			r := client.Request{Method: http.MethodPost, Path: slices.Concat(n.path, []string{id, n.verb}), Body: map[string]any{}}
			if reason != "" {
				r.Body = map[string]any{"reason": reason}
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			return e.end(c, r, &wait, &key, n.done, n.what)
		},
	}
	flags := c.Flags()
	flags.StringVar(&reason, "reason", "", "why; do not name people, the log cannot forget")
	wait.declare(flags, true)
	key.declare(flags)
	return c
}

// end sends a request that takes something away, and says what became of it.
func (e *env) end(c *cobra.Command, r client.Request, wait *waitFlags, key *keyFlag, done, what string) (err error) {
	if r.Key, err = key.key(); err != nil {
		return err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	a, got, err := wait.change(c.Context(), e, ledger, r)
	if err != nil {
		return err
	}
	e.replayed(a)
	if err := e.Show(a.Body, func() {
		e.Printf("%s at position %d%s\n", done, got.Position, effect(got.Receipt, "no node accepts it any more"))
	}); err != nil {
		return err
	}
	return wait.unproven(e, got, what)
}

// command sends a request that changes something.
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
