package main

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newSessionCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "session", Short: "Show and end sessions, and re-authenticate"}
	c.AddCommand(newSessionListCmd(e), newSessionShowCmd(e), newSessionReauthCmd(e), newSessionEndCmd(e))
	return c
}

func newSessionListCmd(e *env) *cobra.Command {
	var (
		account   string
		everybody bool
		pages     pageFlags
	)
	c := &cobra.Command{
		Use: "list", Short: "List sessions", Args: takes(),
		Long: `Lists sessions of your own account. A superuser also sees those of others, by a
session or a token, such as root.token of the data folder.`,
		Example: `  tokenledger session list
  tokenledger session list --account anna
  tokenledger session list --everybody --token-file /var/lib/tokenledger/root.token`,
		RunE: func(c *cobra.Command, _ []string) error {
			if everybody && account != "" {
				return exit.Inputf("--everybody and --account cannot be used together")
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			q := client.Query("account", account)
			if everybody {
				q.Set("all", "true")
			}
			return listFrom(c, e, ledger, listing[api.Session]{
				request: client.Request{Path: []string{"v1", "sessions"}, Query: q},
				pages:   pages,
				columns: e.sessionColumns(),
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&account, "account", "", "sessions of this account, by ID or login (default your own)")
	flags.BoolVar(&everybody, "everybody", false, "sessions of all accounts")
	group(flags, groupSelect, "account", "everybody")
	pages.declare(flags)
	e.completeFlag(c, "account", e.accounts)
	return c
}

// sessionColumns returns the columns of a list of sessions.
func (e *env) sessionColumns() []column[api.Session] {
	type sc = column[api.Session]
	return []sc{
		{render.Column{Head: "ID", ID: true}, func(s api.Session) string { return s.ID }},
		{render.Column{Head: "ACCOUNT"}, func(s api.Session) string { return cmp.Or(s.Login, s.Account) }},
		{render.Column{Head: "METHODS"}, func(s api.Session) string { return strings.Join(s.Methods, ",") }},
		{render.Column{Head: "ADDRESS"}, func(s api.Session) string { return s.Address }},
		{render.Column{Head: "OPENED", Wide: true}, func(s api.Session) string { return e.Cell(&s.CreatedAt) }},
		{render.Column{Head: "USED", Keep: true}, func(s api.Session) string { return e.Cell(&s.SeenAt) }},
		{render.Column{Head: "ENDS", Keep: true}, func(s api.Session) string { return e.Cell(&s.ExpiresAt) }},
		{render.Column{Head: "CURRENT", Keep: true}, func(s api.Session) string {
			if s.Current {
				return "this one"
			}
			return ""
		}},
	}
}

func newSessionShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show who is signed in here", Args: takes(),
		Example: `  tokenledger session show`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), client.Request{Method: http.MethodGet, Path: []string{"v1", "session"}})
			if err != nil {
				return err
			}
			return e.showSession(a)
		},
	}
}

func newSessionReauthCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "reauth", Short: "Re-authenticate (valid for five minutes)", Args: takes(),
		Long: `Asks for your password or a code of your second factor, and confirms to the ledger
that it is you. Commands that create or widen rights need this; at a terminal they
ask by themselves, scripts run this command first.`,
		Example: `  tokenledger session reauth`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Reauthenticate(c.Context())
			if err != nil {
				return err
			}
			return e.showSession(a)
		},
	}
}

// showSession prints the caller's session.
func (e *env) showSession(a *client.Answer) error {
	var got struct {
		Session api.Session `json:"session"`
		Scopes  []string    `json:"scopes"`
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	return e.Show(a.Body, func() {
		g := e.Grid()
		g.Fact("id", got.Session.ID)
		g.Fact("account", got.Session.Account)
		g.Fact("methods", strings.Join(got.Session.Methods, ", "))
		g.Fact("opened from", got.Session.Address)
		g.Fact("opened", e.Time(got.Session.CreatedAt))
		g.Fact("authenticated", e.TimePtr(got.Session.AuthenticatedAt))
		g.Fact("ends unused", e.Time(got.Session.IdleUntil))
		g.Fact("ends", e.Time(got.Session.ExpiresAt))
		g.Fact("may do", e.scopesText(got.Scopes, "nothing"))
		g.End()
	})
}

// sessionNamed returns the id of the session that an argument names: its id, or a
// beginning of it that no other session has, as narrow tables show it.
func (e *env) sessionNamed(ctx context.Context, arg string) (string, error) {
	_, err := events.ParseSessionID(arg)
	if err == nil {
		return arg, nil
	}
	prefix := strings.TrimSuffix(arg, "…")
	if !strings.HasPrefix(prefix, "ses_") || len(prefix) < ledger.MinTokenPrefix || len(prefix) >= tokenIDLength {
		return "", exit.Inputf("%s", err)
	}
	from, err := e.ledger(ctx)
	if err != nil {
		return "", err
	}
	for _, all := range []string{"", "true"} { // those of others only if there is none of the caller's own
		found, err := sessionsWith(ctx, from, prefix, all)
		switch {
		case err != nil && all != "": // not everybody may see them
		case err != nil:
			return "", err
		case len(found) > 1:
			return "", exit.Failf(exit.Usage, "ambiguous", "more than one session's ID begins with %s, so nothing was "+
				"done: %s", events.Quote(prefix), strings.Join(found[:min(mostCandidates, len(found))], ", "))
		case len(found) == 1:
			return found[0], nil
		}
	}
	return "", exit.Failf(exit.NotFound, "not_found", "no session's ID begins with %s, or you may not see it",
		events.Quote(prefix))
}

// sessionsWith returns the ids of sessions that begin with a prefix.
func sessionsWith(ctx context.Context, from *client.Client, prefix, all string) (found []string, err error) {
	r := client.Request{Path: []string{"v1", "sessions"}, Query: client.Query("all", all)}
	err = from.Pages(ctx, r, client.Extent{All: true}, func(p client.Page) error {
		for _, raw := range p.Items {
			var s api.Session
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			if strings.HasPrefix(s.ID, prefix) {
				found = append(found, s.ID)
			}
		}
		return nil
	})
	return found, err
}

func newSessionEndCmd(e *env) *cobra.Command {
	var (
		all     bool
		account string
	)
	c := &cobra.Command{
		Use: "end [ID]", Short: "End a session, or all sessions of an account",
		Example: `  tokenledger session end ses_01jd3qk8z5n0v7m2x4c6b8a9ef
  tokenledger session end --all
  tokenledger session end --all --account anna`,
		Args: func(c *cobra.Command, args []string) error {
			if all {
				return takes()(c, args)
			}
			return takes("the session's ID, or --all")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			r := client.Request{Method: http.MethodPost, Path: []string{"v1", "sessions", "end"}, Key: client.NewKey()}
			switch {
			case !all && account != "":
				return exit.Inputf("--account needs --all")
			case all:
				r.Body = map[string]any{"account": account}
			default:
				id, err := e.sessionNamed(c.Context(), args[0])
				if err != nil {
					return err
				}
				r.Path = []string{"v1", "sessions", id, "end"}
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), r)
			if err != nil {
				return err
			}
			return e.Show(a.Body, func() { e.Printf("ended\n") })
		},
	}
	flags := c.Flags()
	flags.BoolVar(&all, "all", false, "end all sessions, including this one")
	flags.StringVar(&account, "account", "", "with --all: the account, by ID or login (default your own)")
	e.completeFlag(c, "account", e.accounts)
	return c
}
