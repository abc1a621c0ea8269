package projector

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// Resident returns the statistics of the resident table, the zero value if
// there is none.
func (p *Projector) Resident() resident.Stats {
	if p.table == nil {
		return resident.Stats{}
	}
	return p.table.Stats()
}

// residentForms parses the parts of a stored record for the table.
var residentForms = resident.Parse{
	Scopes: parseScopes, Constraints: parseConstraints,
	Issuer: func(b []byte) events.AccountID { return issuerFrom([16]byte(b)) },
}

func parseConstraints(b []byte) (*events.Constraints, error) {
	c := new(events.Constraints)
	return c, json.Unmarshal(b, c)
}

// residentSecret converts the stored record of a secret for the table. The
// result refers to value.
func residentSecret(d events.Digest, value []byte) (*resident.Secret, error) {
	f, err := splitRecord(value)
	if err != nil {
		return nil, err
	}
	return &resident.Secret{
		Digest: d, Token: f.token, Account: f.account,
		Created: f.times[0], Expires: f.times[1], Until: f.times[2], CreatedIn: f.createdIn, Version: f.version,
		State: uint8(f.state), Flags: f.flags, Ended: f.state.ended(),
		App: f.app, Issuer: f.issuer, Scopes: f.scopes, Constraints: f.constraints,
	}, nil
}

// storedSecret is the record of a secret that a transaction wrote.
type storedSecret struct {
	digest events.Digest
	value  []byte
}

// updateTable puts the changes into the table, in one update.
func (s *changeset) updateTable(t *resident.Table) (err error) {
	t.Update(func(w resident.Writer) {
		for _, a := range s.accounts {
			if a.Version > s.from.position { // else it was only read
				w.SetAccount(a)
			}
		}
		if s.policy != nil {
			w.SetPolicy(s.policy)
		}
		for _, stored := range s.secrets {
			secret, failed := residentSecret(stored.digest, stored.value)
			if failed == nil {
				failed = w.Put(secret)
			}
			err = errors.Join(err, failed)
		}
		w.SetPosition(s.cursor.position)
	})
	return err
}

// fill reads all secrets into the range checksums and, unless limit is 0, into
// a new table. It returns [ErrCorrupt] if a check value is wrong, or if the
// digest of the secrets is not the one in the cursor.
func fill(db *badger.DB, m *state, limit int64) (table *resident.Table, err error) {
	tx := db.NewTransaction(false)
	defer tx.Discard()
	if limit == 0 {
		err = m.fill(tx, func(*resident.Secret) error { return nil })
	} else {
		table = resident.New(limit, residentForms)
		table.Update(func(w resident.Writer) {
			for _, a := range m.accounts {
				w.SetAccount(a)
			}
			policy := m.policy
			w.SetPolicy(&policy)
			w.SetPosition(m.cursor.position)
			err = m.fill(tx, w.Put)
		})
	}
	if err != nil && !isCorrupt(err) {
		err = damaged(err)
	}
	return table, err
}

// fill reads the secrets in parallel, divided by the first byte of their
// digests. It calls put for one secret at a time.
func (m *state) fill(tx *badger.Txn, put func(*resident.Secret) error) error {
	var (
		mu      sync.Mutex // guards m.sums, all and put
		all     uint64     // sum of the check values
		workers sync.WaitGroup
		firsts  = make(chan byte, 256)
		failed  = make(chan error, 256)
	)
	for first := range 256 {
		firsts <- byte(first)
	}
	close(firsts)
	visit := func(key, value []byte) error {
		d, err := digestIn(key)
		if err != nil {
			return err
		}
		s, err := residentSecret(d, value)
		if err != nil {
			return err
		}
		change := bucketChange{bucketOf(&d), checkValue(key, value)}
		mu.Lock()
		defer mu.Unlock()
		m.sums.add(change)
		all += change.delta
		return put(s)
	}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for first := range firsts {
				if err := each(tx, append([]byte(prefixDigest), schemeSHA256, first), nil, visit); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	workers.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	if all != m.cursor.secrets {
		return fmt.Errorf("%w: at position %d its secrets have the digest %s, want %s", ErrCorrupt,
			m.cursor.position, events.IndexDigest(all), events.IndexDigest(m.cursor.secrets))
	}
	return nil
}
