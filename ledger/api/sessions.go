package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// Session is a session as clients see it. Its secret is not part of it.
type Session struct {
	ID        string     `json:"id" example:"ses_01jd3qk8z5n0v7m2x4c6b8a9ef"`
	Account   string     `json:"account" doc:"id of its account"`
	Current   bool       `json:"current" doc:"it is the one that asks"`
	Methods   []string   `json:"methods" doc:"how the person proved to be who they are, in the words of RFC 8176; none where a token opened it"`
	Address   string     `json:"address,omitempty" doc:"that it was opened from"`
	Token     string     `json:"token,omitempty" doc:"id of the token that opened it, with which it ends"`
	CreatedAt time.Time  `json:"created_at"`
	SeenAt    time.Time  `json:"seen_at" doc:"when it was last used, to the minute"`
	ProvedAt  *time.Time `json:"proved_at,omitempty" doc:"when the person last proved to be who they are"`
	IdleUntil time.Time  `json:"idle_until" doc:"when it ends if it is not used"`
	ExpiresAt time.Time  `json:"expires_at" doc:"when it ends however it is used"`
}

func showSession(s signin.Session, current events.SessionID) Session {
	return Session{
		ID: string(s.ID), Account: string(s.Account), Current: s.ID == current, Methods: s.Methods, Address: s.Address, Token: string(s.Token),
		CreatedAt: s.Created, SeenAt: s.Seen, ProvedAt: instant(s.Proved), IdleUntil: s.Idle, ExpiresAt: s.Expires,
	}
}

type sessionOutput struct {
	Body struct {
		Session Session  `json:"session"`
		Scopes  []string `json:"scopes" doc:"what it may do now"`
		Inherit bool     `json:"inherit" doc:"that is all that its account may do"`
	}
}

type proveInput struct {
	Body struct {
		Password string `json:"password,omitempty" maxLength:"512" format:"password"`
		Code     string `json:"code,omitempty" maxLength:"64" doc:"of the second factor, or a recovery code"`
	}
}

type sessionsInput struct {
	Page
	Account string `query:"account" maxLength:"128" doc:"of this account, by id or login; by default the caller's own"`
	All     bool   `query:"all" doc:"of all accounts"`
}

type sessionList struct {
	Body struct {
		Items      []Session `json:"items"`
		NextCursor string    `json:"next_cursor,omitempty" doc:"for the next page; absent on the last"`
	}
}

type sessionPath struct {
	ID string `path:"id" maxLength:"128" doc:"the session's id"`
}

type endSessionsInput struct {
	Body *struct {
		Account string `json:"account,omitempty" maxLength:"128" doc:"whose, by id or login; by default the caller's own"`
	}
}

func (a *api) sessionRoutes(h huma.API) {
	op := peopleOperation
	ok := http.StatusOK
	huma.Register(h, op(http.MethodGet, "/v1/session", "get-session", "Show the caller's session", ok), a.getSession)
	huma.Register(h, op(http.MethodPost, "/v1/session/prove", "prove", "Prove again who is there, which is good for five minutes", ok), a.proveAgain)
	huma.Register(h, op(http.MethodPost, "/v1/session/end", "sign-out", "End the caller's session", ok), a.signOut)
	huma.Register(h, op(http.MethodGet, "/v1/sessions", "list-sessions", "List sessions", ok), a.listSessions)
	huma.Register(h, op(http.MethodPost, "/v1/sessions/{id}/end", "end-session", "End a session", ok), a.endSession)
	huma.Register(h, op(http.MethodPost, "/v1/sessions/end", "end-sessions", "End all sessions of an account", ok), a.endSessions)
}

func (a *api) getSession(ctx context.Context, _ *struct{}) (*sessionOutput, error) {
	s, err := a.people.Current(ctx, callerFrom(ctx))
	return a.sessionResult(ctx, s, err)
}

func (a *api) proveAgain(ctx context.Context, in *proveInput) (*sessionOutput, error) {
	s, err := a.people.Prove(ctx, callerFrom(ctx), signin.Proof{Password: []byte(in.Body.Password), Code: in.Body.Code})
	return a.sessionResult(ctx, s, err)
}

func (a *api) sessionResult(ctx context.Context, s signin.Session, err error) (*sessionOutput, error) {
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	c := callerFrom(ctx)
	out := &sessionOutput{}
	out.Body.Session, out.Body.Scopes, out.Body.Inherit = showSession(s, c.Session), events.ScopeStrings(c.Scopes), c.Inherit
	return out, nil
}

func (a *api) signOut(ctx context.Context, _ *struct{}) (*done, error) {
	if err := a.people.End(ctx, callerFrom(ctx), ""); err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return isDone(), nil
}

func (a *api) endSession(ctx context.Context, in *sessionPath) (*done, error) {
	id, err := events.ParseSessionID(in.ID)
	if err == nil {
		err = a.people.End(ctx, callerFrom(ctx), id)
	}
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return isDone(), nil
}

func (a *api) endSessions(ctx context.Context, in *endSessionsInput) (*done, error) {
	account := ""
	if in.Body != nil {
		account = in.Body.Account
	}
	if err := a.people.EndAll(ctx, callerFrom(ctx), account); err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return isDone(), nil
}

func (a *api) listSessions(ctx context.Context, in *sessionsInput) (*sessionList, error) {
	if in.All && in.Account != "" {
		return nil, a.fault(ctx, badField("all", "and account cannot both be given"), false)
	}
	c := callerFrom(ctx)
	filter := callersOwn(c, []any{in.Account, in.All})
	after, err := in.after("sessions", filter)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	list, more, err := a.people.List(ctx, c, in.Account, in.All, events.SessionID(after), in.Limit)
	if err != nil {
		return nil, a.fault(ctx, inQuery(err), false)
	}
	out := &sessionList{}
	out.Body.Items = make([]Session, len(list))
	for i, s := range list {
		out.Body.Items[i] = showSession(s, c.Session)
	}
	if more {
		out.Body.NextCursor = cursor("sessions", filter, string(list[len(list)-1].ID))
	}
	return out, nil
}

func badField(field, problem string) error { return &ledger.FieldError{Field: field, Problem: problem} }
