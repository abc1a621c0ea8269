package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Policy holds the rules for all tokens and sessions. A request and an answer
// leave out the same fields, so sending back what was read changes nothing.
type Policy struct {
	MaxLifetime     *Duration `json:"max_lifetime,omitempty" doc:"maximum lifetime of tokens that are created or extended from now on; default: no limit"`
	DefaultLifetime *Duration `json:"default_lifetime,omitempty" doc:"lifetime of a token that is created without one; default: the maximum"`
	MaxGrace        *Duration `json:"max_grace,omitempty" doc:"maximum time that the old secret stays valid after a rotation; default: it ends immediately"`
	WarnBefore      *Duration `json:"warn_before,omitempty" doc:"how long before its expiry a token counts as expiring soon; default: never"`

	Issuers       string     `json:"token_issuers,omitempty" enum:"all,site_admins,superusers" doc:"who can create, widen, rotate and resume tokens; default: all"`
	AnyAccount    bool       `json:"site_admins_any_account,omitempty" doc:"site admins can create, widen and rotate tokens of every account; default: only of accounts whose grants are all on the admin's sites. Applications behind a proxy treat the holder of such a token as that account"`
	LegacyRefused bool       `json:"legacy_refused,omitempty" doc:"refuse secrets in the format hex32"`
	LegacyUntil   *time.Time `json:"legacy_until,omitempty" doc:"refuse secrets in the format hex32 from this time on; default: never"`
	URLRefused    bool       `json:"url_refused,omitempty" doc:"refuse every token that is sent in a URL"`
	CORSOrigins   []string   `json:"cors_origins,omitempty" maxItems:"64" doc:"origins of pages whose scripts can call with a token, at the API, at verifiers and at applications behind a proxy, and read the answers; default: none" example:"[\"https://shop.example\"]"`

	TokenSignIn     bool      `json:"token_sign_in,omitempty" doc:"a token can open a session; such a session cannot re-authenticate"`
	SessionIdle     *Duration `json:"session_idle,omitempty" doc:"a session ends if it is not used for this long; default: 30m"`
	SessionLifetime *Duration `json:"session_lifetime,omitempty" doc:"maximum lifetime of a session, 30d at most; default: 12h"`
}

// PolicyInForce is the current policy with its version and cut-offs.
type PolicyInForce struct {
	Policy            Policy     `json:"policy" doc:"change it and send it back with PUT"`
	NotBefore         *time.Time `json:"tokens_not_before,omitempty" doc:"all tokens that were created before this time are revoked; see POST /v1/revocations"`
	NotBeforePosition uint64     `json:"tokens_not_before_position,omitempty" doc:"all tokens that were created at a lower position are revoked; see POST /v1/revocations"`
	Version           uint64     `json:"version" doc:"position of the last event about the policy; also its ETag"`
}

type getPolicyOutput struct {
	ETag     string `header:"ETag" doc:"the policy's version"`
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     PolicyInForce
}

type setPolicyInput struct {
	Idempotent
	Conditional
	Waiting
	Body Policy
}

type setPolicyOutput struct {
	ETag     string `header:"ETag" doc:"the policy's version"`
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Replayed string `header:"Idempotency-Replayed" doc:"true if an earlier request with the same key was carried out"`
	Body     struct {
		PolicyInForce
		Position uint64   `json:"position" doc:"position of the event in the log"`
		Receipt  *Receipt `json:"receipt,omitempty" doc:"with ?wait=: when the change took effect on every node"`
	}
}

func (a *api) policyRoutes(h huma.API) {
	op := operation("policy")
	register(a, h, op(http.MethodGet, "/v1/policy", "get-policy", "Show the policy"), a.getPolicy)
	set := op(http.MethodPut, "/v1/policy", "set-policy", "Replace the policy")
	set.Description = `Replaces the whole policy. A field that the request leaves out gets its default. ` +
		`To change one field, read the policy, change the field, and send all of it back with the ETag as If-Match.` +
		"\n\n" +
		`The new policy applies from the next check on, to existing tokens and sessions too. ` +
		`Maximum lifetimes apply only to tokens that are created or extended later.`
	register(a, h, set, a.setPolicy)
}

func (a *api) getPolicy(ctx context.Context, _ *struct{}) (*getPolicyOutput, error) {
	at := a.ledger.Position()
	p, err := a.ledger.Policy(callerFrom(ctx))
	if err != nil {
		return nil, err
	}
	return &getPolicyOutput{ETag: etag(p.Version), Position: uint64(at), Body: showPolicy(p)}, nil
}

func (a *api) setPolicy(ctx context.Context, in *setPolicyInput) (*setPolicyOutput, error) {
	seen, wait, err := parseChange(in.Conditional, in.Waiting)
	if err != nil {
		return nil, err
	}
	p, err := in.Body.parse()
	if err != nil {
		return nil, err
	}
	r, err := a.ledger.SetPolicy(ctx, callerFrom(ctx), in.Key, seen, p)
	if err != nil {
		return nil, withIfMatch(err, seen)
	}
	out := &setPolicyOutput{ETag: etag(r.Policy.Version), Position: uint64(r.Position), Replayed: replayed(r.Replayed)}
	out.Body.PolicyInForce, out.Body.Position = showPolicy(r.Policy), uint64(r.Position)
	out.Body.Receipt = a.awaitReceipt(ctx, r.Position, wait, &out.Position)
	return out, nil
}

// parse turns a policy into the ledger's.
func (p Policy) parse() (events.Policy, error) {
	out := events.Policy{
		Issuers:              events.IssuerPolicy(p.Issuers),
		LegacyRefused:        p.LegacyRefused,
		URLRefused:           p.URLRefused,
		TokenSignIn:          p.TokenSignIn,
		SiteAdminsAnyAccount: p.AnyAccount,
		CORSOrigins:          events.NewOrigins(p.CORSOrigins),
	}
	if out.Issuers == events.IssuersAll {
		out.Issuers = "" // the log has one spelling for it
	}
	for i, s := range p.CORSOrigins {
		if err := events.CheckSentOrigin(s); err != nil {
			return events.Policy{}, &ledger.FieldError{Field: fmt.Sprintf("cors_origins[%d]", i), Problem: err.Error()}
		}
	}
	for _, f := range []struct {
		name  string
		given *Duration
		into  *int64
	}{
		{"max_lifetime", p.MaxLifetime, &out.MaxLifetime},
		{"default_lifetime", p.DefaultLifetime, &out.DefaultLifetime},
		{"max_grace", p.MaxGrace, &out.MaxGrace},
		{"warn_before", p.WarnBefore, &out.WarnBefore},
		{"session_idle", p.SessionIdle, &out.SessionIdle},
		{"session_lifetime", p.SessionLifetime, &out.SessionLifetime},
	} {
		if f.given == nil {
			continue
		}
		d := *f.given.std()
		if d < 0 || d%time.Second != 0 {
			return out, fieldError(f.name, "not a duration in whole seconds; send one such as 90d, or 0")
		}
		*f.into = int64(d / time.Second)
	}
	if p.LegacyUntil != nil {
		if out.LegacyUntil = p.LegacyUntil.UTC(); out.LegacyUntil.IsZero() {
			return out, fieldError("legacy_until", "not a valid time; send one such as 2027-01-31T00:00:00Z")
		}
	}
	return out, nil
}

func showPolicy(p events.PolicyState) PolicyInForce {
	duration := func(seconds int64) *Duration {
		if seconds == 0 {
			return nil
		}
		return ptr(Duration(time.Duration(seconds) * time.Second))
	}
	out := PolicyInForce{
		Policy: Policy{
			MaxLifetime:     duration(p.MaxLifetime),
			DefaultLifetime: duration(p.DefaultLifetime),
			MaxGrace:        duration(p.MaxGrace),
			WarnBefore:      duration(p.WarnBefore),
			Issuers:         string(p.Issuers),
			LegacyRefused:   p.LegacyRefused,
			LegacyUntil:     timeOrNil(p.LegacyUntil),
			URLRefused:      p.URLRefused,
			AnyAccount:      p.SiteAdminsAnyAccount,
			TokenSignIn:     p.TokenSignIn,
			SessionIdle:     duration(p.SessionIdle),
			SessionLifetime: duration(p.SessionLifetime),
			CORSOrigins:     p.CORSOrigins.List(),
		},
		NotBefore:         timeOrNil(p.NotBefore),
		NotBeforePosition: uint64(p.TokensUntil),
		Version:           uint64(p.Version),
	}
	if out.Policy.Issuers == "" {
		out.Policy.Issuers = string(events.IssuersAll)
	}
	return out
}
