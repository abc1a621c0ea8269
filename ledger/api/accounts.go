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
	Login  string   `json:"login,omitempty" doc:"absent if the account is erased"`
	Name   string   `json:"name,omitempty" doc:"of the person or service; not in the log, so it can be erased"`
	Mail   string   `json:"mail,omitempty" doc:"of the person; not in the log, so it can be erased"`
	Kind   string   `json:"kind" enum:"user,service"`
	Owner  string   `json:"owner,omitempty" doc:"id of the user that owns the service account and manages its tokens"`
	State  string   `json:"state" enum:"active,suspended,erased"`
	Reason string   `json:"reason,omitempty" doc:"of the suspension"`
	Source string   `json:"source,omitempty" doc:"name of the installation that the account was imported from"`
	Grants []string `json:"grants" doc:"the account's scopes; if partial is true, only those that the caller's token also has"`
	// Partial is set in answers to tokens.
	Partial bool `json:"partial,omitempty" doc:"the caller is a token with only some of the account's grants: login, name, mail, owner and the other grants are left out"`
	// SelfService is true for new accounts.
	SelfService       bool       `json:"self_service" doc:"the account and its owner can create, widen, rotate and resume the account's tokens"`
	NotBefore         *time.Time `json:"tokens_not_before,omitempty" doc:"all tokens of the account that were created before this time are revoked"`
	NotBeforePosition uint64     `json:"tokens_not_before_position,omitempty" doc:"all tokens of the account that were created at a lower position are revoked"`
	CreatedAt         time.Time  `json:"created_at"`
	ChangedAt         time.Time  `json:"changed_at"`
	Version           uint64     `json:"version" doc:"position of the last event about the account; also its ETag"`
}

type accountOutput struct {
	ETag     string `header:"ETag" doc:"the account's version"`
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Replayed string `header:"Idempotency-Replayed" doc:"true if an earlier request with the same key was carried out"`
	Status   int
	Body     struct {
		Account  Account  `json:"account"`
		Position uint64   `json:"position" doc:"position of the event in the log"`
		Receipt  *Receipt `json:"receipt,omitempty" doc:"with ?wait=: when the change took effect on every node"`
	}
}

// AccountPath names an account.
type AccountPath struct {
	ID string `path:"id" maxLength:"128" doc:"the account's id or login"`
}

type createAccountInput struct {
	Idempotent
	Body struct {
		Login  string   `json:"login" maxLength:"100" doc:"ASCII letters and digits, ä ö ü ß, and . _ - + @; not in the log, so it can be erased"`
		Kind   string   `json:"kind" enum:"user,service"`
		Owner  string   `json:"owner,omitempty" minLength:"1" maxLength:"128" doc:"id or login of the user that owns the account; for service accounts only"`
		Grants []string `json:"grants,omitempty" maxItems:"2000" doc:"what the account can do, such as admin:site/3"`
		Name   string   `json:"name,omitempty" maxLength:"200" doc:"of the person or service; kept apart from the log"`
		Mail   string   `json:"mail,omitempty" maxLength:"254" doc:"of the person; kept apart from the log"`
		Source string   `json:"source,omitempty" maxLength:"64" doc:"name of the installation that the account is imported from"`
	}
}

type editAccountInput struct {
	AccountPath
	Idempotent
	Conditional
	Body struct {
		Owner       *string `json:"owner,omitempty" maxLength:"128" doc:"id or login of the user that owns the account; empty for none"`
		SelfService *bool   `json:"self_service,omitempty"`
		Name        *string `json:"name,omitempty" maxLength:"200" doc:"of the person or service; empty for none"`
		Mail        *string `json:"mail,omitempty" maxLength:"254" doc:"of the person; empty for none"`
	}
}

type eraseAccountInput struct {
	AccountPath
	Idempotent
	Conditional
	Waiting
	Body *eraseAccountBody
}

type eraseAccountBody struct {
	ServiceAccounts string `json:"service_accounts,omitempty" enum:"keep,suspend,revoke,transfer" doc:"what happens to the service accounts that the account owns: keep (their tokens stay valid), suspend, revoke (all of their tokens), or transfer to another user; required if there are any"`
	TransferTo      string `json:"transfer_to,omitempty" maxLength:"128" doc:"with transfer: the user that owns them from now on, by id or login"`
	DryRun          bool   `json:"dry_run,omitempty" doc:"change nothing; the answer has the account as it is and lists the service accounts"`
}

// OwnedAccount is a service account of an account that is erased or suspended.
type OwnedAccount struct {
	ID     string `json:"id"`
	Login  string `json:"login,omitempty"`
	State  string `json:"state" enum:"active,suspended"`
	Tokens int    `json:"active_tokens" doc:"how many of its tokens are active, up to 1000"`
	More   bool   `json:"more_tokens,omitempty" doc:"there are more active tokens"`
}

type ownedOutput struct {
	ETag     string `header:"ETag" doc:"the account's version"`
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Replayed string `header:"Idempotency-Replayed" doc:"true if an earlier request with the same key was carried out"`
	Body     struct {
		Account         Account        `json:"account"`
		Position        uint64         `json:"position" doc:"position of the event in the log"`
		Receipt         *Receipt       `json:"receipt,omitempty" doc:"with ?wait=: when the change took effect on every node"`
		ServiceAccounts []OwnedAccount `json:"service_accounts,omitempty" doc:"the service accounts that the account owns, as they are after the request; with transfer or dry_run as they were before it"`
	}
}

type listAccountsInput struct {
	Page
	Kind   string `query:"kind" enum:"user,service"`
	Erased bool   `query:"erased" default:"true" doc:"false: leave out erased accounts"`
}

type grantInput struct {
	AccountPath
	Idempotent
	Conditional
	Waiting
	Body struct {
		Grants []string `json:"grants" maxItems:"2000" doc:"replaces all grants"`
	}
}

type suspendAccountInput struct {
	AccountPath
	Idempotent
	Conditional
	Waiting
	Body *ReasonBody
}

type resumeAccountInput struct {
	AccountPath
	Idempotent
	Conditional
	Body *EmptyBody
}

func (a *api) accountRoutes(h huma.API) {
	op := operation("accounts")
	create := op(http.MethodPost, "/v1/accounts", "create-account", "Create an account")
	create.DefaultStatus = http.StatusCreated
	register(a, h, create, a.createAccount)
	register(a, h, op(http.MethodGet, "/v1/accounts", "list-accounts", "List accounts"), a.listAccounts)
	register(a, h, op(http.MethodGet, "/v1/accounts/{id}", "get-account", "Show an account"), a.getAccount)
	edit := op(
		http.MethodPatch,
		"/v1/accounts/{id}",
		"edit-account",
		"Change an account's owner, self-service, name or mail",
	)
	edit.Description = `Changes the fields in the body. The log records that name or mail changed, but not their values. ` +
		`After a 503 the log may already record the change while the values are still the old ones. Send the same request with the same Idempotency-Key again to complete it.`
	register(a, h, edit, a.editAccount)
	register(a, h, op(http.MethodPut, "/v1/accounts/{id}/grants", "grant", "Replace an account's grants"), a.grant)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/accounts/{id}/suspend", "suspend-account", "Suspend an account and all of its tokens"),
		a.suspendAccount,
	)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/accounts/{id}/resume", "resume-account", "Resume a suspended account and its tokens"),
		a.resumeAccount,
	)
	erase := op(
		http.MethodPost,
		"/v1/accounts/{id}/erase",
		"erase-account",
		"Close an account permanently and erase its personal data",
	)
	erase.Description = `Revokes all tokens of the account, and deletes its login, name, mail, password and second factor. The log keeps the account's id and what it did. ` +
		`If the account owns service accounts, service_accounts says what happens to them first; without it the request is refused and names them. ` +
		`After a 503 the account may already be closed while some data is not deleted. Send the same request again to complete it.`
	register(a, h, erase, a.eraseAccount)
}

func (a *api) createAccount(ctx context.Context, in *createAccountInput) (*accountOutput, error) {
	b := in.Body
	r, err := a.ledger.CreateAccount(ctx, callerFrom(ctx), in.Key, ledger.CreateAccount{
		Login: b.Login, Kind: b.Kind, Owner: b.Owner, Grants: b.Grants,
		Person: ledger.Person{Name: b.Name, Mail: b.Mail}, Source: b.Source,
	})
	if err != nil {
		return nil, locatedAt(accountInPath, err)
	}
	out := showAccountResult(r)
	if !r.Replayed {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (a *api) editAccount(ctx context.Context, in *editAccountInput) (*accountOutput, error) {
	seen, err := parseIfMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	r, err := a.ledger.EditAccount(ctx, callerFrom(ctx), in.Key, in.ID, seen, ledger.EditAccount{
		Owner: in.Body.Owner, SelfService: in.Body.SelfService, Name: in.Body.Name, Mail: in.Body.Mail,
	})
	if err != nil {
		return nil, withIfMatch(locatedAt(accountInPath, err), seen)
	}
	return showAccountResult(r), nil
}

func (a *api) eraseAccount(ctx context.Context, in *eraseAccountInput) (*ownedOutput, error) {
	seen, wait, err := parseChange(in.Conditional, in.Waiting)
	if err != nil {
		return nil, err
	}
	var b eraseAccountBody
	if in.Body != nil {
		b = *in.Body
	}
	caller := callerFrom(ctx)
	r := ledger.Erasure{ServiceAccounts: b.ServiceAccounts, TransferTo: b.TransferTo}
	if b.DryRun {
		at := a.ledger.Position()
		account, owned, err := a.ledger.ErasurePlan(ctx, caller, in.ID, r)
		if err != nil {
			return nil, locatedAt(accountInPath, err)
		}
		return showOwned(showAccountResult(ledger.AccountResult{Account: account, Position: at}), owned), nil
	}
	var owned []ledger.OwnedAccount
	if r.ServiceAccounts == ledger.TransferOwned {
		if _, owned, err = a.ledger.ErasurePlan(ctx, caller, in.ID, r); err != nil {
			return nil, locatedAt(accountInPath, err)
		}
	}
	done, err := a.ledger.EraseAccount(ctx, caller, in.Key, in.ID, seen, r)
	if err == nil && r.ServiceAccounts != ledger.TransferOwned {
		owned, err = a.ledger.Owned(ctx, caller, string(done.Account.ID))
	}
	if err != nil {
		return nil, withIfMatch(locatedAt(accountInPath, err), seen)
	}
	return showOwned(a.awaitAccount(ctx, done, wait), owned), nil
}

// showOwned adds service accounts to an answer.
func showOwned(out *accountOutput, list []ledger.OwnedAccount) *ownedOutput {
	shown := &ownedOutput{ETag: out.ETag, Position: out.Position, Replayed: out.Replayed}
	b := &shown.Body
	b.Account, b.Position, b.Receipt = out.Body.Account, out.Body.Position, out.Body.Receipt
	for _, o := range list {
		got := showAccount(o.Account)
		b.ServiceAccounts = append(b.ServiceAccounts, OwnedAccount{
			ID: got.ID, Login: got.Login, State: got.State, Tokens: o.Tokens, More: o.More,
		})
	}
	return shown
}

func (a *api) grant(ctx context.Context, in *grantInput) (*accountOutput, error) {
	seen, wait, err := parseChange(in.Conditional, in.Waiting)
	if err != nil {
		return nil, err
	}
	r, err := a.ledger.Grant(ctx, callerFrom(ctx), in.Key, in.ID, seen, in.Body.Grants)
	if err != nil {
		return nil, withIfMatch(locatedAt(accountInPath, err), seen)
	}
	return a.awaitAccount(ctx, r, wait), nil
}

func (a *api) suspendAccount(ctx context.Context, in *suspendAccountInput) (*ownedOutput, error) {
	seen, wait, err := parseChange(in.Conditional, in.Waiting)
	if err != nil {
		return nil, err
	}
	caller := callerFrom(ctx)
	r, err := a.ledger.SuspendAccount(ctx, caller, in.Key, in.ID, seen, in.Body.text())
	if err != nil {
		return nil, withIfMatch(locatedAt(accountInPath, err), seen)
	}
	owned, err := a.ledger.Owned(ctx, caller, string(r.Account.ID))
	if err != nil {
		return nil, locatedAt(accountInPath, err)
	}
	return showOwned(a.awaitAccount(ctx, r, wait), owned), nil
}

func (a *api) resumeAccount(ctx context.Context, in *resumeAccountInput) (*accountOutput, error) {
	seen, err := parseIfMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	r, err := a.ledger.ResumeAccount(ctx, callerFrom(ctx), in.Key, in.ID, seen)
	if err != nil {
		return nil, withIfMatch(locatedAt(accountInPath, err), seen)
	}
	return showAccountResult(r), nil
}

type getAccountOutput struct {
	ETag     string `header:"ETag" doc:"the account's version"`
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     Account
}

func (a *api) getAccount(ctx context.Context, in *AccountPath) (*getAccountOutput, error) {
	at := a.ledger.Position()
	got, err := a.ledger.GetAccount(ctx, callerFrom(ctx), in.ID)
	if err != nil {
		return nil, locatedAt(accountInPath, err)
	}
	return &getAccountOutput{ETag: etag(got.Version), Position: uint64(at), Body: showAccount(got)}, nil
}

type listAccountsOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     struct {
		Items      []Account `json:"items"`
		NextCursor string    `json:"next_cursor,omitempty" doc:"cursor of the next page; absent on the last page"`
	}
}

func (a *api) listAccounts(ctx context.Context, in *listAccountsInput) (*listAccountsOutput, error) {
	filter, caller := ledger.AccountFilter{Kind: in.Kind, Unerased: !in.Erased}, callerFrom(ctx)
	after, err := in.decodeCursor("accounts", perCaller(caller, filter))
	if err != nil {
		return nil, err
	}
	at := a.ledger.Position()
	list, more, err := a.ledger.ListAccounts(ctx, caller, filter, events.AccountID(after), in.Limit)
	if err != nil {
		return nil, err
	}
	const others = 1 << 10 // of an item, beside its grants
	if n := fitting(list, func(a ledger.Account) int { return others + textBytes(a.Grants) }); n < len(list) {
		list, more = list[:n], true
	}
	out := &listAccountsOutput{Position: uint64(at)}
	out.Body.Items = make([]Account, len(list))
	for i, got := range list {
		out.Body.Items[i] = showAccount(got)
	}
	if more {
		out.Body.NextCursor = encodeCursor("accounts", perCaller(caller, filter), string(list[len(list)-1].ID))
	}
	return out, nil
}

// parseChange parses the precondition and the wait of a command.
func parseChange(c Conditional, w Waiting) (seen ledger.Precondition, wait time.Duration, err error) {
	if seen, err = parseIfMatch(c.IfMatch); err != nil {
		return 0, 0, err
	}
	wait, err = parseWait(w.Wait)
	return seen, wait, err
}

// awaitAccount returns the result of a command that took rights away. If the
// request asks for that, it first waits until the change is in force everywhere.
func (a *api) awaitAccount(ctx context.Context, r ledger.AccountResult, wait time.Duration) *accountOutput {
	out := showAccountResult(r)
	out.Body.Receipt = a.awaitReceipt(ctx, r.Position, wait, &out.Position)
	return out
}

func showAccountResult(r ledger.AccountResult) *accountOutput {
	out := &accountOutput{
		ETag: etag(
			r.Account.Version,
		), Position: uint64(r.Position), Replayed: replayed(r.Replayed), Status: http.StatusOK,
	}
	out.Body.Account, out.Body.Position = showAccount(r.Account), uint64(r.Position)
	return out
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
		ID: string(a.ID), Login: a.Login, Name: a.Name, Mail: a.Mail, Kind: string(a.Kind), Owner: string(a.Owner),
		State: state, Reason: a.Reason, Source: a.Source,
		Grants: events.ScopeStrings(a.Grants), Partial: a.Partial, SelfService: a.SelfService,
		NotBefore: timeOrNil(a.NotBefore), NotBeforePosition: uint64(a.TokensUntil),
		CreatedAt: a.Created, ChangedAt: a.Changed, Version: uint64(a.Version),
	}
}
