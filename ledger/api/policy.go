package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Policy is what holds for every token and every session. What is absent is as
// its field says, in a request and in an answer: what was read and is sent back
// changes nothing.
type Policy struct {
	MaxLife     *Duration `json:"max_life,omitempty" doc:"the longest that a token may live; for ever where it is absent. It is for tokens that are made or prolonged from then on"`
	DefaultLife *Duration `json:"default_life,omitempty" doc:"how long a token lives whose maker does not say; as long as max_life allows where it is absent"`
	MaxGrace    *Duration `json:"max_grace,omitempty" doc:"the longest that an old secret may live after a rotation; where it is absent the old one ends at once"`
	WarnBefore  *Duration `json:"warn_before,omitempty" doc:"how long before its end a token counts as expiring soon; never where it is absent"`

	Makers       string     `json:"token_makers,omitempty" enum:"all,site_admins,superusers" doc:"who makes, widens, rotates and resumes tokens; all where it is absent"`
	AnyAccount   bool       `json:"site_admins_any_account,omitempty" doc:"admins of a site make, widen and rotate tokens of every account; else only of accounts that have nothing beyond their sites. Applications behind a proxy take the holder of such a token for that account"`
	PlainRefused bool       `json:"plain_refused,omitempty" doc:"refuse secrets of 32 hexadecimal characters"`
	PlainUntil   *time.Time `json:"plain_until,omitempty" doc:"from when on they are refused; at no time where it is absent"`
	URLRefused   bool       `json:"url_refused,omitempty" doc:"refuse every token that travelled in a URL"`

	TokenSignIn bool      `json:"token_sign_in,omitempty" doc:"a token may begin a session, which never proves the person"`
	SessionIdle *Duration `json:"session_idle,omitempty" doc:"for how long a session may rest; 30m where it is absent"`
	SessionLife *Duration `json:"session_life,omitempty" doc:"the longest that a session may be, 30d at most; 12h where it is absent"`
}

// PolicyInForce is the policy as clients see it.
type PolicyInForce struct {
	Policy       Policy     `json:"policy" doc:"to be sent back, changed, by PUT"`
	TokensBefore *time.Time `json:"tokens_before,omitempty" doc:"every token that was created before it is revoked; see POST /v1/revocations"`
	TokensUntil  uint64     `json:"tokens_until,omitempty" doc:"every token that was created at a lower position is revoked; see POST /v1/revocations"`
	Version      uint64     `json:"version" doc:"position of the last event about the policy; its ETag"`
}

type getPolicyOutput struct {
	ETag     string `header:"ETag" doc:"the policy's version"`
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Body     PolicyInForce
}

type setPolicyInput struct {
	Keyed
	Conditional
	Waiting
	Body Policy
}

type setPolicyOutput struct {
	ETag     string `header:"ETag" doc:"the policy's version"`
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Replayed string `header:"Idempotency-Replayed" doc:"true where an earlier request with the same key did it"`
	Body     struct {
		PolicyInForce
		Position uint64   `json:"position" doc:"of the event in the log"`
		Receipt  *Receipt `json:"receipt,omitempty" doc:"where the request waited: since when the change is in force on every node"`
	}
}

func (a *api) policyRoutes(h huma.API) {
	op := operation("policy")
	huma.Register(h, op(http.MethodGet, "/v1/policy", "get-policy", "Show the policy", http.StatusOK), a.getPolicy)
	set := op(http.MethodPut, "/v1/policy", "set-policy", "Replace the policy", http.StatusOK)
	set.Description = `Replaces all of the policy: what the request leaves out is as if it had never been set. To change one part, read the policy, change that, and send all of it with the ETag as If-Match.

What the new policy refuses is refused at the next check, of tokens and sessions that exist too. Longest lives are for what is made from then on.`
	huma.Register(h, set, a.setPolicy)
}

func (a *api) getPolicy(ctx context.Context, _ *struct{}) (*getPolicyOutput, error) {
	at := a.ledger.Position()
	p, err := a.ledger.Policy(callerFrom(ctx))
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return &getPolicyOutput{ETag: etag(p.Version), Position: uint64(at), Body: showPolicy(p)}, nil
}

func (a *api) setPolicy(ctx context.Context, in *setPolicyInput) (*setPolicyOutput, error) {
	seen, err := parseETag(in.IfMatch)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	p, err := in.Body.read()
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	r, err := a.ledger.SetPolicy(ctx, callerFrom(ctx), in.Key, seen, p)
	if err != nil {
		return nil, a.fault(ctx, err, seen != 0)
	}
	out := &setPolicyOutput{ETag: etag(r.Policy.Version), Position: uint64(r.Position), Replayed: replayed(r.Replayed)}
	out.Body.PolicyInForce, out.Body.Position = showPolicy(r.Policy), uint64(r.Position)
	out.Body.Receipt = a.prove(ctx, r.Position, wait, &out.Position)
	return out, nil
}

// read turns a policy into the ledger's.
func (p Policy) read() (events.Policy, error) {
	out := events.Policy{
		Makers: events.Makers(p.Makers), PlainRefused: p.PlainRefused, URLRefused: p.URLRefused, TokenSignIn: p.TokenSignIn,
		SiteAdminsAnyAccount: p.AnyAccount,
	}
	if out.Makers == events.MakersAll {
		out.Makers = "" // the same, of which the log has one spelling
	}
	for _, f := range []struct {
		name  string
		given *Duration
		into  *int64
	}{
		{"max_life", p.MaxLife, &out.MaxLife},
		{"default_life", p.DefaultLife, &out.DefaultLife},
		{"max_grace", p.MaxGrace, &out.MaxGrace},
		{"warn_before", p.WarnBefore, &out.WarnBefore},
		{"session_idle", p.SessionIdle, &out.SessionIdle},
		{"session_life", p.SessionLife, &out.SessionLife},
	} {
		if f.given == nil {
			continue
		}
		d := *f.given.std()
		if d < 0 || d%time.Second != 0 {
			return out, &ledger.FieldError{Field: f.name, Problem: "is not a length of time in whole seconds"}
		}
		*f.into = int64(d / time.Second)
	}
	if p.PlainUntil != nil {
		if out.PlainUntil = p.PlainUntil.UTC(); out.PlainUntil.IsZero() {
			return out, &ledger.FieldError{Field: "plain_until", Problem: "is not a time in this era"}
		}
	}
	return out, nil
}

func showPolicy(p events.PolicyState) PolicyInForce {
	length := func(seconds int64) *Duration {
		if seconds == 0 {
			return nil
		}
		return ptr(Duration(time.Duration(seconds) * time.Second))
	}
	out := PolicyInForce{
		Policy: Policy{
			MaxLife: length(p.MaxLife), DefaultLife: length(p.DefaultLife), MaxGrace: length(p.MaxGrace), WarnBefore: length(p.WarnBefore),
			Makers: string(p.Makers), PlainRefused: p.PlainRefused, PlainUntil: instant(p.PlainUntil), URLRefused: p.URLRefused,
			AnyAccount: p.SiteAdminsAnyAccount, TokenSignIn: p.TokenSignIn, SessionIdle: length(p.SessionIdle), SessionLife: length(p.SessionLife),
		},
		TokensBefore: instant(p.TokensBefore), TokensUntil: uint64(p.TokensUntil), Version: uint64(p.Version),
	}
	if out.Policy.Makers == "" {
		out.Policy.Makers = string(events.MakersAll)
	}
	return out
}
