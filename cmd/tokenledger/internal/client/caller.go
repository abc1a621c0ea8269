package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// callerWait bounds the question for the caller's login, which only a remark needs.
const callerWait = 2 * time.Second

// tellCaller tells people, once in a command, as whom its changes are made. The
// session file knows the login of a session. For a token the ledger is asked, after
// the change: a token with a rate limit has its request for the change first.
func (c *Client) tellCaller(ctx context.Context) {
	if c.told || !c.cfg.People || c.secret == "" {
		return
	}
	c.told = true
	who, by := c.login, "the session of 'tokenledger login'"
	if c.owner != c.cfg.SessionFile {
		by = "the token from " + c.owner
	}
	if who == "" {
		who = c.askLogin(ctx)
	}
	if who == "" {
		c.cfg.Note("tokenledger: with %s.", render.Escape(by))
		return
	}
	c.cfg.Note("tokenledger: as %s, with %s.", render.Escape(who), render.Escape(by))
}

// SignedIn returns the session of a person who just signed in. It has the login as
// the account has it, or else as it was typed.
func (c *Client) SignedIn(ctx context.Context, secret, typed string) Session {
	c.secret = secret
	s := Session{Secret: secret, Login: typed, Fingerprint: c.pin}
	for _, base := range c.servers() {
		s.Servers = append(s.Servers, base.String())
	}
	s.Server = s.Servers[0] // for an older program
	if login := c.askLogin(ctx); login != "" {
		s.Login = login
	}
	return s
}

// askLogin returns the login of the caller, or the account's ID, and nothing if the
// ledger does not say.
func (c *Client) askLogin(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, callerWait)
	defer cancel()
	r := Request{Method: http.MethodGet, Path: []string{"v1", "whoami"}}
	t := c.try(ctx, r, c.locate(r), nil)
	var got api.Whoami
	if t.failure != nil || json.Unmarshal(t.answer.Body, &got) != nil {
		return ""
	}
	if got.Login == "" {
		return got.Account
	}
	return got.Login
}
