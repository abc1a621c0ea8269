package projector

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// write puts what the stage holds into a transaction.
func (s *stage) write(tx *badger.Txn) error {
	w := writer{tx: tx}
	gone := s.was
	for id, a := range s.accounts {
		if a.Version <= s.from.position {
			continue // it was only looked at
		}
		s.checks[id] = w.putJSON(accountKey(id), a)
		if old, ok := lookupOverlay(s.before.checks, s.base.checks, id); ok {
			gone.add(old)
		}
	}
	for k, done := range s.commands {
		w.put(commandKey(k), appendDone(nil, &done))
	}
	for covers, r := range s.receipts {
		s.issued[covers] = w.putJSON(receiptKey(covers), r)
	}
	for line, at := range s.lines {
		key := lineKey(line)
		w.put(key, appendPosition(nil, at))
		if old, ok := lookupOverlay(s.before.lines, s.base.lines, line); ok {
			gone.add(checkValue(key, appendPosition(nil, old)))
		}
	}
	for id, at := range s.sessions {
		w.put(sessionKey(id), appendPosition(nil, at))
	}
	for at, why := range s.voids {
		w.put(voidKey(at), []byte(why))
	}
	if s.policy != nil {
		s.rule = tally{sum: w.putJSON([]byte(keyPolicy), s.policy), records: 1}
		gone.join(s.ruleBefore())
	}
	for _, st := range s.tokens {
		if st.is = st.was; st.token.Version > s.from.position {
			st.is = w.putToken(st)
			if !st.made {
				gone.add(st.was.token)
			}
			if st.is.bare = st.was.bare; st.secretlessIn > s.from.position {
				gone.join(st.was.bare)
				st.is.bare = w.putSecretless(st)
				s.bare[st.token.ID] = st.secretlessIn
			}
			for _, c := range st.was.secrets {
				gone.add(c.by)
				w.sums = append(w.sums, sumChange{c.in, -c.by})
			}
		}
	}
	if w.err != nil {
		return w.err
	}
	s.secrets, s.sums = w.secrets, w.sums
	c := &s.cursor
	c.secrets = s.from.secrets
	for _, change := range s.sums {
		c.secrets += change.by
	}
	c.anchor = sha256.Sum256(s.last)
	c.tally = s.from.tally
	c.tally.join(w.tally)
	c.tally.leave(gone)
	if at := markOf(c.position); at == c.position {
		c.mark = c.tally.sum
	} else if at > s.from.position {
		return fmt.Errorf("a batch went from %d past the mark at %d to %d", s.from.position, at, c.position)
	}
	key := []byte(keyCursor)
	return tx.Set(key, seal(key, c.append(nil)))
}

// ruleBefore returns the tally of the policy's record before the batch.
func (s *stage) ruleBefore() tally {
	if s.before.policy != nil {
		return s.before.rule
	}
	return s.base.rule
}

// writer puts records into a transaction and sums up their check values. After
// an error it does nothing.
type writer struct {
	tx      *badger.Txn
	arena   arena
	tally   tally
	secrets []storedSecret // that were put
	sums    []sumChange    // what that does to the sums
	err     error
}

// put writes a record and returns its check value. It keeps both.
func (w *writer) put(key, value []byte) uint64 {
	if w.err != nil {
		return 0
	}
	sealed := seal(key, value)
	check := binary.BigEndian.Uint64(sealed[len(sealed)-8:])
	w.err = w.tx.Set(key, sealed)
	w.tally.add(check)
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

// value returns a value with room for its check value.
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
	w.sums = append(w.sums, sumChange{rangeOf(&d), check})
	return check
}

// putToken writes a token and its secrets.
func (w *writer) putToken(st *stagedToken) (is written) {
	t := st.token
	id, account := t.ID.Bytes(), t.Account.Bytes()
	key := w.arena.keep(appendID(append(w.arena.begin(), prefixToken...), id))
	value, err := appendToken(w.arena.begin(), t)
	w.fail(err)
	is.token = w.put(key, w.value(value))
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
		is.secrets = append(is.secrets, sumChange{rangeOf(&slot.Digest), check})
	}
	for digest, r := range st.ended {
		w.putRecord(digest, r)
	}
	return is
}

// putSecretless says of a token up to where it had no secret.
func (w *writer) putSecretless(st *stagedToken) (is tally) {
	is.add(w.put(bareKey(st.token.ID), appendPosition(nil, st.secretlessIn)))
	return is
}

// recordOf returns what a check needs to know of a token's secret.
func recordOf(t *events.Token, slot events.SecretSlot, state RecordState) *Record {
	return &Record{
		Token: t.ID, Account: t.Account, App: t.App, State: state, Inherit: t.Inherit,
		Plain:   slot.Format == events.FormatHex32,
		Created: t.Created, CreatedIn: t.CreatedIn, Expires: t.Expires, Until: slot.Until,
		Scopes: t.Scopes, Constraints: t.Constraints, Version: t.Version, IssuedBy: slot.IssuedBy,
	}
}
