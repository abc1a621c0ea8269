package follow_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ops/testkit/netfault"
	"github.com/tokenledger/tokenledger/projector/follow"
)

func TestRestart(t *testing.T) {
	l := newLog(t)
	r := newReader(t).run(quick(l.connect(readerUser)))
	for i := range 5 {
		r.waitFresh(l.publish(50))
		l.stop()
		// From here on the reader fails the test if a reading is reported.
		r.wait("the disconnection", func() bool { return r.left == i+1 && r.away })
		before := len(r.told())
		l.start()
		p := l.publish(50)
		r.waitFresh(p)
		if f := r.told()[before]; f.last < p-50 {
			t.Errorf("first reading after restart %d: %+v", i, f)
		}
	}
	r.check(500)
}

func TestReconnect(t *testing.T) {
	l := newLog(t)
	conn := l.connect(readerUser)
	r := newReader(t).run(quick(conn))
	for range 20 {
		l.publish(30)
		if err := conn.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		r.waitFresh(l.publish(30))
	}
	r.check(1200)
	if s := r.f.Stats(); s.Checks == 0 {
		t.Errorf("%+v, want the log compared after reconnections", s)
	}
}

func TestStreamRecreated(t *testing.T) {
	for _, c := range []struct {
		name      string
		following bool // while it happens; else the reader starts afterwards
		regrown   int
		poll      time.Duration
		want      error
	}{
		{name: "shorter", regrown: 50, want: follow.ErrRewound},
		{name: "empty", regrown: 0, want: follow.ErrRewound},
		{name: "longer", regrown: 150, want: follow.ErrReplaced},
		{name: "shorter while following", following: true, regrown: 50, want: follow.ErrReplaced},
		{name: "empty while following", following: true, regrown: 0, want: follow.ErrReplaced},
		{name: "longer while following", following: true, regrown: 150, want: follow.ErrReplaced},
		{name: "longer before the next poll", following: true, regrown: 150, poll: time.Hour, want: follow.ErrReplaced},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog(t)
			conn := l.connect(readerUser)
			cfg := quick(conn)
			if c.poll > 0 {
				cfg.Poll = c.poll
			}
			r := newReader(t)
			r.run(cfg)
			r.waitApplied(l.publish(100))
			r.wait("a reading", func() bool { return len(r.fresh) > 0 })
			if !c.following {
				r.stop()
			}
			before, whole := len(r.told()), clock.Boottime()
			l.delete()
			l.create()
			if c.regrown > 0 {
				l.publish(c.regrown)
			}
			if !c.following {
				r.run(cfg)
			}
			r.waitEnd(c.want)
			r.check(100)
			for _, f := range r.told()[before:] {
				// A reading asked for before may be reported after, and one asked for while
				// the old stream grew may end anywhere in it.
				if f.end != 100 && f.asked >= whole {
					t.Errorf("reading %+v of the new stream was reported", f)
				}
			}
		})
	}
}

// TestFlippedBit changes a bit of a stored event while the server is stopped.
// After a clean shutdown the next server reports the old end and leaves the
// event out of every answer. After a crash the next server reads the blocks and
// cuts the block off before the event.
func TestFlippedBit(t *testing.T) {
	const all = 1000
	for _, c := range []struct {
		name    string
		event   int
		forget  bool // the state of a clean shutdown
		read    int  // events that the reader had read before
		regrown int  // events published after
		end     events.Position
		want    error
		applied int
	}{
		{name: "middle", event: 500, end: 1000, want: follow.ErrGap, applied: 499},
		{name: "last", event: 1000, end: 1000, want: follow.ErrGap, applied: 999},
		{name: "first", event: 1, end: 1000, want: follow.ErrGap, applied: 0},
		{name: "middle, read before", event: 500, read: 1000, end: 1000, applied: 1000},
		{name: "last, read before", event: 1000, read: 1000, end: 1000, want: follow.ErrGap, applied: 1000},
		{name: "last, read up to it", event: 1000, read: 999, end: 1000, want: follow.ErrGap, applied: 999},
		{name: "last, and more after it", event: 1000, regrown: 10, end: 1010, want: follow.ErrGap, applied: 999},
		{name: "last read, and more after it", event: 1000, read: 1000, regrown: 10, end: 1010, want: follow.ErrGap, applied: 1000},

		{name: "middle, cut off", event: 500, forget: true, read: 1000, end: 499, want: follow.ErrRewound, applied: 1000},
		{name: "last, cut off", event: 1000, forget: true, read: 1000, end: 999, want: follow.ErrRewound, applied: 1000},
		{name: "first, cut off", event: 1, forget: true, read: 1000, end: 0, want: follow.ErrRewound, applied: 1000},
		{name: "middle, cut off and regrown", event: 500, forget: true, read: 1000, regrown: 600, end: 1099, want: follow.ErrReplaced, applied: 1000},
		{name: "last, cut off and regrown", event: 1000, forget: true, read: 1000, regrown: 1, end: 1000, want: follow.ErrReplaced, applied: 1000},
		{name: "middle, cut off, read up to it", event: 500, forget: true, read: 499, end: 499, applied: 499},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t)
			conn := l.connect(readerUser)
			r := newReader(t)
			if c.read > 0 {
				r.run(quick(conn))
				r.waitFresh(l.publish(c.read))
				r.stop()
			}
			if n := all - c.read; n > 0 {
				l.publish(n)
			}
			l.stop()
			l.flip(c.event)
			if c.forget {
				l.forgetState()
			}
			l.start()
			if c.regrown > 0 {
				l.publish(c.regrown)
			}
			if end := l.end(); end != c.end {
				t.Fatalf("server says that the log ends at %d, want %d", end, c.end)
			}
			before := len(r.told())
			r.run(quick(conn))
			if c.want == nil {
				r.waitFresh(c.end)
				if !c.forget {
					r.waitFresh(l.publish(1))
					c.applied++
				}
			} else {
				r.waitEnd(c.want)
				for _, f := range r.told()[before:] {
					t.Errorf("reading %+v was reported", f)
				}
			}
			r.check(c.applied)
		})
	}
}

// TestFlippedBitWhileFollowing flips a bit while a reader is connected that has
// read all events.
func TestFlippedBitWhileFollowing(t *testing.T) {
	for _, c := range []struct {
		event  int
		forget bool
		want   error
	}{
		{event: 50, forget: false, want: nil},
		{event: 100, forget: false, want: follow.ErrGap},
		{event: 50, forget: true, want: follow.ErrRewound},
		{event: 100, forget: true, want: follow.ErrRewound},
	} {
		t.Run(fmt.Sprintf("event %d, state lost %v", c.event, c.forget), func(t *testing.T) {
			t.Parallel()
			l := newLog(t)
			r := newReader(t).run(quick(l.connect(readerUser)))
			r.waitFresh(l.publish(100))
			l.stop()
			r.wait("the disconnection", func() bool { return r.away })
			before := len(r.told())
			l.flip(c.event)
			if c.forget {
				l.forgetState()
			}
			l.start()
			if c.want == nil {
				r.waitFresh(l.publish(1))
				r.check(101)
				return
			}
			r.waitEnd(c.want)
			r.check(100)
			for _, f := range r.told()[before:] {
				t.Errorf("reading %+v was reported", f)
			}
		})
	}
}

func TestBlackHole(t *testing.T) {
	for _, c := range []struct {
		name  string
		pings time.Duration
	}{
		{"connection stays", time.Minute},
		{"connection is closed as stale", 50 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &log{tb: t, dir: t.TempDir(), endpoint: &endpoint{}}
			l.listen = true
			l.start()
			t.Cleanup(l.stop)
			l.open()
			proxy, addr := netfault.Start(t, netfault.To(l.endpoint.srv.Addr().String()))
			var option nats.Option = func(o *nats.Options) error { // not in process
				o.InProcessServer, o.Url = nil, "nats://"+addr
				o.PingInterval, o.MaxPingsOut, o.Timeout = c.pings, 2, 200*time.Millisecond
				return nil
			}
			cfg := quick(l.connect(readerUser, option))
			cfg.Timeout = 100 * time.Millisecond
			r := newReader(t).run(cfg)
			r.waitFresh(l.publish(100))
			for i := range 3 {
				proxy.Hold(netfault.Forward)
				proxy.Hold(netfault.Backward)
				shut := clock.Boottime()
				r.wait("the disconnection", func() bool { return r.away })
				p := l.publish(100)
				before := len(r.told())
				proxy.Reset()
				r.waitFresh(p)
				for _, f := range r.told()[:before] {
					if f.asked > shut {
						t.Errorf("reading %+v was asked for while no packet passed (%d, %v)", f, i, shut)
					}
				}
			}
			r.check(400)
			t.Logf("%+v, unreachable %d times", r.f.Stats(), r.left)
		})
	}
}

func TestServerNeverThere(t *testing.T) {
	l := &log{tb: t, dir: t.TempDir(), endpoint: &endpoint{}}
	conn := l.connect(readerUser, nats.RetryOnFailedConnect(true))
	r := newReader(t).run(quick(conn))
	r.wait("no server", func() bool { return r.away })

	l.start() // without a stream
	t.Cleanup(l.stop)
	l.admin = l.connect(adminUser)
	select {
	case <-r.done:
		t.Fatalf("Run returned %v without a stream", r.err)
	default:
	}
	l.open()
	r.waitFresh(l.publish(10))
	r.check(10)
}
