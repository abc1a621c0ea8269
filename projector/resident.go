package projector

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/cespare/xxhash/v2"
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
var residentForms = resident.Parse{Scopes: parseScopes, Constraints: parseConstraints}

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
		Created: f.times[0], Expires: f.times[1], Until: f.times[2], Version: f.version,
		State: uint8(f.state), Flags: f.flags, Ended: f.state.ended(),
		App: f.app, Scopes: f.scopes, Constraints: f.constraints,
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

// fill returns a table of what is in the index. Every record's check value is
// verified, and that it was written together with its token's, as Lookup does.
// What it returns is [ErrCorrupt] where that is not so.
func fill(db *badger.DB, m *memory, limit int64) (*resident.Table, error) {
	table := resident.New(limit, residentForms)
	tx := db.NewTransaction(false)
	defer tx.Discard()
	pairs, err := tokenTxns(tx)
	if err == nil {
		table.Update(func(w resident.Writer) {
			for _, a := range m.accounts {
				w.SetAccount(a)
			}
			policy := m.policy
			w.SetPolicy(&policy)
			w.SetPosition(m.cursor.position)
			err = fillSecrets(tx, w, pairs)
		})
	}
	if err != nil && !isCorrupt(err) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return table, err
}

// fillSecrets reads the secrets by the first byte of their digests, several
// bytes at a time.
func fillSecrets(tx *badger.Txn, w resident.Writer, pairs pairSet) error {
	var (
		mu      sync.Mutex // held to change the table
		workers sync.WaitGroup
		firsts  = make(chan byte, 256)
		failed  = make(chan error, 256)
	)
	for first := range 256 {
		firsts <- byte(first)
	}
	close(firsts)
	one := func(key, sealed []byte, txn uint64) error {
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		d := key[len(prefixDigest)+1:]
		if len(d) != len(events.Digest{}) {
			return fmt.Errorf("%w: a digest of %d bytes", ErrCorrupt, len(d))
		}
		s, err := residentSecret(events.Digest(d), value)
		if err == nil && !s.Ended && !pairs.has(s.Token, txn) {
			return apart(events.TokenIDFrom(s.Token))
		}
		if err == nil {
			mu.Lock()
			err = w.Put(s)
			mu.Unlock()
		}
		return err
	}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for first := range firsts {
				if err := walk(tx, append([]byte(prefixDigest), schemeSHA256, first), one); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	workers.Wait()
	close(failed)
	return <-failed
}

// walk visits the records under a prefix, still sealed, with the numbers of the
// transactions that wrote them. Key and value are valid only during the visit.
func walk(tx *badger.Txn, prefix []byte, visit func(key, sealed []byte, txn uint64) error) (err error) {
	defer recovered(&err)
	opt := badger.DefaultIteratorOptions
	opt.Prefix = prefix
	opt.PrefetchValues = false // they stand beside their keys
	it := tx.NewIterator(opt)
	defer it.Close()
	for it.Rewind(); it.ValidForPrefix(prefix); it.Next() {
		item := it.Item()
		if err := item.Value(func(sealed []byte) error { return visit(item.Key(), sealed, item.Version()) }); err != nil {
			return err
		}
	}
	return nil
}

// pairSet holds which transaction wrote each token: a hash of both, in a hash
// table with linear probing. That two of them are alike is as likely as that a
// damaged record matches its check value.
type pairSet struct {
	slots []uint64 // 0 is a free one
	used  int
}

// tokenTxns reads which transaction wrote each token.
func tokenTxns(tx *badger.Txn) (pairSet, error) {
	p := pairSet{slots: make([]uint64, 1024)}
	err := walk(tx, []byte(prefixToken), func(key, _ []byte, txn uint64) error {
		if len(key) != len(prefixToken)+16 {
			return fmt.Errorf("%w: a token's key has %d bytes", ErrCorrupt, len(key))
		}
		p.add(pairHash([16]byte(key[len(prefixToken):]), txn))
		return nil
	})
	return p, err
}

func pairHash(token [16]byte, txn uint64) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(txn)
	_, _ = d.Write(token[:])
	return max(1, d.Sum64())
}

// slot returns where a hash stands, or would.
func (p *pairSet) slot(h uint64) *uint64 {
	mask := uint64(len(p.slots) - 1)
	at := h & mask
	for p.slots[at] != 0 && p.slots[at] != h {
		at = (at + 1) & mask
	}
	return &p.slots[at]
}

func (p *pairSet) add(h uint64) {
	if 2*p.used >= len(p.slots) {
		old := p.slots
		p.slots = make([]uint64, 2*len(old))
		for _, h := range old {
			if h != 0 {
				*p.slot(h) = h
			}
		}
	}
	*p.slot(h) = h
	p.used++
}

func (p *pairSet) has(token [16]byte, txn uint64) bool {
	h := pairHash(token, txn)
	return *p.slot(h) == h
}
