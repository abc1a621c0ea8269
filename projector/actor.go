package projector

import (
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Why an event has no effect. The texts are stored in the index.
const (
	voidRests        = "a record that it rests on had changed"
	voidUnnamed      = "it does not name its actor among the records that it rests on"
	voidAccount      = "its actor's account had ended"
	voidToken        = "its actor's token had ended"
	voidTokenExpired = "its actor's token had expired"
	voidSession      = "its actor's session had ended"
)

// actor is what the fold has to know of a token that acts.
type actor struct {
	account   events.AccountID // empty if there is no such token
	version   events.Position
	createdIn events.Position
	state     events.TokenState
	created   time.Time
	expires   time.Time
}

func actorOf(t *events.Token) actor {
	return actor{
		account: t.Account, version: t.Version, createdIn: t.CreatedIn,
		state: t.State, created: t.Created, expires: t.Expires,
	}
}

// mostActors bounds how many tokens that acted are kept in memory. One that is
// not kept is read from Badger.
const mostActors = 1 << 13

// whyVoid returns why an event that comes next has no effect, empty if it has.
func (s *stage) whyVoid(e *events.Event) (string, error) {
	for i := range e.Rests {
		r := &e.Rests[i]
		version, err := s.version(r.About)
		if err != nil {
			return "", err
		}
		if version != r.Version {
			return voidRests, nil
		}
	}
	if e.Actor.Account == "" {
		return "", nil // the ledger itself
	}
	if !names(e, string(e.Actor.Account)) || e.Actor.Token != "" && !names(e, string(e.Actor.Token)) {
		return voidUnnamed, nil
	}
	a := s.accountNow(e.Actor.Account)
	if a == nil || a.Suspended || a.Erased {
		return voidAccount, nil
	}
	if e.Actor.Session != "" && s.sessionEnded(&e.Actor, a) {
		return voidSession, nil
	}
	if e.Actor.Token == "" {
		return "", nil
	}
	return s.whyTokenVoid(e, a)
}

// whyTokenVoid is whyVoid for the token of an actor whose account is a.
func (s *stage) whyTokenVoid(e *events.Event, a *events.Account) (string, error) {
	t, err := s.actor(e.Actor.Token)
	if err != nil {
		return "", err
	}
	p := s.policyNow()
	switch {
	case t.account != a.ID || t.state != events.Active,
		t.created.Before(a.NotBefore), t.created.Before(p.NotBefore),
		t.createdIn < a.TokensUntil, t.createdIn < p.TokensUntil:
		return voidToken, nil
	case !t.expires.IsZero() && !e.Time.Before(t.expires):
		return voidTokenExpired, nil
	}
	return "", nil
}

// names reports whether an event names a record that its command was decided on,
// or is about it: then the append was conditional on the record's line.
func names(e *events.Event, about string) bool {
	_, ok := e.Rests.Version(about)
	return ok || about == e.About
}

// sessionEnded reports whether the session of an actor had ended: by itself, with
// others of its account, or with all tokens.
func (s *stage) sessionEnded(by *events.Actor, a *events.Account) bool {
	if by.Opened < a.SessionsFrom && by.Session != a.SessionKept ||
		by.Opened < a.TokensUntil || by.Opened < s.policyNow().TokensUntil {
		return true
	}
	if _, ok := s.sessions[by.Session]; ok {
		return true
	}
	_, ok := lookupOverlay(s.before.sessions, s.base.sessions, by.Session)
	return ok
}

// version returns the version of a record, zero if there is none.
func (s *stage) version(about string) (events.Position, error) {
	if about == events.PolicyName {
		return s.policyNow().Version, nil
	}
	if events.IsTokenID(about) {
		t, err := s.actor(events.TokenID(about))
		return t.version, err
	}
	if a := s.accountNow(events.AccountID(about)); a != nil {
		return a.Version, nil
	}
	return 0, nil
}

// accountNow returns an account for reading, nil if there is none.
func (s *stage) accountNow(id events.AccountID) *events.Account {
	if a, ok := s.accounts[id]; ok {
		return a
	}
	a, _ := lookupOverlay(s.before.accounts, s.base.accounts, id)
	return a
}

// actor returns what the fold has to know of a token, the zero value if there is
// none. The token is not written because it was looked at.
func (s *stage) actor(id events.TokenID) (actor, error) {
	if st, ok := s.tokens[id]; ok {
		return actorOf(st.token), nil
	}
	if st, ok := s.before.tokens[id]; ok {
		return actorOf(st.token), nil
	}
	if a, ok := lookupOverlay(s.actors, s.base.actors, id); ok {
		return a, nil
	}
	st, err := s.load(id)
	if err != nil || st == nil {
		return actor{}, err
	}
	a := actorOf(st.token)
	s.actors[id] = a
	return a, nil
}

// takeActors keeps the tokens that acted in memory, as they are after a stage.
func (m *memory) takeActors(s *stage) {
	if len(m.actors)+len(s.actors) > mostActors {
		clear(m.actors)
	}
	for id, a := range s.actors {
		m.actors[id] = a
	}
	for id, st := range s.tokens {
		if _, ok := m.actors[id]; ok {
			m.actors[id] = actorOf(st.token)
		}
	}
}

// Void returns why the event at a position had no effect, and false if it had
// one. The error is that the position has not been applied.
func (p *Projector) Void(at events.Position) (why string, void bool, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if now := p.mem.cursor.position; at > now {
		return "", false, fmt.Errorf("position %d is not applied; the index is at %d", at, now)
	}
	why, void = p.mem.voids[at]
	return why, void, nil
}

// SessionEnded reports whether a session was ended by an event of its own.
func (p *Projector) SessionEnded(id events.SessionID) (bool, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.mem.sessions[id]
	return ok, nil
}
