package verifier

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// Reason is why a check ended as it did, exactly.
type Reason uint8

// The reasons.
const (
	Allowed          Reason = iota
	Unavailable             // there is no lease, or the index cannot be read
	Malformed               // not a secret: prefix, length, characters or checksum
	Unknown                 // no token has this secret
	Expired                 // the token is past its end
	Suspended               // the token is suspended
	Revoked                 // the token is revoked, alone or with others
	Superseded              // the secret was rotated away, and its grace is over
	AccountSuspended        // the token's account is suspended
	AccountErased           // the token's account is gone
	WrongAddress            // the client is not in a network that the token is for
	WrongOrigin             // the page is not one that the token is for
	WrongMethod             // the HTTP method is not one that the token is for
	WrongAudience           // the policy is not one that the token is for
	InURL                   // the token travelled in a URL and must not
	Scope                   // the token or its account lacks a scope that is needed
	PlainRefused            // the policy does not take secrets without prefix and checksum any more
	RateLimited             // the token has had its requests for now
	reasons
)

var reasonNames = [reasons]string{
	"allowed", "unavailable", "malformed", "unknown", "expired", "suspended", "revoked", "superseded",
	"account_suspended", "account_erased",
	"wrong_address", "wrong_origin", "wrong_method", "wrong_audience", "in_url", "insufficient_scope",
	"plain_refused", "rate_limited",
}

// String returns the reason's name, as logs and metrics have it.
func (r Reason) String() string { return reasonNames[r] }

// Public returns what a client may be told. That a token exists, or did, is not
// told.
func (r Reason) Public() string {
	switch r {
	case Allowed, Unavailable, Scope, RateLimited:
		return r.String()
	}
	return "invalid_token"
}

// Request is what a check is about. What is empty is not known; a constraint
// that needs it then denies.
type Request struct {
	Need     []events.Scope // all of them; none asks only for a good token
	Address  netip.Addr     // of the client
	Origin   string         // of the page, as in https://example.org
	Method   string         // of the HTTP request
	Audience string         // name of the policy that asks
	InURL    bool           // the secret was in the URL
}

// Decision is the answer to a check.
type Decision struct {
	Reason   Reason
	Position events.Position // that it rests on
	App      string          // label of the token
	// Lacking is the first scope that was needed and is not there.
	Lacking events.Scope
	// Inherit says that the token has all that its account has.
	Inherit bool
	// Constraints are the token's, nil for none. They are not to be changed.
	Constraints *events.Constraints
	// Expires is when the token ends, zero if never.
	Expires time.Time
	// Warn says that the end is so near that the client is to be told.
	Warn bool
	// Retry is after how long a request is let through again, where the token
	// has had its requests for now.
	Retry time.Duration
	// Stale says that the lease was over, and Age for how long: what is needed
	// may be answered for all the same. See [Config.Stale].
	Stale bool
	Age   time.Duration

	// What Token, Account and Scopes are made of, once somebody asks.
	token   [16]byte
	account *events.Account  // nil where no token was found
	scopes  *events.ScopeSet // the token's own, as Inherit says
	granted *events.ScopeSet // its account's
	model   *events.Model
}

// Token returns the token's id, empty where none was found. It, and the account,
// are for the node's own log where the check was not allowed.
func (d *Decision) Token() events.TokenID {
	if d.account == nil {
		return ""
	}
	return events.TokenIDFrom(d.token)
}

// Account returns the token's account, empty where no token was found.
func (d *Decision) Account() events.AccountID {
	if d.account == nil {
		return ""
	}
	return d.account.ID
}

// Scopes returns the token's effective scopes, none where it was not allowed.
// They are not to be changed.
func (d *Decision) Scopes() []events.Scope {
	switch {
	case !d.OK() || d.granted == nil:
		return nil
	case d.Inherit:
		return d.granted.List()
	}
	return d.scopes.Meet(d.model, d.granted)
}

// OK reports whether the check was allowed.
func (d Decision) OK() bool { return d.Reason == Allowed }

// complain logs why the index cannot be read: once a second, since every check
// finds the same.
func (v *Verifier) complain(err error) {
	now := time.Now().Unix()
	if said := v.said.Load(); said != now && v.said.CompareAndSwap(said, now) {
		v.cfg.Logger.Error("index cannot be read; denying", "err", err)
	}
}

// Check decides whether a secret is good for what the request needs. It
// allocates nothing where the token has no rate and is resident.
func (v *Verifier) Check(secret string, r Request) (d Decision) {
	digest, ok := v.cfg.Format.DigestOf(secret)
	if !ok { // garbage is to cost least
		v.counts[Malformed].Add(1)
		d.Reason = Malformed
		return d
	}
	v.decide(digest, len(secret) == plainLength, &r, &d)
	// Last, and once: what is refused for another reason is not counted.
	if d.OK() && d.Constraints != nil && d.Constraints.Rate > 0 {
		if d.Retry, ok = v.rates.take(d.token, d.Constraints.Rate, v.cfg.Now); !ok {
			d.Reason = RateLimited
		}
	}
	v.counts[d.Reason].Add(1)
	if d.Stale {
		v.stale.Add(1)
	}
	return d
}

func (v *Verifier) decide(digest events.Digest, plain bool, r *Request, d *Decision) {
	const most = 16
	for try := 1; ; try++ {
		found, err := v.cfg.Index.Find(digest)
		// From here on nothing is asked of the index. A lease that runs out while
		// this is decided says nothing; one that was over before and is in force
		// now was renewed in between, and the position says whether what was found
		// is good for the new one.
		now, inForce := v.cfg.Lease.InForce()
		d.Position = found.Position
		switch {
		case err == nil:
			v.judge(&found, plain, now, r, d)
		case err == events.ErrNotFound || errors.Is(err, events.ErrNotFound): // the first is quick
			d.Reason = Unknown
		default:
			if inForce { // else it is no news, as when the node starts
				v.complain(err)
			}
			d.Reason, d.Position = Unavailable, v.cfg.Index.Position()
		}
		if d.Reason == Unavailable || inForce && d.Position >= v.cfg.Lease.Least() {
			return
		}
		left, past := v.cfg.Lease.Left(), v.past(r)
		behind := d.Position < v.cfg.Lease.Least()
		switch {
		case left <= -past, behind && (try == most || v.cfg.Index.Position() <= d.Position):
			d.Reason = Unavailable
		case behind:
			*d = Decision{}
			continue // the index went on meanwhile, and a newer lease is for that
		case left <= 0:
			d.Stale, d.Age = true, -left
		}
		return
	}
}

// past returns for how long after the lease's end the request may be answered,
// zero where it may not.
func (v *Verifier) past(r *Request) time.Duration {
	if len(v.cfg.Stale) == 0 || len(r.Need) == 0 {
		return 0
	}
	least := mostStale
	for _, need := range r.Need {
		least = min(least, v.cfg.Stale[need.Permission])
	}
	return least
}

// plainLength is that of secrets without prefix and checksum. That a token's
// secret is one is not always in the log: a client may have made it.
const plainLength = 32

// judge decides by what was found. The time of day is now where the lease told
// it, which is more than 0.
func (v *Verifier) judge(f *projector.Found, plain bool, now int64, r *Request, d *Decision) {
	d.account, d.App, d.token = f.Account.Account, f.App, f.Token
	d.Expires = projector.TimeOf(f.Expires)
	plain = plain || f.Plain()
	// A clock costs as much as the search.
	if (now == 0 || v.ownClock) && (f.Expires != 0 || f.Until != 0 || plain) {
		now = resident.Instant(v.cfg.Now())
	}
	if d.Reason = state(f, plain, now); d.Reason != Allowed {
		return
	}
	if f.Policy.URLRefused && r.InURL {
		d.Reason = InURL
		return
	}
	if d.Reason = constrained(f.Constraints, r); d.Reason != Allowed {
		return
	}
	d.Inherit, d.Constraints = f.Inherit(), f.Constraints
	d.scopes, d.granted, d.model = f.Scopes, f.Account.Granted, v.cfg.Model
	for i := range r.Need {
		need := d.model.Ask(&r.Need[i])
		if !d.granted.Covers(&need) || !d.Inherit && !d.scopes.Covers(&need) {
			d.Reason, d.Lacking = Scope, r.Need[i]
			return
		}
	}
	d.Warn = f.Policy.WarnBefore > 0 && f.Expires != 0 && f.Expires-now <= f.Policy.WarnBefore*int64(time.Second)
}

// state returns why a secret is not accepted whatever it is for, Allowed where
// it is.
func state(f *projector.Found, plain bool, now int64) Reason {
	switch {
	case f.Is(projector.SecretRevoked), f.CreatedIn < f.Account.Until, f.CreatedIn < f.Policy.TokensUntil,
		f.Created < f.Account.Before, f.Created < f.Policy.Before:
		return Revoked
	case !f.Account.Good && f.Account.Erased:
		return AccountErased
	case past(f.Expires, now):
		return Expired
	case f.Is(projector.SecretSuperseded), past(f.Until, now):
		return Superseded
	case f.Is(projector.SecretSuspended):
		return Suspended
	case !f.Account.Good:
		return AccountSuspended
	case plain && f.Policy.PlainEnded(time.Unix(0, now)):
		return PlainRefused
	case !f.Is(projector.SecretLive):
		return Unavailable // a state of a newer version's
	}
	return Allowed
}

func past(end, now int64) bool { return end != 0 && now >= end }

// constrained returns the first constraint that the request does not meet.
func constrained(c *events.Constraints, r *Request) Reason {
	switch {
	case c.Empty():
		return Allowed
	case c.HeaderOnly && r.InURL:
		return InURL
	case len(c.CIDRs) > 0 && !within(c.CIDRs, r.Address):
		return WrongAddress
	case len(c.Origins) > 0 && !slices.Contains(c.Origins, strings.ToLower(r.Origin)):
		return WrongOrigin
	case len(c.Methods) > 0 && !slices.Contains(c.Methods, r.Method):
		return WrongMethod
	case len(c.Audience) > 0 && !slices.Contains(c.Audience, r.Audience):
		return WrongAudience
	}
	return Allowed
}

// within reports whether an address is in one of the networks. What is IPv4
// written as IPv6 counts as what it is, addresses and networks alike.
func within(nets []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool {
		const mapped = 96 // bits before the IPv4 address
		if p.Addr().Is4In6() && p.Bits() >= mapped {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
		}
		return p.Contains(a)
	})
}
