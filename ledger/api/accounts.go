package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Account is an account as clients see it.
type Account struct {
	ID     string   `json:"id" example:"acc_01jd3qk8z5n0v7m2x4c6b8a9ef"`
	Login  string   `json:"login,omitempty" doc:"absent where it was erased"`
	Name   string   `json:"name,omitempty" doc:"of the person or service; kept apart from the log"`
	Mail   string   `json:"mail,omitempty" doc:"of the person; kept apart from the log"`
	Kind   string   `json:"kind" enum:"user,service"`
	Owner  string   `json:"owner,omitempty" doc:"id of the user who owns the service account, and manages its tokens"`
	State  string   `json:"state" enum:"active,suspended,erased"`
	Reason string   `json:"reason,omitempty" doc:"of the suspension"`
	Grants []string `json:"grants" doc:"scopes that it has; where partial is true, those that the caller has of it"`
	// Partial stands in answers to tokens.
	Partial bool `json:"partial,omitempty" doc:"the caller is a token with a part of what the account has, and sees no more of the account than that: no login, name, mail, owner or other grants"`
	// SelfService is on for new accounts.
	SelfService  bool       `json:"self_service" doc:"it makes, widens, rotates and resumes tokens of its own, and its owner does"`
	TokensBefore *time.Time `json:"tokens_before,omitempty" doc:"every token of it that was created before is revoked"`
	TokensUntil  uint64     `json:"tokens_until,omitempty" doc:"every token of it that was created at a lower position is revoked"`
	CreatedAt    time.Time  `json:"created_at"`
	ChangedAt    time.Time  `json:"changed_at"`
	Version      uint64     `json:"version" doc:"position of the last event about it; its ETag"`
}

type accountOutput struct {
	ETag     string `header:"ETag" doc:"the account's version"`
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Replayed string `header:"Idempotency-Replayed" doc:"true where an earlier request with the same key did it"`
	Status   int
	Body     struct {
		Account  Account  `json:"account"`
		Position uint64   `json:"position" doc:"of the event in the log"`
		Receipt  *Receipt `json:"receipt,omitempty" doc:"where the request waited: since when the change is in force on every node"`
	}
}

// AccountPath names an account.
type AccountPath struct {
	ID string `path:"id" maxLength:"128" doc:"the account's id or login"`
}

type createAccountInput struct {
	Keyed
	Body struct {
		Login  string   `json:"login" maxLength:"100" doc:"letters and digits of ASCII and . _ - + @; kept apart from the log"`
		Kind   string   `json:"kind" enum:"user,service"`
		Owner  string   `json:"owner,omitempty" minLength:"1" maxLength:"128" doc:"id or login of the user who owns it; for service accounts"`
		Grants []string `json:"grants,omitempty" maxItems:"64" doc:"as in admin:site/3"`
		Name   string   `json:"name,omitempty" maxLength:"200" doc:"of the person or service; kept apart from the log"`
		Mail   string   `json:"mail,omitempty" maxLength:"254" doc:"of the person; kept apart from the log"`
	}
}

type editAccountInput struct {
	AccountPath
	Keyed
	Conditional
	Body struct {
		Owner       *string `json:"owner,omitempty" maxLength:"128" doc:"id or login of the user who owns it; empty for none"`
		SelfService *bool   `json:"self_service,omitempty"`
		Name        *string `json:"name,omitempty" maxLength:"200" doc:"of the person or service, empty for none; kept apart from the log"`
		Mail        *string `json:"mail,omitempty" maxLength:"254" doc:"of the person, empty for none; kept apart from the log"`
	}
}

type eraseAccountInput struct {
	AccountPath
	Keyed
	Conditional
	Waiting
	Body *Nothing
}

type listAccountsInput struct {
	Page
	Kind string `query:"kind" enum:"user,service"`
}

type grantInput struct {
	AccountPath
	Keyed
	Conditional
	Waiting
	Body struct {
		Grants []string `json:"grants" maxItems:"64" doc:"replaces all of them"`
	}
}

type suspendAccountInput struct {
	AccountPath
	Keyed
	Waiting
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"100" doc:"do not name people, the log cannot forget"`
	}
}

type resumeAccountInput struct {
	AccountPath
	Keyed
	Body *Nothing
}

func (a *api) accountRoutes(h huma.API) {
	op := operation("accounts")
	huma.Register(h, op(http.MethodPost, "/v1/accounts", "create-account", "Make an account", http.StatusCreated), a.createAccount)
	huma.Register(h, op(http.MethodGet, "/v1/accounts", "list-accounts", "List accounts", http.StatusOK), a.listAccounts)
	huma.Register(h, op(http.MethodGet, "/v1/accounts/{id}", "get-account", "Show an account", http.StatusOK), a.getAccount)
	edit := op(http.MethodPatch, "/v1/accounts/{id}", "edit-account", "Change an account's owner, self-service, name or mail", http.StatusOK)
	edit.Description = `Changes what the body names. Of name and mail the log has that they changed, not what they are. Where the answer is 503 the log may say so already and they be as before: the same request with the same Idempotency-Key goes on.`
	huma.Register(h, edit, a.editAccount)
	huma.Register(h, op(http.MethodPut, "/v1/accounts/{id}/grants", "grant", "Replace an account's grants", http.StatusOK), a.grant)
	huma.Register(h, op(http.MethodPost, "/v1/accounts/{id}/suspend", "suspend-account", "Stop all of an account's tokens until it is resumed", http.StatusOK), a.suspendAccount)
	huma.Register(h, op(http.MethodPost, "/v1/accounts/{id}/resume", "resume-account", "Let a suspended account's tokens work again", http.StatusOK), a.resumeAccount)
	erase := op(http.MethodPost, "/v1/accounts/{id}/erase", "erase-account", "End an account for ever, and forget its person", http.StatusOK)
	erase.Description = `Ends the account and all of its tokens, and deletes its login, name, mail and what its person proved to be theirs by. The log keeps the account's id and what it did. Where the answer is 503 the account may have ended and not all be deleted yet: the same request goes on.`
	huma.Register(h, erase, a.eraseAccount)
}

func (a *api) createAccount(ctx context.Context, in *createAccountInput) (*accountOutput, error) {
	b := in.Body
	r, err := a.ledger.CreateAccount(ctx, callerFrom(ctx), in.Key, ledger.CreateAccount{
		Login: b.Login, Kind: b.Kind, Owner: b.Owner, Grants: b.Grants, Person: ledger.Person{Name: b.Name, Mail: b.Mail},
	})
	out, err := a.accountResult(ctx, r, err, false)
	if err == nil && !r.Replayed {
		out.Status = http.StatusCreated
	}
	return out, err
}

func (a *api) editAccount(ctx context.Context, in *editAccountInput) (*accountOutput, error) {
	seen, err := parseETag(in.IfMatch)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := a.ledger.EditAccount(ctx, callerFrom(ctx), in.Key, in.ID, seen, ledger.EditAccount{
		Owner: in.Body.Owner, SelfService: in.Body.SelfService, Name: in.Body.Name, Mail: in.Body.Mail,
	})
	return a.accountResult(ctx, r, err, seen != 0)
}

func (a *api) eraseAccount(ctx context.Context, in *eraseAccountInput) (*accountOutput, error) {
	seen, err := parseETag(in.IfMatch)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := a.ledger.EraseAccount(ctx, callerFrom(ctx), in.Key, in.ID, seen)
	return a.provenAccount(ctx, r, err, seen != 0, wait)
}

func (a *api) grant(ctx context.Context, in *grantInput) (*accountOutput, error) {
	seen, err := parseETag(in.IfMatch)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := a.ledger.Grant(ctx, callerFrom(ctx), in.Key, in.ID, seen, in.Body.Grants)
	return a.provenAccount(ctx, r, err, seen != 0, wait)
}

func (a *api) suspendAccount(ctx context.Context, in *suspendAccountInput) (*accountOutput, error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	r, err := a.ledger.SuspendAccount(ctx, callerFrom(ctx), in.Key, in.ID, reason)
	return a.provenAccount(ctx, r, err, false, wait)
}

// provenAccount is what provenToken is for tokens.
func (a *api) provenAccount(ctx context.Context, r ledger.AccountResult, err error, ifMatch bool, wait time.Duration) (*accountOutput, error) {
	out, err := a.accountResult(ctx, r, err, ifMatch)
	if err == nil {
		out.Body.Receipt = a.prove(ctx, r.Position, wait, &out.Position)
	}
	return out, err
}

func (a *api) resumeAccount(ctx context.Context, in *resumeAccountInput) (*accountOutput, error) {
	r, err := a.ledger.ResumeAccount(ctx, callerFrom(ctx), in.Key, in.ID)
	return a.accountResult(ctx, r, err, false)
}

type getAccountOutput struct {
	ETag     string `header:"ETag" doc:"the account's version"`
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     Account
}

func (a *api) getAccount(ctx context.Context, in *AccountPath) (*getAccountOutput, error) {
	at := a.ledger.Position()
	got, err := a.ledger.GetAccount(ctx, callerFrom(ctx), in.ID)
	if err != nil {
		return nil, a.fault(ctx, inPath(err), false)
	}
	return &getAccountOutput{ETag: etag(got.Version), Position: uint64(at), Body: showAccount(got)}, nil
}

type accountList struct {
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     struct {
		Items      []Account `json:"items"`
		NextCursor string    `json:"next_cursor,omitempty" doc:"for the next page; absent on the last"`
	}
}

func (a *api) listAccounts(ctx context.Context, in *listAccountsInput) (*accountList, error) {
	filter, caller := ledger.AccountFilter{Kind: in.Kind}, callerFrom(ctx)
	after, err := in.after("accounts", callersOwn(caller, filter))
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	at := a.ledger.Position()
	list, more, err := a.ledger.ListAccounts(ctx, caller, filter, events.AccountID(after), in.Limit)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	out := &accountList{Position: uint64(at)}
	out.Body.Items = make([]Account, len(list))
	for i, got := range list {
		out.Body.Items[i] = showAccount(got)
	}
	if more {
		out.Body.NextCursor = cursor("accounts", callersOwn(caller, filter), string(list[len(list)-1].ID))
	}
	return out, nil
}

func (a *api) accountResult(ctx context.Context, r ledger.AccountResult, err error, ifMatch bool) (*accountOutput, error) {
	if err != nil {
		return nil, a.fault(ctx, inPath(err), ifMatch)
	}
	out := &accountOutput{ETag: etag(r.Account.Version), Position: uint64(r.Position), Replayed: replayed(r.Replayed), Status: http.StatusOK}
	out.Body.Account, out.Body.Position = showAccount(r.Account), uint64(r.Position)
	return out, nil
}

func showAccount(a ledger.Account) Account {
	state := "active"
	switch {
	case a.Erased:
		state = "erased"
	case a.Suspended:
		state = "suspended"
	}
	return Account{
		ID: string(a.ID), Login: a.Login, Name: a.Name, Mail: a.Mail, Kind: string(a.Kind), Owner: string(a.Owner), State: state, Reason: a.Reason,
		Grants: events.ScopeStrings(a.Grants), Partial: a.Partial, SelfService: a.SelfService,
		TokensBefore: instant(a.TokensBefore), TokensUntil: uint64(a.TokensUntil),
		CreatedAt: a.Created, ChangedAt: a.Changed, Version: uint64(a.Version),
	}
}
