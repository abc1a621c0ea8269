package snapshot_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
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
	// nats.go leaves this goroutine behind if a Put fails before it has begun.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// patience bounds the waits of a test.
const patience = wait.Limit

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

// newIndex returns a new index that has applied messages. It is closed at the
// end of the test.
func newIndex(t testing.TB, messages []events.Message) *projector.Projector {
	t.Helper()
	p := open(t, t.TempDir())
	t.Cleanup(func() { projectortest.Close(t, p) })
	projectortest.Apply(t, p, messages)
	return p
}

// snapshotOf returns a snapshot of an index.
func snapshotOf(t testing.TB, p *projector.Projector, s signer) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := snapshot.Write(t.Context(), p, &b, s.sign); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// signedBy accepts snapshots that a key has signed.
func signedBy(s signer) snapshot.Wanted { return snapshot.Wanted{Keys: []string{s.public}} }

// installIndex installs a snapshot and opens the index. It is closed at the end
// of the test.
func installIndex(t testing.TB, raw []byte, want snapshot.Wanted) *projector.Projector {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "index")
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: want}); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	t.Cleanup(func() { projectortest.Close(t, p) })
	return p
}

// checkSameIndex checks that two indexes have the same bytes, and that got
// agrees with the reference after the rest of the log.
func checkSameIndex(t testing.TB, want, got *projector.Projector, run *eventstest.Run) {
	t.Helper()
	if !bytes.Equal(projectortest.Dump(t, want), projectortest.Dump(t, got)) {
		t.Error("the dump differs")
	}
	pos := got.Position()
	if err := projectortest.Compare(eventstest.Fold(run.Messages[:pos]), got); err != nil {
		t.Error(err)
	}
	if err := got.Scrub(t.Context()); err != nil {
		t.Errorf("Scrub = %v", err)
	}
	projectortest.Apply(t, got, run.Messages[pos:])
	if err := projectortest.Compare(eventstest.Fold(run.Messages), got); err != nil {
		t.Error(err)
	}
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// logServer is an in-process NATS server with JetStream. The user ledger has
// all permissions; verifier may only get snapshots; nobody may publish nothing.
type logServer struct {
	t      testing.TB
	server *server.Server
}

func newLogServer(t testing.TB) *logServer {
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
	return &logServer{t, s}
}

// conn connects as a user, until the test ends.
func (b *logServer) conn(user string) *nats.Conn {
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

// publisher returns a Publisher for which each new event makes a snapshot due.
func (b *logServer) publisher(p *projector.Projector, s signer) *snapshot.Publisher {
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

// publish publishes a snapshot if one is due, and reports whether it did.
func publish(t testing.TB, p *snapshot.Publisher) bool {
	t.Helper()
	did, err := p.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return did
}

// bigLog returns a log of n tokens, for a snapshot of many chunks.
func bigLog(seed uint64, n int) *eventstest.Run {
	log := eventstest.NewLog(seed)
	account := log.Account("admin:site/*")
	for range n {
		log.Token(account, "view:site/1", "track:site/2")
	}
	return &eventstest.Run{Seed: seed, Epoch: log.Epoch(), Messages: log.Messages}
}

// Environment variables of a child process, which installs a snapshot from
// stdin: the folder, and the public key of the signature.
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

// lineLogger returns a logger that sends each line to a channel.
func lineLogger(to chan<- string) *slog.Logger {
	return slog.New(slog.NewTextHandler(lineSender{to}, nil))
}

type lineSender struct{ to chan<- string }

func (s lineSender) Write(b []byte) (int, error) {
	s.to <- string(b)
	return len(b), nil
}
