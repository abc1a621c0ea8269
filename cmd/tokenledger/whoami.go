package main

import (
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newWhoamiCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show as whom commands are sent, and what you may do", Args: takes(),
		Long: `Shows the account, the token or session, its rights and when it ends. Commands use
the first of these that is there:

  1. the token of --token-file or $TOKENLEDGER_TOKEN_FILE
  2. the session of 'tokenledger login', until 'tokenledger logout'
  3. root.token in the data folder, at the node on that folder or at --server

A session belongs to the server that it was opened at. If another server is asked,
the command fails instead of using root.token.`,
		Example: `  tokenledger whoami
  tokenledger whoami -o json --token-file /etc/tokenledger/deploy.token`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			var got api.Whoami
			a, err := ledger.Do(c.Context(), client.Request{Method: "GET", Path: []string{"v1", "whoami"}})
			if err == nil {
				err = json.Unmarshal(a.Body, &got)
			}
			if err != nil {
				return err
			}
			return e.Show(a.Body, func() { e.drawWhoami(ledger, got) })
		},
	}
}

// reauthWords: re-authentication as the API names it -> words for people.
var reauthWords = map[string]string{
	"not_needed": "not needed: tokens do not re-authenticate",
	"needed":     "needed before the next command that asks for it ('tokenledger session reauth')",
	"impossible": "impossible: a token opened this session",
}

func (e *env) drawWhoami(ledger *client.Client, w api.Whoami) {
	g := e.Grid()
	name := w.Login
	if name == "" {
		name = "(not shown to this token)"
	}
	g.Fact("login", name)
	g.Fact("account", w.Account)
	g.Fact("kind", w.Kind)
	g.Fact("credential", w.Credential+" from "+ledger.Owner())
	g.Fact("token", w.Token)
	g.Fact("session", w.Session)
	g.Fact("server", ledger.Base().String())
	may := strings.Join(w.Scopes, ", ")
	if may == "" {
		may = "nothing"
	}
	g.Fact("may do", may)
	words := reauthWords[w.Reauthentication]
	if w.ReauthenticatedUntil != nil {
		words = "done, good until " + e.TimePtr(w.ReauthenticatedUntil)
	}
	g.Fact("re-authentication", words)
	g.Fact("this secret ends", e.TimePtr(w.GraceUntil))
	g.Fact("ends unused", e.TimePtr(w.IdleUntil))
	g.Fact("ends", e.TimePtr(w.ExpiresAt))
	g.End()
}
