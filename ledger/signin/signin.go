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
	// ErrFailed reports a sign-in, or another proof, that was not accepted. Why
	// is told to nobody.
	ErrFailed = errors.New("login, password, code or invitation is not accepted")
	// ErrSecondFactor reports a good password without the code that has to come
	// with it.
	ErrSecondFactor = errors.New("this account has a second factor; send its code, or a recovery code, with the password")
	// ErrNoSession reports a session's secret that is not accepted.
	ErrNoSession = errors.New("session is not accepted")
)

// View is what is asked of the projection in this process. An absent record is
// [events.ErrNotFound].
type View interface {
	Account(id events.AccountID) (*events.Account, error)
	Token(id events.TokenID) (*events.Token, error)
	Policy() (events.PolicyState, error)
	// Position returns the position of the last event that it knows of.
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

// Directory knows the logins of accounts and who may do what with them; see
// [ledger.Ledger].
type Directory interface {
	FindLogin(ctx context.Context, login string) (events.AccountID, error)
	LoginOf(ctx context.Context, account events.AccountID) (string, error)
	Allow(ctx context.Context, c authz.Principal, op authz.Operation, account string) (*events.Account, error)
	AllowAll(c authz.Principal, op authz.Operation) error
	Current(c authz.Principal) (authz.Principal, error)
	Confirmed(ctx context.Context, c authz.Principal) (authz.Principal, error)
}

// Trail appends the events of what happens to credentials and sessions, those of
// credentials once each by their key; see [ledger.Ledger].
type Trail interface {
	RecordProof(ctx context.Context, c authz.Principal, p ledger.ProofChange) (events.Position, error)
	AbandonProof(ctx context.Context, by authz.Principal, p ledger.ProofChange) (events.Position, error)
	EndSession(ctx context.Context, c authz.Principal, account events.AccountID, session events.SessionID) (events.Position, error)
}

// Config says what people sign in to.
type Config struct {
	Conn      *nats.Conn // required; owned by the caller
	View      View       // required
	Directory Directory  // required
	Trail     Trail      // required

	// Token returns who sent a token's secret, for sessions that a token opens.
	// Nil means that none does.
	Token func(ctx context.Context, secret, address string) (authz.Principal, error)
	// Ready reports whether this node may answer, which takes its lease. Nil
	// means that it always may.
	Ready func() bool
	// Model is the order of permissions. Nil means [events.Matomo].
	Model *events.Model
	// Cost is how much work the hash of a password is. The zero value means
	// [DefaultCost].
	Cost Cost
	// Logger receives who signed in and who failed to, by account and address.
	// Nil discards it.
	Logger *slog.Logger
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Token == nil {
		c.Token = func(context.Context, string, string) (authz.Principal, error) { return authz.Principal{}, ErrFailed }
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
	for name, missing := range map[string]bool{"Conn": c.Conn == nil, "View": c.View == nil, "Directory": c.Directory == nil, "Trail": c.Trail == nil} {
		if missing {
			problems = append(problems, fmt.Errorf("signin: %s is required", name))
		}
	}
	return errors.Join(problems...)
}

// SignIn lets people in.
type SignIn struct {
	cfg       Config
	log       *slog.Logger
	directory *bucket.Bucket
	sessions  *bucket.Bucket
	hashes    *hasher
	attempts  *attempts

	mu      sync.Mutex
	expired time.Time // guarded by mu; when expired sessions were last removed
}

// SessionsBucket holds the sessions. It has no time limit of the server's, which
// would not erase what it removes: see [SignIn.expire].
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
	stream, err := js.Stream(ctx, events.StreamName)
	if err != nil {
		return nil, fmt.Errorf("open sign-in: %w", err)
	}
	info := stream.CachedInfo()
	open := bucket.Load
	if info.State.LastSeq == 0 {
		open = bucket.Create
	}
	s := &SignIn{cfg: cfg, log: cfg.Logger, hashes: newHasher(cfg.Cost), attempts: newAttempts(cfg.Now)}
	if s.directory, err = open(ctx, js, bucket.Config{Name: directory.BucketName, Description: directory.BucketDescription, Replicas: info.Config.Replicas}); err != nil {
		return nil, fmt.Errorf("open sign-in: %w", err)
	}
	if s.sessions, err = open(ctx, js, bucket.Config{Name: SessionsBucket, Description: "sessions of people who signed in", Replicas: info.Config.Replicas}); err != nil {
		return nil, fmt.Errorf("open sign-in: %w", err)
	}
	return s, nil
}

// Stats are counts since the start.
type Stats struct {
	Hashes uint64 // of passwords that were made or checked
}

// Stats returns what was done so far.
func (s *SignIn) Stats() Stats { return Stats{Hashes: s.hashes.done.Load()} }

// Attempt is what a person sends to sign in.
type Attempt struct {
	Login    string
	Password []byte // cleared when it has been looked at
	Code     string // of the second factor, or a recovery code; empty for none
	Address  string // of the client, without port
}

// Methods by which a person proved to be who they are (RFC 8176 section 2).
const (
	amrPassword = "pwd"
	amrCode     = "otp"
	amrBoth     = "mfa"
)

// SignIn opens a session. It returns [ErrFailed] whatever is wrong,
// [ErrSecondFactor] where the password is good and a code is missing, a
// [*TooManyError] after too many failures, and [ErrBusy].
func (s *SignIn) SignIn(ctx context.Context, a Attempt) (Opened, error) {
	defer clear(a.Password)
	if err := s.ready(); err != nil {
		return Opened{}, err
	}
	id, err := s.cfg.Directory.FindLogin(ctx, a.Login)
	counted := string(id)
	if errors.Is(err, ledger.ErrNotFound) {
		id, counted = nobody, unknownLogin(a.Login)
	} else if err != nil {
		return Opened{}, err
	}
	c, opened, err := s.seen(ctx, id)
	if err != nil {
		return Opened{}, err
	}
	try, err := s.attempts.begin(counted, a.Address, c.knows(id, a.Address))
	if err != nil {
		return Opened{}, err
	}
	methods, err := s.prove(ctx, id, c, a)
	if !errors.Is(err, ErrFailed) {
		try.forgive()
	}
	if err != nil {
		s.log.InfoContext(ctx, "sign-in failed", "account_id", id, "address", a.Address, "err", err)
		return Opened{}, err
	}
	now := s.now()
	return s.open(ctx, session{
		ID: events.NewSessionID(now), Account: id, Created: now, Seen: now, Proved: now,
		Opened: opened, Methods: methods, Address: a.Address,
	})
}

// seen reads a credential, and returns a position that this ledger had applied
// before. What ends sessions after it ends one that rests on the credential. What
// changed the credential is not after it.
func (s *SignIn) seen(ctx context.Context, id events.AccountID) (credential, events.Position, error) {
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

// unknownLogin is what attempts and hashes of a login that does not exist are
// counted by.
func unknownLogin(login string) string {
	sum := sha256.Sum256([]byte(fold(login)))
	return hex.EncodeToString(sum[:])
}

// prove checks what a person sent against the account's credential, and uses its
// code up.
func (s *SignIn) prove(ctx context.Context, id events.AccountID, c credential, a Attempt) ([]string, error) {
	phc, by := c.Password, payer{string(id), a.Address}
	if id == nobody {
		by.account = unknownLogin(a.Login)
	}
	if _, err := s.person(id); err != nil {
		if !errors.Is(err, errNotAPerson) {
			return nil, err
		}
		phc = ""
	}
	password, err := prepare("password", a.Password)
	if err != nil {
		return nil, err // the same for every login
	}
	defer clear(password)
	ok, old, err := s.hashes.check(ctx, by, phc, password)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, ErrFailed
	case c.SecondFactor != nil && a.Code == "":
		return nil, ErrSecondFactor
	}
	if err := s.record(ctx, id, c); err != nil {
		return nil, err
	}
	fresh := ""
	if old {
		if fresh, err = s.hashes.hash(ctx, by, password); err != nil {
			return nil, err
		}
	}
	methods := []string{amrPassword}
	_, err = s.edit(ctx, id, func(c *credential) error {
		if c.Password != phc {
			return ErrFailed // it was changed meanwhile
		}
		if fresh != "" {
			c.Password = fresh
		}
		methods = []string{amrPassword}
		if c.SecondFactor != nil {
			used := c.use(a.Code, s.now())
			if used == byNothing {
				return ErrFailed
			}
			methods = append(methods, amrCode, amrBoth)
			if used == byRecovery {
				c.Due = append(c.Due, newDue(authz.Principal{Account: id, Address: a.Address}, events.ProofRecoveryCodeUsed))
			}
		} else if fresh == "" && len(c.Known) > 0 && c.Known[0] == addressDigest(id, a.Address) {
			return errAsItIs
		}
		c.meet(id, a.Address)
		return nil
	})
	return methods, err
}

// errNotAPerson reports an account that nobody signs in to now.
var errNotAPerson = errors.New("account is not a person's that can sign in")

// person returns the account of a person who may sign in now.
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

// SignInToken opens a session for the holder of a token, where the policy lets
// tokens do so: it has what the token has, ends with it, and proves nobody. A
// token that is narrowed by more than networks opens none, since a session could
// not be narrowed as it is.
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
		try.forgive()
		return Opened{}, err
	}
	if err != nil {
		return Opened{}, ErrFailed
	}
	// The token is good here. Whether it may open a session follows from a state
	// that holds everything acknowledged before.
	if _, err := s.cfg.Directory.Confirmed(ctx, caller); err != nil && !errors.Is(err, ledger.ErrCallerEnded) {
		try.forgive()
		return Opened{}, err
	}
	opened := s.cfg.View.Position()
	switch policy, err := s.policy(); {
	case err != nil:
		try.forgive()
		return Opened{}, err
	case !policy.TokenSignIn:
		try.forgive()
		return Opened{}, fmt.Errorf("%w: the policy lets no token open a session (token_sign_in); sign in with login and password", ledger.ErrForbidden)
	}
	now := s.now()
	r := session{
		ID: events.NewSessionID(now), Account: caller.Account, Created: now, Seen: now,
		Opened: opened, Methods: []string{}, Address: address, Token: caller.Token, Secret: caller.Secret,
	}
	switch _, err := s.caller(r, address); {
	case errors.Is(err, ledger.ErrUnavailable):
		try.forgive()
		return Opened{}, err
	case err != nil:
		return Opened{}, ErrFailed
	}
	try.forgive()
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
