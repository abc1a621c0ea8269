package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

func newTokenSetScopesCmd(e *env) *cobra.Command {
	var (
		inherit, admin bool
		file           scopesFile
		f              changeFlags
	)
	c := &cobra.Command{
		Use: "set-scopes TOKEN [SCOPE...]", Short: "Replace the scopes of a token",
		Long: `Replaces all scopes of a token with the ones you list, or with --inherit by
whatever its account may do. With --wait the command returns when no node uses
the old scopes any more, and exits with 6 if that takes longer.

` + tokenHelp,
		Example: `  tokenledger token set-scopes tok_01jd3qk8z5n0v7m2x4c6b8a9ef view:site/3 write:site/4
  tokenledger token set-scopes tok_01jd3qk8z5n0v7m2x4c6b8a9ef --scopes-file sites.txt
  tokenledger token set-scopes tok_01jd3qk8z5n0v7m2x4c6b8a9ef --inherit`,
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case inherit:
				return takes(tokenArg)(c, args)
			case file.path != "":
				return takesMore(tokenArg)(c, args)
			}
			return takes(tokenArg, "its new scopes, as in view:site/3, or --inherit...")(c, args)
		},
		ValidArgsFunction: e.first(e.tokens(unended), e.scopes),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := e.tokenNamed(c.Context(), args[0])
			if err != nil {
				return err
			}
			scopes, err := scopeList("scopes", args[1:])
			if err == nil {
				scopes, err = file.add(c.Context(), e, scopes)
			}
			if err != nil {
				return err
			}
			if inherit && file.path != "" {
				return exit.Inputf("--inherit and --scopes-file cannot be used together")
			}
			if len(scopes) == 0 && !inherit {
				return usagef(c, "list the new scopes of the token, as in view:site/3")
			}
			if err := confirmScopes(admin, scopes); err != nil {
				return err
			}
			path := []string{"v1", "tokens", id}
			return e.change(c, change{
				flags: &f, noun: "change", read: path,
				request: func(ctx context.Context, ledger *client.Client, seen current) (client.Request, error) {
					r := client.Request{Method: http.MethodPatch, Path: path, Body: map[string]any{"scopes": scopes}}
					if inherit {
						r.Body = map[string]any{"inherit": true}
						return r, confirmInherit(ctx, ledger, admin, seen.Account)
					}
					return r, nil
				},
				show: func(a *client.Answer, got proven) error { return e.changed(a, "changed", got.Receipt) },
			})
		},
	}
	flags := c.Flags()
	flags.BoolVar(&inherit, "inherit", false, "allow all that its account may do, now and later, in place of scopes")
	file.declare(flags, "scopes-file", "file with the new scopes, one a line or separated by commas; - for standard input")
	declareAdmin(flags, &admin)
	f.declare(flags)
	return c
}
