package follow_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector/follow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait.
const patience = wait.Limit

// A log is the real stream on a real server that only this process can reach. It
// can be stopped, damaged and restarted.
type log struct {
	tb       testing.TB
	dir      string
	endpoint *endpoint
	admin    *nats.Conn
	js       jetstream.JetStream
	n        int // events published, over all streams

	listen   bool                  // on a port of the loopback too
	replicas int                   // 0 means 1
	cluster  func(*server.Options) // nil: the server is alone
}

// endpoint connects to the running server. Connections reconnect through it
// after the server was restarted.
type endpoint struct {
	mu  sync.Mutex
	srv *server.Server // nil while none runs
}

func (d *endpoint) InProcessConn() (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.srv == nil {
		return nil, errors.New("no server is running")
	}
	return d.srv.InProcessConn()
}

const (
	adminUser  = "admin"
	readerUser = "reader"  // with the permissions of a verifier
	noTailUser = "no-tail" // the same without the tail
)

func newLog(tb testing.TB) *log {
	tb.Helper()
	l := &log{tb: tb, dir: tb.TempDir(), endpoint: &endpoint{}}
	l.start()
	tb.Cleanup(l.stop)
	l.open()
	return l
}

// open creates the stream on the running server.
func (l *log) open() {
	l.tb.Helper()
	if l.admin == nil {
		l.admin = l.connect(adminUser)
	}
	l.js = must(jetstream.New(l.admin))
	l.create()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (l *log) options() *server.Options {
	reads := func(subscribe ...string) *server.Permissions {
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.DIRECT.GET.LEDGER", "$JS.API.STREAM.INFO.LEDGER"}},
			Subscribe: &server.SubjectPermission{Allow: append(subscribe, "_INBOX.>")},
		}
	}
	opts := &server.Options{
		ServerName: "log", DontListen: !l.listen, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: l.dir,
		Users: []*server.User{
			{Username: adminUser, Password: "-"},
			{Username: readerUser, Password: "-", Permissions: reads(events.TailFilter)},
			{Username: noTailUser, Password: "-", Permissions: reads()},
		},
	}
	if l.cluster != nil {
		l.cluster(opts)
	}
	return opts
}

func (l *log) start() {
	l.tb.Helper()
	srv, err := server.NewServer(l.options())
	if err != nil {
		l.tb.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		l.tb.Fatal("server is not ready")
	}
	var connected chan nats.Status
	if l.admin != nil {
		connected = l.admin.StatusChanged(nats.CONNECTED)
		defer l.admin.RemoveStatusListener(connected)
	}
	l.endpoint.mu.Lock()
	l.endpoint.srv = srv
	l.endpoint.mu.Unlock()
	if l.admin != nil {
		<-connected
		if err := l.admin.FlushTimeout(patience); err != nil {
			l.tb.Fatal(err)
		}
	}
}

// stop shuts the server down cleanly.
func (l *log) stop() {
	l.endpoint.mu.Lock()
	srv := l.endpoint.srv
	l.endpoint.srv = nil
	l.endpoint.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

func (l *log) connect(user string, opts ...nats.Option) *nats.Conn {
	l.tb.Helper()
	opts = append([]nats.Option{
		nats.InProcessServer(l.endpoint), nats.UserInfo(user, "-"),
		nats.MaxReconnects(-1), nats.ReconnectWait(5 * time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)
	conn, err := nats.Connect("", opts...)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(conn.Close)
	return conn
}

// create creates the stream as the ledger does.
func (l *log) create() {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := jetstream.StreamConfig{
		Name: events.StreamName, Subjects: []string{events.SubjectFilter},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: 1 << 30, MaxMsgSize: 1 << 20, Replicas: max(1, l.replicas),
		DenyDelete: true, DenyPurge: true, AllowDirect: true, AllowAtomicPublish: true,
		Duplicates: 2 * time.Minute,
		RePublish:  &jetstream.RePublish{Source: events.SubjectFilter, Destination: events.TailFilter},
	}
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := l.js.CreateStream(try, cfg)
		cancel()
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			l.tb.Fatal(err)
		}
		// The servers are not connected yet, or one of them is still removing
		// the deleted stream.
	}
}

func (l *log) delete() {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.js.DeleteStream(ctx, events.StreamName); err != nil {
		l.tb.Fatal(err)
	}
}

// event returns the n-th event to publish. Each one is different.
func event(n int) (subject string, data []byte) {
	return fmt.Sprintf("ledger.token.%02x.created", n%251), fmt.Appendf(nil, `{"event":%08d,"fill":"%0100d"}`, n, n)
}

// publish stores n events and returns the position of the last.
func (l *log) publish(n int) events.Position {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if n == 1 {
		l.n++
		subject, data := event(l.n)
		ack, err := l.js.Publish(ctx, subject, data)
		if err != nil {
			l.tb.Fatalf("publish: %v", err)
		}
		return events.Position(ack.Sequence)
	}
	var ack jetstream.PubAckFuture
	for n > 0 {
		for range min(n, 1000) {
			l.n++
			subject, data := event(l.n)
			ack = must(l.js.PublishAsync(subject, data))
		}
		n -= min(n, 1000)
		select {
		case <-l.js.PublishAsyncComplete():
		case <-ctx.Done():
			l.tb.Fatal("publish: not acknowledged")
		}
	}
	select {
	case a := <-ack.Ok():
		return events.Position(a.Sequence)
	case err := <-ack.Err():
		l.tb.Fatalf("publish: %v", err)
	}
	return 0
}

// end returns the log's last position by the server's information.
func (l *log) end() events.Position {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := l.js.Stream(ctx, events.StreamName)
	if err != nil {
		l.tb.Fatal(err)
	}
	return events.Position(s.CachedInfo().State.LastSeq)
}

// flip changes one bit of the stored bytes of the n-th event. The server must
// not be running.
func (l *log) flip(n int) {
	l.tb.Helper()
	_, data := event(n)
	files := must(filepath.Glob(filepath.Join(l.dir, "jetstream", "*", "streams", events.StreamName, "msgs", "*.blk")))
	for _, name := range files {
		b := must(os.ReadFile(name))
		i := bytes.Index(b, data)
		if i < 0 {
			continue
		}
		b[i+len(data)/2] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			l.tb.Fatal(err)
		}
		return
	}
	l.tb.Fatalf("event %d is in none of %d files", n, len(files))
}

// forgetState removes the file that a clean shutdown writes, as if the server
// had been killed. The next server reads all blocks.
func (l *log) forgetState() {
	l.tb.Helper()
	files := must(filepath.Glob(filepath.Join(l.dir, "jetstream", "*", "streams", events.StreamName, "msgs", "index.db")))
	for _, name := range files {
		if err := os.Remove(name); err != nil {
			l.tb.Fatal(err)
		}
	}
	if len(files) == 0 {
		l.tb.Fatal("no index.db found")
	}
}

// A reader is a handler that keeps all messages, and a run of a follower that
// feeds it.
type reader struct {
	tb testing.TB
	f  *follow.Follower

	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, once done is closed

	mu     sync.Mutex
	change chan struct{} // closed at the next change
	last   events.Position
	anchor []byte
	data   [][]byte // of positions 1, 2, …
	fresh  []fresh
	away   bool                               // the log is unreachable, by the log lines of Run
	left   int                                // how often it became unreachable
	lacked int                                // answers that lacked a message, by the log lines
	apply  func(batch []events.Message) error // called first, if not nil
}

type fresh struct {
	asked, told time.Duration
	end, last   events.Position
}

func newReader(tb testing.TB) *reader {
	return &reader{tb: tb, change: make(chan struct{})}
}

func (r *reader) Apply(_ context.Context, batch []events.Message) error {
	if r.apply != nil {
		if err := r.apply(batch); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(batch) == 0 {
		return errors.New("batch is empty")
	}
	for _, m := range batch {
		if m.Position != r.last+1 {
			return fmt.Errorf("position %d handed over after %d", m.Position, r.last)
		}
		r.last = m.Position
		r.data = append(r.data, m.Data)
	}
	h := sha256.Sum256(batch[len(batch)-1].Data)
	r.anchor = h[:]
	r.changed()
	return nil
}

func (r *reader) Fresh(asked time.Duration, end events.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := fresh{asked: asked, told: clock.Boottime(), end: end, last: r.last}
	if r.away {
		r.tb.Errorf("Fresh(%d) while the log is unreachable", end)
	}
	if end > r.last {
		r.tb.Errorf("Fresh(%d) with only %d handed over", end, r.last)
	}
	if n := len(r.fresh); f.asked > f.told || n > 0 && f.asked <= r.fresh[n-1].asked {
		r.tb.Errorf("Fresh asked at %v, told at %v, last at %v", f.asked, f.told, r.fresh[max(0, n-1)])
	}
	r.fresh = append(r.fresh, f)
	r.changed()
}

// watcher learns from log lines whether the log is reachable. Run logs from the
// goroutine that calls the handler.
type watcher struct {
	slog.Handler
	r *reader
}

func (w *watcher) Handle(ctx context.Context, rec slog.Record) error {
	w.r.mu.Lock()
	switch rec.Message {
	case "stream unreachable":
		w.r.away = true
		w.r.left++
	case "following stream":
		w.r.away = false
	case "log lacks a message, retrying":
		w.r.lacked++
	}
	w.r.changed()
	w.r.mu.Unlock()
	return w.Handler.Handle(ctx, rec)
}

func (r *reader) changed() { // mu is held
	close(r.change)
	r.change = make(chan struct{})
}

// run follows the log from the reader's position until stop, the test's end or
// an error. The others get the same messages.
func (r *reader) run(cfg follow.Config, others ...*reader) *reader {
	r.tb.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(&watcher{slog.NewTextHandler(r.tb.Output(), nil), r})
	}
	f, err := follow.New(cfg)
	if err != nil {
		r.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.f, r.cancel, r.done = f, cancel, make(chan struct{})
	after, anchor := r.last, r.anchor
	handlers := []follow.Handler{r}
	for _, other := range others {
		other.done = r.done
		handlers = append(handlers, other)
	}
	go func() {
		defer close(r.done)
		r.err = f.Run(ctx, after, anchor, handlers...)
	}()
	r.tb.Cleanup(func() { r.stop() })
	return r
}

// stop ends the run and returns its error.
func (r *reader) stop() error {
	r.cancel()
	<-r.done
	return r.err
}

// wait waits until ok, which is called with mu held.
func (r *reader) wait(what string, ok func() bool) {
	r.tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		met, change, last := ok(), r.change, r.last
		r.mu.Unlock()
		if met {
			return
		}
		select {
		case <-change:
		case <-r.done:
			r.tb.Fatalf("waiting for %s at position %d: Run returned %v", what, last, r.err)
		case <-deadline.C:
			r.tb.Fatalf("waiting for %s: still at position %d", what, last)
		}
	}
}

func (r *reader) waitApplied(p events.Position) {
	r.tb.Helper()
	r.wait(fmt.Sprintf("position %d", p), func() bool { return r.last >= p })
}

// waitFresh waits for a reading of p that was asked for after the call.
func (r *reader) waitFresh(p events.Position) {
	r.tb.Helper()
	asked := clock.Boottime()
	r.wait(fmt.Sprintf("a reading of %d", p), func() bool {
		n := len(r.fresh)
		return n > 0 && r.fresh[n-1].asked >= asked && r.fresh[n-1].end >= p
	})
}

// waitEnd waits until Run ends by itself, and checks its error.
func (r *reader) waitEnd(want error) {
	r.tb.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.tb.Fatalf("Run is still running, want %v", want)
	}
	if !errors.Is(r.err, want) {
		r.tb.Fatalf("Run returned %v, want %v", r.err, want)
	}
	r.tb.Logf("Run returned: %v", r.err)
}

// told returns the readings so far.
func (r *reader) told() []fresh {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.fresh)
}

// check compares the messages handed over with the first events published.
func (r *reader) check(events int) {
	r.tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.data) != events {
		r.tb.Fatalf("%d events handed over, want %d", len(r.data), events)
	}
	for i, got := range r.data {
		if _, want := event(i + 1); !bytes.Equal(got, want) {
			r.tb.Fatalf("event %d is %s, want %s", i+1, got, want)
		}
	}
}

// quick is a configuration with short times.
func quick(conn *nats.Conn) follow.Config {
	return follow.Config{Conn: conn, Poll: 20 * time.Millisecond, GapTimeout: 300 * time.Millisecond, Timeout: time.Second}
}
