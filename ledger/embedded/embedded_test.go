package embedded

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = wait.Limit

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func newKey(t *testing.T) Key {
	t.Helper()
	k, err := LoadOrCreateKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fixture is a server with the keys of both roles.
type fixture struct {
	*Server
	t        *testing.T
	cfg      Config
	verifier Key
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	verifier := newKey(t)
	return &fixture{
		t:        t,
		verifier: verifier,
		cfg: Config{
			Dir:         t.TempDir(),
			MaxStore:    1 << 30,
			LedgerKey:   newKey(t),
			VerifierKey: verifier.Public(),
			Logger:      slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
	}
}

func (k *fixture) start() {
	k.t.Helper()
	s, err := Start(testContext(k.t), k.cfg)
	if err != nil {
		k.t.Fatal(err)
	}
	k.Server = s
	k.t.Cleanup(k.stop)
	if err := s.Listen(); err != nil {
		k.t.Fatal(err)
	}
}

func (k *fixture) stop() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := k.Shutdown(ctx); err != nil {
		k.t.Error(err)
	}
}

func startKit(t *testing.T) *fixture {
	t.Helper()
	k := newFixture(t)
	k.start()
	return k
}

func (k *fixture) asLedger() jetstream.JetStream {
	k.t.Helper()
	nc, err := k.Connect()
	if err != nil {
		k.t.Fatal(err)
	}
	return newJetStream(k.t, nc)
}

func newJetStream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// asVerifier returns a verifier's connection and the channel of its
// asynchronous errors.
func (k *fixture) asVerifier() (*nats.Conn, <-chan error) {
	k.t.Helper()
	errs := make(chan error, 64)
	nc, err := nats.Connect("", append(VerifierOptions(k.verifier),
		nats.InProcessServer(k),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(nc.Close)
	return nc, errs
}

func mustCreateStream(t *testing.T, js jetstream.JetStream) StreamInfo {
	t.Helper()
	info, err := CreateStream(testContext(t), js, StreamLimits{MaxBytes: 1 << 28, Epoch: "first"})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func mustPublish(t *testing.T, js jetstream.JetStream, subject, data string) uint64 {
	t.Helper()
	ack, err := js.Publish(testContext(t), subject, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func TestServerSettings(t *testing.T) {
	k := startKit(t)
	if got := k.URL(); got != "" {
		t.Errorf("URL() = %q without an address to listen on, want none", got)
	}
	js := k.ns.JetStreamConfig()
	if !js.SyncAlways {
		t.Error("SyncAlways is off: a power cut would lose what was acknowledged")
	}
	if js.MaxStore != k.cfg.MaxStore || js.MaxMemory != maxMemory {
		t.Errorf("limits are %d on disk and %d in memory, want %d and %d", js.MaxStore, js.MaxMemory, k.cfg.MaxStore, maxMemory)
	}
	nc, err := k.Connect()
	if err != nil {
		t.Fatal(err)
	}
	if got := nc.MaxPayload(); got != maxPayload {
		t.Errorf("MaxPayload() = %d, want %d", got, maxPayload)
	}
	if k.ns.MonitorAddr() != nil || k.ns.Addr() != nil {
		t.Error("the server listens")
	}
	for _, dir := range []string{"jetstream", "jetstream/LEDGER"} {
		info, err := os.Stat(filepath.Join(k.cfg.Dir, dir))
		if dir == "jetstream/LEDGER" && errors.Is(err, fs.ErrNotExist) {
			continue // made with the first stream
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o700 {
			t.Errorf("%s has mode %04o, want 0700", dir, got)
		}
	}
}

func TestStoreFolderIsClosedToOthers(t *testing.T) {
	k := newFixture(t)
	store := filepath.Join(k.cfg.Dir, "jetstream")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	k.start()
	info, err := os.Stat(store)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("the folder of a server that was started has mode %04o, want 0700", got)
	}
}

func TestRestartKeepsData(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	created := mustCreateStream(t, js)
	mustPublish(t, js, "ledger.token.aa.created", "one")
	mustPublish(t, js, "ledger.token.aa.revoked", "two")
	k.stop()

	k.start()
	js = k.asLedger()
	info, err := OpenStream(testContext(t), js)
	if err != nil {
		t.Fatal(err)
	}
	if want := (StreamInfo{Last: 2, Epoch: "first", Created: created.Created}); info != want {
		t.Errorf("OpenStream after a restart = %+v, want %+v", info, want)
	}
	stream, err := js.Stream(testContext(t), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(testContext(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	if msg.Subject != "ledger.token.aa.revoked" || string(msg.Data) != "two" {
		t.Errorf("position 2 after a restart is %s %q", msg.Subject, msg.Data)
	}
}

func TestListen(t *testing.T) {
	k := newFixture(t)
	k.cfg.Listen = "127.0.0.1:0"
	s, err := Start(testContext(t), k.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.URL(); got != "" {
		t.Errorf("URL() = %q before Listen, want none", got)
	}
	if err := s.Shutdown(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("Listen after Shutdown = %v, want a refusal", err)
	}
	k.start()
	if !strings.HasPrefix(k.URL(), "nats://127.0.0.1:") || strings.HasSuffix(k.URL(), ":0") {
		t.Errorf("URL() = %q, want the port that was picked", k.URL())
	}
	nc, err := nats.Connect(k.URL(), VerifierOptions(k.verifier)...)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	nc, err = nats.Connect(k.URL(), LedgerOptions(k.cfg.LedgerKey)...)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestStrangersAreRefused(t *testing.T) {
	k := newFixture(t)
	k.cfg.Listen = "127.0.0.1:0"
	k.start()
	stranger := newKey(t)
	places := map[string]nats.Option{
		"in process": nats.InProcessServer(k),
		"over TCP":   func(*nats.Options) error { return nil },
	}
	strangers := map[string][]nats.Option{
		"anonymous":       nil,
		"a password":      {nats.UserInfo("admin", "admin")},
		"a token":         {nats.Token("admin")},
		"an unknown key":  {stranger.Option()},
		"another's key":   {nats.Nkey(k.verifier.Public(), stranger.b.pair.Sign)},
		"the system user": {nats.UserInfo("$SYS", "")},
	}
	for place, where := range places {
		for name, who := range strangers {
			t.Run(place+"/"+name, func(t *testing.T) {
				nc, err := nats.Connect(k.URL(), append(slices.Clone(who), where)...)
				if err == nil {
					nc.Close()
				}
				if !errors.Is(err, nats.ErrAuthorization) {
					t.Errorf("Connect = %v, want %v", err, nats.ErrAuthorization)
				}
			})
		}
	}
}

func TestNoVerifierWithoutItsKey(t *testing.T) {
	k := newFixture(t)
	k.cfg.VerifierKey = ""
	k.start()
	_, err := nats.Connect("", append(VerifierOptions(k.verifier), nats.InProcessServer(k))...)
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("Connect = %v, want %v", err, nats.ErrAuthorization)
	}
}

func TestConfigProblemsAreNamedTogether(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	tests := []struct {
		name string
		cfg  Config
		want []string
	}{
		{"nothing", Config{}, []string{"Dir", "LedgerKey"}},
		{"several", Config{MaxStore: -1, Listen: "nowhere"}, []string{"Dir", "MaxStore", "LedgerKey", "host:port", "VerifierKey"}},
		{"port", Config{Dir: "x", LedgerKey: key, Listen: "localhost:70000"}, []string{"65535", "VerifierKey"}},
		{"one key for both", Config{Dir: "x", LedgerKey: key, VerifierKey: key.Public()}, []string{"of its own"}},
		{"a seed for the public key", Config{Dir: "x", LedgerKey: key, VerifierKey: string(seed)}, []string{"public half"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Start(testContext(t), tt.cfg)
			if err == nil {
				t.Fatal("Start = nil, want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), string(seed)) {
				t.Error("the error quotes a seed")
			}
		})
	}
}

func TestStartSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	type test struct {
		name string
		edit func(*Config)
		want []string
	}
	tests := []test{
		{
			"port in use", func(c *Config) { c.Listen = taken.Addr().String() },
			[]string{taken.Addr().String(), "stop it, or use another address", "address already in use"},
		},
		{
			"not our address", func(c *Config) { c.Listen = "192.0.2.1:0" },
			[]string{"192.0.2.1:0", "not an address of this machine"},
		},
		{
			"folder is a file", func(c *Config) { c.Dir = file },
			[]string{"create the store folder", file, "not a directory"},
		},
		{"store is a file", func(c *Config) {
			if err := os.WriteFile(filepath.Join(c.Dir, "jetstream"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"jetstream", "not a directory"}},
	}
	if os.Geteuid() != 0 { // nothing is closed to root
		tests = append(tests, test{"folder is closed to us", func(c *Config) {
			if err := os.Chmod(c.Dir, 0o500); err != nil {
				t.Fatal(err)
			}
		}, []string{"permission denied", "choose another"}})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newFixture(t)
			tt.edit(&k.cfg)
			s, err := Start(testContext(t), k.cfg)
			if err == nil {
				s.Shutdown(testContext(t))
				t.Fatal("Start = nil, want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

func TestFailedStartFreesTheFolder(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	k := newFixture(t)
	k.cfg.Listen = taken.Addr().String()
	if _, err := Start(testContext(t), k.cfg); err == nil {
		t.Fatal("Start on a port in use = nil, want an error")
	}
	k.cfg.Listen = ""
	k.start()
}

func TestFolderHasOneServer(t *testing.T) {
	k := startKit(t)
	_, err := Start(testContext(t), k.cfg)
	if err == nil || !strings.Contains(err.Error(), k.cfg.Dir+" is in use by another server") {
		t.Fatalf("a second Start = %v, want a refusal", err)
	}
	k.stop()
	k.start()
}

func TestStartHeedsItsContext(t *testing.T) {
	k := newFixture(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Start(ctx, k.cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want %v", err, context.Canceled)
	}
	k.start()
}

// The server would run without such a stream, and a new one could be created.
func TestStreamThatCannotBeLoadedStopsStart(t *testing.T) {
	tests := map[string]func(dir string) error{
		"metadata damaged": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "meta.inf"), []byte("{}"), 0o600)
		},
		"metadata missing": func(dir string) error {
			return os.Remove(filepath.Join(dir, "meta.inf"))
		},
		"checksum missing": func(dir string) error {
			return os.Remove(filepath.Join(dir, "meta.sum"))
		},
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			k := startKit(t)
			js := k.asLedger()
			mustCreateStream(t, js)
			mustPublish(t, js, "ledger.token.aa.revoked", "one")
			k.crashed()
			if err := damage(filepath.Join(k.cfg.Dir, "jetstream", "LEDGER", "streams", "LEDGER")); err != nil {
				t.Fatal(err)
			}
			s, err := Start(testContext(t), k.cfg)
			if err == nil {
				s.Shutdown(testContext(t))
				t.Fatal("Start = nil, want a refusal")
			}
			if !strings.Contains(err.Error(), "LEDGER: on disk, but the server cannot load it") {
				t.Errorf("Start = %v", err)
			}
			t.Log(err)
		})
	}
}

// crashed stops the server and leaves the folder as after a crash, without a
// seal.
func (k *fixture) crashed() {
	k.t.Helper()
	k.stop()
	if err := os.Remove(filepath.Join(k.cfg.Dir, sealFile)); err != nil {
		k.t.Fatal(err)
	}
}

// A crash during the creation of the first stream must not prevent a restart.
func TestHalfMadeStreamDoesNotStopStart(t *testing.T) {
	k := startKit(t)
	mustCreateStream(t, k.asLedger())
	k.crashed()
	if err := os.Remove(filepath.Join(k.cfg.Dir, "jetstream", "LEDGER", "streams", "LEDGER", "meta.sum")); err != nil {
		t.Fatal(err)
	}
	k.start()
	js := k.asLedger()
	if _, err := OpenStream(testContext(t), js); !errors.Is(err, ErrNoStream) {
		t.Fatalf("OpenStream = %v, want %v", err, ErrNoStream)
	}
	mustCreateStream(t, js)
	if got := mustPublish(t, js, "ledger.token.aa.created", "one"); got != 1 {
		t.Errorf("the first position is %d, want 1", got)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	k := startKit(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := k.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown = %v, want %v", err, context.Canceled)
	}
	if err := k.Shutdown(testContext(t)); err != nil {
		t.Errorf("second Shutdown = %v", err)
	}
	if _, err := k.Connect(); err == nil {
		t.Error("Connect after Shutdown = nil, want an error")
	}
}

// Appends in flight at shutdown have an unknown outcome; acknowledged events
// are kept.
func TestShutdownKeepsWhatWasAcknowledged(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)
	acks := make([]jetstream.PubAckFuture, 200)
	for i := range acks {
		var err error
		if acks[i], err = js.PublishAsync("ledger.token.aa.created", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	<-acks[len(acks)/10].Ok()
	k.stop()
	if !js.Conn().IsClosed() {
		t.Error("the ledger's connection is open after Shutdown")
	}
	var acked events.Position
	for _, a := range acks {
		select {
		case ack := <-a.Ok():
			acked = max(acked, events.Position(ack.Sequence))
		default:
		}
	}
	k.start()
	info, err := OpenStream(testContext(t), k.asLedger())
	if err != nil {
		t.Fatal(err)
	}
	if info.Last < acked || acked == 0 {
		t.Errorf("the last position is %d after %d was acknowledged", info.Last, acked)
	}
}
