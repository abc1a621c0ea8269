package resident

import (
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Account holds the facts that most checks need about an account. They need not
// read the account itself, which is too large for a cache.
type Account struct {
	*events.Account                  // nil if the account was never set
	Granted         *events.ScopeSet // Account.Grants
	NotBeforeNano   int64            // Instant(Account.NotBefore)
	Until           events.Position  // Account.TokensUntil
	Good            bool             // neither suspended nor erased
}

// NewAccount returns the Account of an account. The caller must not change a
// afterwards.
func NewAccount(a *events.Account) Account {
	return Account{
		Account:       a,
		Granted:       events.NewScopeSet(a.Grants),
		NotBeforeNano: Instant(a.NotBefore),
		Until:         a.TokensUntil,
		Good:          good(a),
	}
}

func good(a *events.Account) bool { return !a.Suspended && !a.Erased }

// Policy is the policy with a time in the form that checks compare.
type Policy struct {
	events.PolicyState
	NotBeforeNano int64 // Instant(NotBefore)
}

// NewPolicy returns the Policy of a policy. The caller must not change p
// afterwards.
func NewPolicy(p *events.PolicyState) *Policy {
	return &Policy{PolicyState: *p, NotBeforeNano: Instant(p.NotBefore)}
}

// Instant converts a time for comparison with the times of [Found]: nanoseconds
// of Unix time, 0 for the zero time. Times before 1970 become 1, and times too
// late for an int64 its maximum. All times of Found lie between these.
func Instant(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Unix() < 0:
		return 1
	case t.Unix() >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return max(1, t.UnixNano())
}

// accounts holds the accounts by number, and never removes them. Their cells
// are in chunks that never move.
type accounts struct {
	dir atomic.Pointer[[]*cells]

	// Only the writer uses these.
	numbers map[[16]byte]uint32
	grants  shared[events.ScopeSet] // accounts with the same grants share one set
}

// cell holds an account in half a cache line.
type cell struct {
	until   atomic.Uint64 // TokensUntil
	state   atomic.Uint64 // number of the grants, with cellGood and cellBefore
	granted atomic.Pointer[events.ScopeSet]
	account atomic.Pointer[events.Account]
}

const (
	cellGood   = 1 << 32
	cellBefore = 1 << 33 // the account has a NotBefore; few do, so it is read from there
	cellsShift = 8
	cellsChunk = 1 << cellsShift
)

type cells [cellsChunk]cell

func (s *accounts) init() {
	s.dir.Store(new([]*cells))
	s.numbers = map[[16]byte]uint32{}
	s.grants.init()
}

// at returns the cell of a number, nil if the reader does not see its chunk
// yet.
func (s *accounts) at(n uint32) *cell {
	dir := *s.dir.Load()
	if c := n >> cellsShift; int(c) < len(dir) {
		return &dir[c][n%cellsChunk]
	}
	return nil
}

// number returns the number of an account, and allocates one if necessary.
func (s *accounts) number(id [16]byte) uint32 {
	if n, ok := s.numbers[id]; ok {
		return n
	}
	n := uint32(len(s.numbers))
	s.numbers[id] = n
	if dir := *s.dir.Load(); int(n>>cellsShift) == len(dir) {
		dir = append(dir, new(cells)) // not visible to readers of the shorter slice
		s.dir.Store(&dir)
	}
	return n
}

func (s *accounts) set(a *events.Account) {
	c := s.at(s.number(a.ID.Bytes()))
	key := []byte(strings.Join(events.ScopeStrings(a.Grants), "\n"))
	grants, _ := s.grants.use(key, func([]byte) (*events.ScopeSet, error) {
		return events.NewScopeSet(a.Grants), nil
	})
	s.grants.drop(uint32(c.state.Load()))
	state := uint64(grants)
	if good(a) {
		state |= cellGood
	}
	if !a.NotBefore.IsZero() {
		state |= cellBefore
	}
	c.until.Store(uint64(a.TokensUntil))
	c.state.Store(state)
	c.granted.Store(s.grants.at(grants))
	c.account.Store(a)
}

// read sets a to an account, to the zero value if the reader does not see it yet
// or it was never set.
func (s *accounts) read(n uint32, a *Account) {
	c := s.at(n)
	if c == nil {
		*a = Account{}
		return
	}
	state := c.state.Load()
	a.Account, a.Granted = c.account.Load(), c.granted.Load()
	a.Until, a.Good, a.NotBeforeNano = events.Position(c.until.Load()), state&cellGood != 0, 0
	if state&cellBefore != 0 && a.Account != nil {
		a.NotBeforeNano = Instant(a.Account.NotBefore)
	}
}
