package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// Whoami is the caller as the ledger sees it.
type Whoami struct {
	Account    string     `json:"account" doc:"id of the caller's account"`
	Login      string     `json:"login,omitempty" doc:"absent for a token with only some of its account's rights"`
	Kind       string     `json:"kind" enum:"user,service"`
	Credential string     `json:"credential" enum:"token,session" doc:"what the request was sent with"`
	Token      string     `json:"token,omitempty" doc:"id of the token that was sent, or that opened the session"`
	Session    string     `json:"session,omitempty" doc:"id of the session"`
	Scopes     []string   `json:"scopes" doc:"what the caller can do now"`
	Inherit    bool       `json:"inherit" doc:"the caller has all grants of its account"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty" doc:"when the token or session ends in any case"`
	IdleUntil  *time.Time `json:"idle_until,omitempty" doc:"when the session ends if it is not used"`
	GraceUntil *time.Time `json:"grace_until,omitempty" doc:"when the secret that was sent ends, if the token has been rotated since"`
	// Reauthentication is one of four words.
	Reauthentication     string     `json:"reauthentication" enum:"not_needed,recent,needed,impossible" doc:"whether commands that ask for it need the person's password or a code now; not_needed: the caller is a token; impossible: a token opened the session"`
	ReauthenticatedUntil *time.Time `json:"reauthenticated_until,omitempty" doc:"until when the last authentication counts as recent"`
}

type whoamiOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     Whoami
}

type mayInput struct {
	Body struct {
		Verb      string    `json:"verb" minLength:"1" maxLength:"32" doc:"the operation, as the column can-i of ledger/authority.md names it" example:"create token"`
		Account   string    `json:"account,omitempty" maxLength:"128" doc:"id or login, for operations on an account and for create token; default: the caller's account"`
		Token     string    `json:"token,omitempty" maxLength:"64" doc:"id, for operations on a token"`
		Scopes    []string  `json:"scopes,omitempty" maxItems:"2000" doc:"of the token that would be created, or that it would have after the change"`
		Inherit   bool      `json:"inherit,omitempty" doc:"the token would inherit all grants of its account; not together with scopes"`
		ExpiresIn *Duration `json:"expires_in,omitempty" doc:"lifetime of the token that would be created, or from now on after the change"`
	}
}

type mayOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     struct {
		Allowed bool   `json:"allowed"`
		Code    string `json:"code,omitempty" doc:"problem code with which the command would be refused"`
		Reason  string `json:"reason,omitempty" doc:"why not, and what to do"`
	}
}

func (a *api) whoamiRoutes(h huma.API) {
	op := operation("caller")
	register(a, h, op(http.MethodGet, "/v1/whoami", "whoami", "Show who the caller is and what it can do"), a.whoami)
	ask := op(http.MethodPost, "/v1/can-i", "can-i", "Ask whether the caller may do an operation")
	ask.Description = "Decides with the rules that the command itself is checked against, and changes nothing. The verbs are: " +
		strings.Join(authz.Verbs(), ", ") + "."
	register(a, h, ask, a.may)
}

func (a *api) whoami(ctx context.Context, _ *struct{}) (*whoamiOutput, error) {
	c := callerFrom(ctx)
	at := a.ledger.Position()
	account, err := a.ledger.GetAccount(ctx, c, string(c.Account))
	if err != nil {
		return nil, err
	}
	out := &whoamiOutput{Position: uint64(at), Body: Whoami{
		Account: string(c.Account), Login: account.Login, Kind: string(account.Kind), Credential: "token",
		Token: string(c.Token), Session: string(c.Session),
		Scopes: events.ScopeStrings(c.Scopes), Inherit: c.Inherit, Reauthentication: "not_needed",
	}}
	if c.Session != "" {
		return out, a.describeSession(ctx, c, &out.Body)
	}
	t, err := a.ledger.GetToken(c, c.Token)
	if err != nil {
		return nil, err
	}
	out.Body.ExpiresAt = timeOrNil(t.Expires)
	for _, s := range t.Secrets {
		if s.Digest == c.Secret {
			out.Body.GraceUntil = timeOrNil(s.Until)
		}
	}
	return out, nil
}

// describeSession adds the caller's session.
func (a *api) describeSession(ctx context.Context, c authz.Principal, w *Whoami) error {
	s, err := a.signIn.Current(ctx, c)
	if err != nil {
		return err
	}
	w.Credential, w.ExpiresAt, w.IdleUntil = "session", timeOrNil(s.Expires), timeOrNil(s.Idle)
	switch {
	case s.Authenticated.IsZero():
		w.Reauthentication = "impossible"
	case authz.Recent(s.Authenticated, time.Now()):
		w.Reauthentication, w.ReauthenticatedUntil = "recent", timeOrNil(s.Authenticated.Add(authz.MaxAuthAge))
	default:
		w.Reauthentication = "needed"
	}
	return nil
}

func (a *api) may(ctx context.Context, in *mayInput) (*mayOutput, error) {
	at := a.ledger.Position()
	b := in.Body
	err := a.ledger.May(ctx, callerFrom(ctx), ledger.Question{
		Verb: b.Verb, Account: b.Account, Token: b.Token, Scopes: b.Scopes, Inherit: b.Inherit,
		ExpiresIn: b.ExpiresIn.std(),
	})
	if err != nil && !ledger.Refusal(err) {
		return nil, err
	}
	out := &mayOutput{Position: uint64(at)}
	out.Body.Allowed = err == nil
	if err != nil {
		p := problemFor(err)
		out.Body.Code, out.Body.Reason = p.Code, p.Detail
	}
	return out, nil
}
