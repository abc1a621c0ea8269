package projector

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

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

// warnOfLimit warns of a limit of the resident table that is too low or too high.
// Neither changes an answer.
func (p *Projector) warnOfLimit() {
	if p.table == nil {
		return
	}
	st := p.table.Stats()
	if st.OnDisk > 0 {
		p.cfg.Logger.Warn("secrets do not all fit into memory; checks of the others read the disk",
			"in_memory", st.Secrets, "on_disk", st.OnDisk, "bytes", st.Bytes, "limit", st.Limit)
	}
	if memory := machineMemory(); memory > 0 && st.Limit > memory {
		p.cfg.Logger.Warn("the limit of secrets in memory is more than the machine has", "limit", st.Limit, "memory", memory)
	}
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
func residentSecret(d events.Digest, value []byte) (resident.Secret, error) {
	f, err := splitRecord(value)
	if err != nil {
		return resident.Secret{}, err
	}
	return resident.Secret{
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
				failed = w.Put(&secret)
			}
			err = errors.Join(err, failed)
		}
		w.SetPosition(s.cursor.position)
	})
	return err
}

// fill reads all secrets into the range checksums and, unless limit is 0, into
// a new table. It returns [ErrCorrupt] if a check value is wrong, or if the
// digest of the secrets is not the one in the cursor. It reports its progress to
// log.
func fill(db *badger.DB, m *state, limit int64, log *slog.Logger) (table *resident.Table, err error) {
	tx := db.NewTransaction(false)
	defer tx.Discard()
	r := secretReader{tx: tx, state: m, log: log, began: time.Now()}
	if limit == 0 {
		err = r.readAll(func([]*resident.Secret) error { return nil })
	} else {
		table = resident.New(limit, residentForms)
		table.Update(func(w resident.Writer) {
			for _, a := range m.accounts {
				w.SetAccount(a)
			}
			policy := m.policy
			w.SetPolicy(&policy)
			w.SetPosition(m.cursor.position)
			err = r.readAll(w.Load)
		})
	}
	if err != nil && !isCorrupt(err) {
		err = damaged(err)
	}
	return table, err
}

// secretReader reads all secrets of an index.
type secretReader struct {
	tx    *badger.Txn
	state *state
	log   *slog.Logger
	began time.Time

	mu   sync.Mutex // guards state.sums, the calls of load, and:
	all  uint64     // sum of the check values
	done int        // first bytes of digests whose secrets are read
	read int        // secrets
	said time.Time  // when progress was last logged
}

// progressEvery is how often readAll logs its progress, and how long it takes
// before it begins to.
const progressEvery = time.Second

// readAll reads the secrets in parallel, divided by the first byte of their
// digests. It calls load for the secrets of one hash table at a time, in the order
// of their digests.
func (r *secretReader) readAll(load func([]*resident.Secret) error) error {
	const parts = 256
	var (
		workers sync.WaitGroup
		firsts  = make(chan byte, parts)
		failed  = make(chan error, parts)
	)
	for first := range parts {
		firsts <- byte(first)
	}
	close(firsts)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			b := secretBatch{reader: r, load: load}
			for first := range firsts {
				err := each(r.tx, append([]byte(prefixDigest), schemeSHA256, first), nil, b.add)
				if err = errors.Join(err, b.flush()); err != nil {
					failed <- err
					return
				}
				r.progress()
			}
		})
	}
	workers.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	if m := r.state; r.all != m.cursor.secrets {
		return fmt.Errorf("%w: at position %d its secrets have the digest %s, want %s", ErrCorrupt,
			m.cursor.position, events.IndexDigest(r.all), events.IndexDigest(m.cursor.secrets))
	}
	return nil
}

// progress logs how far readAll has come.
func (r *secretReader) progress() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	if now := time.Now(); now.Sub(r.began) > progressEvery && now.Sub(r.said) > progressEvery {
		r.said = now
		r.log.Info("reading the index", "secrets", r.read, "percent", r.done*100/256)
	}
}

// secretBatch holds the secrets of one hash table until they are loaded.
type secretBatch struct {
	reader  *secretReader
	load    func([]*resident.Secret) error
	shard   int
	secrets []resident.Secret
	changes []bucketChange
	list    []*resident.Secret // of secrets
	bytes   []byte             // what they refer to
}

func (b *secretBatch) add(key, value []byte) error {
	d, err := digestIn(key)
	if err != nil {
		return err
	}
	if shard := resident.ShardOf(&d); shard != b.shard {
		if err := b.flush(); err != nil {
			return err
		}
		b.shard = shard
	}
	// The value is valid only until add returns. Memory that append leaves
	// behind stays with the secrets that refer to it.
	from := len(b.bytes)
	b.bytes = append(b.bytes, value...)
	s, err := residentSecret(d, b.bytes[from:])
	if err != nil {
		return err
	}
	b.secrets = append(b.secrets, s)
	b.changes = append(b.changes, bucketChange{bucketOf(&d), checkValue(key, value)})
	return nil
}

// flush loads the secrets of the batch.
func (b *secretBatch) flush() error {
	if len(b.secrets) == 0 {
		return nil
	}
	b.list = b.list[:0]
	for i := range b.secrets {
		b.list = append(b.list, &b.secrets[i])
	}
	r := b.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range b.changes {
		r.state.sums.add(c)
		r.all += c.delta
	}
	r.read += len(b.list)
	err := b.load(b.list)
	b.secrets, b.changes, b.bytes = b.secrets[:0], b.changes[:0], b.bytes[:0]
	return err
}
