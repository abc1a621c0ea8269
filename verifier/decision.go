package verifier

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
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
	// Account is the token's account, empty where no token was found. It, and
	// the token's id, are for the node's own log where the check was not allowed.
	Account events.AccountID
	App     string // label of the token
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

	// What Token and Scopes are made of, once somebody asks.
	token   [16]byte
	scopes  *events.ScopeSet // the token's own, as Inherit says
	granted *events.ScopeSet // its account's
	model   *events.Model
}

// Token returns the token's id, empty where none was found.
func (d *Decision) Token() events.TokenID {
	if d.Account == "" {
		return ""
	}
	return events.TokenIDFrom(d.token)
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
	return d.model.Intersect(d.scopes.List(), d.granted.List())
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
	v.decide(secret, &r, &d)
	// Last, and once: what is refused for another reason is not counted.
	if d.OK() && d.Constraints != nil && d.Constraints.Rate > 0 {
		var ok bool
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

func (v *Verifier) decide(secret string, r *Request, d *Decision) {
	digest, ok := v.cfg.Format.DigestOf(secret)
	if !ok {
		d.Reason = Malformed
		return
	}
	const most = 16
	for try := 1; ; try++ {
		v.judge(digest, len(secret) == plainLength, r, d)
		if d.Reason == Unavailable {
			return
		}
		// A lease that ran out while this was decided says nothing. One that was
		// over before and is in force now was renewed in between, and the
		// position says whether what was read is good for the new one.
		if v.cfg.Lease.InForce() && d.Position >= v.cfg.Lease.Least() {
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

// judge decides by what the index holds.
func (v *Verifier) judge(digest events.Digest, plain bool, r *Request, d *Decision) {
	found, err := v.cfg.Index.Find(digest)
	d.Position = found.Position
	if err != nil {
		if d.Reason = Unknown; !errors.Is(err, events.ErrNotFound) {
			if v.cfg.Lease.InForce() { // else it is no news, as when the node starts
				v.complain(err)
			}
			d.Reason, d.Position = Unavailable, v.cfg.Index.Position()
		}
		return
	}
	d.Account, d.App, d.token = found.Account.ID, found.App, found.Token
	d.Expires = projector.TimeOf(found.Expires)
	var now time.Time // asked for where it matters: a clock costs as much as the search
	plain = plain || found.Plain()
	if found.Expires != 0 || found.Until != 0 || plain {
		now = v.cfg.Now()
	}
	if d.Reason = state(&found, plain, now); d.Reason != Allowed {
		return
	}
	if found.Policy.URLRefused && r.InURL {
		d.Reason = InURL
		return
	}
	if d.Reason = constrained(found.Constraints, r); d.Reason != Allowed {
		return
	}
	d.Inherit, d.Constraints = found.Inherit(), found.Constraints
	d.scopes, d.granted, d.model = found.Scopes, found.Account.Granted, v.cfg.Model
	for i := range r.Need {
		need := &r.Need[i]
		if !d.granted.Covers(d.model, need) || !d.Inherit && !d.scopes.Covers(d.model, need) {
			d.Reason, d.Lacking = Scope, *need
			return
		}
	}
	d.Warn = found.Policy.Warns(now, d.Expires)
}

// state returns why a secret is not accepted whatever it is for, Allowed where
// it is.
func state(f *projector.Found, plain bool, now time.Time) Reason {
	made, account := projector.TimeOf(f.Created), f.Account
	switch {
	case f.Is(projector.SecretRevoked), made.Before(account.TokensBefore), made.Before(f.Policy.TokensBefore):
		return Revoked
	case account.Erased:
		return AccountErased
	case past(f.Expires, now):
		return Expired
	case f.Is(projector.SecretSuperseded), past(f.Until, now):
		return Superseded
	case f.Is(projector.SecretSuspended):
		return Suspended
	case account.Suspended:
		return AccountSuspended
	case plain && f.Policy.PlainEnded(now):
		return PlainRefused
	case !f.Is(projector.SecretLive):
		return Unavailable // a state of a newer version's
	}
	return Allowed
}

func past(end int64, now time.Time) bool { return end != 0 && !now.Before(projector.TimeOf(end)) }

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
