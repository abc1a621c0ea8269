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

	past    time.Duration // for how long after the lease's end it may be answered; set where Stale is
	charged bool          // the token's rate was asked

	// What Token, Account and Scopes are made of, once somebody asks.
	token   [16]byte
	account *events.Account   // nil where no token was found
	issuer  *events.AccountID // nil where the account itself made the secret
	scopes  *events.ScopeSet  // the token's own, as Inherit says
	granted *events.ScopeSet  // its account's
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

// IssuedBy returns the account that made the secret: the token's own account, or
// another one that was allowed to. It is empty where no token was found, and for
// the first token of a ledger.
func (d *Decision) IssuedBy() events.AccountID {
	switch {
	case d.account == nil:
		return ""
	case d.issuer != nil:
		return *d.issuer
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
//
// The decision is good at the moment when Check returns. A caller that hands it
// to somebody else, or acts on it later, asks [Verifier.Confirm] right before.
func (v *Verifier) Check(secret string, r Request) (d Decision) {
	v.check(secret, &r, &d)
	v.count(&d)
	return d
}

func (v *Verifier) check(secret string, r *Request, d *Decision) {
	digest, ok := v.cfg.Format.DigestOf(secret)
	if !ok { // garbage is to cost least
		d.Reason = Malformed
		return
	}
	limited, charged := d.Reason == RateLimited, d.charged
	retry := d.Retry
	*d = Decision{}
	v.decide(digest, len(secret) == plainLength, r, d)
	// Last, and once: what is refused for another reason is not counted.
	d.charged = charged
	if d.OK() && d.Constraints != nil && d.Constraints.Rate > 0 {
		if !charged {
			d.charged = true
			retry, ok = v.rates.take(d.token, d.Constraints.Rate, v.cfg.Now)
			limited = !ok
		}
		if limited {
			d.Reason, d.Retry = RateLimited, retry
		}
	}
}

func (v *Verifier) count(d *Decision) {
	v.counts[d.Reason].Add(1)
	if d.Stale {
		v.stale.Add(1)
	}
}

// Confirm reports whether an answer that says d may leave this node now. It is
// to be asked right before the answer is written, after everything else.
//
// Between a decision and its answer the process may stand still: the machine is
// suspended, the process stopped, the thread not scheduled. Meanwhile the lease
// may end, and a ledger then no longer waits for this node. Or the node applies
// events and reports so, and a ledger takes that as the promise that no answer
// rests on less. So a decision is confirmed only while a lease is in force, and
// rests on the newest position that the index holds and the lease asks for. One
// about garbage rests on nothing and is always confirmed, and so is one that
// says that the node does not know.
//
// A decision that is not confirmed may be made again: see [Verifier.Recheck].
func (v *Verifier) Confirm(d *Decision) bool {
	if d.Reason == Malformed || d.Reason == Unavailable {
		return true
	}
	if d.Position < v.cfg.Index.Position() {
		return false
	}
	// The clock is read as late as can be, and MinPosition last: see [Lease].
	_, inForce := v.cfg.Lease.Valid()
	if !inForce && (!d.Stale || v.cfg.Lease.Remaining() <= -d.past) {
		return false
	}
	return d.Position >= v.cfg.Lease.MinPosition()
}

// Recheck decides again, for the secret and the request that d is about. The
// token's rate is not charged a second time. [Verifier.Counts] counts the new
// decision if its reason differs.
func (v *Verifier) Recheck(d *Decision, secret string, r Request) {
	was, stale := d.Reason, d.Stale
	v.check(secret, &r, d)
	if d.Reason != was || d.Stale != stale {
		v.count(d)
	}
}

// Still decides on a secret that was good before, for who is about to act on
// that. It charges no rate, counts nothing, and its answer is confirmed.
func (v *Verifier) Still(secret string, r Request) Reason {
	d := Decision{charged: true}
	for range MaxRechecks {
		v.check(secret, &r, &d)
		if v.Confirm(&d) {
			return d.Reason
		}
	}
	return Unavailable
}

// MaxRechecks is how often an answer is decided again because the index or the
// lease went on before it was written. One try takes microseconds, so a node
// that needs more does not get to answer in time.
const MaxRechecks = 64

func (v *Verifier) decide(digest events.Digest, plain bool, r *Request, d *Decision) {
	const most = 16
	for try := 1; ; try++ {
		found, err := v.cfg.Index.Find(digest)
		// From here on nothing is asked of the index. A lease that runs out while
		// this is decided says nothing; one that was over before and is in force
		// now was renewed in between, and the position says whether what was found
		// is good for the new one.
		now, inForce := v.cfg.Lease.Valid()
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
		if d.Reason == Unavailable || inForce && d.Position >= v.cfg.Lease.MinPosition() {
			return
		}
		left, past := v.cfg.Lease.Remaining(), v.past(r)
		behind := d.Position < v.cfg.Lease.MinPosition()
		switch {
		case left <= -past, behind && (try == most || v.cfg.Index.Position() <= d.Position):
			d.Reason = Unavailable
		case behind:
			*d = Decision{}
			continue // the index went on meanwhile, and a newer lease is for that
		case left <= 0:
			d.Stale, d.Age, d.past = true, -left, past
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
	d.account, d.App, d.token, d.issuer = f.Account.Account, f.App, f.Token, f.Issuer
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
