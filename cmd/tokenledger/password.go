package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
)

func newPasswordCmd(e *env) *cobra.Command {
	var invitation bool
	c := &cobra.Command{
		Use: "password", Short: "Change your password, or set it with an invitation", Args: takes(),
		Long: `Changes your password and ends your other sessions. With --invitation it sets a
password with an invitation that a superuser created. It asks for the old password
or the invitation, and then for the new password; without a terminal both are read
as lines of standard input.`,
		Example: `  tokenledger password
  tokenledger password --invitation`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			r := client.Request{Method: http.MethodPut, Path: []string{"v1", "password"}}
			connect := func() (*client.Client, error) { return e.person(ctx) }
			proof, field, next := "old password", "old", "new"
			if invitation {
				r.Method, connect = http.MethodPost, e.config().Anonymous
				proof, field, next = "invitation", "invitation", "password"
			}
			ledger, err := connect()
			if err != nil {
				return err
			}
			old, err := e.input.Ask(ctx, proof)
			if err != nil {
				return err
			}
			password, err := e.input.AskNew(ctx)
			if err != nil {
				return err
			}
			r.Body = map[string]any{field: old, next: password}
			a, err := ledger.Do(ctx, r)
			if err != nil {
				return err
			}
			return e.Show(a.Body, func() {
				e.Printf("password set\n")
				if invitation {
					e.Note("Sign in with 'tokenledger login'.")
				}
			})
		},
	}
	c.Flags().BoolVar(&invitation, "invitation", false, "set a password with an invitation, and ask for that")
	return c
}
