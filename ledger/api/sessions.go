package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// Session is a session as clients see it, without its secret.
type Session struct {
	ID              string     `json:"id" example:"ses_01jd3qk8z5n0v7m2x4c6b8a9ef"`
	Account         string     `json:"account" doc:"id of the session's account"`
	Login           string     `json:"login,omitempty" doc:"login of the session's account, if the caller may see it; only in lists"`
	Current         bool       `json:"current" doc:"the session sent this request"`
	Methods         []string   `json:"methods" doc:"how the person authenticated (RFC 8176); empty if a token opened the session"`
	Address         string     `json:"address,omitempty" doc:"IP address that opened the session"`
	Token           string     `json:"token,omitempty" doc:"id of the token that opened the session; the session ends with it"`
	CreatedAt       time.Time  `json:"created_at"`
	SeenAt          time.Time  `json:"seen_at" doc:"when the session was last used, to the minute"`
	AuthenticatedAt *time.Time `json:"authenticated_at,omitempty" doc:"when the person last authenticated"`
	IdleUntil       time.Time  `json:"idle_until" doc:"when the session ends if it is not used"`
	ExpiresAt       time.Time  `json:"expires_at" doc:"when the session ends in any case"`
}

func showSession(s signin.Session, current events.SessionID) Session {
	return Session{
		ID: string(s.ID), Account: string(s.Account), Current: s.ID == current, Methods: s.Methods,
		Address: s.Address, Token: string(s.Token),
		CreatedAt: s.Created, SeenAt: s.Seen,
		AuthenticatedAt: timeOrNil(s.Authenticated), IdleUntil: s.Idle, ExpiresAt: s.Expires,
	}
}

type sessionOutput struct {
	Body struct {
		Session Session  `json:"session"`
		Scopes  []string `json:"scopes" doc:"what the session can do now"`
		Inherit bool     `json:"inherit" doc:"the session has all grants of its account"`
	}
}

type reauthenticateInput struct {
	Body struct {
		Password string `json:"password,omitempty" maxLength:"512" format:"password"`
		Code     string `json:"code,omitempty" maxLength:"64" doc:"current code of the second factor, or a recovery code"`
	}
}

type listSessionsInput struct {
	Page
	Account string `query:"account" maxLength:"128" doc:"sessions of this account: id or login; default: the caller's account"`
	All     bool   `query:"all" doc:"sessions of all accounts"`
}

type listSessionsOutput struct {
	Body struct {
		Items      []Session `json:"items"`
		NextCursor string    `json:"next_cursor,omitempty" doc:"cursor of the next page; absent on the last page"`
	}
}

type endSessionInput struct {
	ID string `path:"id" maxLength:"128" doc:"the session's id"`
}

type endSessionsInput struct {
	Body *struct {
		Account string `json:"account,omitempty" maxLength:"128" doc:"id or login; default: the caller's account"`
	}
}

func (a *api) sessionRoutes(h huma.API) {
	op := peopleOperation
	register(a, h, op(http.MethodGet, "/v1/session", "get-session", "Show the caller's session"), a.getSession)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/session/reauth", "reauthenticate", "Re-authenticate the caller (valid for five minutes)"),
		a.reauthenticate,
	)
	register(a, h, op(http.MethodPost, "/v1/session/end", "sign-out", "End the caller's session"), a.signOut)
	register(a, h, op(http.MethodGet, "/v1/sessions", "list-sessions", "List sessions"), a.listSessions)
	register(a, h, op(http.MethodPost, "/v1/sessions/{id}/end", "end-session", "End a session"), a.endSession)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/sessions/end", "end-sessions", "End all sessions of an account"),
		a.endSessions,
	)
}

func (a *api) getSession(ctx context.Context, _ *struct{}) (*sessionOutput, error) {
	s, err := a.signIn.Current(ctx, callerFrom(ctx))
	if err != nil {
		return nil, err
	}
	return showOwnSession(ctx, s), nil
}

func (a *api) reauthenticate(ctx context.Context, in *reauthenticateInput) (*sessionOutput, error) {
	s, err := a.signIn.Reauthenticate(
		ctx,
		callerFrom(ctx),
		signin.Reauthentication{Password: []byte(in.Body.Password), Code: in.Body.Code},
	)
	if err != nil {
		return nil, err
	}
	return showOwnSession(ctx, s), nil
}

func showOwnSession(ctx context.Context, s signin.Session) *sessionOutput {
	c := callerFrom(ctx)
	out := &sessionOutput{}
	out.Body.Session, out.Body.Scopes, out.Body.Inherit = showSession(
		s,
		c.Session,
	), events.ScopeStrings(
		c.Scopes,
	), c.Inherit
	return out
}

func (a *api) signOut(ctx context.Context, _ *struct{}) (*doneOutput, error) {
	if err := a.signIn.End(ctx, callerFrom(ctx), ""); err != nil {
		return nil, err
	}
	return newDoneOutput(), nil
}

func (a *api) endSession(ctx context.Context, in *endSessionInput) (*doneOutput, error) {
	id, err := events.ParseSessionID(in.ID)
	if err == nil {
		err = a.signIn.End(ctx, callerFrom(ctx), id)
	}
	if err != nil {
		return nil, err
	}
	return newDoneOutput(), nil
}

func (a *api) endSessions(ctx context.Context, in *endSessionsInput) (*doneOutput, error) {
	account := ""
	if in.Body != nil {
		account = in.Body.Account
	}
	if err := a.signIn.EndAll(ctx, callerFrom(ctx), account); err != nil {
		return nil, err
	}
	return newDoneOutput(), nil
}

func (a *api) listSessions(ctx context.Context, in *listSessionsInput) (*listSessionsOutput, error) {
	if in.All && in.Account != "" {
		return nil, fieldError("all", "cannot be used together with account; send one of the two")
	}
	c := callerFrom(ctx)
	filter := perCaller(c, []any{in.Account, in.All})
	after, err := in.decodeCursor("sessions", filter)
	if err != nil {
		return nil, err
	}
	list, more, err := a.signIn.List(ctx, c, signin.ListSessions{
		Account: in.Account, All: in.All, After: events.SessionID(after), Limit: in.Limit,
	})
	if err != nil {
		return nil, locatedAt(accountInQuery, err)
	}
	out := &listSessionsOutput{}
	out.Body.Items = make([]Session, len(list))
	accounts := make([]events.AccountID, len(list))
	for i, s := range list {
		out.Body.Items[i], accounts[i] = showSession(s, c.Session), s.Account
	}
	logins := a.ledger.Logins(ctx, c, accounts)
	for i, s := range list {
		out.Body.Items[i].Login = logins[s.Account]
	}
	if more {
		out.Body.NextCursor = encodeCursor("sessions", filter, string(list[len(list)-1].ID))
	}
	return out, nil
}
