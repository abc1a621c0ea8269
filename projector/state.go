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

// state is the part of the index that the projector keeps in memory, beside the
// resident table: few records, most of which every check reads. The values that
// its pointers point to never change.
type state struct {
	cursor   cursor
	policy   events.PolicyState
	accounts map[events.AccountID]*events.Account
	// matomo is where the first token with the digest scheme of Matomo was created,
	// 0 for nowhere.
	matomo events.Position
	shards map[string]events.Position // last position of each shard
	// secretless holds, for each token that has or had no secret, the last
	// event that found or left it so. These are the few tokens that were
	// created or rotated with the secret of another token.
	secretless map[events.TokenID]events.Position

	accountChecks map[events.AccountID]uint64 // check values of the accounts' records
	policyDigest  setDigest                   // of the policy's record; empty if there is none
	sums          rangeChecksums              // of the secrets' records
	recent        recentIDs                   // of the tokens; only Apply uses it

	sessions map[events.SessionID]events.Position // ended sessions, and where they ended
	voids    map[events.Position]string           // void events, and why they are void
	actors   map[events.TokenID]actor             // some tokens that acted; only Apply uses it
}

// commit adds the changes of a transaction that Badger has committed.
func (m *state) commit(s *changeset) {
	m.cursor, m.policy = s.cursor, s.currentPolicy()
	maps.Copy(m.accounts, s.accounts)
	maps.Copy(m.accountChecks, s.accountChecks)
	if s.policy != nil {
		m.policyDigest = s.policyDigest
	}
	m.matomo = max(m.matomo, s.matomo)
	maps.Copy(m.shards, s.shards)
	maps.Copy(m.secretless, s.secretless)
	for _, c := range s.sums {
		m.sums.add(c)
	}
	maps.Copy(m.sessions, s.sessions)
	maps.Copy(m.voids, s.voids)
}

// loadState reads the state from the index, except for the sums.
func loadState(db *badger.DB) (*state, error) {
	m := &state{
		accounts:      map[events.AccountID]*events.Account{},
		shards:        map[string]events.Position{},
		secretless:    map[events.TokenID]events.Position{},
		accountChecks: map[events.AccountID]uint64{},
		sessions:      map[events.SessionID]events.Position{},
		voids:         map[events.Position]string{},
		actors:        map[events.TokenID]actor{},
	}
	err := db.View(m.load)
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForm) {
		err = damaged(err)
	}
	return m, err
}

func (m *state) load(tx *badger.Txn) (err error) {
	if m.recent, err = loadRecentIDs(tx, maxRecentIDs); err != nil {
		return err
	}
	if m.cursor, err = readCursor(tx); err != nil {
		return err
	}
	check, found, err := read(tx, []byte(keyPolicy), func(b []byte) error { return json.Unmarshal(b, &m.policy) })
	if err != nil {
		return err
	}
	if found {
		m.policyDigest.add(check)
	}
	if _, _, err = read(tx, []byte(keyMatomo), func(b []byte) (err error) {
		m.matomo, err = parsePosition(b)
		return err
	}); err != nil {
		return err
	}
	for _, records := range []struct {
		prefix string
		load   func(key, value []byte) error
	}{
		{prefixAccount, m.loadAccount},
		{prefixSecretless, m.loadSecretless},
		{prefixSession, m.loadSession},
		{prefixVoid, m.loadVoid},
		{prefixShard, m.loadLine},
	} {
		if err := each(tx, []byte(records.prefix), nil, records.load); err != nil {
			return err
		}
	}
	return nil
}

func (m *state) loadAccount(key, value []byte) error {
	a := new(events.Account)
	if err := json.Unmarshal(value, a); err != nil {
		return err
	}
	m.accounts[a.ID] = a
	m.accountChecks[a.ID] = checkValue(key, value)
	return nil
}

func (m *state) loadSecretless(key, value []byte) error {
	id, err := tokenIn(key[len(prefixSecretless):])
	if err != nil {
		return err
	}
	m.secretless[events.TokenIDFrom(id)], err = parsePosition(value)
	return err
}

func (m *state) loadSession(key, value []byte) error {
	id := key[len(prefixSession):]
	if len(id) != 16 {
		return fmt.Errorf("%w: the key of a session has an ID of %d bytes, want 16", ErrCorrupt, len(id))
	}
	pos, err := parsePosition(value)
	m.sessions[events.SessionIDFrom([16]byte(id))] = pos
	return err
}

func (m *state) loadVoid(key, value []byte) error {
	position := key[len(prefixVoid):]
	if len(position) != 8 {
		return fmt.Errorf("%w: the key of a void event has a position of %d bytes, want 8", ErrCorrupt, len(position))
	}
	m.voids[events.Position(binary.BigEndian.Uint64(position))] = string(value)
	return nil
}

func (m *state) loadLine(key, value []byte) error {
	pos, err := parsePosition(value)
	m.shards[string(key[len(prefixShard):])] = pos
	return err
}
