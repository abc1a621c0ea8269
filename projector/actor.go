package projector

import (
	"fmt"
	"maps"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Reasons why an event is void. The texts are stored in the index, so they must
// not change.
const (
	voidRests        = "a record that it rests on had changed"
	voidUnnamed      = "it does not name its actor among the records that it rests on"
	voidAccount      = "its actor's account had ended"
	voidToken        = "its actor's token had ended"
	voidTokenExpired = "its actor's token had expired"
	voidSession      = "its actor's session had ended"
)

// actor holds the facts that the fold needs about a token that acts.
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

// maxActors bounds the number of actors in memory. Others are read from Badger.
const maxActors = 1 << 13

// whyVoid returns why the next event is void. It returns "" if it is not.
func (s *changeset) whyVoid(e *events.Event) (string, error) {
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
		return "", nil // the ledger itself acts
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

// whyTokenVoid checks the actor's token for whyVoid. a is the actor's account.
func (s *changeset) whyTokenVoid(e *events.Event, a *events.Account) (string, error) {
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

// names reports whether an event is about a record, or names it among those
// that its command rests on. In both cases the append was conditional on the
// record's shard.
func names(e *events.Event, about string) bool {
	_, ok := e.Rests.Version(about)
	return ok || about == e.About
}

// sessionEnded reports whether the session of an actor has ended: alone, with
// other sessions of its account, or with all tokens.
func (s *changeset) sessionEnded(by *events.Actor, a *events.Account) bool {
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

// version returns the version of a token, an account or the policy, 0 if there
// is none.
func (s *changeset) version(about string) (events.Position, error) {
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

// accountNow returns an account, nil if there is none. The caller must not
// change it.
func (s *changeset) accountNow(id events.AccountID) *events.Account {
	if a, ok := s.accounts[id]; ok {
		return a
	}
	a, _ := lookupOverlay(s.before.accounts, s.base.accounts, id)
	return a
}

// actor returns the actor of a token, the zero value if there is no such token.
// It does not stage the token.
func (s *changeset) actor(id events.TokenID) (actor, error) {
	if st, ok := s.tokens[id]; ok {
		return actorOf(st.token), nil
	}
	if st, ok := s.before.tokens[id]; ok {
		return actorOf(st.token), nil
	}
	if a, ok := lookupOverlay(s.actors, s.base.actors, id); ok {
		return a, nil
	}
	st, err := s.readToken(id)
	if err != nil || st == nil {
		return actor{}, err
	}
	a := actorOf(st.token)
	s.actors[id] = a
	return a, nil
}

// commitActors keeps the actors of a committed transaction, and updates those
// whose tokens it changed.
func (m *state) commitActors(s *changeset) {
	if len(m.actors)+len(s.actors) > maxActors {
		clear(m.actors)
	}
	maps.Copy(m.actors, s.actors)
	for id, st := range s.tokens {
		if _, ok := m.actors[id]; ok {
			m.actors[id] = actorOf(st.token)
		}
	}
}

// Void returns why the event at a position is void, and false if it is not. It
// returns an error if the position is not applied yet.
func (p *Projector) Void(pos events.Position) (why string, void bool, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if now := p.state.cursor.position; pos > now {
		return "", false, fmt.Errorf("position %d is not applied yet; the index is at %d", pos, now)
	}
	why, void = p.state.voids[pos]
	return why, void, nil
}

// SessionEnded reports whether an event ended this session alone.
func (p *Projector) SessionEnded(id events.SessionID) (bool, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.state.sessions[id]
	return ok, nil
}
