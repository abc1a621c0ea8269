package projector

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// changeset holds the changes of one batch of events until one transaction
// writes them. fold.go fills it.
type changeset struct {
	tx    *badger.Txn     // reads the index as of the transaction's start
	base  *state          // the projector's state at the same position
	table *resident.Table // also at base's position; nil for none
	// before is the changeset of the transaction in flight, which tx, base and
	// table do not show yet. It is empty if there is none, and after the
	// commit.
	before *changeset
	from   cursor // before the batch
	cursor cursor

	last       []byte              // stored event at the cursor's position
	policy     *events.PolicyState // nil if unchanged
	matomo     events.Position     // as state.matomo, of this batch; 0 if unchanged
	tokens     map[events.TokenID]*stagedToken
	accounts   map[events.AccountID]*events.Account
	commands   map[events.CommandKey]events.Done
	receipts   map[events.Position]*events.Receipt // by covered position
	shards     map[string]events.Position
	secretless map[events.TokenID]events.Position // as state.secretless
	digests    map[events.Digest]bool             // given to tokens of this batch
	sessions   map[events.SessionID]events.Position
	voids      map[events.Position]string
	actors     map[events.TokenID]actor // read from the index

	found resident.Found // scratch space for lookups in table

	overwritten setDigest // of the commands and receipts that it overwrites

	// What write has written.
	secrets       []storedSecret
	sums          []bucketChange
	accountChecks map[events.AccountID]uint64
	receiptChecks map[events.Position]uint64
	policyDigest  setDigest
}

type stagedToken struct {
	token *events.Token
	made  bool // by this batch
	// ended are the secrets that rotations of this batch ended early. Each
	// record is as of its rotation, so that the index does not depend on the
	// batches.
	ended         map[events.Digest]*Record
	secretlessPos events.Position // as state.secretless, of this batch; 0 for none
	oldChecks     tokenChecks     // before this batch
	newChecks     tokenChecks     // after write
}

// tokenChecks are the check values of a token's records, which its next change
// overwrites.
type tokenChecks struct {
	token      uint64
	secrets    []bucketChange
	secretless setDigest // of the record under secretlessKey, if it has one
}

func newChangeset(tx *badger.Txn, base *state, table *resident.Table, before *changeset) *changeset {
	s := &changeset{
		tx: tx, base: base, table: table, before: before, from: base.cursor,
		tokens:        map[events.TokenID]*stagedToken{},
		accounts:      map[events.AccountID]*events.Account{},
		commands:      map[events.CommandKey]events.Done{},
		receipts:      map[events.Position]*events.Receipt{},
		shards:        map[string]events.Position{},
		secretless:    map[events.TokenID]events.Position{},
		digests:       map[events.Digest]bool{},
		accountChecks: map[events.AccountID]uint64{},
		receiptChecks: map[events.Position]uint64{},
		sessions:      map[events.SessionID]events.Position{},
		voids:         map[events.Position]string{},
		actors:        map[events.TokenID]actor{},
	}
	if before == nil {
		s.before = new(changeset)
	} else {
		s.from = before.cursor
	}
	s.cursor = s.from
	return s
}

// lookupOverlay looks k up in before, the changes in flight, and then in base.
func lookupOverlay[K comparable, V any](before, base map[K]V, k K) (v V, ok bool) {
	if v, ok = before[k]; !ok {
		v, ok = base[k]
	}
	return v, ok
}

// overwriteCommand adds the command's stored record, if there is one, to
// s.overwritten.
func (s *changeset) overwriteCommand(k events.CommandKey) error {
	if done, ok := s.before.commands[k]; ok {
		s.overwritten.add(checkValue(commandKey(k), appendDone(nil, &done)))
		return nil
	}
	return s.overwrite(commandKey(k))
}

// overwriteReceipt is overwriteCommand for a receipt.
func (s *changeset) overwriteReceipt(coveredPos events.Position) error {
	if check, ok := s.before.receiptChecks[coveredPos]; ok {
		s.overwritten.add(check)
		return nil
	}
	return s.overwrite(receiptKey(coveredPos))
}

func (s *changeset) overwrite(key []byte) error {
	old, found, err := read(s.tx, key, func([]byte) error { return nil })
	if found {
		s.overwritten.add(old)
	}
	return err
}

// matomoSince is state.matomo as of this point of the batch.
func (s *changeset) matomoSince() events.Position {
	return max(s.matomo, s.before.matomo, s.base.matomo)
}

func (s *changeset) currentPolicy() events.PolicyState { return *s.policyNow() }

// policyNow returns the current policy. The caller must not change it.
func (s *changeset) policyNow() *events.PolicyState {
	switch {
	case s.policy != nil:
		return s.policy
	case s.before.policy != nil:
		return s.before.policy
	}
	return &s.base.policy
}

// token stages a token, which it reads from the index if necessary. It returns
// nil if the token does not exist.
func (s *changeset) token(id events.TokenID) (*stagedToken, error) {
	if t, ok := s.tokens[id]; ok {
		return t, nil
	}
	if t, ok := s.before.tokens[id]; ok {
		st := &stagedToken{token: t.token.Clone(), oldChecks: t.newChecks}
		s.tokens[id] = st
		return st, nil
	}
	st, err := s.readToken(id)
	if st != nil {
		s.tokens[id] = st
	}
	return st, err
}

// readToken reads a token from the index. It returns nil if the token does not
// exist.
func (s *changeset) readToken(id events.TokenID) (*stagedToken, error) {
	if exists, sure := s.base.recent.has(id); sure && !exists {
		return nil, nil
	}
	t := new(events.Token)
	old, found, err := read(s.tx, tokenKey(id), func(b []byte) error { return parseToken(b, t) })
	if err != nil || !found {
		return nil, err
	}
	st := &stagedToken{token: t, oldChecks: tokenChecks{token: old}}
	secretlessPos, ok := s.base.secretless[id]
	if ok {
		st.oldChecks.secretless.add(checkValue(secretlessKey(id), appendPosition(nil, secretlessPos)))
	}
	if len(t.Secrets) == 0 && secretlessPos != t.Version {
		return nil, errVersionSkew(id)
	}
	for _, slot := range t.Secrets {
		check, err := s.checkSecret(t, slot.Digest)
		if err != nil {
			return nil, err
		}
		st.oldChecks.secrets = append(st.oldChecks.secrets, bucketChange{bucketOf(&slot.Digest), check})
	}
	return st, nil
}

// checkSecret returns the check value of a secret's record. It returns an error
// unless the record is its newest version and was written together with t.
func (s *changeset) checkSecret(t *events.Token, d events.Digest) (check uint64, err error) {
	check, found, err := read(s.tx, digestKey(d), func(b []byte) error {
		r, err := splitRecord(b)
		if err == nil && r.version != t.Version {
			err = errVersionSkew(t.ID)
		}
		return err
	})
	if err == nil && !found {
		err = errVersionSkew(t.ID)
	}
	if err != nil {
		return 0, err
	}
	if s.table != nil && s.table.Find(&d, &s.found) == resident.InMemory {
		if s.found.Version != t.Version {
			err = errVersionSkew(t.ID)
		}
		return check, err
	}
	b := bucketOf(&d)
	want := s.base.sums.of(b)
	if check == want { // the only record in its bucket
		return check, nil
	}
	sum, err := scanBucket(s.tx, b, func(_, _ []byte) error { return nil })
	if err == nil && sum != want {
		err = errBucketMismatch(b)
	}
	return check, err
}

// errVersionSkew reports that the records of a token and of its secret have
// different versions. They are always written together, so one of them is an
// old version, found because Badger lost the new one.
func errVersionSkew(id events.TokenID) error {
	return fmt.Errorf("%w: token %s and its secret have different versions", ErrCorrupt, id)
}

// account stages an account. It returns nil if the account does not exist.
func (s *changeset) account(id events.AccountID) (*events.Account, error) {
	if a, ok := s.accounts[id]; ok {
		return a, nil
	}
	a, ok := lookupOverlay(s.before.accounts, s.base.accounts, id)
	if !ok {
		return nil, nil
	}
	a = a.Clone()
	s.accounts[id] = a
	return a, nil
}

// digestTaken reports whether a token has, or ever had, a secret with digest d.
func (s *changeset) digestTaken(d events.Digest) (bool, error) {
	if s.digests[d] || s.before.digests[d] {
		return true, nil
	}
	if s.table != nil {
		switch s.table.Find(&d, &s.found) {
		case resident.Absent:
			return false, nil
		case resident.InMemory:
			return true, nil
		}
	}
	return get(s.tx, digestKey(d), func([]byte) error { return nil })
}
