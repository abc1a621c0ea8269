package node

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// moverTest is a mover with a clock and a log that the test controls. As with a
// keeper, a renewal is due every sixth of the lease.
type moverTest struct {
	*mover
	now   time.Duration
	sight sight
	due   time.Duration // of the next renewal
	good  bool          // renewals are acknowledged and read back
	moves []time.Duration
	why   []string
}

func newMoverTest(lease time.Duration, servers int, jitter float64) *moverTest {
	d := &moverTest{mover: newMover(lease, servers), now: time.Hour, good: true}
	d.jitter = func(most time.Duration) time.Duration { return time.Duration(jitter * float64(most)) }
	d.sight = sight{connected: true, asking: true}
	d.due = d.now
	return d
}

// pass lets time pass, with a look every sixtieth of the lease. Before each look
// it calls what, which may change the node's view.
func (d *moverTest) pass(span time.Duration, what func()) {
	for end := d.now + span; d.now < end; {
		d.now += d.lease / lookShare
		if what != nil {
			what()
		}
		if d.good && d.now >= d.due {
			d.sight.confirmed++
			d.due = d.now + d.lease/pauseShare
		}
		if why := d.look(d.now, d.sight); why != "" {
			d.moves = append(d.moves, d.now)
			d.why = append(d.why, why)
			d.sight.reconnects++
		}
	}
}

// TestMoverStays gives a node progress for hours: by renewals, by an index that
// catches up, or by an index that cannot use a lease. It never moves.
func TestMoverStays(t *testing.T) {
	t.Parallel()
	for name, what := range map[string]func(d *moverTest){
		"renewals":                                func(*moverTest) {},
		"an index that catches up":                func(d *moverTest) { d.sight.lacking = true; d.sight.position++ },
		"an index that cannot use a lease":        func(d *moverTest) { d.good, d.sight.asking = false, false },
		"an index that lacks events now and then": func(d *moverTest) { d.sight.lacking = !d.sight.lacking },
		"no connection":                           func(d *moverTest) { d.good, d.sight.connected = false, false },
	} {
		d := newMoverTest(30*time.Second, 3, 0)
		d.pass(10*time.Hour, func() { what(d) })
		if len(d.moves) > 0 {
			t.Errorf("%s: it moves %d times: %s", name, len(d.moves), d.why[0])
		}
	}
}

// TestMoverFirst cuts a server off at different moments between two renewals. The
// first move happens within a third of the lease, and three servers are tried
// before the lease ends.
func TestMoverFirst(t *testing.T) {
	t.Parallel()
	for _, lease := range []time.Duration{time.Second, 3 * time.Second, 30 * time.Second, 10 * time.Minute} {
		for _, jitter := range []float64{0, 0.5, 1} {
			for phase := range 11 {
				d := newMoverTest(lease, 3, jitter)
				d.pass(lease+lease/lookShare*time.Duration(phase), nil)
				d.good = false
				cut, renewed := d.now, d.due-lease/pauseShare
				d.pass(renewed+lease-d.now, nil)
				what := fmt.Sprintf("lease %s, jitter %v, phase %d", lease, jitter, phase)
				if len(d.moves) < 3 {
					t.Errorf("%s: %d moves before the lease ends, want 3", what, len(d.moves))
					continue
				}
				if took := d.moves[0] - cut; took > lease/3 {
					t.Errorf("%s: the first move comes after %s, a third is %s", what, took, lease/3)
				}
				for i, at := range d.moves[1:3] {
					if got := at - d.moves[i]; got < lease/pauseShare || got > lease/pauseShare+2*lease/lookShare {
						t.Errorf("%s: move %d comes %s after the one before, want %s", what, i+2, got, lease/pauseShare)
					}
				}
				if !strings.Contains(d.why[0], "no renewal was acknowledged") {
					t.Errorf("%s: it says %q", what, d.why[0])
				}
			}
		}
	}
}

// TestMoverIndex acknowledges renewals while the index lacks an event.
func TestMoverIndex(t *testing.T) {
	t.Parallel()
	const lease = 30 * time.Second
	d := newMoverTest(lease, 3, 1)
	d.pass(lease, nil)
	d.sight.lacking = true
	began := d.now
	d.pass(lease/3, nil)
	if len(d.moves) != 1 || d.moves[0]-began > lease/3 || !strings.Contains(d.why[0], "the index lacks") {
		t.Fatalf("moves at %v after %s: %q", d.moves, began, d.why)
	}
	// The next server has the event.
	d.sight.position, d.sight.lacking = 1, false
	d.pass(10*lease, nil)
	if len(d.moves) != 1 {
		t.Errorf("it leaves a server that gives progress: %q", d.why)
	}
}

// TestMoverBacksOff gives no progress on any server. Each one gets more time, up to
// half a lease. After progress, the next first move is as early as before.
func TestMoverBacksOff(t *testing.T) {
	t.Parallel()
	const lease = 30 * time.Second
	d := newMoverTest(lease, 3, 0)
	d.pass(lease, nil)
	d.good = false
	d.pass(time.Hour, nil)
	if len(d.moves) < 10 {
		t.Fatalf("%d moves within an hour", len(d.moves))
	}
	var gaps []time.Duration
	for i, at := range d.moves[1:] {
		gaps = append(gaps, at-d.moves[i])
	}
	look := 2 * lease / lookShare
	for i, gap := range gaps {
		want := min(lease/6*time.Duration(1+(i+1)/3), lease/2)
		if gap < want || gap > want+look {
			t.Errorf("pause %d is %s, want %s", i+1, gap, want)
		}
	}
	if most := int(time.Hour/(lease/2)) + 8; len(d.moves) > most {
		t.Errorf("%d moves within an hour, want %d at most", len(d.moves), most)
	}
	d.good, d.due = true, d.now
	d.pass(lease, nil)
	d.good = false
	cut, before := d.now, len(d.moves)
	d.pass(lease/3, nil)
	if len(d.moves) == before || d.moves[before]-cut > lease/3 {
		t.Errorf("after progress, the moves are %v, and the server was cut off at %s", d.moves[before:], cut)
	}
}

// TestMoverFlaps gives progress once on each server. The node moves at most once in
// a quarter of the lease.
func TestMoverFlaps(t *testing.T) {
	t.Parallel()
	const lease = 30 * time.Second
	d := newMoverTest(lease, 3, 0)
	seen := 0
	d.good = false
	d.pass(time.Hour, func() {
		if len(d.moves) > seen {
			seen = len(d.moves)
			d.sight.confirmed++
		}
	})
	if most := int(time.Hour / (lease / 4)); len(d.moves) > most || len(d.moves) < most/2 {
		t.Errorf("%d moves within an hour, want %d at most", len(d.moves), most)
	}
}

// TestMoverPaused pauses the process for an hour. That is no reason to move.
func TestMoverPaused(t *testing.T) {
	t.Parallel()
	const lease = 30 * time.Second
	d := newMoverTest(lease, 3, 0)
	d.pass(lease, nil)
	d.now += time.Hour
	d.pass(lease/4, nil)
	if len(d.moves) > 0 {
		t.Errorf("it moves: %q", d.why)
	}
}

// TestMoverReconnects loses the connection, and connects to a server without
// progress. That server has a sixth of the lease, although the last progress is
// long ago.
func TestMoverReconnects(t *testing.T) {
	t.Parallel()
	const lease = 30 * time.Second
	d := newMoverTest(lease, 3, 0)
	d.pass(lease, nil)
	d.good, d.sight.connected = false, false
	d.pass(lease, nil)
	d.sight.connected = true
	d.sight.reconnects++
	made := d.now
	d.pass(lease/3, nil)
	if len(d.moves) == 0 || d.moves[0]-made < lease/6 || d.moves[0]-made > lease/6+2*lease/lookShare {
		t.Errorf("connected at %s, it moves at %v", made, d.moves)
	}
}

func TestServersIn(t *testing.T) {
	t.Parallel()
	for urls, want := range map[string]int{
		"":                           0,
		"nats://127.0.0.1:7603":      0,
		"127.0.0.1:7603":             0,
		"tls://[::1]:7603":           0,
		"tls://ledgers.example:7603": 1, // a name may stand for several
		"tls://10.0.0.1:7603,tls://10.0.0.2:7603":          2,
		"tls://10.0.0.1:1, tls://10.0.0.2:1,tls://[::1]:1": 3,
	} {
		if got := serversIn(urls); got != want {
			t.Errorf("serversIn(%q) = %d, want %d", urls, got, want)
		}
	}
}
