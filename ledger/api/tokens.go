package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Token is a token as clients see it. Its secret is not part of it.
type Token struct {
	ID          string       `json:"id" example:"tok_01jd3qk8z5n0v7m2x4c6b8a9ef"`
	Account     string       `json:"account" doc:"id of its account"`
	App         string       `json:"app,omitempty"`
	Device      string       `json:"device,omitempty"`
	State       string       `json:"state" enum:"active,suspended,revoked,expired,account suspended"`
	Reason      string       `json:"reason,omitempty" doc:"of the suspension or revocation"`
	StoppedBy   string       `json:"stopped_by,omitempty" doc:"id of the account that suspended it, while it is suspended"`
	Scopes      []string     `json:"scopes" doc:"its own"`
	Inherit     bool         `json:"inherit" doc:"it has everything that its account has"`
	Effective   []string     `json:"effective_scopes" doc:"what it may do now: its scopes within its account's grants"`
	ExpiresAt   *time.Time   `json:"expires_at,omitempty"`
	ExpiresSoon bool         `json:"expires_soon,omitempty" doc:"it works, and ends within the policy's warn_before"`
	Constraints *Constraints `json:"constraints,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	CreatedBy   *Actor       `json:"created_by,omitempty"`
	ChangedAt   time.Time    `json:"changed_at"`
	RevokedAt   *time.Time   `json:"revoked_at,omitempty"`
	GraceUntil  *time.Time   `json:"grace_until,omitempty" doc:"until when the secret before the last rotation works"`
	Version     uint64       `json:"version" doc:"position of the last event about it; its ETag"`
}

// Actor is who did something.
type Actor struct {
	Account string `json:"account,omitempty"`
	Token   string `json:"token,omitempty"`
	Session string `json:"session,omitempty" doc:"where a person had signed in"`
	Address string `json:"address,omitempty"`
}

// tokenBody is the answer to a command.
type tokenBody struct {
	Token    Token  `json:"token"`
	Secret   string `json:"secret,omitempty" doc:"shown here and never again"`
	Position uint64 `json:"position" doc:"of the event in the log"`
	// SecretShown stands in the answer to a retry that came too late.
	SecretShown bool `json:"secret_already_shown,omitempty" doc:"the secret was shown to an earlier request with this key and is not known any more; rotate the token"`
	// Receipt is there where the request waited.
	Receipt *Receipt `json:"receipt,omitempty" doc:"where the request waited: since when the change is in force on every node"`
}

type tokenOutput struct {
	ETag     string `header:"ETag" doc:"the token's version"`
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Replayed string `header:"Idempotency-Replayed" doc:"true where an earlier request with the same key did it"`
	Status   int
	Body     tokenBody
}

// TokenPath, like the parts of requests below, is exported because huma looks
// into exported embedded structs only.
type TokenPath struct {
	ID string `path:"id" maxLength:"64" doc:"the token's id"`
}

// Keyed is what a request that changes something may carry.
type Keyed struct {
	Key string `header:"Idempotency-Key" maxLength:"255" doc:"a request that is sent again with the same key is done once"`
}

// Conditional is what a request on a version carries.
type Conditional struct {
	IfMatch string `header:"If-Match" maxLength:"64" doc:"ETag of the version that is to be changed"`
}

// Waiting is what a request that takes something away may carry.
type Waiting struct {
	Wait string `query:"wait" maxLength:"32" doc:"how long to wait until no node answers as before any more, as in 10s; two minutes at most" example:"45s"`
}

// Nothing is the body of a request that says all in its path. It may be left
// out, and no field in it is known.
type Nothing struct{}

type createInput struct {
	Keyed
	Body struct {
		Account     string       `json:"account,omitempty" minLength:"1" maxLength:"128" doc:"id or login; the caller's own where it is absent"`
		App         string       `json:"app,omitempty" maxLength:"100" doc:"what uses it, as in \"mobile app\""`
		Device      string       `json:"device,omitempty" maxLength:"100" doc:"where, as in \"phone\"; do not name people, the log cannot forget"`
		Scopes      []string     `json:"scopes,omitempty" maxItems:"64" doc:"as in view:site/3"`
		Inherit     bool         `json:"inherit,omitempty" doc:"everything that the account has, now and later; instead of scopes"`
		ExpiresIn   *Duration    `json:"expires_in,omitempty" doc:"as the policy says where it is absent"`
		Constraints *Constraints `json:"constraints,omitempty"`
		Format      string       `json:"format,omitempty" enum:"standard,hex32" doc:"hex32: 32 hexadecimal characters, for clients that accept nothing else"`
		Digest      string       `json:"secret_digest,omitempty" minLength:"64" maxLength:"64" pattern:"^[0-9a-f]{64}$" doc:"SHA-256 of a secret that the client made, in lower-case hexadecimal"`
	}
}

type editInput struct {
	TokenPath
	Keyed
	Conditional
	Waiting
	Body struct {
		Scopes      *[]string    `json:"scopes,omitempty" maxItems:"64"`
		Inherit     *bool        `json:"inherit,omitempty"`
		App         *string      `json:"app,omitempty" maxLength:"100"`
		Device      *string      `json:"device,omitempty" maxLength:"100"`
		ExpiresAt   *time.Time   `json:"expires_at,omitempty"`
		ExpiresIn   *Duration    `json:"expires_in,omitempty"`
		Constraints *Constraints `json:"constraints,omitempty" doc:"replaces all of them"`
	}
}

type rotateInput struct {
	TokenPath
	Keyed
	Conditional
	Waiting
	Body *struct {
		Grace *Duration `json:"grace,omitempty" doc:"how long the old secret lives; an hour where it is absent"`
	}
}

type endInput struct {
	TokenPath
	Keyed
	Waiting
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"100" doc:"do not name people, the log cannot forget"`
	}
}

type resumeInput struct {
	TokenPath
	Keyed
	Body *Nothing
}

func (in endInput) reason() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Reason
}

func (a *api) tokenRoutes(h huma.API) {
	op := operation("tokens")
	create := op(http.MethodPost, "/v1/tokens", "create-token", "Make a token", http.StatusCreated)
	create.Description = createDescription
	huma.Register(h, create, a.createToken)
	huma.Register(h, op(http.MethodGet, "/v1/tokens", "list-tokens", "List tokens", http.StatusOK), a.listTokens)
	huma.Register(h, op(http.MethodGet, "/v1/tokens/{id}", "get-token", "Show a token", http.StatusOK), a.getToken)
	huma.Register(h, op(http.MethodPatch, "/v1/tokens/{id}", "edit-token", "Change a token's scopes, labels, expiry or constraints", http.StatusOK), a.editToken)
	huma.Register(h, op(http.MethodPost, "/v1/tokens/{id}/rotate", "rotate-token", "Give a token a new secret", http.StatusOK), a.rotateToken)
	huma.Register(h, op(http.MethodPost, "/v1/tokens/{id}/suspend", "suspend-token", "Stop a token until it is resumed", http.StatusOK), a.suspendToken)
	huma.Register(h, op(http.MethodPost, "/v1/tokens/{id}/resume", "resume-token", "Let a suspended token work again", http.StatusOK), a.resumeToken)
	huma.Register(h, op(http.MethodPost, "/v1/tokens/{id}/revoke", "revoke-token", "End a token for ever", http.StatusOK), a.revokeToken)
}

// operation makes the operations of one group.
func operation(tag string) func(method, path, id, summary string, status int) huma.Operation {
	return func(method, path, id, summary string, status int) huma.Operation {
		return huma.Operation{
			Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{tag},
			DefaultStatus: status, MaxBodyBytes: maxBody,
			BodyReadTimeout: -1, // the body is here already; see front.ServeHTTP
			Errors:          []int{400, 401, 403, 404, 409, 412, 413, 415, 422, 503},
		}
	}
}

const createDescription = `Makes a token. The answer has its secret, once.

A client that must not lose the answer makes the secret itself, keeps it, and sends its SHA-256 as secret_digest; the answer then has no secret. Such a secret is checked for its form at every use, and works only where it is of the form of the ledger's own: a prefix, tlu_ for users and tls_ for service accounts (u_ and s_ behind another stem where the ledger is configured so), 32 random characters of 0-9, A-Z and a-z, and 6 for the checksum: the CRC-32 (IEEE) of all that stands before it, as a number to the base 62 with the digits 0-9, A-Z, a-z in this order, filled up with 0 on the left. The digest is of the whole. The ledger never sees the secret, and so cannot tell one that is badly made: draw the 32 characters from a cryptographic source.`

// secretForms: format of a request -> form of the secret.
var secretForms = map[string]events.SecretForm{"hex32": events.FormHex32}

func (a *api) createToken(ctx context.Context, in *createInput) (*tokenOutput, error) {
	b := in.Body
	constraints, err := b.Constraints.read()
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	digest, err := readDigest(b.Digest)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := a.ledger.Create(ctx, callerFrom(ctx), in.Key, ledger.CreateToken{
		Account: b.Account, App: b.App, Device: b.Device, Scopes: b.Scopes, Inherit: b.Inherit,
		ExpiresIn: b.ExpiresIn.std(), Constraints: constraints, Form: secretForms[b.Format], SecretDigest: digest,
	})
	out, err := a.tokenResult(ctx, r, err, false)
	if err == nil && !r.Replayed {
		out.Status = http.StatusCreated
	}
	return out, err
}

func (a *api) editToken(ctx context.Context, in *editInput) (*tokenOutput, error) {
	id, seen, err := a.target(in.ID, in.IfMatch)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	b := in.Body
	constraints, err := b.Constraints.read()
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := a.ledger.Edit(ctx, callerFrom(ctx), in.Key, id, seen, ledger.EditToken{
		Scopes: b.Scopes, Inherit: b.Inherit, App: b.App, Device: b.Device,
		Expires: b.ExpiresAt, ExpiresIn: b.ExpiresIn.std(), Constraints: constraints,
	})
	return a.provenToken(ctx, r, err, seen != 0, wait)
}

func (a *api) rotateToken(ctx context.Context, in *rotateInput) (*tokenOutput, error) {
	id, seen, err := a.target(in.ID, in.IfMatch)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	var grace *time.Duration
	if in.Body != nil {
		grace = in.Body.Grace.std()
	}
	r, err := a.ledger.Rotate(ctx, callerFrom(ctx), in.Key, id, seen, grace)
	return a.provenToken(ctx, r, err, seen != 0, wait)
}

func (a *api) suspendToken(ctx context.Context, in *endInput) (*tokenOutput, error) {
	return a.endToken(ctx, in, a.ledger.Suspend)
}

func (a *api) revokeToken(ctx context.Context, in *endInput) (*tokenOutput, error) {
	return a.endToken(ctx, in, a.ledger.Revoke)
}

func (a *api) endToken(ctx context.Context, in *endInput,
	end func(context.Context, ledger.Caller, string, events.TokenID, string) (ledger.TokenResult, error),
) (*tokenOutput, error) {
	id, err := events.ParseTokenID(in.ID)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := end(ctx, callerFrom(ctx), in.Key, id, in.reason())
	return a.provenToken(ctx, r, err, false, wait)
}

// provenToken is the result of a command that took something away, once that is
// in force everywhere, where the request wants to wait for that.
func (a *api) provenToken(ctx context.Context, r ledger.TokenResult, err error, ifMatch bool, wait time.Duration) (*tokenOutput, error) {
	out, err := a.tokenResult(ctx, r, err, ifMatch)
	if err == nil {
		out.Body.Receipt = a.prove(ctx, r.Position, wait, &out.Position)
	}
	return out, err
}

func (a *api) resumeToken(ctx context.Context, in *resumeInput) (*tokenOutput, error) {
	id, err := events.ParseTokenID(in.ID)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := a.ledger.Resume(ctx, callerFrom(ctx), in.Key, id)
	return a.tokenResult(ctx, r, err, false)
}

type getOutput struct {
	ETag     string `header:"ETag" doc:"the token's version"`
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     Token
}

func (a *api) getToken(ctx context.Context, in *TokenPath) (*getOutput, error) {
	id, err := events.ParseTokenID(in.ID)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	at := a.ledger.Position()
	t, err := a.ledger.GetToken(callerFrom(ctx), id)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return &getOutput{ETag: etag(t.Version), Position: uint64(at), Body: showToken(t)}, nil
}

type listTokensInput struct {
	Page
	Account  string `query:"account" maxLength:"128" doc:"id or login"`
	Site     string `query:"site" maxLength:"16" doc:"tokens that may do something on this site; short for resource=site/ID"`
	Resource string `query:"resource" maxLength:"100" doc:"type/id: tokens that may do something on it, or on all of its type" example:"site/3"`
	State    string `query:"state" enum:"active,suspended,revoked,expired"`
	Expiring string `query:"expiring" maxLength:"32" doc:"tokens that work, and end within this time" example:"14d"`
}

type tokenList struct {
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     struct {
		Items      []Token `json:"items"`
		NextCursor string  `json:"next_cursor,omitempty" doc:"for the next page; absent on the last"`
	}
}

func (a *api) listTokens(ctx context.Context, in *listTokensInput) (*tokenList, error) {
	filter := ledger.TokenFilter{Account: in.Account, Site: in.Site, Resource: in.Resource, State: in.State}
	if in.Expiring != "" {
		d, err := ParseDuration(in.Expiring)
		if err != nil || d <= 0 {
			return nil, a.fault(ctx, &ledger.FieldError{Field: "expiring", Problem: "is a time from now on, as in 14d"}, false)
		}
		filter.Expiring = d
	}
	caller := callerFrom(ctx)
	after, err := in.after("tokens", callersOwn(caller, filter))
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	at := a.ledger.Position()
	list, more, err := a.ledger.ListTokens(ctx, caller, filter, events.TokenID(after), in.Limit)
	if err != nil {
		return nil, a.fault(ctx, inQuery(err), false)
	}
	out := &tokenList{Position: uint64(at)}
	out.Body.Items = make([]Token, len(list))
	for i, t := range list {
		out.Body.Items[i] = showToken(t)
	}
	if more {
		out.Body.NextCursor = cursor("tokens", callersOwn(caller, filter), string(list[len(list)-1].ID))
	}
	return out, nil
}

// target reads the id and the precondition of a command on a token.
func (a *api) target(id, ifMatch string) (events.TokenID, ledger.Precondition, error) {
	token, err := events.ParseTokenID(id)
	if err != nil {
		return "", 0, err
	}
	seen, err := parseETag(ifMatch)
	return token, seen, err
}

func (a *api) tokenResult(ctx context.Context, r ledger.TokenResult, err error, ifMatch bool) (*tokenOutput, error) {
	if err != nil {
		return nil, a.fault(ctx, err, ifMatch)
	}
	secret := r.Secret.Reveal()
	return &tokenOutput{
		ETag: etag(r.Token.Version), Position: uint64(r.Position), Replayed: replayed(r.Replayed), Status: http.StatusOK,
		Body: tokenBody{
			Token: showToken(r.Token), Secret: secret, Position: uint64(r.Position),
			SecretShown: r.Made && secret == "",
		},
	}, nil
}

func showToken(t ledger.Token) Token {
	out := Token{
		ID: string(t.ID), Account: string(t.Account), App: t.App, Device: t.Device,
		State: string(t.State), Reason: t.Reason, StoppedBy: string(t.StoppedBy),
		Scopes: events.ScopeStrings(t.Scopes), Inherit: t.Inherit, Effective: events.ScopeStrings(t.Effective),
		ExpiresAt: instant(t.Expires), ExpiresSoon: t.EndsSoon, Constraints: showConstraints(t.Constraints),
		CreatedAt: t.Created, ChangedAt: t.Changed, RevokedAt: instant(t.Revoked), Version: uint64(t.Version),
	}
	if t.Ended != "" {
		out.State = t.Ended
	}
	if by := t.CreatedBy; by != (events.Actor{}) {
		out.CreatedBy = &Actor{Account: string(by.Account), Token: string(by.Token), Session: string(by.Session), Address: by.Address}
	}
	for _, s := range t.Secrets {
		if !s.Until.IsZero() {
			out.GraceUntil = instant(s.Until)
		}
	}
	return out
}

// readDigest reads the digest of a client's own secret, nil where there is none.
func readDigest(s string) (*events.Digest, error) {
	if s == "" {
		return nil, nil
	}
	d := new(events.Digest)
	if d.UnmarshalText([]byte(s)) != nil || *d == (events.Digest{}) {
		return nil, &ledger.FieldError{Field: "secret_digest", Problem: "is not the SHA-256 of a secret, in 64 lower-case hexadecimal digits"}
	}
	return d, nil
}

// instant returns nil for the zero time.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func replayed(yes bool) string {
	if yes {
		return "true"
	}
	return ""
}
