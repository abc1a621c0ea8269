package matomo

import (
	"context"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier"
)

// Checker answers whether a secret allows what a request needs.
type Checker interface {
	// Check checks a secret. The finding is confirmed: it may be acted on now.
	Check(ctx context.Context, secret string, r *verifier.Request) Finding
}

// Finding is the outcome of a check.
type Finding struct {
	// Reason is the exact reason, or the one that a client may see if the checker
	// knows no more: then Vague is true, and Unknown stands for every reason that
	// clients see as invalid_token.
	Reason  verifier.Reason
	Vague   bool
	Lacking string // needed scope that is missing, for Reason Scope
	// Scopes are the token's effective scopes, none if the check was denied.
	Scopes []events.Scope
	// Inherit says that the token has all scopes of its account, and Imported that
	// Matomo knows the secret too.
	Inherit, Imported bool
	Retry             time.Duration // for Reason RateLimited
	Expires           time.Time     // set if the client has to be warned
	// Still reports right before the secret is used whether it is still allowed.
	Still func() bool
}

// OK reports whether the check was allowed.
func (f *Finding) OK() bool { return f.Reason == verifier.Allowed }

// foreign reports whether the ledger has never had the secret.
func (f *Finding) foreign() bool {
	return !f.Vague && (f.Reason == verifier.Unknown || f.Reason == verifier.Malformed)
}

// whole reports whether Matomo applies the rights of the token's account by itself.
func (f *Finding) whole() bool { return f.Imported && f.Inherit }

// Local is the verifier of the same process.
type Local struct{ Verifier *verifier.Verifier }

// Check implements [Checker].
func (l Local) Check(_ context.Context, secret string, r *verifier.Request) Finding {
	v := l.Verifier
	d := v.Check(secret, *r)
	for tries := 0; !v.Confirm(&d); tries++ {
		if tries == verifier.MaxRechecks {
			return Finding{Reason: verifier.Unavailable}
		}
		v.Recheck(&d, secret, *r)
	}
	f := Finding{
		Reason: d.Reason, Scopes: d.Scopes(), Inherit: d.Inherit, Imported: d.OK() && d.Imported(), Retry: d.Retry,
	}
	if d.Reason == verifier.Scope {
		f.Lacking = d.Lacking.String()
	}
	if d.OK() && d.Warn {
		f.Expires = d.Expires
	}
	f.Still = func() bool { return v.Still(secret, *r) == verifier.Allowed }
	return f
}

// isHex32 reports whether a secret has the form of Matomo's.
func isHex32(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
