package lease_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/verifier/lease"
)

// patience bounds what a test waits for.
const patience = wait.Limit

// shelf is an index that holds what the test says.
type shelf struct {
	at    atomic.Uint64
	epoch string
}

func (s *shelf) Position() events.Position        { return events.Position(s.at.Load()) }
func (s *shelf) Epoch() string                    { return s.epoch }
func (s *shelf) FreshAsOf() (time.Duration, bool) { return 0, true }
func (s *shelf) Err() error                       { return nil }

func (s *shelf) WaitApplied(ctx context.Context, at events.Position) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.Position() < at {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// site is a log with a ledger that answers joining renewals with barriers, and a
// node whose way to the log the test has in its hand.
type site struct {
	*ledgertest.Log
	*lease.Keeper
	t     *testing.T
	link  *ledgertest.Link
	conn  *nats.Conn
	index *shelf
	floor atomic.Uint64 // of barriers
}

const length = 3 * time.Second

// newSite returns a site whose reader takes a message that is missing for so long
// for a gap.
func newSite(t *testing.T, gap time.Duration) *site {
	log := ledgertest.Start(t)
	s := &site{Log: log, t: t, index: &shelf{epoch: log.Epoch}}
	admin := log.Conn()
	js, err := jetstream.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.EnsureLeases(t.Context(), js, embedded.LeaseLimits{Epoch: log.Epoch}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Subscribe(events.TailPrefix+events.RenewalSubjectFilter, func(m *nats.Msg) {
		if bytes.Contains(m.Data, []byte(`"joining":true`)) {
			_ = admin.Publish(events.BarrierSubject, s.encode())
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := admin.Flush(); err != nil {
		t.Fatal(err)
	}
	s.link, s.conn = log.Link(nats.ReconnectWait(10*time.Millisecond), nats.ReconnectBufSize(-1))
	if js, err = jetstream.New(s.conn); err != nil {
		t.Fatal(err)
	}
	reader, err := follow.NewLeases(follow.LeasesConfig{
		Conn: s.conn, Logger: ledgertest.Logger(t), Timeout: 300 * time.Millisecond, Poll: 300 * time.Millisecond, GapTimeout: gap,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Keeper, err = lease.NewKeeper(lease.Config{
		Publisher: lease.JetStream(js), Leases: reader, Index: s.index, Lease: length,
		Holder: events.Holder{Node: "node", Instance: lease.NewInstance()}, Logger: ledgertest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Keeper.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *site) encode() []byte {
	b, err := (&events.Barrier{Epoch: s.Log.Epoch, Floor: events.Position(s.floor.Load()), Lease: 30_000, Ledger: "ledger"}).Encode()
	if err != nil {
		s.t.Error(err)
	}
	return b
}

// barrier writes a barrier.
func (s *site) barrier(floor uint64) {
	s.t.Helper()
	s.floor.Store(floor)
	s.StoreLease(events.BarrierSubject, s.encode())
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	if !wait.For(patience, ok) {
		s.t.Fatalf("waiting for %s: %+v, %v", what, s.Status(), s.Keeper.Err())
	}
}

// renewed waits for a lease from a renewal that is sent from now on.
func (s *site) renewed() {
	s.t.Helper()
	now := clock.Boottime()
	s.until("a new lease", func() bool {
		before := clock.Boottime() // and not after, where a pause would make the lease look longer
		left := s.Remaining()
		return left > 0 && before+left > now+length
	})
}

func tail(m ledgertest.Message) bool { return m.Answer && m.Subject == "" }

func acknowledgement(m ledgertest.Message) bool {
	return m.Answer && strings.HasPrefix(m.Subject, events.RenewalSubjectPrefix)
}

func fetched(m ledgertest.Message) bool {
	return m.Answer && strings.HasPrefix(m.Subject, "$JS.API.DIRECT.GET.LEASES")
}

func renewal(m ledgertest.Message) bool {
	return !m.Answer && strings.HasPrefix(m.Subject, events.RenewalSubjectPrefix)
}

// TestKeeperAndLog keeps a lease over a way that loses and delays what it likes,
// from the first renewal on and later. What is behind a barrier always counts.
func TestKeeperAndLog(t *testing.T) {
	for _, c := range []struct {
		name string
		rule func() ledgertest.Rule
		late bool // what is held back is let go at the end
	}{
		{"nothing", func() ledgertest.Rule { return nil }, false},
		{"the tail is lost", func() ledgertest.Rule { return ledgertest.First(1<<30, ledgertest.Lose, tail) }, false},
		{"the tail is held back", func() ledgertest.Rule { return ledgertest.First(1<<30, ledgertest.Hold, tail) }, true},
		{"renewals are lost", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Lose, renewal) }, false},
		{"renewals come late", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Hold, renewal) }, true},
		{"acknowledgements are lost", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Lose, acknowledgement) }, false},
		{"acknowledgements come late", func() ledgertest.Rule { return ledgertest.First(2, ledgertest.Hold, acknowledgement) }, true},
		{"direct gets and the tail are lost", func() ledgertest.Rule {
			first := ledgertest.First(3, ledgertest.Lose, fetched)
			rest := ledgertest.First(1<<30, ledgertest.Lose, tail)
			return func(m ledgertest.Message) ledgertest.Fate { return max(first(m), rest(m)) }
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 300*time.Millisecond)
			s.link.Rule(c.rule())
			s.run()
			s.renewed()
			s.link.Rule(nil)
			s.renewed()
			s.link.Rule(c.rule())
			s.renewed()
			s.barrier(7)
			s.until("the lease's end", func() bool { return s.Remaining() <= 0 })
			if c.late {
				s.link.Release()
			}
			s.index.at.Store(6)
			s.link.Rule(nil)
			if s.MinPosition() >= 7 {
				t.Errorf("a lease for %d, which is not applied", s.MinPosition())
			}
			s.index.at.Store(7)
			s.renewed()
			if s.MinPosition() != 7 {
				t.Errorf("MinPosition = %d, want 7", s.MinPosition())
			}
		})
	}
}

// TestKeeperReconnects keeps its lease over reconnections, and gets one again
// after the stream was made anew.
func TestKeeperReconnects(t *testing.T) {
	s := newSite(t, patience) // nothing is lost here, however slow the machine is
	s.run()
	s.renewed()
	for range 5 {
		if err := s.conn.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		s.renewed()
	}
	if s.Status().Lost != 0 {
		t.Errorf("%+v", s.Status())
	}
	s.barrier(0)
	s.ForgetLeases()
	s.renewed()
	s.renewed()
}

// TestKeeperStores checks what is stored: renewals that anybody can
// read, numbered, and the one that gives up as the last.
func TestKeeperStores(t *testing.T) {
	s := newSite(t, patience)
	s.run()
	s.renewed()
	s.renewed()
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	var numbers []string
	for _, m := range s.LeaseMessages() {
		r, _, err := events.DecodeLease(m)
		if err != nil {
			t.Error(err)
		}
		if r != nil {
			numbers = append(numbers, fmt.Sprintf("%d/%d", r.Number, r.Lease))
		}
	}
	if got := strings.Join(numbers, " "); !strings.HasPrefix(got, "1/3000 2/3000") || !strings.HasSuffix(got, "/0") || strings.Count(got, "/0") != 1 {
		t.Errorf("stored %s", got)
	}
}
