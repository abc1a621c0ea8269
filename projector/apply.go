package projector

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// stage holds what a batch of events changes until it is written as one
// transaction.
type stage struct {
	tx       *badger.Txn // reads the index as it was before the batch
	base     *memory     // likewise, what is kept in memory
	cursor   cursor
	policy   *events.PolicyState // nil while unchanged
	tokens   map[events.TokenID]*stagedToken
	accounts map[events.AccountID]*events.Account
	commands map[events.CommandKey]events.Done
	receipts map[events.Position]*events.Receipt // covered position -> receipt
	lines    map[string]events.Position
	digests  map[events.Digest]bool // those that a token of this batch took

	was     tally                       // of commands and receipts that are overwritten
	secrets []storedSecret              // that were written
	checks  map[events.AccountID]uint64 // of the accounts that were written
	rule    tally                       // of the policy that was written
}

type stagedToken struct {
	token *events.Token
	made  bool // by this batch
	// ended are the secrets that a rotation ended before their grace, as they
	// were then: what comes after must not depend on where a batch is cut.
	ended map[events.Digest]Record
	was   tally // of the token and its secrets in the index
}

func newStage(tx *badger.Txn, base *memory) *stage {
	return &stage{
		tx: tx, base: base, cursor: base.cursor,
		tokens:   map[events.TokenID]*stagedToken{},
		accounts: map[events.AccountID]*events.Account{},
		commands: map[events.CommandKey]events.Done{},
		receipts: map[events.Position]*events.Receipt{},
		lines:    map[string]events.Position{},
		digests:  map[events.Digest]bool{},
		checks:   map[events.AccountID]uint64{},
	}
}

// apply folds one message into the stage. An error leaves the stage unusable.
func (s *stage) apply(m events.Message) error {
	if m.Position != s.cursor.position+1 {
		return fmt.Errorf("%w: position %d came after %d", ErrGap, m.Position, s.cursor.position)
	}
	e, err := events.DecodeMessage(m)
	if err != nil {
		return err
	}
	if s.cursor.epoch != "" && e.Epoch != s.cursor.epoch {
		return fmt.Errorf("%w: the event at position %d belongs to epoch %s, and all before it to %s", ErrImpossible, m.Position, e.Epoch, s.cursor.epoch)
	}
	line, err := events.Line(m.Subject)
	if err != nil {
		return err
	}
	if err := s.change(e, m.Position); err != nil {
		return fmt.Errorf("event at position %d (%s %s): %w", m.Position, e.Change.Kind(), e.About, err)
	}
	if e.Key != "" {
		if _, staged := s.commands[e.Key]; !staged {
			if err := s.overwrite(commandKey(e.Key)); err != nil {
				return err
			}
		}
		s.commands[e.Key] = events.Done{Position: m.Position, Event: e.ID, About: e.About, Kind: e.Change.Kind(), Digest: e.Digest}
	}
	s.lines[line] = m.Position
	s.cursor.position, s.cursor.anchor, s.cursor.epoch = m.Position, sha256.Sum256(m.Data), e.Epoch
	return nil
}

// overwrite notes that a record, which may be in the index, will be written
// anew.
func (s *stage) overwrite(key []byte) error {
	old, found, err := read(s.tx, key, func([]byte) error { return nil })
	if found {
		s.was.add(old.check)
	}
	return err
}

func (s *stage) change(e *events.Event, at events.Position) error {
	switch c := e.Change.(type) {
	case *events.PolicySet:
		p := s.currentPolicy()
		p.Policy, p.Version = c.Policy, at
		s.policy = &p
		return nil
	case *events.PolicyTokensRevoked:
		p := s.currentPolicy()
		p.TokensBefore, p.Version = later(p.TokensBefore, c.Before), at
		s.policy = &p
		return nil
	case *events.TokenCreated:
		return s.createToken(e, c, at)
	case *events.AccountCreated:
		return s.createAccount(e, c, at)
	case *events.ReceiptIssued:
		return s.keepReceipt(e, c, at)
	}
	if e.Change.Kind().Noun() == events.NounAccount {
		return s.changeAccount(e, at)
	}
	return s.changeToken(e, at)
}

// keepReceipt keeps the latest of the receipts that cover as much.
func (s *stage) keepReceipt(e *events.Event, c *events.ReceiptIssued, at events.Position) error {
	if c.Covers >= at {
		return impossible("it covers position %d, which comes after it", c.Covers)
	}
	if _, staged := s.receipts[c.Covers]; !staged {
		if err := s.overwrite(receiptKey(c.Covers)); err != nil {
			return err
		}
	}
	s.receipts[c.Covers] = &events.Receipt{ReceiptIssued: *c, Position: at, Issued: e.Time}
	return nil
}

func (s *stage) createToken(e *events.Event, c *events.TokenCreated, at events.Position) error {
	id := events.TokenID(e.About)
	switch t, err := s.token(id); {
	case err != nil:
		return err
	case t != nil:
		return impossible("the token exists since position %d", t.token.CreatedIn)
	}
	switch a, err := s.account(c.Account); {
	case err != nil:
		return err
	case a == nil:
		return impossible("its account does not exist")
	}
	t := &events.Token{
		ID: id, Account: c.Account, App: c.App, Device: c.Device,
		Scopes: c.Scopes, Inherit: c.Inherit, Expires: c.Expires, Constraints: c.Constraints,
		State:   events.Active,
		Created: e.Time, CreatedBy: e.Actor, CreatedIn: at, Changed: e.Time, Version: at,
	}
	if t.Constraints.Empty() {
		t.Constraints = nil
	}
	taken, err := s.digestTaken(c.Secret.Digest)
	if err != nil {
		return err
	}
	// A digest belongs to the first token that had it, for ever. Commands in
	// two shards cannot see each other, so two tokens with one digest can
	// stand in the log; the later one has no secret, and nothing else happens.
	if !taken {
		t.Secrets = []events.SecretSlot{{Digest: c.Secret.Digest, Since: e.Time, Form: c.Secret.Form}}
		s.digests[c.Secret.Digest] = true
	}
	s.tokens[id] = &stagedToken{token: t, made: true}
	return nil
}

func (s *stage) changeToken(e *events.Event, at events.Position) error {
	st, err := s.token(events.TokenID(e.About))
	if err != nil {
		return err
	}
	if st == nil {
		return impossible("the token does not exist")
	}
	t := st.token
	if t.State == events.Revoked {
		return impossible("the token is revoked since position %d", t.Version)
	}
	t.Version, t.Changed = at, e.Time
	switch c := e.Change.(type) {
	case *events.TokenScoped:
		t.Scopes, t.Inherit = c.Scopes, c.Inherit
		if c.Edit != nil {
			edit(t, c.Edit)
		}
	case *events.TokenEdited:
		edit(t, c)
	case *events.TokenRotated:
		return s.rotate(st, e, c)
	case *events.TokenSuspended:
		t.State, t.Reason, t.StoppedBy = events.Suspended, c.Reason, e.Actor.Account
	case *events.TokenResumed:
		t.State, t.Reason, t.StoppedBy = events.Active, "", ""
	case *events.TokenRevoked:
		t.State, t.Reason, t.Revoked, t.StoppedBy = events.Revoked, c.Reason, e.Time, ""
	default:
		return impossible("no rule for this kind")
	}
	return nil
}

func edit(t *events.Token, c *events.TokenEdited) {
	if c.App != nil {
		t.App = *c.App
	}
	if c.Device != nil {
		t.Device = *c.Device
	}
	if c.Expires != nil {
		t.Expires = *c.Expires
	}
	if c.Constraints != nil {
		t.Constraints = c.Constraints
		if t.Constraints.Empty() {
			t.Constraints = nil
		}
	}
}

// rotate puts the new secret first. The one before it lives until the event
// says; an older one ends here.
func (s *stage) rotate(st *stagedToken, e *events.Event, c *events.TokenRotated) error {
	taken, err := s.digestTaken(c.Secret.Digest)
	if err != nil {
		return err
	}
	t := st.token
	var slots []events.SecretSlot
	if !taken { // as in createToken, a digest stays with its first token
		slots = append(slots, events.SecretSlot{Digest: c.Secret.Digest, Since: e.Time, Form: c.Secret.Form})
		s.digests[c.Secret.Digest] = true
	}
	for i, old := range t.Secrets {
		if i == 0 && old.Until.IsZero() {
			old.Until = c.Until
			slots = append(slots, old)
			continue
		}
		if st.ended == nil {
			st.ended = map[events.Digest]Record{}
		}
		st.ended[old.Digest] = recordOf(t, old, SecretSuperseded)
	}
	t.Secrets = slots
	return nil
}

func (s *stage) createAccount(e *events.Event, c *events.AccountCreated, at events.Position) error {
	id := events.AccountID(e.About)
	switch a, err := s.account(id); {
	case err != nil:
		return err
	case a != nil:
		return impossible("the account exists")
	}
	s.accounts[id] = &events.Account{
		ID: id, Kind: c.Type, Owner: c.Owner, Grants: c.Grants, SelfService: true,
		Created: e.Time, Changed: e.Time, Version: at,
	}
	return nil
}

func (s *stage) changeAccount(e *events.Event, at events.Position) error {
	a, err := s.account(events.AccountID(e.About))
	if err != nil {
		return err
	}
	if a == nil {
		return impossible("the account does not exist")
	}
	if a.Erased {
		return impossible("the account is erased since position %d", a.Version)
	}
	a.Version, a.Changed = at, e.Time
	switch c := e.Change.(type) {
	case *events.AccountGranted:
		a.Grants = c.Grants
	case *events.AccountEdited:
		if c.Owner != nil {
			a.Owner = *c.Owner
		}
		if c.SelfService != nil {
			a.SelfService = *c.SelfService
		}
	case *events.AccountSuspended:
		a.Suspended, a.Reason = true, c.Reason
	case *events.AccountResumed:
		a.Suspended, a.Reason = false, ""
	case *events.AccountTokensRevoked:
		a.TokensBefore = later(a.TokensBefore, c.Before)
	case *events.AccountErased:
		a.Erased = true
	case *events.AccountProofChanged: // what changed is not in the log
	default:
		return impossible("no rule for this kind")
	}
	return nil
}

func (s *stage) currentPolicy() events.PolicyState {
	if s.policy != nil {
		return *s.policy
	}
	return s.base.policy
}

// token returns the staged token, reading it from the index at first. It
// returns nil where there is none.
func (s *stage) token(id events.TokenID) (*stagedToken, error) {
	if t, ok := s.tokens[id]; ok {
		return t, nil
	}
	t := new(events.Token)
	old, found, err := read(s.tx, tokenKey(id), func(b []byte) error { return json.Unmarshal(b, t) })
	if err != nil || !found {
		return nil, err
	}
	st := &stagedToken{token: t}
	st.was.add(old.check)
	for _, slot := range t.Secrets {
		secret, found, err := read(s.tx, digestKey(slot.Digest), func([]byte) error { return nil })
		switch {
		case err != nil:
			return nil, err
		case !found || secret.txn != old.txn:
			return nil, apart(id)
		}
		st.was.add(secret.check)
	}
	s.tokens[id] = st
	return st, nil
}

// apart reports a token and a secret of it that were not written together, as
// they always are: one of them is an old version, which came to light where the
// new one cannot be found.
func apart(id events.TokenID) error {
	return fmt.Errorf("%w: token %s and its secret are of different times", ErrCorrupt, id)
}

func (s *stage) account(id events.AccountID) (*events.Account, error) {
	if a, ok := s.accounts[id]; ok {
		return a, nil
	}
	a, ok := s.base.accounts[id]
	if !ok {
		return nil, nil
	}
	a = a.Clone()
	s.accounts[id] = a
	return a, nil
}

func (s *stage) digestTaken(d events.Digest) (bool, error) {
	if s.digests[d] {
		return true, nil
	}
	return get(s.tx, digestKey(d), func([]byte) error { return nil })
}

// write puts what the stage holds into a transaction.
func (s *stage) write(tx *badger.Txn) error {
	w := writer{tx: tx}
	gone := s.was
	for id, a := range s.accounts {
		if a.Version <= s.base.cursor.position {
			continue // it was only looked at
		}
		s.checks[id] = w.putJSON(accountKey(id), a)
		if old, ok := s.base.checks[id]; ok {
			gone.add(old)
		}
	}
	for k, done := range s.commands {
		w.putJSON(commandKey(k), done)
	}
	for covers, r := range s.receipts {
		w.putJSON(receiptKey(covers), r)
	}
	for line, at := range s.lines {
		key := lineKey(line)
		w.put(key, appendLine(nil, at))
		if old, ok := s.base.lines[line]; ok {
			gone.add(checkValue(key, appendLine(nil, old)))
		}
	}
	if s.policy != nil {
		s.rule = tally{sum: w.putJSON([]byte(keyPolicy), s.policy), records: 1}
		gone.join(s.base.rule)
	}
	for _, st := range s.tokens {
		if st.token.Version > s.base.cursor.position {
			w.putToken(st)
			gone.join(st.was)
		}
	}
	if w.err != nil {
		return w.err
	}
	s.secrets = w.secrets
	c := &s.cursor
	c.tally = s.base.cursor.tally
	c.tally.join(w.tally)
	c.tally.leave(gone)
	if at := markOf(c.position); at == c.position {
		c.mark = c.tally.sum
	} else if at > s.base.cursor.position {
		return fmt.Errorf("a batch went from %d past the mark at %d to %d", s.base.cursor.position, at, c.position)
	}
	key := []byte(keyCursor)
	return tx.Set(key, seal(key, c.append(nil)))
}

// writer puts records into a transaction and sums up their check values. After
// an error it does nothing.
type writer struct {
	tx      *badger.Txn
	tally   tally
	secrets []storedSecret // that were put
	err     error
}

// put writes a record and returns its check value.
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
	if err != nil {
		w.err = errors.Join(w.err, err)
	}
	return w.put(key, b)
}

func (w *writer) putRecord(d events.Digest, r Record) {
	value, err := r.append(nil)
	if err != nil {
		w.err = errors.Join(w.err, err)
	}
	w.put(digestKey(d), value)
	w.secrets = append(w.secrets, storedSecret{d, value})
}

func (w *writer) putToken(st *stagedToken) {
	t := st.token
	w.putJSON(tokenKey(t.ID), t)
	if st.made {
		w.put(ownedKey(t.Account, t.ID), nil)
	}
	state := SecretLive
	switch t.State {
	case events.Suspended:
		state = SecretSuspended
	case events.Revoked:
		state = SecretRevoked
	}
	for _, slot := range t.Secrets {
		w.putRecord(slot.Digest, recordOf(t, slot, state))
	}
	for digest, r := range st.ended {
		w.putRecord(digest, r)
	}
}

// recordOf returns what a check needs to know of a token's secret.
func recordOf(t *events.Token, slot events.SecretSlot, state RecordState) Record {
	return Record{
		Token: t.ID, Account: t.Account, App: t.App, State: state, Inherit: t.Inherit,
		Plain:   slot.Form == events.FormHex32,
		Created: t.Created, Expires: t.Expires, Until: slot.Until,
		Scopes: t.Scopes, Constraints: t.Constraints, Version: t.Version,
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// memory is what the projector keeps beside Badger: few, and read by every
// check. What a pointer in it points to is never changed.
type memory struct {
	cursor   cursor
	policy   events.PolicyState
	accounts map[events.AccountID]*events.Account
	lines    map[string]events.Position // last position of each line of subjects

	checks map[events.AccountID]uint64 // check values of the accounts' records
	rule   tally                       // of the policy's record; empty where there is none
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
}

// load reads the memory back from the index.
func load(db *badger.DB) (*memory, error) {
	m := &memory{
		accounts: map[events.AccountID]*events.Account{},
		lines:    map[string]events.Position{},
		checks:   map[events.AccountID]uint64{},
	}
	err := db.View(func(tx *badger.Txn) error {
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
			m.rule.add(policy.check)
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
		return each(tx, []byte(prefixLine), nil, func(key, value []byte) error {
			at, err := parseLine(value)
			m.lines[string(key[len(prefixLine):])] = at
			return err
		})
	})
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForm) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m, err
}

// each visits the records under a prefix in order of key, from start if given,
// until visit returns an error. Key and value are valid only during the visit.
func each(tx *badger.Txn, prefix, start []byte, visit func(key, value []byte) error) error {
	opt := badger.DefaultIteratorOptions
	opt.Prefix = prefix
	opt.PrefetchValues = false // they stand beside their keys
	it := tx.NewIterator(opt)
	defer it.Close()
	if start == nil {
		start = prefix
	}
	for err := guarded(func() error { it.Seek(start); return nil }); ; err = guarded(func() error { it.Next(); return nil }) {
		if err != nil || !it.ValidForPrefix(prefix) {
			return err
		}
		key := it.Item().Key()
		var sealed []byte // the item's own until it moves on
		if err := guarded(func() error {
			return it.Item().Value(func(b []byte) error { sealed = b; return nil })
		}); err != nil {
			return err
		}
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		if err := visit(key, value); err != nil {
			return err
		}
	}
}

// guarded calls what panics over some damage.
func guarded(f func() error) (err error) {
	defer recovered(&err)
	return f()
}

func impossible(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrImpossible, fmt.Sprintf(format, args...))
}
