package main

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

func newAccountInviteCmd(e *env) *cobra.Command {
	var reset bool
	var out secretOutput
	c := &cobra.Command{
		Use: "invite ID|LOGIN", Short: "Create an invitation with which a person sets a password",
		Long: `Creates an invitation, shown once, with which a person sets a first password or
replaces a forgotten one. It is valid for 72 hours, for one use, and replaces the
previous invitation. Anyone who has it can sign in as that person: hand it over
where nobody else can read it.`,
		Example: `  tokenledger account invite anna@example.org
  tokenledger account invite anna@example.org --secret-file invitation`,
		Args: takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			if err := out.check(); err != nil {
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
			a, err := ledger.Do(c.Context(), client.Request{
				Method: http.MethodPost,
				Path:   []string{"v1", "accounts", name, "invite"},
				Body:   map[string]any{"reset_second_factor": reset},
			})
			if err != nil {
				return err
			}
			var got struct {
				Invitation string    `json:"invitation"`
				Expires    time.Time `json:"expires_at"`
			}
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			if out.file.given() {
				return e.invitationInFile(a, got.Invitation, got.Expires, out.file)
			}
			if out.only {
				return e.Print([]byte(got.Invitation), "\n")
			}
			return e.Show(a.Body, func() {
				e.Printf(
					"The invitation, shown only this once, valid until %s:\n%s\n",
					e.Exact(got.Expires),
					got.Invitation,
				)
				e.Note("The person uses it with 'tokenledger password --invitation'.")
			})
		},
	}
	flags := c.Flags()
	out.declare(flags)
	flags.BoolVar(&reset, "reset-second-factor", false,
		"using the invitation also removes the second factor, for a person who has lost it")
	return c
}

// invitationInFile writes an invitation to its file and prints the rest of the
// answer.
func (e *env) invitationInFile(a *client.Answer, invitation string, expires time.Time, file *secretFile) error {
	if err := file.store(e, invitation); err != nil {
		return err
	}
	body, err := file.answer(a.Body, "invitation")
	if err != nil {
		return err
	}
	return e.Show(body, func() {
		e.Printf("The invitation, valid until %s, is in %s\n", e.Time(expires), render.Escape(file.path))
		e.Note("The person uses it with 'tokenledger password --invitation'.")
	})
}
