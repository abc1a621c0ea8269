package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

func newAccountSetGrantsCmd(e *env) *cobra.Command {
	var (
		none bool
		file scopesFile
		f    changeFlags
	)
	c := &cobra.Command{
		Use: "set-grants ID|LOGIN [SCOPE...]", Short: "Replace the grants of an account",
		Long: `Replaces all grants of an account with the scopes you list. Its tokens follow at
once: a token can never do more than its account. With --wait the command returns
when no node uses the old grants any more, and exits with 6 if that takes longer.`,
		Example: `  tokenledger account set-grants shop view:site/3 track:site/3
  tokenledger account set-grants shop --grants-file grants.txt
  tokenledger account set-grants shop --none --wait 45s`,
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case none:
				return takes(accountArg)(c, args)
			case file.path != "":
				return takesMore(accountArg)(c, args)
			}
			return takes(accountArg, "its new grants, as in view:site/3, or --none...")(c, args)
		},
		ValidArgsFunction: e.first(e.accounts, e.scopes),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			grants, err := scopeList("grants", args[1:])
			if err == nil {
				grants, err = file.add(c.Context(), e, grants)
			}
			if err != nil {
				return err
			}
			if none && file.path != "" {
				return exit.Inputf("--none and --grants-file cannot be used together")
			}
			if len(grants) == 0 && !none {
				return usagef(c, "list the new grants of the account, as in view:site/3, or use --none")
			}
			if grants == nil {
				grants = []string{}
			}
			return e.change(c, change{
				flags: &f, noun: "change", read: []string{"v1", "accounts", name},
				request: func(_ context.Context, _ *client.Client, seen current) (client.Request, error) {
					return client.Request{
						Method: http.MethodPut,
						Path:   []string{"v1", "accounts", seen.ID, "grants"},
						Body:   map[string]any{"grants": grants},
					}, nil
				},
				show: func(a *client.Answer, got proven) error { return e.changedAccount(a, "changed", got.Receipt) },
			})
		},
	}
	flags := c.Flags()
	flags.BoolVar(&none, "none", false, "remove all grants")
	file.declare(flags, "grants-file", "file with the new grants, one a line or separated by commas; - for standard input")
	f.declare(flags)
	return c
}
