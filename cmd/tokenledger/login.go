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
factor. The session is stored in a file that nobody else can read. Until 'logout',
the commands after that are sent with it, and not with root.token of the data
folder; --token-file sends a token. Without a terminal, login, password and code
are read as lines of standard input.`,
		Example: `  tokenledger login
  tokenledger login --login anna@example.org \
    --server https://ledger.example.org:7600`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			config := e.config()
			ledger, err := config.Anonymous()
			if err != nil {
				return err
			}
			if login == "" {
				if login, err = e.input.AskShown(ctx, "login"); err != nil {
					return err
				}
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
			session := ledger.SignedIn(ctx, got.Secret, login)
			if err := config.WriteSession(session); err != nil {
				return err
			}
			// The secret is in its file, and not for the screen.
			shown, err := json.Marshal(got.Session)
			if err != nil {
				return err
			}
			return e.Show(shown, func() {
				e.Printf("signed in to %s as %s until %s\n", ledger.Base(), session.Login, e.Exact(got.Session.ExpiresAt))
				if e.tokenFile != "" {
					e.Note("tokenledger: commands still send the token of --token-file, as long as you name one.")
				}
			})
		},
	}
	c.Flags().StringVar(&login, "login", "", "your login (default: asked for)")
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
