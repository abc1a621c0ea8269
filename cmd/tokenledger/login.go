package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/node"
)

func newLoginCmd(e *env) *cobra.Command {
	var login string
	c := &cobra.Command{
		Use: "login", Short: "Sign in as a person", Args: takes(),
		Long: `Signs in with login and password, and with a code where the account has a second
factor. The session is kept in a file that nobody else may read, and is what
the commands that follow send where there is no token to send. Without a
terminal, the password and then the code are read as lines of standard input.`,
		Example: `  tokenledger login --login anna@example.org --server https://ledger.example.org:7600`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if login == "" {
				return usagef(c, "say who you are with --login")
			}
			ledger, err := e.stranger()
			if err != nil {
				return err
			}
			password, err := e.ask(ctx, "password")
			if err != nil {
				return err
			}
			body := map[string]any{"login": login, "password": password}
			a, err := ledger.open(ctx, body)
			var f *failure
			if errors.As(err, &f) && f.code == "second_factor_required" {
				if body["code"], err = e.ask(ctx, "code of the second factor"); err != nil {
					return err
				}
				a, err = ledger.open(ctx, body)
			}
			if err != nil {
				return err
			}
			var got struct {
				Secret  string      `json:"secret"`
				Session api.Session `json:"session"`
			}
			if err := json.Unmarshal(a.body, &got); err != nil {
				return err
			}
			if err := e.writeSession(savedSession{Server: ledger.base.String(), Secret: got.Secret}); err != nil {
				return err
			}
			// The secret is in its file, and not for the screen.
			shown, err := json.Marshal(got.Session)
			if err != nil {
				return err
			}
			return e.show(shown, func() {
				e.printf("signed in to %s until %s\n", ledger.base, e.when(got.Session.ExpiresAt))
			})
		},
	}
	c.Flags().StringVar(&login, "login", "", "your login")
	return c
}

func newLogoutCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "End the session of login", Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := e.readSession(); errors.Is(err, errSignedOut) {
				e.note("tokenledger: nobody has signed in here.")
				return nil
			}
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.do(c.Context(), request{method: http.MethodPost, path: []string{"v1", "session", "end"}, key: newKey()})
			var f *failure
			if over := errors.As(err, &f) && f.code == "unauthenticated"; err != nil && !over {
				return err
			}
			if err := e.forgetSession(); err != nil {
				return err
			}
			if a == nil {
				e.note("tokenledger: the session was over already.")
				return nil
			}
			return e.show(a.body, func() { e.printf("signed out\n") })
		},
	}
}

// open asks for a session.
func (c *client) open(ctx context.Context, body map[string]any) (*answer, error) {
	return c.send(ctx, request{method: http.MethodPost, path: []string{"v1", "session"}, body: body})
}

// stranger returns a client of the ledger's API that sends nobody's credential.
func (e *env) stranger() (*client, error) {
	fallback := defaultServer
	if s, err := e.readSession(); err == nil {
		fallback = s.Server
	}
	base, from, err := e.find("--server", e.server, func(a node.Addresses) string { return a.API }, fallback)
	if err != nil {
		return nil, err
	}
	c := e.client("the ledger", base, from)
	c.warnPlain("what you send")
	return c, nil
}

// person returns a client of the ledger's API for what people do: with the
// session of login, unless another credential is named.
func (e *env) person(ctx context.Context) (*client, error) {
	c, err := e.stranger()
	if err != nil {
		return nil, err
	}
	if e.tokenFile != "" {
		c.secret, c.owner, err = e.credential(ctx)
		return c, err
	}
	return c, c.useSession()
}

// useSession makes the session of login what a client sends.
func (c *client) useSession() error {
	s, err := c.env.readSession()
	switch {
	case errors.Is(err, errSignedOut):
		return failf(exitNotAllowed, "credential", "nobody has signed in here; run 'tokenledger login'")
	case err != nil:
		return err
	case !s.ofServer(c):
		return failf(exitNotAllowed, "credential", "the session is of %s, and %s was to be asked; sign in there with 'tokenledger login', or name its --server", s.Server, c.base)
	}
	c.secret, c.owner = s.Secret, string(c.env.sessionFile)
	return nil
}

// hasToken reports whether there is a token to send.
func (e *env) hasToken() bool {
	if e.tokenFile != "" {
		return true
	}
	if e.dataDir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(string(e.dataDir), rootFile))
	return err == nil
}
