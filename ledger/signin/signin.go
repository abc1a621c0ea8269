package signin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/directory"
)

var (
	// ErrFailed reports a sign-in or re-authentication that was not accepted. The
	// text names the cause only where it tells an attacker nothing.
	ErrFailed = errors.New("login, password, code or invitation is not accepted")
	// ErrSecondFactor reports a correct password without the required code.
	ErrSecondFactor = errors.New("the account has a second factor; send its code or a recovery code with the password")
	// ErrNoSession reports a session's secret that is not accepted.
	ErrNoSession = errors.New("session is not accepted")
)

// View is the index in this process. An absent record is [events.ErrNotFound].
type View interface {
	Account(id events.AccountID) (*events.Account, error)
	Token(id events.TokenID) (*events.Token, error)
	Policy() (events.PolicyState, error)
	// Position returns the position of the last applied event.
	Position() events.Position
	WaitApplied(ctx context.Context, at events.Position) error
}

// policy returns the policy in force. While the index does not answer, the
// error is [ledger.ErrUnavailable]: an empty policy would allow everything.
func (s *SignIn) policy() (events.PolicyState, error) {
	p, err := s.cfg.View.Policy()
	if err != nil {
		return p, unavailable(err)
	}
	return p, nil
}

// Directory finds accounts by login and decides what callers may do with them; see
// [ledger.Ledger].
type Directory interface {
	FindLogin(ctx context.Context, login string) (events.AccountID, error)
	LoginOf(ctx context.Context, account events.AccountID) (string, error)
	Allow(ctx context.Context, c authz.Principal, op authz.Operation, account string) (*events.Account, error)
	AllowAll(c authz.Principal, op authz.Operation) error
	Current(c authz.Principal) (authz.Principal, error)
	Confirmed(ctx context.Context, c authz.Principal) (authz.Principal, error)
}

// Trail appends the events about credentials and sessions; see [ledger.Ledger]. An
// event about a credential is appended once for its key.
type Trail interface {
	RecordCredentialChange(ctx context.Context, c authz.Principal, p ledger.CredentialChange) (events.Position, error)
	AbandonCredentialChange(ctx context.Context, by authz.Principal, p ledger.CredentialChange) (events.Position, error)
	EndSession(
		ctx context.Context,
		c authz.Principal,
		account events.AccountID,
		session events.SessionID,
	) (events.Position, error)
}

// Config configures [Open].
type Config struct {
	Conn      *nats.Conn // required; owned by the caller
	View      View       // required
	Directory Directory  // required
	Trail     Trail      // required

	// Token returns the caller that a token's secret belongs to, for sessions that
	// a token opens. Nil refuses all tokens.
	Token func(ctx context.Context, secret, address string) (authz.Principal, error)
	// Ready reports whether this node has a lease and may answer. Nil means that it
	// always may.
	Ready func() bool
	// Model is the permission model. Nil means [events.Matomo].
	Model *events.Model
	// Cost is the work of one password hash. The zero value means [DefaultCost].
	Cost Cost
	// Logger receives sign-ins and failures, with account and address. Nil discards
	// them.
	Logger *slog.Logger
	// Now returns the current time. Nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Token == nil {
		c.Token = func(context.Context, string, string) (authz.Principal, error) { return authz.Principal{}, errToken }
	}
	if c.Ready == nil {
		c.Ready = func() bool { return true }
	}
	if c.Model == nil {
		c.Model = events.Matomo
	}
	if c.Cost == (Cost{}) {
		c.Cost = DefaultCost
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	for name, missing := range map[string]bool{
		"Conn":      c.Conn == nil,
		"View":      c.View == nil,
		"Directory": c.Directory == nil,
		"Trail":     c.Trail == nil,
	} {
		if missing {
			problems = append(problems, fmt.Errorf("signin: %s is required", name))
		}
	}
	return errors.Join(problems...)
}

// SignIn signs people in and authenticates their sessions.
type SignIn struct {
	cfg       Config
	log       *slog.Logger
	directory *bucket.Bucket
	sessions  *bucket.Bucket
	hashes    *hasher
	attempts  *attemptLimiter

	mu      sync.Mutex
	expired time.Time // when expired sessions were last removed; guarded by mu
}

// SessionsBucket is the name of the bucket with the sessions. It has no time limit on
// the server, because the server would not erase what it removes.
const SessionsBucket = "SESSIONS"

// Open prepares sign-in on a log that exists. If the log has no events yet, Open
// creates the buckets; otherwise a missing one is [bucket.ErrLost].
func Open(ctx context.Context, cfg Config) (*SignIn, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("open sign-in: %w", err)
	}
	stream, err := bucket.FindStream(ctx, js, events.StreamName, 0)
	if err != nil {
		return nil, fmt.Errorf("open sign-in: %w", err)
	}
	info := stream.CachedInfo()
	open := bucket.Load
	if info.State.LastSeq == 0 {
		open = bucket.Create
	}
	s := &SignIn{cfg: cfg, log: cfg.Logger, hashes: newHasher(cfg.Cost), attempts: newAttemptLimiter(cfg.Now)}
	replicas := info.Config.Replicas
	directory := bucket.Config{
		Name: directory.BucketName, Description: directory.BucketDescription, Replicas: replicas,
	}
	if s.directory, err = open(ctx, js, directory); err != nil {
		return nil, fmt.Errorf("open sign-in: %w", err)
	}
	sessions := bucket.Config{
		Name: SessionsBucket, Description: "sessions of people who signed in", Replicas: replicas,
	}
	if s.sessions, err = open(ctx, js, sessions); err != nil {
		return nil, fmt.Errorf("open sign-in: %w", err)
	}
	return s, nil
}

// Stats are counts since [Open].
type Stats struct {
	Hashes uint64 // password hashes computed
}

// Stats returns the current counts.
func (s *SignIn) Stats() Stats { return Stats{Hashes: s.hashes.done.Load()} }

// Attempt is a request to sign in.
type Attempt struct {
	Login    string
	Password []byte // cleared after the check
	Code     string // of the second factor, or a recovery code; empty for none
	Address  string // of the client, without port
}

// Authentication methods (RFC 8176 section 2).
const (
	amrPassword = "pwd"
	amrCode     = "otp"
	amrBoth     = "mfa"
)

// SignIn opens a session. It returns [ErrFailed] for any wrong input,
// [ErrSecondFactor] if the password is correct and the code is missing, a
// [*TooManyError] after too many failures, and [ErrBusy].
func (s *SignIn) SignIn(ctx context.Context, a Attempt) (Opened, error) {
	defer clear(a.Password)
	if err := s.ready(); err != nil {
		return Opened{}, err
	}
	id, err := s.cfg.Directory.FindLogin(ctx, a.Login)
	counted := string(id)
	if errors.Is(err, ledger.ErrNotFound) {
		id, counted = unknownAccount, unknownLogin(a.Login)
	} else if err != nil {
		return Opened{}, err
	}
	c, opened, err := s.readForSignIn(ctx, id)
	if err != nil {
		return Opened{}, err
	}
	try, err := s.attempts.begin(counted, a.Address, c.knowsAddress(id, a.Address))
	if err != nil {
		return Opened{}, err
	}
	methods, err := s.authenticate(ctx, id, c, a)
	if !errors.Is(err, ErrFailed) {
		try.refund()
	}
	switch {
	case errors.Is(err, ErrSecondFactor): // the first of two expected steps
		s.log.DebugContext(ctx, "sign-in waits for a code", "account_id", id, "address", a.Address)
		return Opened{}, err
	case err != nil:
		s.log.InfoContext(ctx, "sign-in failed", "account_id", id, "address", a.Address, "err", err)
		return Opened{}, err
	}
	now := s.now()
	return s.open(ctx, session{
		ID: events.NewSessionID(now), Account: id, Created: now, Seen: now, Authenticated: now,
		Opened: opened, Methods: methods, Address: a.Address,
	})
}

// readForSignIn reads a credential, and returns a position that this ledger had
// applied before the read. An event after it that ends sessions ends a session that
// is opened with the credential. The event that changed the credential is not after
// it.
func (s *SignIn) readForSignIn(ctx context.Context, id events.AccountID) (credential, events.Position, error) {
	for {
		at := s.cfg.View.Position()
		c, _, err := s.credential(ctx, id)
		if err != nil || c.From <= at {
			return c, at, err
		}
		if err := s.cfg.View.WaitApplied(ctx, c.From); err != nil {
			return c, at, unavailable(err)
		}
	}
}

// unknownLogin returns the key for counting the attempts and hashes of a login that
// does not exist.
func unknownLogin(login string) string {
	sum := sha256.Sum256([]byte(fold(login)))
	return hex.EncodeToString(sum[:])
}

// authenticate checks an attempt against the account's credential, and uses up the
// code. It returns the authentication methods.
func (s *SignIn) authenticate(ctx context.Context, id events.AccountID, c credential, a Attempt) ([]string, error) {
	phc, by := c.Password, payer{string(id), a.Address}
	if id == unknownAccount {
		by.account = unknownLogin(a.Login)
	}
	switch _, err := s.person(id); {
	case errors.Is(err, errNotAPerson):
		phc = "" // costs as much as the check of a password
	case err != nil:
		return nil, err
	}
	password, err := normalize("password", a.Password)
	if err != nil {
		return nil, err // the same for every login
	}
	defer clear(password)
	ok, outdated, err := s.hashes.check(ctx, by, phc, password)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errLogin
	case c.SecondFactor != nil && a.Code == "":
		return nil, ErrSecondFactor
	}
	if err := s.recordPending(ctx, id, c); err != nil {
		return nil, err
	}
	rehashed := phc
	if outdated {
		if rehashed, err = s.hashes.hash(ctx, by, password); err != nil {
			return nil, err
		}
	}
	var methods []string
	_, err = s.editCredential(ctx, id, func(c *credential) (err error) {
		if c.Password != phc {
			return errChanged
		}
		c.Password = rehashed
		methods, err = c.signIn(id, a, s.now(), outdated)
		return err
	})
	return methods, err
}

// signIn changes the credential for a sign-in with the correct password: it uses up
// the code and remembers the address. If there is nothing to change it returns
// errUnchanged, unless changed is true.
func (c *credential) signIn(id events.AccountID, a Attempt, now time.Time, changed bool) (methods []string, err error) {
	methods = []string{amrPassword}
	if c.SecondFactor != nil {
		used := c.useCode(a.Code, now)
		if err := used.error(); err != nil {
			return nil, err
		}
		methods = append(methods, amrCode, amrBoth)
		if used == recoveryCode {
			by := authz.Principal{Account: id, Address: a.Address}
			c.Due = append(c.Due, newPendingEvent(by, events.CredentialRecoveryCodeUsed))
		}
		changed = true
	}
	if !changed && len(c.Known) > 0 && c.Known[0] == addressDigest(id, a.Address) {
		return methods, errUnchanged
	}
	c.rememberAddress(id, a.Address)
	return methods, nil
}

// errNotAPerson reports an account that cannot sign in: it does not exist, is a service
// account, or is suspended or erased.
var errNotAPerson = errors.New("account cannot sign in")

// person returns the account of a person that can sign in now.
func (s *SignIn) person(id events.AccountID) (*events.Account, error) {
	a, err := s.cfg.View.Account(id)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil, errNotAPerson
	case err != nil:
		return nil, unavailable(err)
	case a.Kind != events.UserAccount || a.Suspended || a.Erased:
		return nil, errNotAPerson
	}
	return a, nil
}

// SignInToken opens a session for the holder of a token, if the policy allows that.
// The session has the token's rights, ends with the token, and cannot
// re-authenticate. A token with constraints other than networks cannot open one,
// because the constraints could not apply to the session.
func (s *SignIn) SignInToken(ctx context.Context, secret, address string) (Opened, error) {
	if err := s.ready(); err != nil {
		return Opened{}, err
	}
	try, err := s.attempts.begin("", address, false)
	if err != nil {
		return Opened{}, err
	}
	caller, err := s.cfg.Token(ctx, secret, address)
	if errors.Is(err, ledger.ErrUnavailable) {
		try.refund()
		return Opened{}, err
	}
	if err != nil {
		return Opened{}, errToken
	}
	// This ledger accepts the token. Whether the token may open a session has to be
	// decided on a state that includes every acknowledged event.
	if _, err := s.cfg.Directory.Confirmed(ctx, caller); err != nil && !errors.Is(err, ledger.ErrCallerEnded) {
		try.refund()
		return Opened{}, err
	}
	opened := s.cfg.View.Position()
	switch policy, err := s.policy(); {
	case err != nil:
		try.refund()
		return Opened{}, err
	case !policy.TokenSignIn:
		try.refund()
		return Opened{}, fmt.Errorf(
			"%w: the policy does not let tokens open sessions (token_sign_in); sign in with login and password",
			ledger.ErrForbidden,
		)
	}
	now := s.now()
	r := session{
		ID: events.NewSessionID(now), Account: caller.Account, Created: now, Seen: now,
		Opened: opened, Methods: []string{}, Address: address, Token: caller.Token, Secret: caller.Secret,
	}
	switch _, err := s.caller(r, address); {
	case errors.Is(err, ledger.ErrUnavailable):
		try.refund()
		return Opened{}, err
	case err != nil:
		return Opened{}, errToken
	}
	try.refund()
	return s.open(ctx, r)
}

// ready refuses while this node has no lease.
func (s *SignIn) ready() error {
	if !s.cfg.Ready() {
		return fmt.Errorf("%w: this node has no lease", ledger.ErrUnavailable)
	}
	return nil
}

func (s *SignIn) now() time.Time { return s.cfg.Now().UTC().Round(0) }
