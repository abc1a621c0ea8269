package snapshot_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
	"github.com/tokenledger/tokenledger/projector/snapshot"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(installDir); dir != "" {
		installFromStdin(dir)
		return
	}
	// nats.go leaves this behind where a Put fails before it has begun.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// patience bounds what a test waits for.
const patience = wait.Limit

// seeded returns the run's seed and what follows from it.
func seeded(t testing.TB) (uint64, *rand.Rand) {
	t.Helper()
	s := seed.New(t)
	return s, rand.New(rand.NewPCG(s, 1))
}

// signer is a ledger's key.
type signer struct {
	public string
	sign   func([]byte) ([]byte, error)
}

func newSigner(t testing.TB) signer {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return signer{public, pair.Sign}
}

// open opens the index in a folder. The caller closes it.
func open(t testing.TB, dir string) *projector.Projector {
	t.Helper()
	p, err := projector.Open(projector.Config{Dir: dir, ScrubRate: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// opened opens an index that follows a log, and closes it in the end.
func opened(t testing.TB, messages []events.Message) *projector.Projector {
	t.Helper()
	p := open(t, t.TempDir())
	t.Cleanup(func() { closed(t, p) })
	applied(t, p, messages)
	return p
}

func applied(t testing.TB, p *projector.Projector, messages []events.Message) {
	t.Helper()
	if err := p.Apply(t.Context(), messages); err != nil {
		t.Fatal(err)
	}
}

func closed(t testing.TB, p *projector.Projector) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func dump(t testing.TB, p *projector.Projector) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// taken returns a snapshot of an index.
func taken(t testing.TB, p *projector.Projector, s signer) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := snapshot.Write(t.Context(), p, &b, s.sign); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wants accepts what a key signed.
func wants(s signer) snapshot.Wanted { return snapshot.Wanted{Keys: []string{s.public}} }

// installed installs a snapshot and opens it. It is closed in the end.
func installed(t testing.TB, raw []byte, want snapshot.Wanted) *projector.Projector {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "index")
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: want}); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	t.Cleanup(func() { closed(t, p) })
	return p
}

// sameIndex reports an index that is not byte for byte another one, and goes on
// to the same end.
func sameIndex(t testing.TB, want, got *projector.Projector, run *eventstest.Run) {
	t.Helper()
	if !bytes.Equal(dump(t, want), dump(t, got)) {
		t.Error("the dump differs")
	}
	at := got.Position()
	if err := projectortest.Compare(eventstest.Fold(run.Messages[:at]), got); err != nil {
		t.Error(err)
	}
	if err := got.Scrub(t.Context()); err != nil {
		t.Errorf("Scrub = %v", err)
	}
	applied(t, got, run.Messages[at:])
	if err := projectortest.Compare(eventstest.Fold(run.Messages), got); err != nil {
		t.Error(err)
	}
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// bus is a server with JetStream that nothing but this process can reach. A
// ledger may do everything; a verifier may ask for snapshots and nothing else.
type bus struct {
	t      testing.TB
	server *server.Server
}

func newBus(t testing.TB) *bus {
	t.Helper()
	config := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
		server_name: test
		jetstream: {store_dir: %q}
		max_payload: 131072
		accounts: {LEDGER: {jetstream: enabled, users: [
			{user: ledger, password: ledger}
			{user: verifier, password: verifier, permissions: {
				publish: ["$JS.API.DIRECT.GET.OBJ_SNAPSHOTS"], subscribe: ["_INBOX_v.>"]}}
			{user: nobody, password: nobody, permissions: {publish: {deny: ">"}, subscribe: ["_INBOX_v.>"]}}
		]}}`, t.TempDir()), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(config)
	if err != nil {
		t.Fatal(err)
	}
	opts.DontListen, opts.NoSigs, opts.NoLog = true, true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return &bus{t, s}
}

// conn connects as a user, until the test ends.
func (b *bus) conn(user string) *nats.Conn {
	b.t.Helper()
	opts := []nats.Option{nats.InProcessServer(b.server), nats.UserInfo(user, user), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}
	if user != "ledger" {
		opts = append(opts, nats.CustomInboxPrefix("_INBOX_v"))
	}
	nc, err := nats.Connect("", opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

// publisher publishes an index whenever it went on.
func (b *bus) publisher(p *projector.Projector, s signer) *snapshot.Publisher {
	b.t.Helper()
	out, err := snapshot.NewPublisher(snapshot.PublisherConfig{
		Conn: b.conn("ledger"), Index: func() *projector.Projector { return p }, Sign: s.sign,
		Events: 1, Every: time.Millisecond, Rate: 1 << 40, Orphans: time.Nanosecond, Logger: logger(b.t),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// published publishes what is due, and returns whether anything was.
func published(t testing.TB, p *snapshot.Publisher) bool {
	t.Helper()
	did, err := p.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return did
}

// bulk is a log of so many tokens, for a snapshot of many chunks.
func bulk(seed uint64, n int) *eventstest.Run {
	log := eventstest.NewLog(seed)
	account := log.Account("admin:site/*")
	for range n {
		log.Token(account, "view:site/1", "track:site/2")
	}
	return &eventstest.Run{Seed: seed, Epoch: log.Epoch(), Messages: log.Messages}
}

// installDir names the folder that a process of this test installs in what it
// reads, signed with the key that installKey names.
const (
	installDir = "SNAPSHOT_TEST_INSTALL"
	installKey = "SNAPSHOT_TEST_KEY"
)

func installFromStdin(dir string) {
	fmt.Println("begun")
	_, err := snapshot.Install(context.Background(), dir, io.TeeReader(os.Stdin, os.Stderr), snapshot.Options{
		Wanted: snapshot.Wanted{Keys: []string{os.Getenv(installKey)}},
	})
	fmt.Println("ended", err)
}

// lines is a logger that sends each line.
func lines(to chan<- string) *slog.Logger {
	return slog.New(slog.NewTextHandler(sender{to}, nil))
}

type sender struct{ to chan<- string }

func (s sender) Write(b []byte) (int, error) {
	s.to <- string(b)
	return len(b), nil
}
