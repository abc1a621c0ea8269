package projector

import (
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// apply folds one message into the changeset; e is the decoded event. The
// changeset is unusable after an error.
func (s *changeset) apply(m events.Message, e *events.Event) error {
	if m.Position != s.cursor.position+1 {
		return fmt.Errorf("%w: position %d came after %d", ErrGap, m.Position, s.cursor.position)
	}
	if s.cursor.epoch != "" && e.Epoch != s.cursor.epoch {
		return fmt.Errorf(
			"%w: the event at position %d has epoch %s; earlier events have %s",
			ErrInvalidHistory, m.Position, e.Epoch, s.cursor.epoch,
		)
	}
	shard, err := events.ShardOf(m.Subject)
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
			Position: m.Position, Event: e.ID, About: e.About, Kind: e.Change.Kind(), Digest: e.Digest,
		}
	}
	s.shards[shard] = m.Position
	s.cursor.position, s.cursor.epoch, s.last = m.Position, e.Epoch, m.Data
	return nil
}

// change applies an event that is not void.
func (s *changeset) change(e *events.Event, pos events.Position) error {
	if e.Change.Kind().Keeps() {
		return nil
	}
	switch c := e.Change.(type) {
	case *events.PolicySet:
		p := s.currentPolicy()
		p.Policy, p.Version = c.Policy, pos
		s.policy = &p
		return nil
	case *events.PolicyTokensRevoked:
		p := s.currentPolicy()
		p.Version = pos
		cutOff(&p.NotBefore, &p.TokensUntil, c.NotBefore, pos)
		s.policy = &p
		return nil
	case *events.TokenCreated:
		return s.createToken(e, c, pos)
	case *events.AccountCreated:
		return s.createAccount(e, c, pos)
	case *events.ReceiptIssued:
		return s.keepReceipt(e, c, pos)
	}
	if e.Change.Kind().Noun() == events.NounAccount {
		return s.changeAccount(e, pos)
	}
	return s.changeToken(e, pos)
}

// keepReceipt stores a receipt. It replaces an earlier receipt that covers the
// same position.
func (s *changeset) keepReceipt(e *events.Event, c *events.ReceiptIssued, pos events.Position) error {
	if c.Covers >= pos {
		return invalid("the receipt covers the later position %d", c.Covers)
	}
	if _, staged := s.receipts[c.Covers]; !staged {
		if err := s.overwriteReceipt(c.Covers); err != nil {
			return err
		}
	}
	s.receipts[c.Covers] = &events.Receipt{ReceiptIssued: *c, Position: pos, Issued: e.Time}
	return nil
}

func (s *changeset) createToken(e *events.Event, c *events.TokenCreated, pos events.Position) error {
	id := events.TokenID(e.About)
	switch t, err := s.token(id); {
	case err != nil:
		return err
	case t != nil:
		return invalid("the token was already created at position %d", t.token.CreatedIn)
	}
	switch a, err := s.account(c.Account); {
	case err != nil:
		return err
	case a == nil:
		return invalid("the token's account does not exist")
	}
	t := &events.Token{
		ID: id, Account: c.Account, App: c.App, Device: c.Device,
		Scopes: c.Scopes, Inherit: c.Inherit, Expires: c.Expires, Constraints: c.Constraints,
		Import: c.Import, State: events.Active,
		Created: e.Time, CreatedBy: e.Actor, CreatedIn: pos, Changed: e.Time, Version: pos,
	}
	if t.Constraints.Empty() {
		t.Constraints = nil
	}
	taken, err := s.digestTaken(c.Secret.Digest)
	if err != nil {
		return err
	}
	// A digest belongs forever to the first token that had it. Commands in
	// different shards are not checked against each other, so the log can hold
	// two tokens with one digest. The later token gets no secret.
	st := &stagedToken{token: t, made: true}
	if taken {
		st.secretlessPos = pos
	} else {
		issuer, err := s.issuer(e.Actor)
		if err != nil {
			return err
		}
		t.Secrets = []events.SecretSlot{c.Secret.Slot(e.Time, issuer)}
		s.digests[c.Secret.Digest] = true
		if c.Secret.Scheme == events.SchemeMatomo && s.matomoSince() == 0 {
			s.matomo = pos
		}
	}
	s.tokens[id] = st
	return nil
}

func (s *changeset) changeToken(e *events.Event, pos events.Position) error {
	st, err := s.token(events.TokenID(e.About))
	if err != nil {
		return err
	}
	if st == nil {
		return invalid("the token does not exist")
	}
	t := st.token
	if t.State == events.Revoked {
		return invalid("the token was revoked at position %d", t.Version)
	}
	t.Version, t.Changed = pos, e.Time
	secretless := len(t.Secrets) == 0
	err = s.alter(st, e)
	if secretless || len(t.Secrets) == 0 {
		st.secretlessPos = pos
	}
	return err
}

// alter applies an event to a token that is not revoked.
func (s *changeset) alter(st *stagedToken, e *events.Event) error {
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
		return invalid("no rule for this kind")
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
	if c.LastUsed != nil {
		t.Import = t.Import.Used(*c.LastUsed)
	}
}

// rotate adds the new secret in front. The current secret stays valid until
// c.Until, or ends now if that is zero. Older secrets end now, even if a clock
// says that their grace is not over.
func (s *changeset) rotate(st *stagedToken, e *events.Event, c *events.TokenRotated) error {
	taken, err := s.digestTaken(c.Secret.Digest)
	if err != nil {
		return err
	}
	t := st.token
	var slots []events.SecretSlot
	if !taken { // else the token gets no new secret, as in createToken
		issuer, err := s.issuer(e.Actor)
		if err != nil {
			return err
		}
		slots = []events.SecretSlot{c.Secret.Slot(e.Time, issuer)}
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

// issuer returns the account that issued a secret. If the actor used a token,
// that token's issuer counts. Otherwise a token issued by another account could
// create secrets that look like the account's own.
func (s *changeset) issuer(by events.Actor) (events.AccountID, error) {
	if by.Token == "" {
		return by.Account, nil
	}
	_, staged := s.tokens[by.Token]
	st, err := s.token(by.Token)
	if err != nil || st == nil {
		return by.Account, err
	}
	if !staged {
		delete(s.tokens, by.Token) // it was only read
	}
	return st.token.Issuer(by.Account), nil
}

func (s *changeset) createAccount(e *events.Event, c *events.AccountCreated, pos events.Position) error {
	id := events.AccountID(e.About)
	switch a, err := s.account(id); {
	case err != nil:
		return err
	case a != nil:
		return invalid("the account already exists")
	}
	s.accounts[id] = &events.Account{
		ID: id, Kind: c.Type, Owner: c.Owner, Grants: c.Grants, SelfService: true, Source: c.Source,
		Created: e.Time, Changed: e.Time, Version: pos,
	}
	return nil
}

func (s *changeset) changeAccount(e *events.Event, pos events.Position) error {
	a, err := s.account(events.AccountID(e.About))
	if err != nil {
		return err
	}
	if a == nil {
		return invalid("the account does not exist")
	}
	if a.Erased {
		return invalid("the account was erased at position %d", a.Version)
	}
	a.Version, a.Changed = pos, e.Time
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
		cutOff(&a.NotBefore, &a.TokensUntil, c.NotBefore, pos)
	case *events.AccountErased:
		a.Erased = true
	case *events.AccountCredentialChanged: // the log does not say which
		if c.EndsSessions {
			a.SessionsFrom, a.SessionKept = pos, c.Kept
		}
	case *events.AccountSessionEnded:
		return s.endSession(c.Session, pos)
	default:
		return invalid("no rule for this kind")
	}
	return nil
}

// endSession records the position at which a session first ended.
func (s *changeset) endSession(id events.SessionID, pos events.Position) error {
	if _, staged := s.sessions[id]; staged {
		return nil
	}
	if _, ended := lookupOverlay(s.before.sessions, s.base.sessions, id); !ended {
		s.sessions[id] = pos
	}
	return nil
}

// cutOff ends all tokens created before end, or at a lower position than pos if
// end is zero.
func cutOff(before *time.Time, until *events.Position, end time.Time, pos events.Position) {
	if end.IsZero() {
		*until = pos
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

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidHistory, fmt.Sprintf(format, args...))
}
