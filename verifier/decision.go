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

// Reason is the exact outcome of a check.
type Reason uint8

// The reasons.
const (
	Allowed          Reason = iota
	Unavailable             // the node has no lease, or the index cannot be read
	Malformed               // not a secret: wrong prefix, length, characters or checksum
	Unknown                 // no token has this secret
	Expired                 // the token has expired
	Suspended               // the token is suspended
	Revoked                 // the token is revoked, alone or in bulk
	Superseded              // the secret was rotated, and its grace period is over
	AccountSuspended        // the token's account is suspended
	AccountErased           // the token's account is erased
	WrongAddress            // the client's address is outside the token's networks
	WrongOrigin             // the page's origin is not one of the token's
	WrongMethod             // the HTTP method is not one of the token's
	WrongAudience           // the proxy policy is not one of the token's
	InURL                   // the token was in a URL, which it or the policy forbids
	Scope                   // the token or its account lacks a needed scope
	LegacyRefused           // the policy refuses secrets without prefix and checksum
	RateLimited             // the token has used up its requests for now
	reasons
)

var reasonNames = [reasons]string{
	"allowed", "unavailable", "malformed", "unknown", "expired", "suspended", "revoked", "superseded",
	"account_suspended", "account_erased",
	"wrong_address", "wrong_origin", "wrong_method", "wrong_audience", "in_url", "insufficient_scope",
	"legacy_refused", "rate_limited",
}

// String returns the reason's name, for logs and metrics.
func (r Reason) String() string { return reasonNames[r] }

// ParseReason returns the reason of a name, and Allowed if there is none.
func ParseReason(name string) Reason { return Reason(max(0, slices.Index(reasonNames[:], name))) }

// Public returns the reason that a client may see. It does not reveal whether a token exists
// or has existed.
func (r Reason) Public() string {
	switch r {
	case Allowed, Unavailable, Scope, RateLimited:
		return r.String()
	}
	return "invalid_token"
}

// Request describes the request to check. An empty field is unknown; a constraint on it
// then denies the check.
type Request struct {
	Need     []events.Scope // all are needed; none asks only for a valid token
	Address  netip.Addr     // of the client
	Origin   string         // of the page, as in https://example.org
	Method   string         // of the HTTP request
	Audience string         // name of the proxy policy
	InURL    bool           // the secret was in the URL
}

// Decision is the answer to a check.
type Decision struct {
	Reason   Reason
	Position events.Position // of the index that the decision is based on
	// Lacking is the first needed scope that is missing.
	Lacking events.Scope
	// Inherit says that the token has all scopes of its account.
	Inherit bool
	// Constraints are the token's, nil for none. They must not be changed.
	Constraints *events.Constraints
	// Expires is when the token expires, zero for never.
	Expires time.Time
	// Warn says that the token expires so soon that the client has to be told.
	Warn bool
	// Retry is how long to wait before the next request, for RateLimited.
	Retry time.Duration
	// Stale says that the lease had expired, and Age how long before. The needed
	// permissions may be answered for nevertheless. See [Config.Stale].
	Stale bool
	Age   time.Duration
	// NoSalt says that the check is Unavailable because the secret may be that of an
	// imported token, and the verifier has no salt.
	NoSalt bool

	staleFor time.Duration // how long after the lease's end the answer is allowed; set if Stale is
	charged  bool          // the token's rate was charged
	imported bool          // the secret was found by a salt

	// Token, App, Account, IssuedBy and Scopes compute their results from these on
	// demand.
	details resident.Details
	digest  events.Digest
	account *events.Account  // nil if no token was found
	scopes  *events.ScopeSet // the token's own
	granted *events.ScopeSet // its account's
	model   *events.Model
}

// Token returns the token's id, empty if none was found. If the check was denied,
// the id and the account are for the node's own log only.
func (d *Decision) Token() events.TokenID {
	if d.account == nil {
		return ""
	}
	return tokenID(d.details.Token)
}

// tokenID returns the id of a token, empty for zeros.
func tokenID(id [16]byte) events.TokenID {
	if id == [16]byte{} {
		return ""
	}
	return events.TokenIDFrom(id)
}

// App returns the token's label, empty if no token was found.
func (d *Decision) App() string {
	if d.account == nil {
		return ""
	}
	return d.details.App
}

// Account returns the token's account, empty if no token was found.
func (d *Decision) Account() events.AccountID {
	if d.account == nil {
		return ""
	}
	return d.account.ID
}

// IssuedBy returns the account that made the secret: the token's own account, or
// another one that was allowed to. It is empty if no token was found, and for the
// first token of a ledger.
func (d *Decision) IssuedBy() events.AccountID {
	if d.account == nil {
		return ""
	}
	return d.issuedBy(d.details.Issuer)
}

func (d *Decision) issuedBy(issuer *events.AccountID) events.AccountID {
	if issuer != nil {
		return *issuer
	}
	return d.account.ID
}

// Scopes returns the token's effective scopes, none if the check was denied. They
// must not be changed.
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

// logIndexError logs why the index cannot be read, once a second at most: every
// check finds the same error.
func (v *Verifier) logIndexError(err error) {
	now := time.Now().Unix()
	if last := v.loggedAt.Load(); last != now && v.loggedAt.CompareAndSwap(last, now) {
		text := "cannot read the index; denying checks"
		if err == errNoSalt {
			text = "cannot look up imported tokens; denying checks of them"
		}
		v.cfg.Logger.Error(text, "err", err)
	}
}

// Check decides whether a secret allows what the request needs. It allocates
// nothing if the token is resident and has no rate.
//
// The decision is valid at the moment when Check returns. A caller that sends it
// to a client, or acts on it later, calls [Verifier.Confirm] right before.
func (v *Verifier) Check(secret string, r Request) (d Decision) {
	v.check(secret, &r, &d)
	v.count(&d)
	return d
}

func (v *Verifier) check(secret string, r *Request, d *Decision) {
	digest, ok := v.cfg.Format.DigestOf(secret)
	if !ok { // malformed secrets cost least
		d.Reason = Malformed
		return
	}
	limited, charged := d.Reason == RateLimited, d.charged
	retry := d.Retry
	*d = Decision{digest: digest}
	v.decide(secret, r, d)
	if d.charged = charged; d.OK() && d.Constraints != nil {
		v.charge(d, limited, retry)
	}
}

// charge counts an allowed check for the rate of its token. It comes last, and
// once: a check that is denied for another reason does not count. A check that was
// charged before is limited again if it was.
func (v *Verifier) charge(d *Decision, limited bool, retry time.Duration) {
	if d.Constraints.Rate > 0 {
		if !d.charged {
			d.charged = true
			var ok bool
			retry, ok = v.rates.take(d.details.Token, d.Constraints.Rate, v.cfg.Now)
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
	if d.NoSalt {
		v.noSalt.Add(1)
	}
}

// Confirm reports whether the decision d may leave this node now. Call it right
// before the answer is written, after everything else.
//
// Between a decision and its answer the process may pause: the machine is
// suspended, the process stopped, the thread not scheduled. Meanwhile the lease
// may expire, and a ledger then no longer waits for this node. Or the node applies
// events and reports so, which a ledger takes as the promise that no later answer
// is based on less. So Confirm returns true only if the lease is valid, and d is
// based on the index's newest position and on no less than the lease needs. A
// malformed secret needs no index, so its decision is always confirmed; so is
// Unavailable.
//
// [Verifier.Recheck] decides again after Confirm has returned false.
func (v *Verifier) Confirm(d *Decision) bool {
	if d.Reason == Malformed || d.Reason == Unavailable {
		return true
	}
	if d.Position < v.cfg.Index.Position() {
		return false
	}
	// The clock is read as late as possible, and MinPosition last: see [Lease].
	_, valid := v.cfg.Lease.Valid()
	if !valid && (!d.Stale || v.cfg.Lease.Remaining() <= -d.staleFor) {
		return false
	}
	return d.Position >= v.cfg.Lease.MinPosition()
}

// Recheck decides again, for the secret and the request that d is about. It does
// not charge the token's rate again. [Verifier.Counts] counts the new decision if
// its reason differs.
func (v *Verifier) Recheck(d *Decision, secret string, r Request) {
	was, stale := d.Reason, d.Stale
	v.check(secret, &r, d)
	if d.Reason != was || d.Stale != stale {
		v.count(d)
	}
}

// Still checks again a secret that was allowed before, for a caller that is about
// to act on it. It charges no rate and counts nothing, and the result is
// confirmed.
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

// MaxRechecks is how often a check is repeated because the index or the lease
// changed before the answer was written. One try takes microseconds, so a node
// that needs more tries cannot answer in time.
const MaxRechecks = 64

// find looks up a secret by d.digest. One in the shape of a Matomo token that is not
// found so may be an imported one. Other secrets cost one lookup.
func (v *Verifier) find(secret string, d *Decision) (projector.Facts, error) {
	found, err := v.cfg.Index.Find(d.digest)
	if err == nil || len(secret) != legacyLength || !isNotFound(err) {
		return found, err
	}
	return v.findImported(secret, found, d)
}

// findImported looks up the secret of an imported token, with each salt, and sets
// d.digest to the one that it finds. The position is the lowest of all lookups. If
// the index has advanced in between, [Verifier.Confirm] therefore has the check
// repeated.
func (v *Verifier) findImported(secret string, missed projector.Facts, d *Decision) (projector.Facts, error) {
	for _, salt := range v.cfg.Salts {
		digest := salt.Hash(secret).Digest()
		found, err := v.cfg.Index.Find(digest)
		missed.Position = min(missed.Position, found.Position)
		if err == nil || !isNotFound(err) {
			found.Position = missed.Position
			d.digest, d.imported = digest, true
			return found, err
		}
	}
	if len(v.cfg.Salts) > 0 {
		return missed, events.ErrNotFound
	}
	since, err := v.cfg.Index.MatomoSince()
	switch {
	case err != nil:
		return missed, err
	case since > 0:
		return missed, errNoSalt
	}
	return missed, events.ErrNotFound
}

// Imported reports whether the secret was found by a salt: it is one that Matomo
// made.
func (d *Decision) Imported() bool { return d.imported }

// errNoSalt reports that a secret can be neither found nor called unknown.
var errNoSalt = errors.New("the log has tokens imported from Matomo, and this node has no --matomo-salt-file")

func isNotFound(err error) bool {
	return err == events.ErrNotFound || errors.Is(err, events.ErrNotFound) // the first is quick
}

// decide looks up a secret, by d.digest, and evaluates what it finds, under a valid
// lease.
func (v *Verifier) decide(secret string, r *Request, d *Decision) {
	digest, legacy := d.digest, len(secret) == legacyLength
	for try := 1; ; try++ {
		found, err := v.find(secret, d)
		// The index is not read past this point. If the lease expires during
		// evaluation, the decision is still valid as of this read. If the lease was
		// renewed since the read, comparing d.Position with MinPosition tells
		// whether the record is recent enough for the new lease.
		now, valid := v.cfg.Lease.Valid()
		v.conclude(&found, err, seen{now, valid, legacy}, r, d)
		if v.leased(valid, try, r, d) {
			return
		}
		*d = Decision{digest: digest} // the index has advanced, and a newer lease needs that
	}
}

// seen is what is known beside the facts of the index.
type seen struct {
	now    int64 // time of day that the lease read after the index, 0 for unknown
	valid  bool  // the lease
	legacy bool  // the secret has the form of legacy secrets
}

// conclude decides from what was found, apart from the lease.
func (v *Verifier) conclude(f *projector.Facts, err error, s seen, r *Request, d *Decision) {
	d.Position = f.Position
	switch {
	case err == nil:
		v.evaluate(f, s.legacy, s.now, r, d)
	case isNotFound(err):
		d.Reason = Unknown
	default:
		d.NoSalt = err == errNoSalt
		if s.valid { // without a lease an error is expected, as when the node starts
			v.logIndexError(err)
		}
		d.Reason, d.Position = Unavailable, v.cfg.Index.Position()
	}
}

// leased applies the lease to a decision. It returns false if the decision has to
// be made again, on an index that has advanced.
func (v *Verifier) leased(valid bool, try int, r *Request, d *Decision) bool {
	const maxTries = 16
	if d.Reason == Unavailable || valid && d.Position >= v.cfg.Lease.MinPosition() {
		return true
	}
	remaining, staleFor := v.cfg.Lease.Remaining(), v.staleBudget(r)
	behind := d.Position < v.cfg.Lease.MinPosition()
	switch {
	case remaining <= -staleFor, behind && (try == maxTries || v.cfg.Index.Position() <= d.Position):
		d.Reason = Unavailable
	case behind:
		return false
	case remaining <= 0:
		d.Stale, d.Age, d.staleFor = true, -remaining, staleFor
	}
	return true
}

// staleBudget returns how long after the lease's end the request may be answered,
// zero for not at all.
func (v *Verifier) staleBudget(r *Request) time.Duration {
	if len(v.cfg.Stale) == 0 || len(r.Need) == 0 {
		return 0
	}
	budget := maxStale
	for _, need := range r.Need {
		budget = min(budget, v.cfg.Stale[need.Permission])
	}
	return budget
}

// legacyLength is the length of secrets without prefix and checksum. The log does
// not always tell that a secret is one: a client may have made it.
const legacyLength = 32

// evaluate decides from the record that was found. now is the time of day if the
// lease has read it, else 0.
func (v *Verifier) evaluate(f *projector.Facts, legacy bool, now int64, r *Request, d *Decision) {
	d.account = f.Account.Account
	d.details = f.Details
	d.Expires = projector.TimeOf(f.Expires)
	legacy = legacy || f.Plain()
	// Reading the clock costs as much as the lookup.
	if (now == 0 || v.ownClock) && (f.Expires != 0 || f.Until != 0 || legacy) {
		now = resident.Instant(v.cfg.Now())
	}
	if d.Reason = checkState(f, legacy, now); d.Reason != Allowed {
		return
	}
	if f.Policy.URLRefused && r.InURL {
		d.Reason = InURL
		return
	}
	if d.Reason = checkConstraints(f.Constraints, r); d.Reason != Allowed {
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

// checkState returns why a secret is not accepted for any request, Allowed if it
// is accepted.
func checkState(f *projector.Facts, legacy bool, now int64) Reason {
	switch {
	case f.Is(projector.SecretRevoked), f.CreatedIn < f.Account.Until, f.CreatedIn < f.Policy.TokensUntil,
		f.Created < f.Account.NotBeforeNano, f.Created < f.Policy.NotBeforeNano:
		return Revoked
	case !f.Account.Good && f.Account.Erased:
		return AccountErased
	case expired(f.Expires, now):
		return Expired
	case f.Is(projector.SecretSuperseded), expired(f.Until, now):
		return Superseded
	case f.Is(projector.SecretSuspended):
		return Suspended
	case !f.Account.Good:
		return AccountSuspended
	case legacy && f.Policy.LegacyEnded(time.Unix(0, now)):
		return LegacyRefused
	case !f.Is(projector.SecretLive):
		return Unavailable // a state that only a newer version knows
	}
	return Allowed
}

func expired(end, now int64) bool { return end != 0 && now >= end }

// checkConstraints returns the first constraint that the request violates, Allowed
// if there is none.
func checkConstraints(c *events.Constraints, r *Request) Reason {
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

// within reports whether an address is in one of the networks. An IPv4 address or
// network that is written as IPv6 counts as IPv4.
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
