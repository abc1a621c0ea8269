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

// Resident returns what is held in memory, the zero value where nothing is.
func (p *Projector) Resident() resident.Stats {
	if p.table == nil {
		return resident.Stats{}
	}
	return p.table.Stats()
}

// residentForms reads what the table is given, which is what stands in records.
var residentForms = resident.Parse{
	Scopes: parseScopes, Constraints: parseConstraints,
	Issuer: func(b []byte) events.AccountID { return issuerFrom([16]byte(b)) },
}

func parseConstraints(b []byte) (*events.Constraints, error) {
	c := new(events.Constraints)
	return c, json.Unmarshal(b, c)
}

// residentSecret returns a secret's record as the table takes it. It is good for
// as long as the record's bytes.
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

// storedSecret is a record that a transaction wrote.
type storedSecret struct {
	digest events.Digest
	value  []byte
}

// show puts what a stage changed into the table, all at once.
func (s *stage) show(t *resident.Table) (err error) {
	t.Update(func(w resident.Writer) {
		for _, a := range s.accounts {
			if a.Version > s.from.position { // else it was only looked at
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

// fill reads all secrets, verifies each one's check value and that they are those
// the cursor speaks of, and makes the sums and, with a limit, a table of them.
// The error is [ErrCorrupt] where something is not so.
func fill(db *badger.DB, m *memory, limit int64) (table *resident.Table, err error) {
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

// fill reads the secrets by the first byte of their digests, several bytes at a
// time. One at a time is put.
func (m *memory) fill(tx *badger.Txn, put func(*resident.Secret) error) error {
	var (
		mu      sync.Mutex // held to put, and to sum up
		all     uint64     // what the records sum up to
		workers sync.WaitGroup
		firsts  = make(chan byte, 256)
		failed  = make(chan error, 256)
	)
	for first := range 256 {
		firsts <- byte(first)
	}
	close(firsts)
	one := func(key, value []byte) error {
		d, err := digestIn(key)
		if err != nil {
			return err
		}
		s, err := residentSecret(d, value)
		if err != nil {
			return err
		}
		change := sumChange{rangeOf(&d), checkValue(key, value)}
		mu.Lock()
		defer mu.Unlock()
		m.sums.add(change)
		all += change.by
		return put(s)
	}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for first := range firsts {
				if err := each(tx, append([]byte(prefixDigest), schemeSHA256, first), nil, one); err != nil {
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
		return fmt.Errorf(
			"%w: at position %d its secrets have the digest %s, and should have %s",
			ErrCorrupt,
			m.cursor.position,
			events.IndexDigest(all),
			events.IndexDigest(m.cursor.secrets),
		)
	}
	return nil
}
