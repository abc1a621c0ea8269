package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// Token is a token as clients see it, without its secret.
type Token struct {
	ID          string       `json:"id" example:"tok_01jd3qk8z5n0v7m2x4c6b8a9ef"`
	Account     string       `json:"account" doc:"id of the token's account"`
	Login       string       `json:"login,omitempty" doc:"login of the token's account, if the caller may see it; not in answers to commands"`
	App         string       `json:"app,omitempty" doc:"label: the application that uses the token"`
	Device      string       `json:"device,omitempty" doc:"label: the device that has the token"`
	State       string       `json:"state" enum:"active,suspended,revoked,expired,account suspended,no scopes,secret refused" doc:"active only if the token can do something now; no scopes: its account has none of its scopes any more; secret refused: the policy refuses the format of its secret"`
	Reason      string       `json:"reason,omitempty" doc:"of the suspension or revocation"`
	StoppedBy   string       `json:"stopped_by,omitempty" doc:"id of the account that suspended the token, while it is suspended"`
	Scopes      []string     `json:"scopes" doc:"the token's own scopes"`
	Inherit     bool         `json:"inherit" doc:"the token has all grants of its account"`
	Effective   []string     `json:"effective_scopes" doc:"what the token can do now: its scopes, limited to its account's grants"`
	ExpiresAt   *time.Time   `json:"expires_at,omitempty"`
	ExpiresSoon bool         `json:"expires_soon,omitempty" doc:"the token is active and expires within the policy's warn_before"`
	Constraints *Constraints `json:"constraints,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	CreatedBy   *Actor       `json:"created_by,omitempty"`
	ChangedAt   time.Time    `json:"changed_at"`
	RevokedAt   *time.Time   `json:"revoked_at,omitempty"`
	GraceUntil  *time.Time   `json:"grace_until,omitempty" doc:"when the secret from before the last rotation expires"`
	Import      *Import      `json:"import,omitempty" doc:"where the token was imported from; absent if the ledger created it"`
	// Earlier lists what GraceUntil is about.
	Earlier []EarlierSecret `json:"earlier_secrets,omitempty" doc:"secrets from before the last rotation that are still valid"`
	Version uint64          `json:"version" doc:"position of the last event about the token; also its ETag"`
}

// Import says where a token comes from, and what was known of it there.
type Import struct {
	Source    string     `json:"source" doc:"name of the installation"`
	CreatedAt *time.Time `json:"created_at,omitempty" doc:"in Matomo"`
	LastUsed  *time.Time `json:"last_used,omitempty" doc:"in Matomo, as of the last import"`
	Migrated  bool       `json:"migrated,omitempty" doc:"Matomo 4 made it of the one token that a user had before; it may follow from an old password: rotate it"`
	Scheme    string     `json:"digest_scheme,omitempty" enum:"matomo-sha512" doc:"digest of the current secret; absent if it is the ledger's own, as after a rotation"`
}

// EarlierSecret is a secret that a rotation has replaced and that is still valid.
type EarlierSecret struct {
	CreatedAt  time.Time `json:"created_at"`
	ValidUntil time.Time `json:"valid_until"`
}

// Actor identifies who did something.
type Actor struct {
	Account string `json:"account,omitempty" doc:"id of the account"`
	Token   string `json:"token,omitempty" doc:"id of the token, if one was used"`
	Session string `json:"session,omitempty" doc:"id of the session, if a person was signed in"`
	Address string `json:"address,omitempty" doc:"IP address of the client"`
}

// tokenBody is the answer to a command.
type tokenBody struct {
	Token    Token  `json:"token"`
	Secret   string `json:"secret,omitempty" doc:"shown only here"`
	Position uint64 `json:"position" doc:"position of the event in the log"`
	// SecretShown is in the answer to a retry that came too late.
	SecretShown bool `json:"secret_already_shown,omitempty" doc:"an earlier request with this key was answered with the secret, and the ledger no longer knows it; rotate the token to get a new one"`
	// Receipt is present if the request waited.
	Receipt *Receipt `json:"receipt,omitempty" doc:"with ?wait=: when the change took effect on every node"`
}

type tokenOutput struct {
	ETag     string `header:"ETag" doc:"the token's version"`
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Replayed string `header:"Idempotency-Replayed" doc:"true if an earlier request with the same key was carried out"`
	Status   int
	Body     tokenBody
}

// TokenPath, like the parts of requests below, is exported because huma reads
// exported embedded structs only.
type TokenPath struct {
	ID string `path:"id" maxLength:"64" doc:"the token's id"`
}

// Idempotent is the part of a request that changes something.
type Idempotent struct {
	Key string `header:"Idempotency-Key" maxLength:"255" doc:"identifies the request: if it is sent again with the same key, it is carried out once"`
}

// Conditional is the part of a request that may depend on a version.
type Conditional struct {
	IfMatch string `header:"If-Match" maxLength:"64" doc:"ETag of the version to change; 412 if the resource has another version"`
}

// Waiting is the part of a request that takes rights away.
type Waiting struct {
	Wait string `query:"wait" maxLength:"32" doc:"wait up to this long until the change is in force on every node; two minutes at most" example:"45s"`
}

// EmptyBody is the body of a request that has no fields. It may be left out.
type EmptyBody struct{}

// ReasonBody is the body of a request that may state a reason.
type ReasonBody struct {
	Reason string `json:"reason,omitempty" maxLength:"100" doc:"why; do not name people, because the log keeps it forever"`
}

// text returns the reason, empty if there is no body.
func (b *ReasonBody) text() string {
	if b == nil {
		return ""
	}
	return b.Reason
}

type createTokenInput struct {
	Idempotent
	Body struct {
		Account     string       `json:"account,omitempty" minLength:"1" maxLength:"128" doc:"id or login; default: the caller's account"`
		App         string       `json:"app,omitempty" maxLength:"100" doc:"label: the application that uses the token, such as \"mobile app\""`
		Device      string       `json:"device,omitempty" maxLength:"100" doc:"label: the device that has the token, such as \"phone\"; do not name people, because the log keeps it forever"`
		Scopes      []string     `json:"scopes,omitempty" maxItems:"2000" doc:"what the token can do, such as view:site/3; required without inherit"`
		Inherit     bool         `json:"inherit,omitempty" doc:"give the token all grants that its account has, now and later; not together with scopes"`
		ExpiresIn   *Duration    `json:"expires_in,omitempty" doc:"lifetime; default: as the policy says"`
		ExpiresAt   *time.Time   `json:"expires_at,omitempty" doc:"when it expires; not together with expires_in"`
		Constraints *Constraints `json:"constraints,omitempty"`
		Format      string       `json:"format,omitempty" enum:"standard,hex32,matomo" doc:"format of the secret; hex32, or matomo: 32 hexadecimal characters, as Matomo makes them, for clients that accept no other"`
		Digest      string       `json:"secret_digest,omitempty" minLength:"64" maxLength:"64" pattern:"^[0-9a-f]{64}$" doc:"SHA-256 of a secret that the client has generated, in lower-case hexadecimal"`
	}
}

type editTokenInput struct {
	TokenPath
	Idempotent
	Conditional
	Waiting
	Body struct {
		Scopes      *[]string    `json:"scopes,omitempty" maxItems:"2000" doc:"replaces all scopes"`
		Inherit     *bool        `json:"inherit,omitempty"`
		App         *string      `json:"app,omitempty" maxLength:"100"`
		Device      *string      `json:"device,omitempty" maxLength:"100"`
		ExpiresAt   *time.Time   `json:"expires_at,omitempty"`
		ExpiresIn   *Duration    `json:"expires_in,omitempty" doc:"from now on; not together with expires_at"`
		Constraints *Constraints `json:"constraints,omitempty" doc:"replaces all constraints"`
	}
}

type rotateTokenInput struct {
	TokenPath
	Idempotent
	Conditional
	Waiting
	Body *struct {
		Grace      *Duration `json:"grace,omitempty" doc:"how long the old secret stays valid; default: one hour, or the policy's max_grace if that is less"`
		EndEarlier bool      `json:"end_earlier,omitempty" doc:"also end the secret from before the last rotation, if it is still valid; otherwise 409 secret_in_grace"`
	}
}

type endTokenInput struct {
	TokenPath
	Idempotent
	Conditional
	Waiting
	Body *ReasonBody
}

type resumeTokenInput struct {
	TokenPath
	Idempotent
	Conditional
	Body *EmptyBody
}

func (a *api) tokenRoutes(h huma.API) {
	op := operation("tokens")
	create := op(http.MethodPost, "/v1/tokens", "create-token", "Create a token")
	create.DefaultStatus, create.Description = http.StatusCreated, createTokenDescription
	register(a, h, create, a.createToken)
	register(a, h, op(http.MethodGet, "/v1/tokens", "list-tokens", "List tokens"), a.listTokens)
	register(a, h, op(http.MethodGet, "/v1/tokens/{id}", "get-token", "Show a token"), a.getToken)
	register(
		a,
		h,
		op(http.MethodPatch, "/v1/tokens/{id}", "edit-token", "Change a token's scopes, labels, expiry or constraints"),
		a.editToken,
	)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/tokens/{id}/rotate", "rotate-token", "Replace a token's secret"),
		a.rotateToken,
	)
	register(a, h, op(http.MethodPost, "/v1/tokens/{id}/suspend", "suspend-token", "Suspend a token"), a.suspendToken)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/tokens/{id}/resume", "resume-token", "Resume a suspended token"),
		a.resumeToken,
	)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/tokens/{id}/revoke", "revoke-token", "Revoke a token permanently"),
		a.revokeToken,
	)
}

const createTokenDescription = `Creates a token. The answer shows its secret once.` +
	"\n\n" +
	`A client that must not lose the secret can generate it, store it, and send its SHA-256 as secret_digest. ` +
	`The answer then has no secret. ` +
	`The ledger never sees such a secret, so draw its characters from a cryptographic random source. ` +
	`Every check verifies the secret's format, and a secret in another format never works. The format is:

- a prefix: tlu_ for a user, tls_ for a service account (or the ledger's configured stem, followed by u_ or s_)
- 32 random characters of 0-9, A-Z and a-z
- a checksum of 6 characters: the CRC-32 (IEEE) of everything before it, ` +
	`written in base 62 with the digits 0-9, A-Z, a-z in this order, padded with 0 on the left

The digest is of the whole secret.`

// secretFormats maps the format in a request to the format in the event.
var secretFormats = map[string]events.SecretFormat{"hex32": events.FormatHex32, "matomo": events.FormatHex32}

func (a *api) createToken(ctx context.Context, in *createTokenInput) (*tokenOutput, error) {
	b := in.Body
	constraints, err := b.Constraints.parse()
	if err != nil {
		return nil, err
	}
	digest, err := parseDigest(b.Digest)
	if err != nil {
		return nil, err
	}
	r, err := a.ledger.Create(ctx, callerFrom(ctx), in.Key, ledger.CreateToken{
		Account: b.Account, App: b.App, Device: b.Device, Scopes: b.Scopes, Inherit: b.Inherit,
		ExpiresIn: b.ExpiresIn.std(), Expires: b.ExpiresAt, Constraints: constraints,
		Format: secretFormats[b.Format], SecretDigest: digest,
	})
	if err != nil {
		return nil, err
	}
	out := showTokenResult(r)
	if !r.Replayed {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (a *api) editToken(ctx context.Context, in *editTokenInput) (*tokenOutput, error) {
	id, seen, wait, err := parseTokenChange(in.TokenPath, in.Conditional, in.Waiting)
	if err != nil {
		return nil, err
	}
	b := in.Body
	constraints, err := b.Constraints.parse()
	if err != nil {
		return nil, err
	}
	r, err := a.ledger.Edit(ctx, callerFrom(ctx), in.Key, id, seen, ledger.EditToken{
		Scopes: b.Scopes, Inherit: b.Inherit, App: b.App, Device: b.Device,
		Expires: b.ExpiresAt, ExpiresIn: b.ExpiresIn.std(), Constraints: constraints,
	})
	if err != nil {
		return nil, withIfMatch(err, seen)
	}
	return a.awaitToken(ctx, r, wait), nil
}

func (a *api) rotateToken(ctx context.Context, in *rotateTokenInput) (*tokenOutput, error) {
	id, seen, wait, err := parseTokenChange(in.TokenPath, in.Conditional, in.Waiting)
	if err != nil {
		return nil, err
	}
	var asked ledger.RotateToken
	if in.Body != nil {
		asked = ledger.RotateToken{Grace: in.Body.Grace.std(), EndEarlier: in.Body.EndEarlier}
	}
	r, err := a.ledger.Rotate(ctx, callerFrom(ctx), in.Key, id, seen, asked)
	if err != nil {
		return nil, withIfMatch(err, seen)
	}
	return a.awaitToken(ctx, r, wait), nil
}

func (a *api) suspendToken(ctx context.Context, in *endTokenInput) (*tokenOutput, error) {
	return a.endToken(ctx, in, a.ledger.Suspend)
}

func (a *api) revokeToken(ctx context.Context, in *endTokenInput) (*tokenOutput, error) {
	return a.endToken(ctx, in, a.ledger.Revoke)
}

// endCommand is [ledger.Ledger.Suspend] or [ledger.Ledger.Revoke].
type endCommand func(
	context.Context, authz.Principal, string, events.TokenID, ledger.Precondition, string,
) (ledger.TokenResult, error)

func (a *api) endToken(ctx context.Context, in *endTokenInput, end endCommand) (*tokenOutput, error) {
	id, seen, wait, err := parseTokenChange(in.TokenPath, in.Conditional, in.Waiting)
	if err != nil {
		return nil, err
	}
	r, err := end(ctx, callerFrom(ctx), in.Key, id, seen, in.Body.text())
	if err != nil {
		return nil, withIfMatch(err, seen)
	}
	return a.awaitToken(ctx, r, wait), nil
}

func (a *api) resumeToken(ctx context.Context, in *resumeTokenInput) (*tokenOutput, error) {
	id, seen, _, err := parseTokenChange(in.TokenPath, in.Conditional, Waiting{})
	if err != nil {
		return nil, err
	}
	r, err := a.ledger.Resume(ctx, callerFrom(ctx), in.Key, id, seen)
	if err != nil {
		return nil, withIfMatch(err, seen)
	}
	return showTokenResult(r), nil
}

type getTokenOutput struct {
	ETag     string `header:"ETag" doc:"the token's version"`
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     Token
}

func (a *api) getToken(ctx context.Context, in *TokenPath) (*getTokenOutput, error) {
	id, err := events.ParseTokenID(in.ID)
	if err != nil {
		return nil, err
	}
	at := a.ledger.Position()
	t, err := a.ledger.GetToken(callerFrom(ctx), id)
	if err != nil {
		return nil, err
	}
	a.ledger.AddLogins(ctx, callerFrom(ctx), &t)
	return &getTokenOutput{ETag: etag(t.Version), Position: uint64(at), Body: showToken(t)}, nil
}

type listTokensInput struct {
	Page
	ImportFilter
	Account  string `query:"account" maxLength:"128" doc:"tokens of this account: id or login"`
	Site     string `query:"site" maxLength:"16" doc:"tokens that can do something on this site; short for resource=site/ID"`
	Resource string `query:"resource" maxLength:"100" doc:"tokens that can do something on this resource (type/id), or on all resources of its type" example:"site/3"`
	State    string `query:"state" enum:"active,suspended,revoked,expired,account suspended,no scopes,secret refused"`
	Expiring string `query:"expiring" maxLength:"32" doc:"active tokens that expire within this time" example:"14d"`
	App      string `query:"app" maxLength:"100" doc:"tokens with this app label"`
	Device   string `query:"device" maxLength:"100" doc:"tokens with this device label"`
	Owner    string `query:"owner" maxLength:"128" doc:"tokens of the accounts that this user owns: id or login"`
	Prefix   string `query:"prefix" maxLength:"30" doc:"tokens whose id begins so: tok_ and at least 4 characters" example:"tok_01jd3qk8"`
	Ended    bool   `query:"ended" default:"true" doc:"false: leave out tokens that are revoked or expired"`
}

type listTokensOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     struct {
		Items      []Token `json:"items"`
		NextCursor string  `json:"next_cursor,omitempty" doc:"cursor of the next page; absent on the last page"`
	}
}

func (a *api) listTokens(ctx context.Context, in *listTokensInput) (*listTokensOutput, error) {
	filter := ledger.TokenFilter{
		Account: in.Account, Site: in.Site, Resource: in.Resource, State: in.State,
		App: in.App, Device: in.Device, Owner: in.Owner, Prefix: in.Prefix, Unended: !in.Ended,
	}
	if in.Expiring != "" {
		d, err := ParseDuration(in.Expiring)
		if err != nil || d <= 0 {
			return nil, fieldError("expiring", "not a positive duration; send one such as 14d")
		}
		filter.Expiring = d
	}
	var err error
	if filter.Import, err = in.ImportFilter.parse(); err != nil {
		return nil, err
	}
	caller := callerFrom(ctx)
	after, err := in.decodeCursor("tokens", perCaller(caller, filter))
	if err != nil {
		return nil, err
	}
	at := a.ledger.Position()
	list, more, err := a.ledger.ListTokens(ctx, caller, filter, events.TokenID(after), in.Limit)
	if err != nil {
		return nil, locatedAt(accountInQuery, err)
	}
	const others = 1 << 10 // of an item, beside its scopes
	size := func(t ledger.Token) int { return others + textBytes(t.Scopes, t.Effective) }
	if n := fitting(list, size); n < len(list) {
		list, more = list[:n], true
	}
	out := &listTokensOutput{Position: uint64(at)}
	out.Body.Items = make([]Token, len(list))
	shown := make([]*ledger.Token, len(list))
	for i := range list {
		shown[i] = &list[i]
	}
	a.ledger.AddLogins(ctx, caller, shown...)
	for i, t := range list {
		out.Body.Items[i] = showToken(t)
	}
	if more {
		out.Body.NextCursor = encodeCursor("tokens", perCaller(caller, filter), string(list[len(list)-1].ID))
	}
	return out, nil
}

// parseTokenChange parses the parts of a command that changes a token. The
// precondition is 0 if the request has none.
func parseTokenChange(p TokenPath, c Conditional, w Waiting) (
	id events.TokenID, seen ledger.Precondition, wait time.Duration, err error,
) {
	if id, err = events.ParseTokenID(p.ID); err != nil {
		return "", 0, 0, err
	}
	if seen, err = parseIfMatch(c.IfMatch); err != nil {
		return "", 0, 0, err
	}
	wait, err = parseWait(w.Wait)
	return id, seen, wait, err
}

// awaitToken returns the result of a command that took rights away. If the
// request asks for that, it first waits until the change is in force everywhere.
func (a *api) awaitToken(ctx context.Context, r ledger.TokenResult, wait time.Duration) *tokenOutput {
	out := showTokenResult(r)
	out.Body.Receipt = a.awaitReceipt(ctx, r.Position, wait, &out.Position)
	return out
}

func showTokenResult(r ledger.TokenResult) *tokenOutput {
	secret := r.Secret.Reveal()
	return &tokenOutput{
		ETag: etag(
			r.Token.Version,
		), Position: uint64(r.Position), Replayed: replayed(r.Replayed), Status: http.StatusOK,
		Body: tokenBody{
			Token: showToken(r.Token), Secret: secret, Position: uint64(r.Position),
			SecretShown: r.Made && secret == "",
		},
	}
}

func showToken(t ledger.Token) Token {
	out := Token{
		ID: string(t.ID), Account: string(t.Account), Login: t.Login, App: t.App, Device: t.Device,
		State: string(t.State), Reason: t.Reason, StoppedBy: string(t.StoppedBy),
		Scopes: events.ScopeStrings(t.Scopes), Inherit: t.Inherit, Effective: events.ScopeStrings(t.Effective),
		ExpiresAt: timeOrNil(t.Expires), ExpiresSoon: t.EndsSoon, Constraints: showConstraints(t.Constraints),
		CreatedAt: t.Created, ChangedAt: t.Changed, RevokedAt: timeOrNil(t.Revoked), Version: uint64(t.Version),
	}
	if t.Ended != "" {
		out.State = t.Ended
	}
	if by := t.CreatedBy; by != (events.Actor{}) {
		out.CreatedBy = &Actor{
			Account: string(by.Account), Token: string(by.Token), Session: string(by.Session), Address: by.Address,
		}
	}
	for _, s := range t.Secrets {
		if !s.Until.IsZero() {
			out.GraceUntil = timeOrNil(s.Until)
		}
	}
	if i := t.Import; i != nil {
		out.Import = &Import{
			Source: i.Source, CreatedAt: timeOrNil(i.Created), LastUsed: timeOrNil(i.LastUsed), Migrated: i.Migrated,
		}
		if len(t.Secrets) > 0 {
			out.Import.Scheme = t.Secrets[0].Scheme
		}
	}
	for _, s := range t.InGrace {
		out.Earlier = append(out.Earlier, EarlierSecret{CreatedAt: s.Since, ValidUntil: s.Until})
	}
	return out
}

// parseDigest parses the digest of a client's own secret, nil if there is none.
func parseDigest(s string) (*events.Digest, error) {
	if s == "" {
		return nil, nil
	}
	d := new(events.Digest)
	if d.UnmarshalText([]byte(s)) != nil || *d == (events.Digest{}) {
		return nil, fieldError("secret_digest", "not the SHA-256 of a secret; send 64 lower-case hexadecimal digits")
	}
	return d, nil
}

// timeOrNil returns nil for the zero time.
func timeOrNil(t time.Time) *time.Time {
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

// fieldError reports a field of the request that is not valid, and why.
func fieldError(field, problem string) error {
	return &ledger.FieldError{Field: field, Problem: problem}
}
