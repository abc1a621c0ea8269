package resident

import (
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Account is what a check needs to know of an account, without a look at the
// account itself, which is of a size that no cache has room for.
type Account struct {
	*events.Account                  // nil where it was never set
	Granted         *events.ScopeSet // its grants
	// NotBeforeNano is NotBefore as [Instant] has it, and Until is TokensUntil. Good
	// is false if the account is suspended or erased.
	NotBeforeNano int64
	Until         events.Position
	Good          bool
}

// NewAccount returns what a table holds of an account, which must not change
// any more.
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

// Policy is the policy with what a check compares with times.
type Policy struct {
	events.PolicyState
	NotBeforeNano int64 // NotBefore, as [Instant] has it
}

// NewPolicy returns what a table holds of a policy, which must not change any
// more.
func NewPolicy(p *events.PolicyState) *Policy {
	return &Policy{PolicyState: *p, NotBeforeNano: Instant(p.NotBefore)}
}

// Instant returns a time to compare times of [Found] with: nanoseconds of Unix
// time, 0 for none. What lies before 1970 is the first instant after it, and what
// is too late for nanoseconds the last one that is not: no time of Found lies
// outside.
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

// accounts holds the accounts of secrets by number. They are never forgotten.
// Their cells are in chunks that never move.
type accounts struct {
	dir atomic.Pointer[[]*cells]

	// What only the writer knows.
	numbers map[[16]byte]uint32
	grants  shared[events.ScopeSet] // so that accounts with the same have one set
}

// cell is an account: half a line of a cache, and what a check needs to read of
// it.
type cell struct {
	until   atomic.Uint64 // TokensUntil
	state   atomic.Uint64 // number of the grants, and above it cellGood and cellBefore
	granted atomic.Pointer[events.ScopeSet]
	account atomic.Pointer[events.Account]
}

const (
	cellGood   = 1 << 32
	cellBefore = 1 << 33 // the account has a NotBefore, which is read there: few have
	cellsShift = 8
	cellsChunk = 1 << cellsShift
)

type cells [cellsChunk]cell

func (s *accounts) init() {
	s.dir.Store(new([]*cells))
	s.numbers = map[[16]byte]uint32{}
	s.grants.init()
}

// at returns a cell, nil where the number was not given out when the reader
// looked.
func (s *accounts) at(n uint32) *cell {
	dir := *s.dir.Load()
	if c := n >> cellsShift; int(c) < len(dir) {
		return &dir[c][n%cellsChunk]
	}
	return nil
}

// number returns an account's number, and gives it one where it has none.
func (s *accounts) number(id [16]byte) uint32 {
	if n, ok := s.numbers[id]; ok {
		return n
	}
	n := uint32(len(s.numbers))
	s.numbers[id] = n
	if dir := *s.dir.Load(); int(n>>cellsShift) == len(dir) {
		dir = append(dir, new(cells)) // a reader that has the shorter one does not see it
		s.dir.Store(&dir)
	}
	return n
}

func (s *accounts) set(a *events.Account) {
	c := s.at(s.number(a.ID.Bytes()))
	grants, _ := s.grants.use(
		[]byte(strings.Join(events.ScopeStrings(a.Grants), "\n")),
		func([]byte) (*events.ScopeSet, error) {
			return events.NewScopeSet(a.Grants), nil
		},
	)
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

// read returns an account, the zero value where the number was not given out when
// the reader looked, or the account not set.
func (s *accounts) read(n uint32) (a Account) {
	if c := s.at(n); c != nil {
		state := c.state.Load()
		a = Account{
			Account: c.account.Load(),
			Granted: c.granted.Load(),
			Until:   events.Position(c.until.Load()),
			Good:    state&cellGood != 0,
		}
		if state&cellBefore != 0 && a.Account != nil {
			a.NotBeforeNano = Instant(a.Account.NotBefore)
		}
	}
	return a
}
