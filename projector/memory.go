package projector

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// memory is what the projector keeps beside Badger: few, and read by every
// check. What a pointer in it points to is never changed.
type memory struct {
	cursor   cursor
	policy   events.PolicyState
	accounts map[events.AccountID]*events.Account
	lines    map[string]events.Position // last position of each line of subjects
	// bare holds of tokens without a secret, which were given only those of others
	// (there are very few), the last event that found or left them so.
	bare map[events.TokenID]events.Position

	checks map[events.AccountID]uint64 // check values of the accounts' records
	rule   tally                       // of the policy's record; empty where there is none
	sums   rangeChecksums              // of the secrets' records
	newest recentIDs                   // of the tokens' ids; only whoever applies asks it

	sessions map[events.SessionID]events.Position // those that ended, and where
	voids    map[events.Position]string           // events without effect, and why
	actors   map[events.TokenID]actor             // some tokens that acted; only Apply uses it
}

// take makes the memory what it is once the stage is committed.
func (m *memory) take(s *stage) {
	m.cursor, m.policy = s.cursor, s.currentPolicy()
	for id, a := range s.accounts {
		m.accounts[id] = a
	}
	for id, check := range s.checks {
		m.checks[id] = check
	}
	if s.policy != nil {
		m.rule = s.rule
	}
	for line, at := range s.lines {
		m.lines[line] = at
	}
	for id, at := range s.bare {
		m.bare[id] = at
	}
	for _, c := range s.sums {
		m.sums.add(c)
	}
	maps.Copy(m.sessions, s.sessions)
	maps.Copy(m.voids, s.voids)
}

// load reads the memory back from the index.
func load(db *badger.DB) (*memory, error) {
	m := &memory{
		accounts: map[events.AccountID]*events.Account{},
		lines:    map[string]events.Position{},
		bare:     map[events.TokenID]events.Position{},
		checks:   map[events.AccountID]uint64{},
		sessions: map[events.SessionID]events.Position{},
		voids:    map[events.Position]string{},
		actors:   map[events.TokenID]actor{},
	}
	err := db.View(func(tx *badger.Txn) (err error) {
		if m.newest, err = loadNewest(tx, mostNewest); err != nil {
			return err
		}
		if _, err := get(tx, []byte(keyCursor), func(b []byte) (err error) {
			m.cursor, err = parseCursor(b)
			return err
		}); err != nil {
			return err
		}
		policy, found, err := read(tx, []byte(keyPolicy), func(b []byte) error { return json.Unmarshal(b, &m.policy) })
		if err != nil {
			return err
		}
		if found {
			m.rule.add(policy)
		}
		if err := each(tx, []byte(prefixAccount), nil, func(key, value []byte) error {
			a := new(events.Account)
			if err := json.Unmarshal(value, a); err != nil {
				return err
			}
			m.accounts[a.ID] = a
			m.checks[a.ID] = checkValue(key, value)
			return nil
		}); err != nil {
			return err
		}
		if err := each(tx, []byte(prefixBare), nil, func(key, value []byte) error {
			id, err := tokenIn(key[len(prefixBare):])
			if err != nil {
				return err
			}
			m.bare[events.TokenIDFrom(id)], err = parsePosition(value)
			return err
		}); err != nil {
			return err
		}
		if err := m.loadEnds(tx); err != nil {
			return err
		}
		return each(tx, []byte(prefixLine), nil, func(key, value []byte) error {
			at, err := parsePosition(value)
			m.lines[string(key[len(prefixLine):])] = at
			return err
		})
	})
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForm) {
		err = damaged(err)
	}
	return m, err
}

// loadEnds reads which sessions ended and which events had no effect.
func (m *memory) loadEnds(tx *badger.Txn) error {
	err := each(tx, []byte(prefixSession), nil, func(key, value []byte) error {
		if len(key) != len(prefixSession)+16 {
			return fmt.Errorf("%w: a session's key has %d bytes", ErrCorrupt, len(key))
		}
		at, err := parsePosition(value)
		m.sessions[events.SessionIDFrom([16]byte(key[len(prefixSession):]))] = at
		return err
	})
	if err != nil {
		return err
	}
	return each(tx, []byte(prefixVoid), nil, func(key, value []byte) error {
		if len(key) != len(prefixVoid)+8 {
			return fmt.Errorf("%w: a void event's key has %d bytes", ErrCorrupt, len(key))
		}
		m.voids[events.Position(binary.BigEndian.Uint64(key[len(prefixVoid):]))] = string(value)
		return nil
	})
}
