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

// session is the stored record of a session.
type session struct {
	ID            events.SessionID `json:"id"`
	Account       events.AccountID `json:"account"`
	Created       time.Time        `json:"created"`
	Seen          time.Time        `json:"seen"`
	Authenticated time.Time        `json:"authenticated_at,omitzero"` // zero for a session that a token opened
	// Opened is a position that the ledger had applied before it read the credential
	// or token that opened the session. An event after it that ends all sessions
	// ends this one.
	Opened  events.Position `json:"opened"`
	Methods []string        `json:"methods"`
	Address string          `json:"address,omitempty"` // of the client that opened it
	Token   events.TokenID  `json:"token,omitempty"`   // that opened the session
	Secret  events.Digest   `json:"secret,omitzero"`   // of the token, with which it ends
}

// Session is a session as its person sees it.
type Session struct {
	ID            events.SessionID
	Account       events.AccountID
	Created       time.Time
	Seen          time.Time // to the minute
	Authenticated time.Time // when the person last authenticated; zero for never
	Expires       time.Time // when it ends in any case
	Idle          time.Time // when it ends if it is not used
	Methods       []string  // of the authentication (RFC 8176)
	Address       string    // of the client that opened it
	Token         events.TokenID
}

// Opened is a session that was just opened. The secret is shown once.
type Opened struct {
	Secret  events.Secret
	Session Session
}

// Limits on what is stored.
const (
	// seenInterval is how often the use of a session is stored. It is more often if
	// the policy's idle time is only a few minutes.
	seenInterval = time.Minute
	// maxSessions is the limit for an account. With more, the oldest end.
	maxSessions = 100
	// maxTokenSessions is the limit for a token, beside the sessions of the account's
	// person.
	maxTokenSessions = 10
)

// personOpener is in the key of a session that a person opened.
const personOpener = "person"

// opener returns who opened a session, as its key names it.
func (r *session) opener() string {
	if r.Token != "" {
		return string(r.Token)
	}
	return personOpener
}

func sessionKey(d events.Digest, r *session) string {
	return hex.EncodeToString(d[:]) + "." + string(r.Account) + "." + r.opener() + "." + string(r.ID)
}

// secretSession returns the pattern of the key of the session with a secret.
func secretSession(d events.Digest) string { return hex.EncodeToString(d[:]) + ".*.*.*" }

// accountSession returns the pattern of the key of a session, "*" for any account.
func accountSession(account events.AccountID, id events.SessionID) string {
	return "*." + string(account) + ".*." + string(id)
}

// accountSessions returns the pattern of the keys of an account's sessions, "*" for
// any account.
func accountSessions(account events.AccountID) string { return "*." + string(account) + ".*.*" }

// open stores a new session.
func (s *SignIn) open(ctx context.Context, r session) (Opened, error) {
	secret := events.NewSessionSecret()
	b, err := json.Marshal(r)
	if err != nil {
		return Opened{}, err
	}
	if err := s.evictOldest(ctx, &r); err != nil {
		return Opened{}, err
	}
	s.removeExpired(ctx)
	if _, err := s.sessions.Put(ctx, sessionKey(secret.Digest(), &r), b, 0); err != nil {
		return Opened{}, unavailable(err)
	}
	s.log.InfoContext(
		ctx,
		"signed in",
		"account_id",
		r.Account,
		"session_id",
		r.ID,
		"token_id",
		r.Token,
		"methods",
		r.Methods,
		"address",
		r.Address,
	)
	shown, err := s.show(r)
	return Opened{Secret: secret, Session: shown}, err
}

// evictOldest ends the oldest sessions of a new session's opener, if it has too many.
// A token's sessions evict no others.
func (s *SignIn) evictOldest(ctx context.Context, r *session) error {
	limit := maxSessions
	if r.Token != "" {
		limit = maxTokenSessions
	}
	ids, err := s.sessionIDs(ctx, "*."+string(r.Account)+"."+r.opener()+".*")
	if err != nil {
		return err
	}
	for i := 0; i <= len(ids)-limit; i++ {
		if err := s.end(ctx, authz.Principal{}, r.Account, events.SessionID(ids[i])); err != nil {
			return err
		}
	}
	return nil
}

// end ends a session: first in the log, which decides, then in the bucket.
func (s *SignIn) end(ctx context.Context, c authz.Principal, account events.AccountID, id events.SessionID) error {
	if _, err := s.cfg.Trail.EndSession(ctx, c, account, id); err != nil {
		return err
	}
	if err := s.sessions.Remove(ctx, accountSession(account, id)); err != nil {
		s.log.WarnContext(
			ctx,
			"cannot remove the record of an ended session",
			"account_id",
			account,
			"session_id",
			id,
			"err",
			err,
		)
	}
	return nil
}

// expireInterval is how often the records of expired sessions are removed.
const expireInterval = time.Hour

// removeExpired removes the records of sessions that are older than the maximum
// lifetime. It runs at sign-ins, because only they add records.
func (s *SignIn) removeExpired(ctx context.Context) {
	now := s.now()
	s.mu.Lock()
	pendingEvent := now.Sub(s.expired) >= expireInterval
	if pendingEvent {
		s.expired = now
	}
	s.mu.Unlock()
	if !pendingEvent {
		return
	}
	keys, err := s.sessions.Keys(ctx, accountSessions("*"))
	oldest := string(events.NewSessionID(now.Add(-events.MaxSessionLifetime))) // ids sort by time
	for _, key := range keys {
		if key[strings.LastIndexByte(key, '.')+1:] >= oldest || err != nil {
			continue
		}
		err = s.sessions.Remove(ctx, key)
	}
	if err != nil {
		s.log.WarnContext(ctx, "cannot remove the records of expired sessions", "err", err)
	}
}

// sessionIDs lists sessions in order of id, which is the order of time.
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

// read returns the record under a key, which may be a pattern.
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

// Authenticate returns the caller that a session's secret belongs to, or
// [ErrNoSession]. The session may have ended in the log already: whether a change of
// the caller takes effect is decided there.
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
	if now.Sub(r.Seen) < min(seenInterval, policy.SessionTimeout()/4) {
		return caller, nil
	}
	r.Seen = now
	if err := s.write(ctx, e, r); err != nil && !errors.Is(err, bucket.ErrChanged) {
		// The caller is authenticated in any case.
		s.log.WarnContext(ctx, "cannot store the use of a session", "session_id", r.ID, "err", err)
	}
	return caller, nil
}

// write stores a changed session, if the record has not changed since it was read.
func (s *SignIn) write(ctx context.Context, e bucket.Entry, r session) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = s.sessions.Put(ctx, e.Key, b, e.Revision)
	return err
}

// caller returns the caller of a session with its current rights, or [ErrNoSession] if
// the session has ended.
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
	if !now.Before(r.Seen.Add(policy.SessionTimeout())) || authz.FromWrongClock(r.Created, now) ||
		authz.FromWrongClock(r.Seen, now) {
		return authz.Principal{}, ErrNoSession
	}
	c := authz.Principal{
		Account: r.Account, Token: r.Token, Secret: r.Secret,
		Session: r.ID, Opened: r.Opened, Began: r.Created, Authenticated: r.Authenticated, Address: address,
		Scopes: a.Grants, Inherit: true,
	}
	if r.Token != "" {
		c.Authenticated = time.Time{}
		t, err := s.cfg.View.Token(r.Token)
		switch {
		case errors.Is(err, events.ErrNotFound):
			return authz.Principal{}, ErrNoSession
		case err != nil:
			return authz.Principal{}, unavailable(err)
		case !allowsSession(t.Constraints, address):
			return authz.Principal{}, ErrNoSession
		}
	}
	// This is the rule that is checked before each change.
	c, err = s.cfg.Directory.Current(c)
	if errors.Is(err, ledger.ErrCallerEnded) {
		return authz.Principal{}, ErrNoSession
	}
	if err != nil {
		return authz.Principal{}, err
	}
	return c, nil
}

// allowsSession reports whether a token with these constraints can be used through a
// session from an address.
func allowsSession(c *events.Constraints, address string) bool {
	if c == nil {
		return true
	}
	if len(c.Origins) > 0 || len(c.Methods) > 0 || len(c.Audience) > 0 || c.Rate > 0 {
		return false
	}
	a, err := netip.ParseAddr(address)
	return len(c.CIDRs) == 0 || err == nil && slices.ContainsFunc(c.CIDRs, func(p netip.Prefix) bool {
		return p.Contains(a.Unmap())
	})
}

func (s *SignIn) show(r session) (Session, error) {
	policy, err := s.policy()
	if err != nil {
		return Session{}, err
	}
	return Session{
		ID: r.ID, Account: r.Account, Created: r.Created, Seen: r.Seen, Authenticated: r.Authenticated,
		Expires: r.Created.Add(policy.SessionMax()), Idle: r.Seen.Add(policy.SessionTimeout()),
		Methods: r.Methods, Address: r.Address, Token: r.Token,
	}, nil
}

// Current returns the caller's own session.
func (s *SignIn) Current(ctx context.Context, c authz.Principal) (Session, error) {
	r, _, err := s.readOwn(ctx, c)
	if err != nil {
		return Session{}, err
	}
	return s.show(r)
}

// readOwn reads the record of the caller's session.
func (s *SignIn) readOwn(ctx context.Context, c authz.Principal) (session, bucket.Entry, error) {
	if c.Session == "" {
		return session{}, bucket.Entry{}, fmt.Errorf(
			"%w: only a session can do this, and the caller is a token; sign in first",
			ledger.ErrForbidden,
		)
	}
	return s.read(ctx, accountSession(c.Account, c.Session))
}

// ListSessions selects sessions for [SignIn.List].
type ListSessions struct {
	Account string           // id or login; empty for the caller's own
	All     bool             // of all accounts; Account is not used
	After   events.SessionID // the list begins after this session
	Limit   int              // maximum number of sessions
}

// List returns sessions in order of id, and whether there are more. The sessions of
// other accounts are for superusers.
func (s *SignIn) List(ctx context.Context, c authz.Principal, which ListSessions) ([]Session, bool, error) {
	of, err := s.listedAccount(ctx, c, which)
	if err != nil {
		return nil, false, err
	}
	ids, err := s.sessionIDs(ctx, accountSessions(of))
	if err != nil {
		return nil, false, err
	}
	var out []Session
	for _, id := range ids {
		if id <= string(which.After) {
			continue
		}
		r, _, err := s.read(ctx, accountSession(of, events.SessionID(id)))
		if errors.Is(err, ErrNoSession) {
			continue // it ended just now
		}
		if err != nil {
			return nil, false, err
		}
		active, err := s.isActive(r)
		if err != nil {
			return nil, false, err
		}
		if !active {
			continue
		}
		if len(out) == which.Limit {
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

// listedAccount returns the account whose sessions the caller may list, "*" for all.
func (s *SignIn) listedAccount(ctx context.Context, c authz.Principal, which ListSessions) (events.AccountID, error) {
	if which.All {
		return "*", s.cfg.Directory.AllowAll(c, authz.SeeSessions)
	}
	account := which.Account
	if account == "" {
		account = string(c.Account)
	}
	a, err := s.cfg.Directory.Allow(ctx, c, authz.SeeSessions, account)
	if err != nil {
		return "", err
	}
	return a.ID, nil
}

// isActive reports whether a session is accepted from the address that opened it.
func (s *SignIn) isActive(r session) (bool, error) {
	_, err := s.caller(r, r.Address)
	if errors.Is(err, ErrNoSession) {
		return false, nil
	}
	return err == nil, err
}

// End ends one session, the caller's own if the id is empty. No ledger accepts it after
// End returns. If the session does not exist, or the caller may not end it, the error is
// [ledger.ErrNotFound].
func (s *SignIn) End(ctx context.Context, c authz.Principal, id events.SessionID) error {
	if id == "" {
		if c.Session == "" {
			return fmt.Errorf(
				"%w: the caller is a token and has no session; name the session to end",
				ledger.ErrForbidden,
			)
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

// EndAll ends all sessions of an account, empty for the caller's own. No ledger accepts
// them after it returns without an error.
func (s *SignIn) EndAll(ctx context.Context, c authz.Principal, account string) error {
	if account == "" {
		account = string(c.Account)
	}
	a, err := s.cfg.Directory.Allow(ctx, c, authz.EndSessions, account)
	if err != nil {
		return err
	}
	d := newSessionsEnd(c, events.CredentialSessionsEnded, "")
	at, err := s.cfg.Trail.RecordCredentialChange(ctx, c, d.change(a.ID))
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "all sessions ended", "account_id", a.ID, "by", c.Account)
	// A ledger applies this position before a later sign-in to the account.
	_, err = s.editCredential(ctx, a.ID, func(c *credential) error {
		c.From = max(c.From, at)
		return nil
	})
	if err != nil {
		s.log.WarnContext(ctx, "a new session on a lagging ledger may end immediately", "account_id", a.ID, "err", err)
	}
	s.removeEnded(ctx, a.ID, at, "")
	return nil
}

// removeEnded removes the records of the sessions of an account that the event at a
// position has ended. Such sessions are refused also while the records exist.
func (s *SignIn) removeEnded(ctx context.Context, account events.AccountID, at events.Position, kept events.SessionID) {
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
		s.log.WarnContext(ctx, "cannot remove the records of ended sessions", "account_id", account, "err", err)
	}
}
