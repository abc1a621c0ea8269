package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func newPasswordCmd(e *env) *cobra.Command {
	var invitation bool
	c := &cobra.Command{
		Use: "password", Short: "Change your password, or set it by an invitation", Args: takes(),
		Long: `Changes the password of whoever is signed in, which ends the other sessions; or,
with --invitation, sets one by an invitation that a superuser made. It asks for
the old password or the invitation, and then for the new password; without a
terminal both are read as lines of standard input.`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			r := request{method: http.MethodPut, path: []string{"v1", "password"}}
			connect, proof, field, next := func() (*client, error) { return e.person(ctx) }, "old password", "old", "new"
			if invitation {
				r.method, connect, proof, field, next = http.MethodPost, e.stranger, "invitation", "invitation", "password"
			}
			ledger, err := connect()
			if err != nil {
				return err
			}
			old, err := e.ask(ctx, proof)
			if err != nil {
				return err
			}
			password, err := e.askNew(ctx)
			if err != nil {
				return err
			}
			r.body = map[string]any{field: old, next: password}
			a, err := ledger.do(ctx, r)
			if err != nil {
				return err
			}
			return e.show(a.body, func() {
				e.printf("the password is set\n")
				if invitation {
					e.note("Sign in with 'tokenledger login'.")
				}
			})
		},
	}
	c.Flags().BoolVar(&invitation, "invitation", false, "set a password by an invitation, which is asked for")
	return c
}
