package projector

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// write puts the changeset's records and cursor into a transaction.
func (s *changeset) write(tx *badger.Txn) error {
	w := writer{tx: tx, overwritten: s.overwritten}
	for k, done := range s.commands {
		w.put(commandKey(k), appendDone(nil, &done))
	}
	for coveredPos, r := range s.receipts {
		s.receiptChecks[coveredPos] = w.putJSON(receiptKey(coveredPos), r)
	}
	for id, pos := range s.sessions {
		w.put(sessionKey(id), appendPosition(nil, pos))
	}
	for pos, why := range s.voids {
		w.put(voidKey(pos), []byte(why))
	}
	for shard, pos := range s.shards {
		key := shardKey(shard)
		w.put(key, appendPosition(nil, pos))
		if old, ok := lookupOverlay(s.before.shards, s.base.shards, shard); ok {
			w.overwritten.add(checkValue(key, appendPosition(nil, old)))
		}
	}
	for id, a := range s.accounts {
		if a.Version <= s.from.position {
			continue // it was only read
		}
		s.accountChecks[id] = w.putJSON(accountKey(id), a)
		if old, ok := lookupOverlay(s.before.accountChecks, s.base.accountChecks, id); ok {
			w.overwritten.add(old)
		}
	}
	if s.policy != nil {
		s.policyDigest = setDigest{sum: w.putJSON([]byte(keyPolicy), s.policy), records: 1}
		w.overwritten.addAll(s.policyDigestBefore())
	}
	if s.matomo > 0 { // written once
		w.put([]byte(keyMatomo), appendPosition(nil, s.matomo))
	}
	for _, st := range s.tokens {
		if st.newChecks = st.oldChecks; st.token.Version > s.from.position {
			st.newChecks = w.replaceToken(st)
			if st.secretlessPos > s.from.position {
				w.overwritten.addAll(st.oldChecks.secretless)
				st.newChecks.secretless = w.putSecretless(st)
				s.secretless[st.token.ID] = st.secretlessPos
			}
		}
	}
	if w.err != nil {
		return w.err
	}
	s.secrets, s.sums = w.secrets, w.sums
	return s.writeCursor(tx, &w)
}

func (s *changeset) writeCursor(tx *badger.Txn, w *writer) error {
	c := &s.cursor
	c.secrets = s.from.secrets
	for _, change := range s.sums {
		c.secrets += change.delta
	}
	c.anchor = sha256.Sum256(s.last)
	c.digest = s.from.digest
	c.digest.addAll(w.digest)
	c.digest.removeAll(w.overwritten)
	if pos := lastComparePoint(c.position); pos == c.position {
		c.compareDigest = c.digest.sum
	} else if pos > s.from.position {
		return fmt.Errorf("batch from %d to %d skips the compare point %d", s.from.position, c.position, pos)
	}
	key := []byte(keyCursor)
	return tx.Set(key, seal(key, c.append(nil)))
}

// policyDigestBefore returns the digest of the policy's record before the
// batch.
func (s *changeset) policyDigestBefore() setDigest {
	if s.before.policy != nil {
		return s.before.policyDigest
	}
	return s.base.policyDigest
}

// writer puts records into a transaction and adds up their check values. It
// does nothing after an error.
type writer struct {
	tx          *badger.Txn
	arena       arena
	overwritten setDigest // of the records that it overwrites
	digest      setDigest
	secrets     []storedSecret // that it has put
	sums        []bucketChange // from the secrets put and overwritten
	err         error
}

// put writes a record and returns its check value. The caller must not use key
// and value again.
func (w *writer) put(key, value []byte) uint64 {
	if w.err != nil {
		return 0
	}
	sealed := seal(key, value)
	check := binary.BigEndian.Uint64(sealed[len(sealed)-8:])
	w.err = w.tx.Set(key, sealed)
	w.digest.add(check)
	return check
}

func (w *writer) putJSON(key []byte, v any) uint64 {
	b, err := json.Marshal(v)
	w.fail(err)
	return w.put(key, b)
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// value returns b, which begins in the arena, with room for its check value.
func (w *writer) value(b []byte) []byte {
	n := len(b)
	return w.arena.keep(append(b, make([]byte, 8)...))[:n]
}

func (w *writer) putRecord(d events.Digest, r *Record) (check uint64) {
	key := w.arena.keep(appendDigestKey(w.arena.begin(), d))
	value, err := r.append(w.arena.begin())
	w.fail(err)
	value = w.value(value)
	check = w.put(key, value)
	w.secrets = append(w.secrets, storedSecret{d, value})
	w.sums = append(w.sums, bucketChange{bucketOf(&d), check})
	return check
}

// replaceToken writes a token and its secrets, and notes which of their records
// it overwrites.
func (w *writer) replaceToken(st *stagedToken) tokenChecks {
	checks := w.putToken(st)
	checks.secretless = st.oldChecks.secretless
	if !st.made {
		w.overwritten.add(st.oldChecks.token)
	}
	for _, c := range st.oldChecks.secrets {
		w.overwritten.add(c.delta)
		w.sums = append(w.sums, bucketChange{c.bucket, -c.delta})
	}
	return checks
}

// putToken writes a token and its secrets.
func (w *writer) putToken(st *stagedToken) (checks tokenChecks) {
	t := st.token
	id, account := t.ID.Bytes(), t.Account.Bytes()
	key := w.arena.keep(appendID(append(w.arena.begin(), prefixToken...), id))
	value, err := appendToken(w.arena.begin(), t)
	w.fail(err)
	checks.token = w.put(key, w.value(value))
	if st.made {
		key := w.arena.keep(appendID(appendID(append(w.arena.begin(), prefixOwned...), account), id))
		w.put(key, w.value(w.arena.begin()))
	}
	state := SecretLive
	switch t.State {
	case events.Suspended:
		state = SecretSuspended
	case events.Revoked:
		state = SecretRevoked
	}
	for _, slot := range t.Secrets {
		check := w.putRecord(slot.Digest, recordOf(t, slot, state))
		checks.secrets = append(checks.secrets, bucketChange{bucketOf(&slot.Digest), check})
	}
	for digest, r := range st.ended {
		w.putRecord(digest, r)
	}
	return checks
}

// putSecretless writes the last position at which a token had no secret. It
// returns the digest of that record.
func (w *writer) putSecretless(st *stagedToken) (d setDigest) {
	d.add(w.put(secretlessKey(st.token.ID), appendPosition(nil, st.secretlessPos)))
	return d
}

// recordOf returns the record of a token's secret.
func recordOf(t *events.Token, slot events.SecretSlot, state RecordState) *Record {
	return &Record{
		Token: t.ID, Account: t.Account, App: t.App, State: state, Inherit: t.Inherit,
		Plain:   slot.Format == events.FormatHex32,
		Created: t.Created, CreatedIn: t.CreatedIn, Expires: t.Expires, Until: slot.Until,
		Scopes: t.Scopes, Constraints: t.Constraints, Version: t.Version, IssuedBy: slot.IssuedBy,
	}
}

// arena allocates the keys and values of one transaction in chunks. Badger
// keeps them until it has written the transaction, so no memory is reused.
type arena struct {
	free []byte
	size int // of the last chunk; grows, since most transactions hold one event
}

const (
	minChunk = 4 << 10
	maxChunk = 64 << 10
)

// begin returns an empty slice to which the caller appends one key or value.
func (a *arena) begin() []byte {
	const minFree = 2 << 10 // a longer key or value moves to the heap as it grows
	if cap(a.free) < minFree {
		a.size = min(max(minChunk, 4*a.size), maxChunk)
		a.free = make([]byte, 0, a.size)
	}
	return a.free[:0]
}

// keep reserves the memory of b, which the caller appended to the result of
// begin. The next begin returns the memory behind b.
func (a *arena) keep(b []byte) []byte {
	if n := len(b); n <= cap(a.free) {
		a.free = a.free[n:n:cap(a.free)]
	}
	return b[:len(b):len(b)]
}
