package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
)

const rotateLong = `Gives a token a new secret, printed now and never again, or written to the new
file of --secret-file. The old secret works for the time of --grace, but never
longer than the token. With --grace 0s the command then waits until no node
accepts the old secret any more.

A token has two secrets at most. If the one from before the last rotation still
works, as 'token show' says, another rotation would end it before its time: the
command refuses that, unless you add --end-earlier.

` + tokenHelp

func newTokenRotateCmd(e *env) *cobra.Command {
	var (
		grace   string
		earlier bool
		version versionFlags
		out     secretOutput
		wait    waitFlags
		key     keyFlag
	)
	c := &cobra.Command{
		Use: "rotate TOKEN", Short: "Give a token a new secret and show it once",
		Long: rotateLong,
		Example: `  tokenledger token rotate tok_01jd3qk8z5n0v7m2x4c6b8a9ef --grace 24h
  # The secret leaked:
  tokenledger token rotate tok_01jd3qk8z5n0v7m2x4c6b8a9ef --grace 0s \
    --end-earlier --secret-file new.secret`,
		Args: takes(tokenArg), ValidArgsFunction: e.first(e.tokens(unended)),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := e.tokenNamed(c.Context(), args[0])
			if err != nil {
				return err
			}
			body := map[string]any{}
			r := client.Request{Method: http.MethodPost, Path: []string{"v1", "tokens", id, "rotate"}, Body: body}
			if earlier {
				body["end_earlier"] = true
			}
			if c.Flags().Changed("grace") {
				d, err := when.Duration(grace)
				if err != nil || d < 0 {
					return exit.Inputf(`--grace: must be a duration such as "0s", "1h" or "7d"`)
				}
				body["grace"] = d.String()
				wait.on = d == 0 // a grace is longer than the longest wait
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			if err := out.check(); err != nil {
				return err
			}
			r.IfMatch = version.ifMatch(0)
			if r.Key, err = key.key(); err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			if err := out.open(); err != nil {
				return err
			}
			defer out.file.close()
			a, err := ledger.Do(c.Context(), r)
			if err != nil {
				return err
			}
			if err := e.secret(a, "rotated", out); err != nil || !wait.on {
				return err
			}
			// The secret has been shown: no later error can lose it.
			return e.awaitRotation(c.Context(), ledger, a, &wait)
		},
	}
	flags := c.Flags()
	flags.StringVar(&grace, "grace", "", "how long the old secret still works, as in 24h (default 1h)")
	flags.BoolVar(&earlier, "end-earlier", false,
		"also end the secret from before the last rotation, if it still works")
	group(flags, groupSecret, "grace", "end-earlier")
	out.declare(flags)
	version.declareOnly(flags)
	wait.declare(flags, false)
	key.declare(flags)
	return c
}

// awaitRotation waits until no node accepts the old secret any more.
func (e *env) awaitRotation(ctx context.Context, ledger *client.Client, a *client.Answer, wait *waitFlags) error {
	var got proven
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	var err error
	if got.Receipt, err = ledger.AwaitReceipt(ctx, got.Position, wait.length()); err != nil {
		return err
	}
	if got.Receipt.Complete {
		e.Note("tokenledger: rotated%s.", receiptSummary(got.Receipt, inForce))
	}
	return wait.unproven(e, got, "rotation")
}
