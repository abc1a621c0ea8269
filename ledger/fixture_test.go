package ledger_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = wait.Limit

// fixture is a ledger on a real log, whose view is a real index that follows it.
type fixture struct {
	*ledger.Ledger
	t    testing.TB
	log  *ledgertest.Log
	link *ledgertest.Link // the ledger's way to the log
	// behind is the index's connection, and view the index.
	behind   *ledgertest.Link
	view     *projector.Projector
	barriers *barrier.Keeper
	boot     *boottime
	stop     func() // ends the keeper
	cfg      ledger.Config
	now      *ledgertest.Clock
	root     authz.Principal
	// secret is the root token's.
	secret events.Secret
	// large: the log is too long for a comparison with the slow reference.
	large bool
}

// newFixture returns a ledger on a log with its first events.
func newFixture(t testing.TB, options ...func(*ledger.Config)) *fixture {
	t.Helper()
	k := newEmptyFixture(t, options...)
	if err := k.Bootstrap(t.Context(), k.secret); err != nil {
		t.Fatal(err)
	}
	k.findRoot()
	return k
}

// newEmptyFixture returns a ledger on an empty log.
func newEmptyFixture(t testing.TB, options ...func(*ledger.Config)) *fixture {
	t.Helper()
	k := &fixture{t: t, log: ledgertest.Start(t), now: &ledgertest.Clock{}, boot: &boottime{}, secret: events.DefaultFormat.NewSecret(events.ServiceAccount)}
	var conn *nats.Conn
	k.behind, conn = k.log.Link()
	k.view = projectortest.Follow(t, conn)
	k.link, conn = k.log.Link()
	k.cfg = ledger.Config{Conn: conn, View: k.view, Epoch: k.log.Epoch, Logger: ledgertest.Logger(t), Now: k.now.Now}
	k.keep()
	t.Cleanup(func() { k.stop() })
	for _, o := range options {
		o(&k.cfg)
	}
	k.open()
	t.Cleanup(func() {
		for _, link := range []*ledgertest.Link{k.link, k.behind} {
			link.Rule(nil)
			link.Release()
		}
		if _, measured := t.(*testing.B); !measured && !k.large {
			k.check()
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// lease is the log's.
const lease = 30 * time.Second

// keep starts the keeper of barriers, as a new process does.
func (k *fixture) keep() {
	k.t.Helper()
	stream, err := barrier.NewStream(k.cfg.Conn, time.Second)
	if err != nil {
		k.t.Fatal(err)
	}
	leases, err := follow.NewLeases(follow.LeasesConfig{Conn: k.cfg.Conn, Logger: ledgertest.Logger(k.t)})
	if err != nil {
		k.t.Fatal(err)
	}
	k.barriers, err = barrier.New(barrier.Config{
		Stream: stream, Leases: leases, Index: k.view, Lease: lease, Epoch: k.log.Epoch, Ledger: "ledger-1",
		Boottime: k.boot.Now, Now: k.now.Now, Logger: ledgertest.Logger(k.t),
	})
	if err != nil {
		k.t.Fatal(err)
	}
	k.cfg.Barriers = k.barriers
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	leases.FromFirst()
	parts.Go(func() {
		if err := leases.Run(ctx, k.barriers); err != nil {
			k.t.Error(err)
		}
	})
	parts.Go(func() {
		if err := k.barriers.Run(ctx); err != nil {
			k.t.Error(err)
		}
	})
	k.stop = func() {
		cancel()
		parts.Wait()
	}
}

// crash stops everything in the process and starts it again.
func (k *fixture) crash() {
	k.t.Helper()
	if err := k.Close(); err != nil {
		k.t.Fatal(err)
	}
	k.stop()
	k.keep()
	k.open()
}

// knows waits until the keeper knows of n holders.
func (k *fixture) knows(n int) {
	k.t.Helper()
	k.until("holders of leases", func() bool { return len(k.barriers.Holders()) == n })
}

// until waits until ok returns true.
func (k *fixture) until(what string, ok func() bool) {
	k.t.Helper()
	if !wait.For(patience, ok) {
		k.t.Fatalf("waiting for %s: %+v", what, k.barriers.Stats())
	}
}

// pass advances the boot time, and wakes the keeper.
func (k *fixture) pass(d time.Duration) {
	k.boot.pass(d)
	k.barriers.Report(events.Holder{Node: "nobody", Instance: "x"}, k.log.Epoch, 0)
}

// impatient makes a ledger retry soon.
func impatient(c *ledger.Config) { c.TryTimeout = 100 * time.Millisecond }

// resigned makes a ledger retry and give up soon.
func resigned(c *ledger.Config) {
	impatient(c)
	c.CommandTimeout = 5 * time.Second // long enough for a command that nothing stops
}

// open opens the ledger, as a process does when it starts.
func (k *fixture) open() {
	k.t.Helper()
	var err error
	if k.Ledger, err = ledger.Open(k.t.Context(), k.cfg); err != nil {
		k.t.Fatal(err)
	}
}

// restart closes the ledger and opens another one.
func (k *fixture) restart() {
	k.t.Helper()
	if err := k.Close(); err != nil {
		k.t.Fatal(err)
	}
	k.open()
}

// policy returns the policy in force.
func (k *fixture) policy() events.Policy {
	k.t.Helper()
	p, err := k.view.Policy()
	if err != nil {
		k.t.Fatal(err)
	}
	return p.Policy
}

func (k *fixture) findRoot() {
	k.t.Helper()
	list, _, _ := k.view.Accounts("", 2)
	if len(list) != 1 {
		k.t.Fatalf("%d accounts after the log was begun, want 1", len(list))
	}
	tokens, _, err := k.view.Tokens(list[0].ID, nil, "", 2)
	if err != nil || len(tokens) != 1 {
		k.t.Fatalf("%d tokens after the log was begun (%v), want 1", len(tokens), err)
	}
	k.root = authz.Principal{Account: list[0].ID, Token: tokens[0].ID, Address: "192.0.2.1", Scopes: []events.Scope{events.Superuser}}
}

// check tests what no fault may break: an index applies the whole log, no event
// is in it twice, and no command with a key was done twice.
func (k *fixture) check() {
	k.t.Helper()
	end := k.log.End()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := k.view.WaitApplied(ctx, end); err != nil {
		k.t.Errorf("the index does not take the log: %v", err)
		return
	}
	seen := map[string]int{}
	for i, e := range k.log.Events() {
		for _, once := range []string{string(e.ID), string(e.Key)} {
			if first, twice := seen[once]; twice && once != "" {
				k.t.Errorf("%s stands at positions %d and %d", once, first, i+1)
			}
			seen[once] = i + 1
		}
	}
	state := eventstest.Fold(k.log.Messages())
	for _, id := range state.Tokens() {
		want, _ := state.Token(id)
		if got, err := k.view.Token(id); err != nil || got.Version != want.Version || got.State != want.State {
			k.t.Errorf("token %s in the index: %+v (%v), want version %d, %s", id, got, err, want.Version, want.State)
		}
	}
}

// unchanged fails the test unless do appends nothing that changes a record.
func (k *fixture) unchanged(do func()) {
	k.t.Helper()
	before := k.changes()
	do()
	if after := k.changes(); after != before {
		k.t.Errorf("the log went from %d changes to %d, want no change", before, after)
	}
}

// changes counts the events that change a record.
func (k *fixture) changes() events.Position {
	k.t.Helper()
	return k.log.Changes(k.log.End())
}

// event returns the event at the position of a command's answer. It must be
// about id.
func (k *fixture) event(at events.Position, id string, kind events.Kind) *events.Event {
	k.t.Helper()
	all := k.log.Events()
	if at == 0 || int(at) > len(all) {
		k.t.Fatalf("position %d, but the log ends at %d", at, len(all))
	}
	e := all[at-1]
	if e.About != id || e.Change.Kind() != kind {
		k.t.Fatalf("at position %d stands %s of %s, want %s of %s", at, e.Change.Kind(), e.About, kind, id)
	}
	return e
}

// account creates an account.
func (k *fixture) account(login string, grants ...string) events.AccountID {
	k.t.Helper()
	r, err := k.CreateAccount(k.t.Context(), k.root, "", ledger.CreateAccount{Login: login, Kind: "user", Grants: grants})
	if err != nil {
		k.t.Fatal(err)
	}
	return r.Account.ID
}

// token creates a token.
func (k *fixture) token(account string, scopes ...string) ledger.TokenResult {
	k.t.Helper()
	r, err := k.Create(k.t.Context(), k.root, "", ledger.CreateToken{Account: account, App: "app", Scopes: scopes})
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

// alice creates an account with one token.
func (k *fixture) alice() (events.AccountID, ledger.TokenResult) {
	k.t.Helper()
	id := k.account("alice", "admin:site/*")
	return id, k.token("alice", "view:site/1")
}

// neighbour creates a token in the shard of another one.
func (k *fixture) neighbour(account string, of events.TokenID) events.TokenID {
	k.t.Helper()
	// A token that a command with a key creates is in the key's shard.
	for i := 0; ; i++ {
		key := "neighbour " + strings.Repeat("i", i)
		if events.ShardFor(events.NewCommandKey(k.root.Account, key)) != string(of[len(of)-2:]) {
			continue
		}
		r, err := k.Create(k.t.Context(), k.root, key, ledger.CreateToken{Account: account, Scopes: []string{"view:site/1"}})
		if err != nil {
			k.t.Fatal(err)
		}
		return r.Token.ID
	}
}

// boottime is a clock of boot time that a test can advance.
type boottime struct {
	mu    sync.Mutex
	ahead time.Duration // guarded by mu
}

func (b *boottime) Now() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return clock.Boottime() + b.ahead
}

func (b *boottime) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead += d
}

func ptr[T any](v T) *T { return &v }

// scopes prints scopes for comparing.
func scopes(list []events.Scope) string { return strings.Join(events.ScopeStrings(list), " ") }

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

// kinds lists the kinds of the events about one ID.
func (k *fixture) kinds(id string) []events.Kind {
	var out []events.Kind
	for _, e := range k.log.Events() {
		if e.About == id && !e.Change.Kind().Keeps() {
			out = append(out, e.Change.Kind())
		}
	}
	return out
}

func count[T comparable](list []T, v T) int {
	return len(slices.DeleteFunc(slices.Clone(list), func(x T) bool { return x != v }))
}
