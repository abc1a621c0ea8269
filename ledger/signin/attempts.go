package signin

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// TooManyError reports too many failures.
type TooManyError struct {
	After time.Duration // when to try again at the earliest
}

func (e *TooManyError) Error() string {
	return fmt.Sprintf("too many attempts failed; try again in %s", e.After.Round(time.Second))
}

// limit lets some failures through at once, and then one at a time.
type limit struct {
	burst int
	every time.Duration
}

// The limits on failures. Eight of one address at one account are let through at
// once and some 300 a day then; of all strangers to an account together, 40 and
// some 150 (NIST SP 800-63B-4 section 3.2.2).
var (
	byAddress  = limit{30, time.Minute}
	byPair     = limit{8, 5 * time.Minute}
	byStranger = limit{40, 10 * time.Minute}
)

// mostCounted bounds each table. Each entry has cost its maker a hash, of which a
// ledger makes fewer in the time that an entry lasts.
const mostCounted = 1 << 16

// attempts counts failures.
type attempts struct {
	now func() time.Time

	mu        sync.Mutex
	addresses table // guarded by mu, as are the others
	pairs     table
	strangers table
}

// table: what is limited -> when its failures are forgotten. A failure moves that
// on by the limit's pace (the generic cell rate algorithm).
type table map[string]time.Time

func newAttempts(now func() time.Time) *attempts {
	return &attempts{now: now, addresses: table{}, pairs: table{}, strangers: table{}}
}

// attempt is one that was begun, and counts as a failure until it is forgiven.
type attempt struct {
	of      *attempts
	charged []charge
}

type charge struct {
	table table
	key   string
	limit limit
}

// begin counts an attempt on an account, or refuses it with [TooManyError] and
// counts nothing. The account is empty where there is none but the address to go
// by; known says that somebody has signed in to it from the address before.
func (a *attempts) begin(account, address string, known bool) (*attempt, error) {
	address = prefix(address)
	charges := []charge{{a.addresses, address, byAddress}}
	if account != "" {
		charges = append(charges, charge{a.pairs, account + " " + address, byPair})
		if !known {
			charges = append(charges, charge{a.strangers, account, byStranger})
		}
	}
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	var wait time.Duration
	for _, c := range charges {
		wait = max(wait, c.table.wait(c.key, c.limit, now))
	}
	if wait > 0 {
		return nil, &TooManyError{After: wait}
	}
	for _, c := range charges {
		c.table.charge(c.key, c.limit, now)
	}
	return &attempt{of: a, charged: charges}, nil
}

// forgive takes an attempt back that did not fail.
func (t *attempt) forgive() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	for _, c := range t.charged {
		if until, ok := c.table[c.key]; ok {
			c.table[c.key] = until.Add(-c.limit.every)
		}
	}
}

func (t table) wait(key string, l limit, now time.Time) time.Duration {
	until, counted := t[key]
	if !counted {
		return 0
	}
	return max(0, until.Sub(now)-time.Duration(l.burst-1)*l.every)
}

func (t table) charge(key string, l limit, now time.Time) {
	until := t[key]
	if until.IsZero() && len(t) >= mostCounted {
		t.shrink(now)
	}
	if until.Before(now) {
		until = now
	}
	t[key] = until.Add(l.every)
}

// shrink makes room: what is over goes, else what is over first.
func (t table) shrink(now time.Time) {
	first, at := "", time.Time{}
	for key, until := range t {
		if !until.After(now) {
			delete(t, key)
		} else if first == "" || until.Before(at) {
			first, at = key, until
		}
	}
	if len(t) >= mostCounted {
		delete(t, first)
	}
}

// prefix returns what is counted as one address: 64 bits of IPv6, which one
// customer has at least.
func prefix(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return "?"
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	const customer = 64
	p, err := a.Prefix(customer)
	if err != nil {
		return "?"
	}
	return p.String()
}
