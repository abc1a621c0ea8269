package lease

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// clockFixture has ledgers and a node, each with its own clock. Its time is the
// true time.
type clockFixture struct {
	rng   *rand.Rand
	now   time.Duration
	seq   events.LeaseSeq
	apart map[string]time.Duration // ledger -> how far its clock is ahead
	node  time.Duration            // how far the node's clock is ahead
	slow  time.Duration            // maximum delay of a message
	clock *Clock
}

const (
	clockEpoch = 1_900_000_000 * time.Second // when true time is 0
	bootAt     = 5000 * time.Second          // boot time of the node when true time is 0
)

func newClockWorld(seed uint64, own string, apart map[string]time.Duration) *clockFixture {
	return &clockFixture{rng: rand.New(rand.NewPCG(seed, 1)), apart: apart, clock: NewClock(own), slow: 3 * time.Millisecond}
}

func (w *clockFixture) boot() time.Duration { return bootAt + w.now }

func (w *clockFixture) pass() { w.now += time.Duration(w.rng.Int64N(int64(w.slow) + 1)) }

// renew sends a renewal of the node.
func (w *clockFixture) renew() {
	sent := w.boot()
	w.pass()
	w.seq++
	w.clock.Sent(w.seq, sent)
}

// barrier writes a barrier of a ledger, which the node reads.
func (w *clockFixture) barrier(ledger string) {
	read := w.seq
	w.pass()
	b := &events.Barrier{Ledger: ledger, Read: read, Clock: events.InMilliseconds(clockEpoch + w.now + w.apart[ledger])}
	w.pass()
	w.seq++
	w.clock.Read(b, w.boot())
}

// round sends one renewal, and one barrier of each ledger.
func (w *clockFixture) round() {
	w.renew()
	for ledger := range w.apart {
		w.barrier(ledger)
	}
	w.now += 4 * time.Second
}

// compare compares the node's clock with the ledgers'.
func (w *clockFixture) compare() Offset {
	d := clockEpoch + w.now + w.node - w.boot()
	return w.clock.Compare(d-time.Microsecond, d+time.Microsecond, w.boot())
}

// TestClock sets single clocks wrong, and all but one.
func TestClock(t *testing.T) {
	const hour = time.Hour
	for _, tt := range []struct {
		name   string
		own    string
		node   time.Duration
		apart  []time.Duration // of l0, l1, l2
		off    bool
		doubts bool
	}{
		{"all right", "", 0, []time.Duration{0, 0, 0}, false, false},
		{"node an hour behind", "", -hour, []time.Duration{0, 0, 0}, true, true},
		{"node 5 s behind", "", -5 * time.Second, []time.Duration{0, 0, 0}, true, true},
		{"node 200 ms behind", "", -200 * time.Millisecond, []time.Duration{0, 0, 0}, false, false},
		{"node 1.9 s behind", "", -1900 * time.Millisecond, []time.Duration{0, 0, 0}, false, false},
		{"node 5 s ahead", "", 5 * time.Second, []time.Duration{0, 0, 0}, true, true},
		{"node an hour ahead", "", hour, []time.Duration{0, 0, 0}, true, true},
		{"one ledger of three an hour ahead", "", 0, []time.Duration{0, hour, 0}, false, false},
		{"one ledger of three an hour behind", "", 0, []time.Duration{0, 0, -hour}, false, false},
		{"two ledgers of three an hour ahead", "", 0, []time.Duration{hour, 0, hour}, true, true},
		{"each ledger another time", "", 0, []time.Duration{-hour, 0, hour}, false, true},
		{"the only ledger is behind", "", 0, []time.Duration{-5 * time.Second}, true, true},
		{"one of two ledgers is ahead", "", 0, []time.Duration{0, 5 * time.Second}, false, true},
		{"this ledger is ahead of two", "l0", 5 * time.Second, []time.Duration{5 * time.Second, 0, 0}, true, true},
		{"this ledger is behind two", "l0", -hour, []time.Duration{-hour, 0, 0}, true, true},
		{"another ledger is ahead", "l0", 0, []time.Duration{0, hour, 0}, false, false},
		{"this ledger and the other one differ", "l0", hour, []time.Duration{hour, 0}, false, true},
		{"this ledger is alone", "l0", hour, []time.Duration{hour}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(20) {
				apart := map[string]time.Duration{}
				for i, d := range tt.apart {
					apart[fmt.Sprint("l", i)] = d
				}
				w := newClockWorld(seed, tt.own, apart)
				w.node = tt.node
				for range 1 + w.rng.IntN(20) {
					w.round()
				}
				if got := w.compare(); got.Off != tt.off || got.Doubtful != tt.doubts {
					t.Fatalf("seed %d: %+v, want off %t, doubtful %t", seed, got, tt.off, tt.doubts)
				}
			}
		})
	}
}

// TestClockLate delays messages by up to a minute. A node whose clock is right
// or within the limit keeps its lease.
func TestClockLate(t *testing.T) {
	for seed := range uint64(300) {
		w := newClockWorld(seed, "", map[string]time.Duration{"l0": 0, "l1": 0, "l2": 0})
		w.node = time.Duration(w.rng.Int64N(int64(3900*time.Millisecond))) - 1950*time.Millisecond
		for range 40 {
			w.slow = time.Duration(w.rng.Int64N(int64(time.Minute)))
			w.round()
			if got := w.compare(); got.Off {
				t.Fatalf("seed %d: a clock that is %v ahead: %+v", seed, w.node, got)
			}
		}
	}
}

// TestClockIsSet sets the clocks of the node and the ledgers at run time.
func TestClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, -5 * time.Second, 5 * time.Second, time.Hour} {
		w := newClockWorld(1, "", map[string]time.Duration{"l0": 0, "l1": 0, "l2": 0})
		for range 3 {
			w.round()
		}
		w.node = by
		if got := w.compare(); !got.Off {
			t.Errorf("%v: %+v at once, want it off", by, got)
		}
		for range 10 { // its probes do not change the result
			if w.round(); !w.compare().Off {
				t.Errorf("%v: it comes and goes", by)
			}
		}
		w.node = 0
		if got := w.compare(); got.Off {
			t.Errorf("%v: %+v once it is right again", by, got)
		}
		// The clocks of all ledgers are set, so the node's is wrong now.
		for ledger := range w.apart {
			w.apart[ledger] = by
		}
		for range 12 {
			w.round()
		}
		if got := w.compare(); !got.Off {
			t.Errorf("the ledgers by %v: %+v, want it off", by, got)
		}
		w.node = by
		if got := w.compare(); got.Off || got.By.Abs() > 10*time.Millisecond {
			t.Errorf("both by %v: %+v", by, got)
		}
	}
}

// TestClockSteady has a clock near the limit. The result does not change with
// each message.
func TestClockSteady(t *testing.T) {
	w := newClockWorld(2, "", map[string]time.Duration{"l0": 0, "l1": 0, "l2": 0})
	changes, was := 0, false
	for range 500 {
		w.node = -events.ClockLimit - time.Duration(w.rng.Int64N(int64(200*time.Millisecond))) + 100*time.Millisecond
		w.round()
		if off := w.compare().Off; off != was {
			changes, was = changes+1, off
		}
	}
	if changes > 1 {
		t.Errorf("it changed %d times", changes)
	}
}

// TestClockForgets ignores samples that are an hour old.
func TestClockForgets(t *testing.T) {
	w := newClockWorld(3, "", map[string]time.Duration{"l0": 0})
	w.node = -time.Hour
	w.round()
	if !w.compare().Off {
		t.Fatal("it is not off")
	}
	w.now += 59 * time.Minute
	if !w.compare().Off {
		t.Error("a ledger that is down is forgotten within the hour")
	}
	w.now += 2 * time.Minute
	if got := w.compare(); got.Known || got.Off {
		t.Errorf("an hour later: %+v", got)
	}
}

// newClockFixture returns a fixture whose barriers have the ledgers' time, and
// whose node has a clock that the test sets.
func newClockFixture(t *testing.T, change ...func(*Config)) (b *fixture, set func(time.Duration)) {
	var ahead atomic.Int64
	b = newFixture(t, append(change, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})...)
	b.tells = true
	return b, func(d time.Duration) { ahead.Store(int64(d)) }
}

// tell1s writes a barrier of each ledger every second.
func (b *fixture) tell1s(d time.Duration, ledgers ...string) {
	for range d / time.Second {
		for _, name := range ledgers {
			b.barrier(b.index.position, func(m *events.Barrier) { m.Ledger = name })
		}
		b.sleep(time.Second)
	}
}

// TestKeeperClock starts a node with a wrong clock, and sets the clock at run
// time. The node has a lease only while its clock is right.
func TestKeeperClock(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, -5 * time.Second, -200 * time.Millisecond, 5 * time.Second, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				wrong := by.Abs() > events.ClockLimit
				b, set := newClockFixture(t)
				serving := func(when string, want bool) {
					t.Helper()
					if err := b.Err(); (err == nil) != want {
						t.Errorf("%s: %v, want to serve: %t", when, err, want)
					}
					var clock *ClockError
					if err := b.Err(); !want && (!errors.As(err, &clock) || (clock.By-by).Abs() > time.Second) {
						t.Errorf("%s: %v, want the clock to be the reason", when, err)
					}
				}
				set(by)
				b.run()
				defer b.end()
				b.tell1s(2*time.Second, "l0", "l1", "l2")
				serving("wrong from the start", !wrong)
				for range 120 {
					b.tell1s(time.Second, "l0", "l1", "l2")
					serving("in the two minutes after", !wrong)
				}
				last := b.renewals()[len(b.renewals())-1]
				if last.Fenced != wrong || (last.Lease == 0) != wrong {
					t.Errorf("its last renewal is %+v", last)
				}
				set(0)
				b.tell1s(10*time.Second, "l0", "l1", "l2")
				serving("right", true)
				for range 3 {
					set(by)
					b.sleep(time.Second)
					serving("set while it runs", !wrong)
					set(0)
					b.tell1s(10*time.Second, "l0", "l1", "l2")
					serving("set back", true)
				}
			})
		})
	}
}

// TestKeeperClockLedger has a ledger among others. It gets no lease until it has
// compared its clock with another ledger's, or a timeout has passed. Its own
// barrier does not count.
func TestKeeperClockLedger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, set := newClockFixture(t, func(c *Config) { c.Ledger, c.Compared = true, true })
		b.barriers = false // the test writes them
		set(time.Hour)
		b.run()
		defer b.end()
		b.tell1s(3*time.Second, "node")
		if err := b.Err(); !errors.Is(err, errCompare) {
			t.Errorf("a ledger without the time of others: %v, want errCompare", err)
		}
		if err := b.ClockErr(); !errors.Is(err, errCompare) {
			t.Errorf("ClockErr = %v, want errCompare", err)
		}
		b.tell1s(3*time.Second, "node", "l1", "l2")
		if err := b.Err(); !errors.As(err, new(*ClockError)) {
			t.Errorf("a ledger an hour ahead: %v", err)
		}
		if err := b.ClockErr(); !errors.As(err, new(*ClockError)) {
			t.Errorf("ClockErr = %v", err)
		}
		set(0)
		b.tell1s(10*time.Second, "node", "l1", "l2")
		if err := errors.Join(b.Err(), b.ClockErr()); err != nil {
			t.Errorf("once it is right: %v", err)
		}
	})
	bubble(t, func(t *testing.T) {
		b, _ := newClockFixture(t, func(c *Config) { c.Ledger, c.Compared = true, true })
		b.barriers = false
		b.run()
		defer b.end()
		b.tell1s(compareTimeout+2*time.Second, "node")
		if err := errors.Join(b.Err(), b.ClockErr()); err != nil {
			t.Errorf("no other ledger writes barriers: %v", err)
		}
	})
}
