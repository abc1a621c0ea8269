package signin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/pquerna/otp/totp"
	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ledger/signin"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = wait.Limit

// Addresses of the owner and of others.
const (
	home   = "192.0.2.10"
	abroad = "198.51.100.7"
)

// good is a valid password.
const good = "otter plinth quaver"

// cheap are fast hash parameters: the tests do not measure the hash.
var cheap = signin.Cost{Memory: 64, Passes: 1, Threads: 1}

// ledgers is one log with a number of ledgers, each with sign-in.
type ledgers struct {
	t    testing.TB
	log  *ledgertest.Log
	now  *ledgertest.Clock
	root authz.Principal
	node []*node
}

// node is one ledger process.
type node struct {
	*signin.SignIn
	t      testing.TB
	ledger *ledger.Ledger
	view   *projector.Projector
	cfg    signin.Config
	trail  *trail
	logged *bytes.Buffer // what was logged, guarded by the handler
	ready  bool
}

// trail is the ledger's trail, which a test can make fail.
type trail struct {
	signin.Trail
	before func() error // called before each event; nil for none
}

func (t *trail) RecordCredentialChange(ctx context.Context, c authz.Principal, p ledger.CredentialChange) (events.Position, error) {
	if t.before != nil {
		if err := t.before(); err != nil {
			return 0, err
		}
	}
	return t.Trail.RecordCredentialChange(ctx, c, p)
}

func (t *trail) EndSession(ctx context.Context, c authz.Principal, account events.AccountID, id events.SessionID) (events.Position, error) {
	if t.before != nil {
		if err := t.before(); err != nil {
			return 0, err
		}
	}
	return t.Trail.EndSession(ctx, c, account, id)
}

func start(t testing.TB, n int, options ...func(*signin.Config)) *ledgers {
	t.Helper()
	k := &ledgers{t: t, log: ledgertest.Start(t), now: &ledgertest.Clock{}}
	for range n {
		k.node = append(k.node, k.open(options...))
	}
	first := k.node[0]
	if err := first.ledger.Bootstrap(t.Context(), events.DefaultFormat.NewSecret(events.ServiceAccount)); err != nil {
		t.Fatal(err)
	}
	list, _, _ := first.view.Accounts("", 1)
	tokens, _, err := first.view.Tokens(list[0].ID, nil, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	k.root = authz.Principal{Account: list[0].ID, Token: tokens[0].ID, Address: home, Scopes: []events.Scope{events.Superuser}, Inherit: true}
	return k
}

// open starts another process.
func (k *ledgers) open(options ...func(*signin.Config)) *node {
	t := k.t
	t.Helper()
	conn := k.log.Conn()
	t.Cleanup(conn.Close)
	p := projectortest.Follow(t, conn)
	n := &node{t: t, view: p, logged: &bytes.Buffer{}, ready: true}
	var err error
	if n.ledger, err = ledger.Open(t.Context(), ledger.Config{Conn: conn, View: p, Epoch: k.log.Epoch, Logger: ledgertest.Logger(t), Now: k.now.Now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	n.trail = &trail{Trail: n.ledger}
	n.cfg = signin.Config{
		Conn: conn, View: p, Directory: n.ledger, Trail: n.trail, Cost: cheap, Now: k.now.Now,
		Ready: func() bool { return n.ready }, Logger: slog.New(slog.NewTextHandler(n.logged, nil)),
	}
	for _, o := range options {
		o(&n.cfg)
	}
	n.reopen()
	return n
}

// reopen opens sign-in again, as a restarted process does.
func (n *node) reopen() {
	n.t.Helper()
	var err error
	if n.SignIn, err = signin.Open(n.t.Context(), n.cfg); err != nil {
		n.t.Fatal(err)
	}
}

// account creates an account.
func (k *ledgers) account(login, kind string, grants ...string) events.AccountID {
	k.t.Helper()
	r, err := k.node[0].ledger.CreateAccount(k.t.Context(), k.root, "", ledger.CreateAccount{Login: login, Kind: kind, Grants: grants})
	if err != nil {
		k.t.Fatal(err)
	}
	k.apply(r.Position)
	return r.Account.ID
}

// apply waits until all ledgers have applied a position.
func (k *ledgers) apply(at events.Position) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range k.node {
		if err := n.view.WaitApplied(ctx, at); err != nil {
			k.t.Fatal(err)
		}
	}
}

// person creates a user's account with a password.
func (k *ledgers) person(login, password string, grants ...string) events.AccountID {
	k.t.Helper()
	id := k.account(login, "user", grants...)
	k.password(id, password)
	return id
}

// password lets a person set a password by an invitation.
func (k *ledgers) password(id events.AccountID, password string) {
	k.t.Helper()
	i, err := k.node[0].Invite(k.t.Context(), k.root, string(id), false)
	if err != nil {
		k.t.Fatal(err)
	}
	if got, err := k.node[0].Redeem(k.t.Context(), i.Secret.Reveal(), []byte(password), home); err != nil || got != id {
		k.t.Fatalf("Redeem = %s, %v", got, err)
	}
}

// enter signs in.
func (n *node) enter(login, password, code, address string) (signin.Opened, error) {
	return n.SignIn.SignIn(n.t.Context(), signin.Attempt{Login: login, Password: []byte(password), Code: code, Address: address})
}

// must signs in, and fails the test on an error.
func (n *node) must(login, password, code string) (signin.Opened, authz.Principal) {
	n.t.Helper()
	o, err := n.enter(login, password, code, home)
	if err != nil {
		n.t.Fatal(err)
	}
	return o, n.caller(o)
}

// caller returns the principal of a session's secret.
func (n *node) caller(o signin.Opened) authz.Principal {
	n.t.Helper()
	c, err := n.Authenticate(n.t.Context(), o.Secret.Reveal(), home)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// refused fails the test unless every ledger refuses a session, for queries and
// for commands.
func (k *ledgers) refused(o signin.Opened) {
	k.t.Helper()
	k.settle()
	for i, n := range k.node {
		if _, err := n.Authenticate(k.t.Context(), o.Secret.Reveal(), home); !errors.Is(err, signin.ErrNoSession) {
			k.t.Errorf("ledger %d: Authenticate = %v, want ErrNoSession", i, err)
		}
	}
}

// settle waits until all ledgers have applied the whole log.
func (k *ledgers) settle() {
	k.t.Helper()
	conn := k.log.Conn()
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		k.t.Fatal(err)
	}
	stream, err := js.Stream(k.t.Context(), events.StreamName)
	if err != nil {
		k.t.Fatal(err)
	}
	k.apply(events.Position(stream.CachedInfo().State.LastSeq))
}

// accepted fails the test unless every ledger accepts a session.
func (k *ledgers) accepted(o signin.Opened) {
	k.t.Helper()
	for i, n := range k.node {
		if _, err := n.Authenticate(k.t.Context(), o.Secret.Reveal(), home); err != nil {
			k.t.Errorf("ledger %d: Authenticate = %v, want the session accepted", i, err)
		}
	}
}

// factor gives an account a second factor, and returns its secret and recovery
// codes.
func (k *ledgers) factor(n *node, c authz.Principal) (secret string, recovery []string) {
	k.t.Helper()
	e, err := n.AddSecondFactor(k.t.Context(), c, "")
	if err != nil {
		k.t.Fatal(err)
	}
	codes, err := n.Confirm(k.t.Context(), c, k.code(e.Secret))
	if err != nil {
		k.t.Fatal(err)
	}
	k.now.Advance(30 * time.Second) // the code is used; the next is another
	return e.Secret, codes
}

// code returns the current code of an app.
func (k *ledgers) code(secret string) string {
	k.t.Helper()
	code, err := totp.GenerateCode(secret, k.now.Now())
	if err != nil {
		k.t.Fatal(err)
	}
	return code
}

// credentialChanges lists the events about an account's credential.
func (k *ledgers) credentialChanges(id events.AccountID) string {
	k.t.Helper()
	var out []string
	for _, e := range k.log.Events() {
		if c, ok := e.Change.(*events.AccountCredentialChanged); ok && e.About == string(id) {
			out = append(out, string(c.Credential))
		}
	}
	return strings.Join(out, " ")
}

// bucket returns a bucket as it is on disk.
func (k *ledgers) bucket(name string) jetstream.KeyValue {
	k.t.Helper()
	conn := k.log.Conn()
	k.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		k.t.Fatal(err)
	}
	kv, err := js.KeyValue(k.t.Context(), name)
	if err != nil {
		k.t.Fatal(err)
	}
	return kv
}

// stored returns the record of an account's credential, as JSON.
func (k *ledgers) stored(id events.AccountID) map[string]any {
	k.t.Helper()
	e, err := k.bucket("DIRECTORY").Get(k.t.Context(), "credential."+string(id))
	if err != nil {
		k.t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(e.Value(), &v); err != nil {
		k.t.Fatal(err)
	}
	return v
}

// policy sets the policy, by an event of its own.
func (k *ledgers) policy(change func(*events.Policy)) {
	k.t.Helper()
	now, err := k.node[0].view.Policy()
	if err != nil {
		k.t.Fatal(err)
	}
	p := now.Policy
	change(&p)
	k.append(events.PolicyName, &events.PolicySet{Policy: p})
}

// append appends an event without an actor. The rules for callers do not apply
// to it.
func (k *ledgers) append(about string, change events.Change) {
	k.t.Helper()
	now := k.now.Now()
	e := &events.Event{ID: events.NewEventID(now), Epoch: k.log.Epoch, Time: now.UTC().Round(0), About: about, Change: change}
	b, err := events.Encode(e)
	if err != nil {
		k.t.Fatal(err)
	}
	js, err := jetstream.New(k.log.Conn())
	if err != nil {
		k.t.Fatal(err)
	}
	ack, err := js.Publish(k.t.Context(), e.Subject(), b)
	if err != nil {
		k.t.Fatal(err)
	}
	js.Conn().Close()
	k.apply(events.Position(ack.Sequence))
}

// atOnce runs each of do in a goroutine of its own and waits for all.
func atOnce(n int, do func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}

// same fails the test unless an error is one of the failures and repeats
// nothing of the request.
func same(t testing.TB, what string, err error) {
	t.Helper()
	known := slices.ContainsFunc(signin.Failures, func(f error) bool { return err != nil && f.Error() == err.Error() })
	if !errors.Is(err, signin.ErrFailed) || !known {
		t.Errorf("%s: %v, want a failure and nothing more", what, err)
	}
}

// cause is same for a failure with a cause.
func cause(t *testing.T, what string, err, want error) {
	t.Helper()
	if same(t, what, err); err != nil && err.Error() != want.Error() {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// field fails the test unless an error is about a field and repeats nothing of
// the request.
func field(t testing.TB, what string, err error, name, sent string) {
	t.Helper()
	var f *ledger.FieldError
	if !errors.As(err, &f) || f.Field != name {
		t.Errorf("%s: %v, want an error about %s", what, err, name)
		return
	}
	if len(sent) > 3 && strings.Contains(fmt.Sprint(err), sent) {
		t.Errorf("%s: the error repeats the password", what)
	}
}

// everything returns all keys and values of a bucket, marks of deletions
// included.
func (k *ledgers) everything(name string) string {
	k.t.Helper()
	conn := k.log.Conn()
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		k.t.Fatal(err)
	}
	stream, err := js.Stream(k.t.Context(), "KV_"+name)
	if err != nil {
		k.t.Fatal(err)
	}
	var all strings.Builder
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(k.t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			k.t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %s\n", m.Subject, m.Data)
	}
	return all.String()
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}
