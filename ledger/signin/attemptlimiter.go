package signin

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events/gcra"
)

// TooManyError reports too many failed attempts.
type TooManyError struct {
	After time.Duration // earliest time for a retry
}

func (e *TooManyError) Error() string {
	return fmt.Sprintf("too many failed attempts; retry in %s", e.After.Round(time.Second))
}

// The limits on failures. One address has eight at one account at once, and about
// 300 a day after that. All addresses that never signed in to an account together
// have 40, and about 150 a day (NIST SP 800-63B-4 section 3.2.2).
var (
	addressLimit  = gcra.Limit{Burst: 30, Interval: time.Minute}
	pairLimit     = gcra.Limit{Burst: 8, Interval: 5 * time.Minute}
	strangerLimit = gcra.Limit{Burst: 40, Interval: 10 * time.Minute}
)

// maxCounters limits each table of counters. Every counter has cost its client a
// hash, and a ledger computes fewer hashes in the time that a counter lasts.
const maxCounters = 1 << 16

// attemptLimiter limits failed attempts: by address, by account and address, and
// by account for all addresses that never signed in to it.
type attemptLimiter struct {
	now func() time.Time

	mu        sync.Mutex
	addresses counters // guarded by mu, as are the others
	pairs     counters
	strangers counters
}

// counters maps each key to the time at which its failures are forgotten, see
// [gcra].
type counters map[string]time.Time

func newAttemptLimiter(now func() time.Time) *attemptLimiter {
	return &attemptLimiter{now: now, addresses: counters{}, pairs: counters{}, strangers: counters{}}
}

// attempt is counted as a failure until it is refunded.
type attempt struct {
	limiter *attemptLimiter
	charged []charge
}

type charge struct {
	counters counters
	key      string
	limit    gcra.Limit
}

// begin counts an attempt at an account. If a limit is reached it returns a
// [TooManyError] and counts nothing. The account is empty if only the address is
// known. Known means that an earlier sign-in to the account came from the address.
func (a *attemptLimiter) begin(account, address string, known bool) (*attempt, error) {
	address = addressPrefix(address)
	charges := []charge{{a.addresses, address, addressLimit}}
	if account != "" {
		charges = append(charges, charge{a.pairs, account + " " + address, pairLimit})
		if !known {
			charges = append(charges, charge{a.strangers, account, strangerLimit})
		}
	}
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	var wait time.Duration
	for _, c := range charges {
		wait = max(wait, c.limit.Wait(c.counters[c.key], now))
	}
	if wait > 0 {
		return nil, &TooManyError{After: wait}
	}
	for _, c := range charges {
		c.counters.charge(c.key, c.limit, now)
	}
	return &attempt{limiter: a, charged: charges}, nil
}

// refund takes back an attempt that did not fail.
func (t *attempt) refund() {
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	for _, c := range t.charged {
		if until, ok := c.counters[c.key]; ok {
			c.counters[c.key] = c.limit.Refund(until)
		}
	}
}

func (t counters) charge(key string, l gcra.Limit, now time.Time) {
	until := t[key]
	if until.IsZero() && len(t) >= maxCounters {
		t.evict(now)
	}
	t[key] = l.Charge(until, now)
}

// evict makes room for a counter. It removes all that have expired, or else the one
// that expires first.
func (t counters) evict(now time.Time) {
	first, at := "", time.Time{}
	for key, until := range t {
		if !until.After(now) {
			delete(t, key)
		} else if first == "" || until.Before(at) {
			first, at = key, until
		}
	}
	if len(t) >= maxCounters {
		delete(t, first)
	}
}

// addressPrefix returns the part of an address that counts: an IPv4 address, or the first 64
// bits of an IPv6 address, because one customer has at least that many addresses.
func addressPrefix(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return "?"
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	const customerBits = 64
	p, err := a.Prefix(customerBits)
	if err != nil {
		return "?"
	}
	return p.String()
}
