package follow_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector/follow"
)

const (
	leaseUser       = "leases"         // with the permissions of a verifier on the lease stream
	noTailLeaseUser = "no-tail-leases" // the same without the tail
)

// leaseLog is a log with the lease stream, created as a ledger does.
type leaseLog struct {
	*log
	stored []string // data of sequence 1, 2, …
}

func newLeaseLog(tb testing.TB) *leaseLog {
	tb.Helper()
	l := &leaseLog{log: &log{tb: tb, dir: tb.TempDir(), endpoint: &endpoint{}}}
	l.cluster = func(o *server.Options) { // only for the users: the server is alone
		permissions := func(subscribe ...string) *server.Permissions {
			return &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.DIRECT.GET.LEASES"}},
				Subscribe: &server.SubjectPermission{Allow: append(subscribe, "_INBOX.>")},
			}
		}
		o.Users = append(o.Users,
			&server.User{Username: leaseUser, Password: "-", Permissions: permissions(events.LeaseTailFilter)},
			&server.User{Username: noTailLeaseUser, Password: "-", Permissions: permissions()})
	}
	l.start()
	tb.Cleanup(l.stop)
	l.open()
	l.createLeases()
	return l
}

// createLeases creates the lease stream.
func (l *leaseLog) createLeases() {
	l.tb.Helper()
	must(embedded.EnsureLeases(context.Background(), l.js, embedded.LeaseLimits{Epoch: "01jd3qk8z5n0v7m2x4c6b8a9ef", Replicas: l.replicas}))
	l.stored = nil
}

func (l *leaseLog) deleteLeases() {
	l.tb.Helper()
	if err := l.js.DeleteStream(context.Background(), events.LeaseStreamName); err != nil {
		l.tb.Fatal(err)
	}
}

// change updates the stream's settings.
func (l *leaseLog) change(update func(*jetstream.StreamConfig)) {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := must(l.js.Stream(ctx, events.LeaseStreamName)).CachedInfo().Config
	update(&cfg)
	must(l.js.UpdateStream(ctx, cfg))
}

// muteTail turns the tail off or on.
func (l *leaseLog) muteTail(on bool) {
	l.change(func(c *jetstream.StreamConfig) {
		c.RePublish = &jetstream.RePublish{Source: events.LeaseFilter, Destination: events.LeaseTailFilter}
		if on {
			c.RePublish = &jetstream.RePublish{Source: "lease.nothing", Destination: "tail.lease.nothing"}
		}
	})
}

// renew stores n messages and returns the position of the last.
func (l *leaseLog) renew(n int) events.LeaseSeq {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var at events.LeaseSeq
	for range n {
		l.n++
		data := fmt.Sprintf("renewal %d", l.n)
		ack, err := l.js.Publish(ctx, fmt.Sprintf("lease.node.n%d", l.n%7), []byte(data))
		if err != nil {
			l.tb.Fatalf("publish: %v", err)
		}
		at = events.LeaseSeq(ack.Sequence)
		l.stored = append(l.stored, data)
	}
	return at
}

// publishEmpty stores n empty messages.
func (l *leaseLog) publishEmpty(n int) {
	l.tb.Helper()
	for n > 0 {
		for range min(n, 4000) {
			must(l.js.PublishAsync("lease.node.n", nil))
		}
		n -= min(n, 4000)
		select {
		case <-l.js.PublishAsyncComplete():
		case <-time.After(patience):
			l.tb.Fatal("publish: not acknowledged")
		}
	}
}

// leaseReader is a handler that keeps all messages.
type leaseReader struct {
	tb     testing.TB
	l      *follow.Leases
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, once done is closed

	mu     sync.Mutex
	change chan struct{}
	begins []leaseBegin
	lost   []error
	from   events.LeaseSeq
	data   []string // from on
	onRead func(m events.LeaseMessage)
}

type leaseBegin struct {
	from  events.LeaseSeq
	whole bool
}

func quickLeases(conn *nats.Conn) follow.LeasesConfig {
	return follow.LeasesConfig{Conn: conn, Poll: 20 * time.Millisecond, GapTimeout: 200 * time.Millisecond, Timeout: time.Second}
}

func newLeaseReader(tb testing.TB, cfg follow.LeasesConfig) *leaseReader {
	tb.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	}
	r := &leaseReader{tb: tb, l: must(follow.NewLeases(cfg)), done: make(chan struct{}), change: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.err = r.l.Run(ctx, r)
	}()
	tb.Cleanup(func() { r.stop() })
	return r
}

func (r *leaseReader) stop() error {
	r.cancel()
	<-r.done
	return r.err
}

func (r *leaseReader) LeasesBegin(from events.LeaseSeq, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begins = append(r.begins, leaseBegin{from, whole})
	r.from, r.data = from, nil
	r.changed()
}

func (r *leaseReader) LeaseRead(m events.LeaseMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := r.from + events.LeaseSeq(len(r.data)); len(r.begins) <= len(r.lost) || m.Seq != want {
		r.tb.Errorf("read %d, want %d", m.Seq, want)
	}
	if !strings.HasPrefix(m.Subject, "lease.") {
		r.tb.Errorf("subject %q", m.Subject)
	}
	r.data = append(r.data, string(m.Data))
	if r.onRead != nil {
		r.onRead(m)
	}
	r.changed()
}

func (r *leaseReader) LeasesLost(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = append(r.lost, err)
	r.changed()
}

func (r *leaseReader) changed() {
	close(r.change)
	r.change = make(chan struct{})
}

func (r *leaseReader) wait(what string, ok func() bool) {
	r.tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		met, change := ok(), r.change
		state := fmt.Sprintf("begun %v, lost %v, from %d, %d read", r.begins, r.lost, r.from, len(r.data))
		r.mu.Unlock()
		if met {
			return
		}
		select {
		case <-change:
		case <-r.done:
			r.tb.Fatalf("waiting for %s: Run returned %v", what, r.err)
		case <-deadline.C:
			r.tb.Fatalf("waiting for %s: %s", what, state)
		}
	}
}

func (r *leaseReader) waitRead(seq events.LeaseSeq) {
	r.tb.Helper()
	r.wait(fmt.Sprintf("sequence %d", seq), func() bool { return r.from+events.LeaseSeq(len(r.data)) > seq && r.from > 0 })
}

// waitAgain is waitRead for the n-th beginning.
func (r *leaseReader) waitAgain(n int, seq events.LeaseSeq) {
	r.tb.Helper()
	r.wait(fmt.Sprintf("sequence %d in reading %d", seq, n), func() bool {
		return len(r.begins) >= n && r.from+events.LeaseSeq(len(r.data)) > seq
	})
}

// check compares the messages read since the last beginning with the stored
// ones.
func (r *leaseReader) check(l *leaseLog, begins ...leaseBegin) {
	r.tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if fmt.Sprint(r.begins) != fmt.Sprint(begins) {
		r.tb.Errorf("began at %v, want %v", r.begins, begins)
	}
	if r.from == 0 {
		r.tb.Fatal("nothing was read")
	}
	want := l.stored[min(int(r.from)-1, len(l.stored)):]
	if strings.Join(r.data, ",") != strings.Join(want, ",") {
		r.tb.Errorf("read from %d: %q, want %q", r.from, r.data, want)
	}
}

// TestLeasesByTail reads an empty stream as it fills, by the tail.
func TestLeasesByTail(t *testing.T) {
	l := newLeaseLog(t)
	r := newLeaseReader(t, follow.LeasesConfig{Conn: l.connect(leaseUser)})
	r.l.FromFirst()
	r.wait("the beginning", func() bool { return len(r.begins) == 1 })
	for range 50 {
		r.waitRead(l.renew(2))
	}
	r.check(l, leaseBegin{1, true})
	if s := r.l.Stats(); s.UpTo != 100 || s.FromTail == 0 || s.FromTail+s.Fetched != 100 || s.Lost+s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

// TestLeasesFetched reads messages that were stored before.
func TestLeasesFetched(t *testing.T) {
	l := newLeaseLog(t)
	end := l.renew(350)
	cfg := quickLeases(l.connect(leaseUser))
	cfg.Batch = 100
	r := newLeaseReader(t, cfg)
	r.l.FromFirst()
	r.waitRead(end)
	r.waitRead(l.renew(3))
	r.check(l, leaseBegin{1, true})
}

// TestLeasesFrom begins at a message and reads up to one that Exists names,
// without a tail and without polls.
func TestLeasesFrom(t *testing.T) {
	l := newLeaseLog(t)
	l.renew(20)
	for _, user := range []string{leaseUser, noTailLeaseUser} {
		r := newLeaseReader(t, follow.LeasesConfig{Conn: l.connect(user), Poll: time.Hour})
		from := l.renew(1)
		r.l.From(from)
		r.waitRead(from)
		for range 10 {
			seq := l.renew(1)
			r.l.Exists(seq)
			r.waitRead(seq)
		}
		r.l.From(from + 5)
		r.waitAgain(2, from+10)
		r.check(l, leaseBegin{from, false}, leaseBegin{from + 5, false})
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestLeasesHandlerCalls calls every method from inside the handler, as a keeper
// does.
func TestLeasesHandlerCalls(t *testing.T) {
	l := newLeaseLog(t)
	r := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	r.mu.Lock()
	again := false
	r.onRead = func(m events.LeaseMessage) {
		r.l.Exists(m.Seq)
		if m.Seq == 5 && !again {
			again = true
			r.l.From(3)
		}
	}
	r.mu.Unlock()
	r.l.FromFirst()
	end := l.renew(9)
	r.wait("the second reading", func() bool { return r.from == 3 && len(r.data) == int(end)-2 })
	r.check(l, leaseBegin{1, true}, leaseBegin{3, false})
}

// TestLeasesWithoutTail loses the tail for a while. A later tail message shows the
// gap to one reader; the other one must poll.
func TestLeasesWithoutTail(t *testing.T) {
	l := newLeaseLog(t)
	r := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	polled := newLeaseReader(t, quickLeases(l.connect(noTailLeaseUser)))
	r.l.FromFirst()
	polled.l.FromFirst()
	r.waitRead(l.renew(10))
	for range 3 {
		l.muteTail(true)
		l.renew(30)
		l.muteTail(false)
		r.waitRead(l.renew(5))
	}
	polled.waitRead(events.LeaseSeq(len(l.stored)))
	r.check(l, leaseBegin{1, true})
	polled.check(l, leaseBegin{1, true})
	if s := polled.l.Stats(); s.FromTail != 0 {
		t.Errorf("without the tail: %+v", s)
	}
}

// TestLeasesReconnect reads without a gap across reconnections and restarts.
func TestLeasesReconnect(t *testing.T) {
	l := newLeaseLog(t)
	conn := l.connect(leaseUser)
	r := newLeaseReader(t, quickLeases(conn))
	r.l.FromFirst()
	for range 10 {
		l.renew(10)
		if err := conn.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		r.waitRead(l.renew(10))
	}
	for range 2 {
		l.stop()
		l.start()
		r.waitRead(l.renew(10))
	}
	r.check(l, leaseBegin{1, true})
	conn.Close()
	<-r.done
	if !errors.Is(r.err, follow.ErrClosed) {
		t.Errorf("Run = %v, want ErrClosed", r.err)
	}
}

// TestLeasesTrimmed reads a stream that dropped its oldest messages.
func TestLeasesTrimmed(t *testing.T) {
	l := newLeaseLog(t)
	l.change(func(c *jetstream.StreamConfig) { c.MaxMsgs = 50 })
	end := l.renew(200)
	r := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	r.l.FromFirst()
	r.waitRead(end)
	r.check(l, leaseBegin{151, false})

	// Nothing can be read from a dropped message on.
	r = newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	r.l.From(100)
	r.wait("the gap", func() bool { return len(r.lost) == 1 })
	if !errors.Is(r.lost[0], follow.ErrGap) {
		t.Errorf("lost with %v, want ErrGap", r.lost[0])
	}
	l.renew(5)
	r.l.From(l.renew(1))
	r.waitAgain(2, l.renew(1))
	r.check(l, leaseBegin{100, false}, leaseBegin{206, false})

	// A reader that falls behind the kept messages reports a gap.
	conn := l.connect(leaseUser)
	r = newLeaseReader(t, quickLeases(conn))
	r.l.FromFirst()
	r.waitRead(207)
	l.muteTail(true)
	l.publishEmpty(1000)
	l.muteTail(false)
	r.wait("the gap", func() bool { return len(r.lost) > 0 && len(r.data) > 0 && r.from > 207 })
	r.waitRead(1207)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.begins[1:] {
		if b.whole {
			t.Errorf("after a gap reading began at %+v", b)
		}
	}
}

// TestLeasesTrimmedLongAgo reads a stream whose dropped messages are too old to
// give a lease.
func TestLeasesTrimmedLongAgo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	l := newLeaseLog(t)
	l.change(func(c *jetstream.StreamConfig) { c.MaxMsgs = 200_000 })
	l.publishEmpty(200_100)
	r := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	r.l.FromFirst()
	r.waitRead(200_100)
	if fmt.Sprint(r.begins) != "[{101 true}]" {
		t.Errorf("began at %v", r.begins)
	}
}

// TestLeasesGap deletes one message.
func TestLeasesGap(t *testing.T) {
	l := newLeaseLog(t)
	l.deleteLeases()
	must(l.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: events.LeaseStreamName, Subjects: []string{events.LeaseFilter}, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: events.LeaseFilter, Destination: events.LeaseTailFilter},
	}))
	end := l.renew(20)
	if err := must(l.js.Stream(t.Context(), events.LeaseStreamName)).DeleteMsg(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	ledger := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	ledger.l.FromFirst()
	verifier := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	verifier.l.From(5)
	ledger.waitRead(end)
	ledger.check(l, leaseBegin{1, true}, leaseBegin{11, false})
	verifier.wait("the gap", func() bool { return len(verifier.lost) > 0 })
	verifier.l.From(l.renew(1))
	verifier.waitAgain(2, end+1)
	verifier.check(l, leaseBegin{5, false}, leaseBegin{end + 1, false})
	for _, r := range []*leaseReader{ledger, verifier} {
		if len(r.lost) != 1 || !errors.Is(r.lost[0], follow.ErrGap) {
			t.Errorf("lost %v, want one ErrGap", r.lost)
		}
	}
}

// TestLeasesRecreated deletes the stream and creates it again. The tail may or may
// not show that to the readers.
func TestLeasesRecreated(t *testing.T) {
	for _, c := range []struct {
		name   string
		silent bool // the tail is off
		again  int  // messages in the new one
	}{
		{"shorter", false, 5},
		{"longer", false, 60},
		{"shorter and unseen", true, 5},
		{"longer and unseen", true, 60},
		{"as long and unseen", true, 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLeaseLog(t)
			ledger := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
			ledger.l.FromFirst()
			verifier := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
			ledger.waitRead(l.renew(20))
			verifier.l.From(20)
			verifier.waitRead(l.renew(10))
			ledger.waitRead(30)
			l.deleteLeases()
			l.createLeases()
			if c.silent {
				l.muteTail(true)
			}
			end := l.renew(c.again)
			for _, r := range []*leaseReader{ledger, verifier} {
				r.wait("the gap", func() bool { return len(r.lost) > 0 })
				if err := r.lost[0]; !errors.Is(err, follow.ErrReplaced) && !errors.Is(err, follow.ErrRewound) {
					t.Errorf("lost with %v", err)
				}
			}
			ledger.waitAgain(2, end)
			ledger.check(l, leaseBegin{1, true}, leaseBegin{1, false})
			verifier.l.From(end)
			verifier.waitAgain(2, end)
			verifier.check(l, leaseBegin{20, false}, leaseBegin{end, false})
		})
	}
}

// TestLeasesReplicas gets every answer from another replica: one lags, one lacks
// messages, one lost its first block, and one is healthy.
func TestLeasesReplicas(t *testing.T) {
	l := newLeaseLog(t)
	end := l.renew(60)
	l.change(func(c *jetstream.StreamConfig) { c.AllowDirect = false })
	var mu sync.Mutex
	asked := 0
	must(l.admin.Subscribe("$JS.API.DIRECT.GET.LEASES", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		from, batch := 0, 0
		if _, err := fmt.Sscanf(string(m.Data), `{"seq":%d,"batch":%d`, &from, &batch); err != nil {
			t.Errorf("asked for %s", m.Data)
		}
		var have []int
		for seq := from; seq <= int(end); seq++ {
			switch asked % 4 {
			case 1: // lags
				if seq > 30 {
					continue
				}
			case 2: // lacks some
				if seq%10 == 7 {
					continue
				}
			case 3: // lost its first block
				if seq <= 45 {
					continue
				}
			}
			have = append(have, seq)
		}
		send := func(h nats.Header, data string) {
			err := l.admin.PublishMsg(&nats.Msg{Subject: m.Reply, Header: h, Data: []byte(data)})
			if err != nil && !errors.Is(err, nats.ErrConnectionClosed) { // it is closed when the test ends
				t.Error(err)
			}
		}
		if len(have) == 0 {
			send(nats.Header{"Status": {"404"}, "Description": {"Message Not Found"}}, "")
			return
		}
		for i, seq := range have {
			send(nats.Header{
				"Nats-Stream": {"LEASES"}, "Nats-Subject": {fmt.Sprintf("lease.node.n%d", seq%7)}, "Nats-Sequence": {fmt.Sprint(seq)},
				"Nats-Num-Pending": {fmt.Sprint(len(have) - 1 - i)},
			}, l.stored[seq-1])
		}
		send(nats.Header{"Status": {"204"}, "Description": {"EOB"}}, "")
	}))
	for range 8 {
		cfg := quickLeases(l.connect(leaseUser))
		cfg.GapTimeout = patience
		r := newLeaseReader(t, cfg)
		r.l.From(3)
		r.l.Exists(end)
		r.waitRead(end)
		r.check(l, leaseBegin{3, false})
	}
	// The first message that a reader finds depends on the replica. Only the
	// stream's real first message counts as the beginning.
	for range 8 {
		cfg := quickLeases(l.connect(leaseUser))
		cfg.GapTimeout = patience
		r := newLeaseReader(t, cfg)
		r.l.FromFirst()
		r.l.Exists(end)
		r.waitRead(end)
		if b := r.begins[0]; b.whole != (b.from == 1) {
			t.Errorf("began at %+v", b)
		}
	}
}

// TestLeasesForged publishes forged messages to the tail.
func TestLeasesForged(t *testing.T) {
	l := newLeaseLog(t)
	r := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	r.l.FromFirst()
	r.waitRead(l.renew(10))
	header := func(stream, seq, subject string) nats.Header {
		return nats.Header{"Nats-Stream": {stream}, "Nats-Sequence": {seq}, "Nats-Subject": {subject}}
	}
	refused := []nats.Header{
		{},
		header("LEDGER", "11", "lease.node.x"),
		header("LEASES", "", "lease.node.x"),
		header("LEASES", "0", "lease.node.x"),
		header("LEASES", "-1", "lease.node.x"),
		header("LEASES", "11", "ledger.node.x"),
		header("LEASES", "11", "lease.node.other"),
	}
	headless := header("LEASES", "11", "lease.node.x")
	headless.Set("Nats-Msg-Size", "7")
	for _, h := range append(refused, headless) {
		must(0, l.admin.PublishMsg(&nats.Msg{Subject: "tail.lease.node.x", Header: h, Data: []byte("forged")}))
	}
	for _, seq := range []string{"3", "10", "14", "99"} { // read already, and not next
		must(0, l.admin.PublishMsg(&nats.Msg{Subject: "tail.lease.node.x", Header: header("LEASES", seq, "lease.node.x"), Data: []byte("forged")}))
		must(0, l.admin.Flush())
		if seq == "99" {
			break
		}
		r.waitRead(l.renew(2))
	}
	if s := r.l.Stats(); s.Refused != uint64(len(refused)+1) {
		t.Errorf("%+v, want %d refused", s, len(refused)+1)
	}
	r.check(l, leaseBegin{1, true})
	// A message that does not exist counts as lost after a while.
	r.wait("the gap", func() bool { return len(r.lost) == 1 })
	r.waitRead(l.renew(2))
}

// TestLeasesForgedAhead forges tail messages with positions to come. The message
// before them arrives by direct get, one at a time.
func TestLeasesForgedAhead(t *testing.T) {
	l := newLeaseLog(t)
	cfg := quickLeases(l.connect(leaseUser))
	cfg.Batch, cfg.GapTimeout = 1, patience
	r := newLeaseReader(t, cfg)
	r.l.FromFirst()
	r.waitRead(l.renew(10))
	l.muteTail(true)
	for _, seq := range []string{"12", "13"} {
		must(0, l.admin.PublishMsg(&nats.Msg{Subject: "tail.lease.node.x", Data: []byte("forged"), Header: nats.Header{
			"Nats-Stream": {"LEASES"}, "Nats-Sequence": {seq}, "Nats-Subject": {"lease.node.x"},
		}}))
	}
	must(0, l.admin.Flush())
	r.waitRead(l.renew(5))
	r.check(l, leaseBegin{1, true})
	l.muteTail(false)
	r.waitRead(l.renew(5))
	r.check(l, leaseBegin{1, true})
}

// TestLeasesForeign gets an answer from another stream.
func TestLeasesForeign(t *testing.T) {
	l := newLeaseLog(t)
	l.change(func(c *jetstream.StreamConfig) { c.AllowDirect = false })
	must(l.admin.Subscribe("$JS.API.DIRECT.GET.LEASES", func(m *nats.Msg) {
		l.admin.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header{
			"Nats-Stream": {"OTHER"}, "Nats-Subject": {"lease.node.x"}, "Nats-Sequence": {"1"},
		}})
	}))
	must(0, l.admin.Flush())
	r := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	r.l.FromFirst()
	<-r.done
	if !errors.Is(r.err, follow.ErrForeign) {
		t.Errorf("Run = %v, want ErrForeign", r.err)
	}
}

func TestLeasesRefuse(t *testing.T) {
	_, err := follow.NewLeases(follow.LeasesConfig{Batch: -1, Tail: -1, Poll: -1, Timeout: -1, GapTimeout: -1})
	for _, want := range []string{"Conn", "Batch", "Tail", "Poll", "Timeout", "GapTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want+" is") {
			t.Errorf("NewLeases = %v, want %s named", err, want)
		}
	}
	l := newLeaseLog(t)
	r := newLeaseReader(t, quickLeases(l.connect(leaseUser)))
	r.l.FromFirst()
	r.wait("the beginning", func() bool { return len(r.begins) == 1 })
	if err := r.l.Run(t.Context(), r); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("second Run = %v", err)
	}
	if err := must(follow.NewLeases(quickLeases(l.connect(leaseUser)))).Run(t.Context(), nil); err == nil {
		t.Error("Run without a handler: no error")
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

// TestLeasesAnyHistory runs random histories: publishes, restarts, reconnections
// and a lossy tail. Every reader must get the stream without a gap.
func TestLeasesAnyHistory(t *testing.T) {
	first := seed.New(t)
	histories := 6
	if testing.Short() {
		histories = 2
	}
	for i := range histories {
		s := first + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			anyLeaseHistory(t, rand.New(rand.NewPCG(s, 0)))
		})
	}
}

func anyLeaseHistory(t *testing.T, rnd *rand.Rand) {
	l := newLeaseLog(t)
	conns := []*nats.Conn{l.connect(leaseUser), l.connect(leaseUser), l.connect(noTailLeaseUser)}
	var readers []*leaseReader
	for i, conn := range conns {
		cfg := quickLeases(conn)
		cfg.Batch = 1 + rnd.IntN(50)
		cfg.Tail = 1 + rnd.IntN(50)
		cfg.GapTimeout = patience // nothing is lost in these histories
		if rnd.IntN(2) == 0 && i != 2 {
			cfg.Poll = time.Duration(1+rnd.IntN(100)) * time.Millisecond
		}
		r := newLeaseReader(t, cfg)
		r.l.FromFirst()
		readers = append(readers, r)
	}
	silent := false
	for range 40 {
		switch rnd.IntN(8) {
		case 0:
			l.stop()
			l.start()
		case 1:
			must(0, conns[rnd.IntN(len(conns))].ForceReconnect())
		case 2:
			silent = !silent
			l.muteTail(silent)
		case 3:
			if at := l.renew(1); rnd.IntN(2) == 0 {
				for _, r := range readers {
					r.l.Exists(at)
				}
			}
		case 4:
			readers[rnd.IntN(len(readers))].waitRead(events.LeaseSeq(len(l.stored)))
		default:
			l.renew(1 + rnd.IntN(40))
		}
	}
	end := l.renew(1)
	for _, r := range readers {
		r.l.Exists(end)
		r.waitRead(end)
		r.mu.Lock()
		for i, got := range r.data {
			if got != l.stored[int(r.from)-1+i] {
				t.Fatalf("sequence %d: %q, want %q", int(r.from)+i, got, l.stored[int(r.from)-1+i])
			}
		}
		if len(r.begins) != 1 || len(r.lost) != 0 {
			t.Errorf("began at %v, lost %v", r.begins, r.lost)
		}
		r.mu.Unlock()
	}
}
