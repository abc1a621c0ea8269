package projector

import (
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// stage holds what a batch of events changes until it is written as one
// transaction.
type stage struct {
	tx    *badger.Txn     // reads the index as it was before the batch
	base  *memory         // likewise, what is kept in memory
	table *resident.Table // what it holds is as of base; nil for none
	// before is the stage that is written just before this one and is not in tx,
	// base and table yet, or was not when this one began; an empty one for none.
	before   *stage
	from     cursor // where it begins
	cursor   cursor
	last     []byte              // stored event at the cursor's position
	policy   *events.PolicyState // nil while unchanged
	tokens   map[events.TokenID]*stagedToken
	accounts map[events.AccountID]*events.Account
	commands map[events.CommandKey]events.Done
	receipts map[events.Position]*events.Receipt // covered position -> receipt
	lines    map[string]events.Position
	bare     map[events.TokenID]events.Position
	digests  map[events.Digest]bool               // those that a token of this batch took
	sessions map[events.SessionID]events.Position // that this batch ended
	voids    map[events.Position]string           // events of this batch without effect
	actors   map[events.TokenID]actor             // tokens that acted and were read from the index

	found   resident.Found              // where digests are looked up
	sums    []sumChange                 // of what was written
	was     tally                       // of commands and receipts that are overwritten
	secrets []storedSecret              // that were written
	checks  map[events.AccountID]uint64 // of the accounts that were written
	issued  map[events.Position]uint64  // check values of the receipts that were written
	rule    tally                       // of the policy that was written
}

type stagedToken struct {
	token *events.Token
	made  bool // by this batch
	// ended are the secrets that a rotation ended before their grace, as they
	// were then: what comes after must not depend on where a batch is cut.
	ended        map[events.Digest]*Record
	secretlessIn events.Position // last event of this batch that found or left it without a secret
	was          written         // before this batch
	is           written         // and after it, once it was written
}

// written is what is stored of a token and will be overwritten by its next change.
type written struct {
	token   uint64      // check value of its record
	secrets []sumChange // and of those of its secrets
	bare    tally       // of the record that says it has no secret
}

func newStage(tx *badger.Txn, base *memory, table *resident.Table, before *stage) *stage {
	s := &stage{
		tx: tx, base: base, table: table, before: before, from: base.cursor,
		tokens:   map[events.TokenID]*stagedToken{},
		accounts: map[events.AccountID]*events.Account{},
		commands: map[events.CommandKey]events.Done{},
		receipts: map[events.Position]*events.Receipt{},
		lines:    map[string]events.Position{},
		bare:     map[events.TokenID]events.Position{},
		digests:  map[events.Digest]bool{},
		checks:   map[events.AccountID]uint64{},
		issued:   map[events.Position]uint64{},
		sessions: map[events.SessionID]events.Position{},
		voids:    map[events.Position]string{},
		actors:   map[events.TokenID]actor{},
	}
	if before == nil {
		s.before = new(stage)
	} else {
		s.from = before.cursor
	}
	s.cursor = s.from
	return s
}

// lookupOverlay returns what a key has in the stage before, or else in what that one is
// based on.
func lookupOverlay[K comparable, V any](before, base map[K]V, k K) (v V, ok bool) {
	if v, ok = before[k]; !ok {
		v, ok = base[k]
	}
	return v, ok
}

// apply folds one message, which was decoded, into the stage. An error leaves the
// stage unusable.
func (s *stage) apply(m events.Message, e *events.Event) error {
	if m.Position != s.cursor.position+1 {
		return fmt.Errorf("%w: position %d came after %d", ErrGap, m.Position, s.cursor.position)
	}
	if s.cursor.epoch != "" && e.Epoch != s.cursor.epoch {
		return fmt.Errorf(
			"%w: the event at position %d belongs to epoch %s, and all before it to %s",
			ErrInvalidHistory,
			m.Position,
			e.Epoch,
			s.cursor.epoch,
		)
	}
	line, err := events.Line(m.Subject)
	if err != nil {
		return err
	}
	void, err := s.whyVoid(e)
	switch {
	case err != nil:
	case void != "":
		s.voids[m.Position] = void
	default:
		err = s.change(e, m.Position)
	}
	if err != nil {
		return fmt.Errorf("event at position %d (%s %s): %w", m.Position, e.Change.Kind(), e.About, err)
	}
	if e.Key != "" && void == "" {
		if _, staged := s.commands[e.Key]; !staged {
			if err := s.overwriteCommand(e.Key); err != nil {
				return err
			}
		}
		s.commands[e.Key] = events.Done{
			Position: m.Position,
			Event:    e.ID,
			About:    e.About,
			Kind:     e.Change.Kind(),
			Digest:   e.Digest,
		}
	}
	s.lines[line] = m.Position
	s.cursor.position, s.cursor.epoch, s.last = m.Position, e.Epoch, m.Data
	return nil
}

// overwriteCommand notes that a command's record will be written, perhaps anew.
func (s *stage) overwriteCommand(k events.CommandKey) error {
	if done, ok := s.before.commands[k]; ok {
		s.was.add(checkValue(commandKey(k), appendDone(nil, &done)))
		return nil
	}
	return s.overwrite(commandKey(k))
}

// overwriteReceipt is the same for a receipt.
func (s *stage) overwriteReceipt(covers events.Position) error {
	if check, ok := s.before.issued[covers]; ok {
		s.was.add(check)
		return nil
	}
	return s.overwrite(receiptKey(covers))
}

func (s *stage) overwrite(key []byte) error {
	old, found, err := read(s.tx, key, func([]byte) error { return nil })
	if found {
		s.was.add(old)
	}
	return err
}

func (s *stage) change(e *events.Event, at events.Position) error {
	if e.Change.Kind().Keeps() {
		return nil
	}
	switch c := e.Change.(type) {
	case *events.PolicySet:
		p := s.currentPolicy()
		p.Policy, p.Version = c.Policy, at
		s.policy = &p
		return nil
	case *events.PolicyTokensRevoked:
		p := s.currentPolicy()
		p.Version = at
		cutOff(&p.NotBefore, &p.TokensUntil, c.NotBefore, at)
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
		if err := s.overwriteReceipt(c.Covers); err != nil {
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
	st := &stagedToken{token: t, made: true}
	if taken {
		st.secretlessIn = at
	} else {
		issuer, err := s.issuer(e.Actor)
		if err != nil {
			return err
		}
		t.Secrets = []events.SecretSlot{
			{Digest: c.Secret.Digest, Since: e.Time, Format: c.Secret.Format, IssuedBy: issuer},
		}
		s.digests[c.Secret.Digest] = true
	}
	s.tokens[id] = st
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
	bare := len(t.Secrets) == 0
	err = s.alter(st, e)
	if bare || len(t.Secrets) == 0 {
		st.secretlessIn = at
	}
	return err
}

// alter makes of a token that is not revoked what an event says.
func (s *stage) alter(st *stagedToken, e *events.Event) error {
	t := st.token
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
// says. Without such a time it ends here, and so does an older one: by position,
// whatever any clock says.
func (s *stage) rotate(st *stagedToken, e *events.Event, c *events.TokenRotated) error {
	taken, err := s.digestTaken(c.Secret.Digest)
	if err != nil {
		return err
	}
	t := st.token
	var slots []events.SecretSlot
	if !taken { // as in createToken, a digest stays with its first token
		issuer, err := s.issuer(e.Actor)
		if err != nil {
			return err
		}
		slots = append(
			slots,
			events.SecretSlot{Digest: c.Secret.Digest, Since: e.Time, Format: c.Secret.Format, IssuedBy: issuer},
		)
		s.digests[c.Secret.Digest] = true
	}
	for i, old := range t.Secrets {
		if i == 0 && old.Until.IsZero() && !c.Until.IsZero() {
			old.Until = c.Until
			slots = append(slots, old)
			continue
		}
		if st.ended == nil {
			st.ended = map[events.Digest]*Record{}
		}
		st.ended[old.Digest] = recordOf(t, old, SecretSuperseded)
	}
	t.Secrets = slots
	return nil
}

// issuer returns the account that makes a secret. If the actor used a token, its
// own secrets say who is behind it: else a token that another account made could
// make one that looks like the account's own.
func (s *stage) issuer(by events.Actor) (events.AccountID, error) {
	if by.Token == "" {
		return by.Account, nil
	}
	_, staged := s.tokens[by.Token]
	st, err := s.token(by.Token)
	if err != nil || st == nil {
		return by.Account, err
	}
	if !staged {
		delete(s.tokens, by.Token) // it was only looked at
	}
	return st.token.Issuer(by.Account), nil
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
		cutOff(&a.NotBefore, &a.TokensUntil, c.NotBefore, at)
	case *events.AccountErased:
		a.Erased = true
	case *events.AccountCredentialChanged: // what changed is not in the log
		if c.EndsSessions {
			a.SessionsFrom, a.SessionKept = at, c.Kept
		}
	case *events.AccountSessionEnded:
		return s.endSession(c.Session, at)
	default:
		return impossible("no rule for this kind")
	}
	return nil
}

// endSession keeps where a session ended first.
func (s *stage) endSession(id events.SessionID, at events.Position) error {
	if _, staged := s.sessions[id]; staged {
		return nil
	}
	if _, ended := lookupOverlay(s.before.sessions, s.base.sessions, id); !ended {
		s.sessions[id] = at
	}
	return nil
}

func (s *stage) currentPolicy() events.PolicyState { return *s.policyNow() }

// policyNow returns the policy for reading.
func (s *stage) policyNow() *events.PolicyState {
	switch {
	case s.policy != nil:
		return s.policy
	case s.before.policy != nil:
		return s.before.policy
	}
	return &s.base.policy
}

// token returns the staged token, reading it from the index at first. It
// returns nil where there is none.
func (s *stage) token(id events.TokenID) (*stagedToken, error) {
	if t, ok := s.tokens[id]; ok {
		return t, nil
	}
	if t, ok := s.before.tokens[id]; ok {
		st := &stagedToken{token: t.token.Clone(), was: t.is}
		s.tokens[id] = st
		return st, nil
	}
	st, err := s.load(id)
	if st != nil {
		s.tokens[id] = st
	}
	return st, err
}

// load reads a token that neither this stage nor the one before has. It returns
// nil where there is none.
func (s *stage) load(id events.TokenID) (*stagedToken, error) {
	if exists, sure := s.base.newest.has(id); sure && !exists {
		return nil, nil
	}
	t := new(events.Token)
	old, found, err := read(s.tx, tokenKey(id), func(b []byte) error { return parseToken(b, t) })
	if err != nil || !found {
		return nil, err
	}
	st := &stagedToken{token: t, was: written{token: old}}
	bare, has := s.base.bare[id]
	if has {
		st.was.bare.add(checkValue(bareKey(id), appendPosition(nil, bare)))
	}
	if len(t.Secrets) == 0 && bare != t.Version {
		return nil, errVersionSkew(id)
	}
	for _, slot := range t.Secrets {
		check, err := s.secretOf(t, slot.Digest)
		if err != nil {
			return nil, err
		}
		st.was.secrets = append(st.was.secrets, sumChange{rangeOf(&slot.Digest), check})
	}
	return st, nil
}

// secretOf returns the check value of a secret's record, which is the newest
// there is and was written together with its token as it was read.
func (s *stage) secretOf(t *events.Token, d events.Digest) (check uint64, err error) {
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
	in := rangeOf(&d)
	want := s.base.sums.of(in)
	if check == want { // it is alone
		return check, nil
	}
	sum, err := scanBucket(s.tx, in, func(_, _ []byte) error { return nil })
	if err == nil && sum != want {
		err = errRangeMismatch(in)
	}
	return check, err
}

// apart reports a token and a secret of it that were not written together, as
// they always are: one of them is an old version, which came to light where the
// new one cannot be found.
func errVersionSkew(id events.TokenID) error {
	return fmt.Errorf("%w: token %s and its secret are of different times", ErrCorrupt, id)
}

func (s *stage) account(id events.AccountID) (*events.Account, error) {
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

func (s *stage) digestTaken(d events.Digest) (bool, error) {
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

// cutOff notes that all tokens end that were created before a time, or at a lower
// position than the event at a position if the time is zero.
func cutOff(before *time.Time, until *events.Position, end time.Time, at events.Position) {
	if end.IsZero() {
		*until = at
		return
	}
	*before = later(*before, end)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func impossible(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidHistory, fmt.Sprintf(format, args...))
}
