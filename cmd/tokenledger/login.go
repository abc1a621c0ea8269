package main

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newLoginCmd(e *env) *cobra.Command {
	var login string
	c := &cobra.Command{
		Use: "login", Short: "Sign in as a person", Args: takes(),
		Long: `Signs in with login and password, and with a code if the account has a second
factor. The session is stored in a file that nobody else can read. The commands
after that use it if there is no token to send. Without a terminal, the password
and then the code are read as lines of standard input.`,
		Example: `  tokenledger login --login anna@example.org \
    --server https://ledger.example.org:7600`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if login == "" {
				return usagef(c, "--login is missing: give your login")
			}
			config := e.config()
			ledger, err := config.Anonymous()
			if err != nil {
				return err
			}
			password, err := e.input.Ask(ctx, "password")
			if err != nil {
				return err
			}
			body := map[string]any{"login": login, "password": password}
			r := client.Request{Method: http.MethodPost, Path: []string{"v1", "session"}, Body: body}
			a, err := ledger.Send(ctx, r)
			var f *exit.Failure
			if errors.As(err, &f) && f.Name == "second_factor_required" {
				if body["code"], err = e.input.Ask(ctx, "code of the second factor"); err != nil {
					return err
				}
				a, err = ledger.Send(ctx, r)
			}
			if err != nil {
				return err
			}
			var got struct {
				Secret  string      `json:"secret"`
				Session api.Session `json:"session"`
			}
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			session := client.Session{Server: ledger.Base().String(), Secret: got.Secret}
			if err := config.WriteSession(session); err != nil {
				return err
			}
			// The secret is in its file, and not for the screen.
			shown, err := json.Marshal(got.Session)
			if err != nil {
				return err
			}
			return e.Show(shown, func() {
				e.Printf("signed in to %s until %s\n", ledger.Base(), e.Time(got.Session.ExpiresAt))
			})
		},
	}
	c.Flags().StringVar(&login, "login", "", "your login")
	return c
}

func newLogoutCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Sign out: end the session of login", Args: takes(),
		Example: `  tokenledger logout`,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := e.config().ReadSession(); errors.Is(err, client.ErrSignedOut) {
				e.Note("tokenledger: you are not signed in here.")
				return nil
			}
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), client.Request{
				Method: http.MethodPost, Path: []string{"v1", "session", "end"}, Key: client.NewKey(),
			})
			var f *exit.Failure
			if over := errors.As(err, &f) && f.Name == "unauthenticated"; err != nil && !over {
				return err
			}
			if err := e.config().ForgetSession(); err != nil {
				return err
			}
			if a == nil {
				e.Note("tokenledger: the session had already ended.")
				return nil
			}
			return e.Show(a.Body, func() { e.Printf("signed out\n") })
		},
	}
}
