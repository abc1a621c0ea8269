package signin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/bucket"
)

// session is the record of a session.
type session struct {
	ID      events.SessionID `json:"id"`
	Account events.AccountID `json:"account"`
	Created time.Time        `json:"created"`
	Seen    time.Time        `json:"seen"`
	Proved  time.Time        `json:"proved_at,omitzero"` // zero for a session that a token opened
	// Opened is a position that the ledger had applied when it looked at what
	// the session was opened by. What ends all sessions after it ends this one.
	Opened  events.Position `json:"opened"`
	Methods []string        `json:"methods"`
	Address string          `json:"address,omitempty"` // that it was opened from
	Token   events.TokenID  `json:"token,omitempty"`   // that opened it
	Secret  events.Digest   `json:"secret,omitzero"`   // of the token, with which it ends
}

// Session is a session as its person sees it.
type Session struct {
	ID      events.SessionID
	Account events.AccountID
	Created time.Time
	Seen    time.Time // to the minute
	Proved  time.Time // when the person last proved to be who they are; zero for never
	Expires time.Time // when it ends whatever is done with it
	Idle    time.Time // when it ends if nothing is done with it
	Methods []string  // of the proof (RFC 8176)
	Address string    // that it was opened from
	Token   events.TokenID
}

// Opened is a session that was just opened. The secret is shown once.
type Opened struct {
	Secret  events.Secret
	Session Session
}

// Bounds of what is kept.
const (
	// seenEvery is how often it is written down that a session was used, more
	// often where sessions may rest for a few minutes only.
	seenEvery = time.Minute
	// mostSessions is how many an account has at most; past it the oldest end.
	mostSessions = 100
	// mostTokenSessions is how many a token has at most, beside those of the
	// account's person.
	mostTokenSessions = 10
)

// byPerson stands in the key of a session that no token opened.
const byPerson = "person"

// opener is who opened a session, as its key has it.
func (r *session) opener() string {
	if r.Token != "" {
		return string(r.Token)
	}
	return byPerson
}

func sessionKey(d events.Digest, r *session) string {
	return hex.EncodeToString(d[:]) + "." + string(r.Account) + "." + r.opener() + "." + string(r.ID)
}

// secretSession is the key of the session with a secret, as far as it is known.
func secretSession(d events.Digest) string { return hex.EncodeToString(d[:]) + ".*.*.*" }

// accountSession is the key of an account's session, "*" for any account.
func accountSession(account events.AccountID, id events.SessionID) string {
	return "*." + string(account) + ".*." + string(id)
}

// accountSessions stands for all sessions of an account, "*" for any.
func accountSessions(account events.AccountID) string { return "*." + string(account) + ".*.*" }

// open stores a new session.
func (s *SignIn) open(ctx context.Context, r session) (Opened, error) {
	secret := events.NewSessionSecret()
	b, err := json.Marshal(r)
	if err != nil {
		return Opened{}, err
	}
	if err := s.makeRoom(ctx, &r); err != nil {
		return Opened{}, err
	}
	s.expire(ctx)
	if _, err := s.sessions.Put(ctx, sessionKey(secret.Digest(), &r), b, 0); err != nil {
		return Opened{}, unavailable(err)
	}
	s.log.InfoContext(ctx, "signed in", "account_id", r.Account, "session_id", r.ID, "token_id", r.Token, "methods", r.Methods, "address", r.Address)
	shown, err := s.show(r)
	return Opened{Secret: secret, Session: shown}, err
}

// makeRoom ends the oldest sessions of the one who opens a new one, where there
// are too many. Those of a token push out no others.
func (s *SignIn) makeRoom(ctx context.Context, r *session) error {
	most := mostSessions
	if r.Token != "" {
		most = mostTokenSessions
	}
	ids, err := s.sessionIDs(ctx, "*."+string(r.Account)+"."+r.opener()+".*")
	if err != nil {
		return err
	}
	for i := 0; i <= len(ids)-most; i++ {
		if err := s.end(ctx, authz.Principal{}, r.Account, events.SessionID(ids[i])); err != nil {
			return err
		}
	}
	return nil
}

// end ends a session: in the log, which decides, then in the bucket.
func (s *SignIn) end(ctx context.Context, c authz.Principal, account events.AccountID, id events.SessionID) error {
	if _, err := s.cfg.Trail.EndSession(ctx, c, account, id); err != nil {
		return err
	}
	if err := s.sessions.Remove(ctx, accountSession(account, id)); err != nil {
		s.log.WarnContext(ctx, "the record of an ended session is left", "account_id", account, "session_id", id, "err", err)
	}
	return nil
}

// expireEvery is how often the records of expired sessions are removed.
const expireEvery = time.Hour

// expire removes the records of sessions that are older than any session may be.
// It runs when somebody signs in, because only then are there more of them.
func (s *SignIn) expire(ctx context.Context) {
	now := s.now()
	s.mu.Lock()
	due := now.Sub(s.expired) >= expireEvery
	if due {
		s.expired = now
	}
	s.mu.Unlock()
	if !due {
		return
	}
	keys, err := s.sessions.Keys(ctx, accountSessions("*"))
	oldest := string(events.NewSessionID(now.Add(-events.MaxSessionLife))) // ids are in order of time
	for _, key := range keys {
		if key[strings.LastIndexByte(key, '.')+1:] >= oldest || err != nil {
			continue
		}
		err = s.sessions.Remove(ctx, key)
	}
	if err != nil {
		s.log.WarnContext(ctx, "records of expired sessions are left", "err", err)
	}
}

// sessionIDs lists sessions in order of id, which is that of time.
func (s *SignIn) sessionIDs(ctx context.Context, which string) ([]string, error) {
	keys, err := s.sessions.Keys(ctx, which)
	if err != nil {
		return nil, unavailable(err)
	}
	for i, key := range keys {
		keys[i] = key[strings.LastIndexByte(key, '.')+1:]
	}
	slices.Sort(keys)
	return keys, nil
}

// read returns the record under a key, which may have "*" for what is not known.
func (s *SignIn) read(ctx context.Context, key string) (r session, e bucket.Entry, err error) {
	e, err = s.sessions.Get(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return r, e, ErrNoSession
	}
	if err != nil {
		return r, e, unavailable(err)
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return r, e, fmt.Errorf("read a session: %w", err)
	}
	return r, e, nil
}

// Authenticate returns who sent a session's secret, or [ErrNoSession]. What the
// caller changes is decided by the log, which has the ends of all sessions.
func (s *SignIn) Authenticate(ctx context.Context, secret, address string) (authz.Principal, error) {
	if err := s.ready(); err != nil {
		return authz.Principal{}, err
	}
	parsed, err := events.ParseSessionSecret(secret)
	if err != nil {
		return authz.Principal{}, ErrNoSession
	}
	r, e, err := s.read(ctx, secretSession(parsed.Digest()))
	if err != nil {
		return authz.Principal{}, err
	}
	caller, err := s.caller(r, address)
	if err != nil {
		return caller, err
	}
	policy, err := s.policy()
	if err != nil {
		return authz.Principal{}, err
	}
	now := s.now()
	if now.Sub(r.Seen) < min(seenEvery, policy.Idle()/4) {
		return caller, nil
	}
	r.Seen = now
	if err := s.write(ctx, e, r); err != nil && !errors.Is(err, bucket.ErrChanged) {
		// It is used all the same.
		s.log.WarnContext(ctx, "cannot write down that a session is used", "session_id", r.ID, "err", err)
	}
	return caller, nil
}

// write stores a session that was read before.
func (s *SignIn) write(ctx context.Context, e bucket.Entry, r session) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = s.sessions.Put(ctx, e.Key, b, e.Revision)
	return err
}

// caller returns what a session may do now, or [ErrNoSession] where it is over.
func (s *SignIn) caller(r session, address string) (authz.Principal, error) {
	a, err := s.person(r.Account)
	if errors.Is(err, errNotAPerson) {
		return authz.Principal{}, ErrNoSession
	}
	if err != nil {
		return authz.Principal{}, err
	}
	policy, err := s.policy()
	if err != nil {
		return authz.Principal{}, err
	}
	now := s.now()
	if !now.Before(r.Seen.Add(policy.Idle())) || authz.FromWrongClock(r.Created, now) || authz.FromWrongClock(r.Seen, now) {
		return authz.Principal{}, ErrNoSession
	}
	c := authz.Principal{
		Account: r.Account, Token: r.Token, Secret: r.Secret,
		Session: r.ID, Opened: r.Opened, Began: r.Created, Proved: r.Proved, Address: address,
		Scopes: a.Grants, Inherit: true,
	}
	if r.Token != "" {
		c.Proved = time.Time{}
		t, err := s.cfg.View.Token(r.Token)
		switch {
		case errors.Is(err, events.ErrNotFound):
			return authz.Principal{}, ErrNoSession
		case err != nil:
			return authz.Principal{}, unavailable(err)
		case !mayOpen(t.Constraints, address):
			return authz.Principal{}, ErrNoSession
		}
	}
	// The same rule as before each change.
	c, err = s.cfg.Directory.Current(c)
	if errors.Is(err, ledger.ErrCallerEnded) {
		return authz.Principal{}, ErrNoSession
	}
	if err != nil {
		return authz.Principal{}, err
	}
	return c, nil
}

// mayOpen reports whether a token with constraints may act through a session
// from an address.
func mayOpen(c *events.Constraints, address string) bool {
	if c == nil {
		return true
	}
	if len(c.Origins) > 0 || len(c.Methods) > 0 || len(c.Audience) > 0 || c.Rate > 0 {
		return false
	}
	a, err := netip.ParseAddr(address)
	return len(c.CIDRs) == 0 || err == nil && slices.ContainsFunc(c.CIDRs, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

func (s *SignIn) show(r session) (Session, error) {
	policy, err := s.policy()
	if err != nil {
		return Session{}, err
	}
	return Session{
		ID: r.ID, Account: r.Account, Created: r.Created, Seen: r.Seen, Proved: r.Proved,
		Expires: r.Created.Add(policy.Life()), Idle: r.Seen.Add(policy.Idle()),
		Methods: r.Methods, Address: r.Address, Token: r.Token,
	}, nil
}

// Current returns the caller's own session.
func (s *SignIn) Current(ctx context.Context, c authz.Principal) (Session, error) {
	r, _, err := s.own(ctx, c)
	if err != nil {
		return Session{}, err
	}
	return s.show(r)
}

// own reads the caller's session.
func (s *SignIn) own(ctx context.Context, c authz.Principal) (session, bucket.Entry, error) {
	if c.Session == "" {
		return session{}, bucket.Entry{}, fmt.Errorf("%w: this is for sessions, and the caller is a token; sign in first", ledger.ErrForbidden)
	}
	return s.read(ctx, accountSession(c.Account, c.Session))
}

// List returns sessions in order of id, from after the given one on, and whether
// there are more: the caller's, or those of another account, or of all where
// everybody is true, which are for superusers.
func (s *SignIn) List(ctx context.Context, c authz.Principal, account string, everybody bool, after events.SessionID, limit int) ([]Session, bool, error) {
	of := events.AccountID("*")
	if everybody {
		if err := s.cfg.Directory.AllowAll(c, authz.SeeSessions); err != nil {
			return nil, false, err
		}
	} else {
		if account == "" {
			account = string(c.Account)
		}
		a, err := s.cfg.Directory.Allow(ctx, c, authz.SeeSessions, account)
		if err != nil {
			return nil, false, err
		}
		of = a.ID
	}
	ids, err := s.sessionIDs(ctx, accountSessions(of))
	if err != nil {
		return nil, false, err
	}
	var out []Session
	for _, id := range ids {
		if id <= string(after) {
			continue
		}
		r, _, err := s.read(ctx, accountSession(of, events.SessionID(id)))
		if errors.Is(err, ErrNoSession) {
			continue // it ended just now
		}
		if err != nil {
			return nil, false, err
		}
		live, err := s.lives(r)
		if err != nil {
			return nil, false, err
		}
		if !live {
			continue
		}
		if len(out) == limit {
			return out, true, nil
		}
		shown, err := s.show(r)
		if err != nil {
			return nil, false, err
		}
		out = append(out, shown)
	}
	return out, false, nil
}

// lives reports whether a session is accepted, from the address that it was
// opened from.
func (s *SignIn) lives(r session) (bool, error) {
	_, err := s.caller(r, r.Address)
	if errors.Is(err, ErrNoSession) {
		return false, nil
	}
	return err == nil, err
}

// End ends one session, the caller's own where the id is empty. It is over for
// every ledger when End returns. A session that is not for the caller to end is
// [ledger.ErrNotFound], like one that does not exist.
func (s *SignIn) End(ctx context.Context, c authz.Principal, id events.SessionID) error {
	if id == "" {
		if c.Session == "" {
			return fmt.Errorf("%w: the caller is a token and has no session to end", ledger.ErrForbidden)
		}
		id = c.Session
	}
	unknown := fmt.Errorf("session %s: %w", id, ledger.ErrNotFound)
	r, _, err := s.read(ctx, accountSession("*", id))
	if errors.Is(err, ErrNoSession) && id != c.Session {
		return unknown
	}
	if err != nil {
		return err
	}
	err = s.end(ctx, c, r.Account, id)
	if errors.Is(err, ledger.ErrForbidden) {
		return unknown
	}
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "session ended", "account_id", r.Account, "session_id", id, "by", c.Account)
	return nil
}

// EndAll ends all sessions of an account, empty for the caller's own. They are
// over for every ledger when it returns without an error.
func (s *SignIn) EndAll(ctx context.Context, c authz.Principal, account string) error {
	if account == "" {
		account = string(c.Account)
	}
	a, err := s.cfg.Directory.Allow(ctx, c, authz.EndSessions, account)
	if err != nil {
		return err
	}
	d := newSessionsEnd(c, events.ProofSessionsEnded, "")
	at, err := s.cfg.Trail.RecordProof(ctx, c, d.change(a.ID))
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "all sessions ended", "account_id", a.ID, "by", c.Account)
	// Every sign-in from here on, on any ledger, has seen the end.
	_, err = s.edit(ctx, a.ID, func(c *credential) error {
		c.From = max(c.From, at)
		return nil
	})
	if err != nil {
		s.log.WarnContext(ctx, "a session that is opened now on a ledger that lags may end at once", "account_id", a.ID, "err", err)
	}
	s.sweep(ctx, a.ID, at, "")
	return nil
}

// sweep removes the records of an account's sessions that the event at a position
// has ended. They are refused without it.
func (s *SignIn) sweep(ctx context.Context, account events.AccountID, at events.Position, kept events.SessionID) {
	ids, err := s.sessionIDs(ctx, accountSessions(account))
	for _, id := range ids {
		key := accountSession(account, events.SessionID(id))
		r, _, e := s.read(ctx, key)
		if e == nil && r.Opened < at && r.ID != kept {
			e = s.sessions.Remove(ctx, key)
		}
		if e != nil && !errors.Is(e, ErrNoSession) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		s.log.WarnContext(ctx, "records of ended sessions are left", "account_id", account, "err", err)
	}
}
