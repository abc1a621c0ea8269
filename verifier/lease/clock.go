package lease

import (
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Clock compares the time of day of this machine with that of each ledger. It reads
// no clock of its own: its driver reports what happened and when, so that a test
// can use any clocks. It is not safe for use by several goroutines.
//
// A barrier carries its ledger's time of day. It was read here after that time, and
// was sent after the ledger had read this node's renewal. Both moments are known
// in boot time, which cannot be set. So each barrier bounds the difference between
// a ledger's time of day and this node's boot time from both sides. A delayed
// message makes the bounds wider, never wrong.
type Clock struct {
	own     string // name of the ledger in this process, empty for none
	ledgers map[string][]sample
	sent    []departure
	off     bool // result of the last comparison
}

// sample is one barrier's bounds of its ledger's time of day minus boot time.
type sample struct {
	read      time.Duration // boot time
	low, high time.Duration
}

// departure is a committed renewal of this node.
type departure struct {
	at   events.LeaseSeq
	sent time.Duration // boot time before it left
}

const (
	// maxSamples and sampleAge bound the samples of a ledger. The latest sample is
	// kept for lastAge: a ledger that is down still helps to find a wrong clock.
	maxSamples = 8
	sampleAge  = 30 * time.Second
	lastAge    = time.Hour
	maxSent    = 64
	// drift is the part of the time since a sample by which two clocks may have
	// diverged: one hundredth, as for leases.
	drift = 100
	// unbounded is a bound that nothing reaches.
	unbounded = time.Duration(1) << 62
)

// NewClock returns a comparison that knows no ledger yet. own is the name of the
// ledger in this process, whose clock is this machine's; empty for none.
func NewClock(own string) *Clock { return &Clock{own: own, ledgers: map[string][]sample{}} }

// Sent notes that a renewal of this node is committed at a sequence, and the boot
// time before it was sent.
func (c *Clock) Sent(at events.LeaseSeq, sent time.Duration) {
	if len(c.sent) == maxSent {
		c.sent = slices.Delete(c.sent, 0, 1)
	}
	c.sent = append(c.sent, departure{at, sent})
}

// Read notes that a barrier was read, and the boot time after that.
func (c *Clock) Read(b *events.Barrier, now time.Duration) {
	if b.Clock == 0 || b.Ledger == c.own {
		return
	}
	wall := b.Clock.Duration()
	s := sample{read: now, low: wall - now, high: unbounded}
	for _, d := range c.sent {
		if d.at <= b.Read {
			s.high = min(s.high, wall+time.Millisecond-d.sent) // stored times are rounded down
		}
	}
	list := append(slices.Clone(c.ledgers[b.Ledger]), s)
	list = list[max(0, len(list)-maxSamples):]
	if low, high := bounds(list, now); low > high {
		list = []sample{s} // a clock or its rate was changed meanwhile
	}
	c.ledgers[b.Ledger] = list
}

// Forget drops all samples: the lease stream may be another one.
func (c *Clock) Forget() { c.ledgers, c.sent, c.off = map[string][]sample{}, nil, false }

// Heard reports whether another ledger's time of day is known.
func (c *Clock) Heard() bool { return len(c.ledgers) > 0 }

// bounds returns the bounds that samples have in common, now.
func bounds(list []sample, now time.Duration) (low, high time.Duration) {
	low, high = -unbounded, unbounded
	for _, s := range list {
		age := (now - s.read) / drift
		low = max(low, s.low-age)
		if s.high != unbounded {
			high = min(high, s.high+age)
		}
	}
	return low, high
}

// Offset is how this machine's time of day compares with the ledgers'.
type Offset struct {
	Known bool
	// By is how far this machine is ahead of the ledgers' median, negative if it is
	// behind. It is an estimate: delays make it too large.
	By time.Duration
	// Off says that a majority of the ledgers is certainly more than the limit
	// away, all on one side.
	Off bool
	// Doubtful says that half of the ledgers or more are certainly more than the
	// limit away, so it is not known whose time is right.
	Doubtful bool
}

// Compare compares the time of day, which is boot time plus low to high, with the
// ledgers'. After a machine was off, its limit is a quarter smaller, so that the
// result does not flap.
func (c *Clock) Compare(low, high, now time.Duration) Offset {
	limit := events.ClockLimit
	if c.off {
		limit -= limit / 4
	}
	var apart []time.Duration
	ahead, behind := 0, 0
	if c.own != "" {
		apart = append(apart, 0)
	}
	for name, list := range c.ledgers {
		last := list[len(list)-1]
		if now-last.read > lastAge {
			delete(c.ledgers, name)
			continue
		}
		list = slices.DeleteFunc(slices.Clone(list), func(s sample) bool { return s != last && now-s.read > sampleAge })
		c.ledgers[name] = list
		from, to := bounds(list, now)
		switch {
		case from-high > limit:
			behind++
		case low-to > limit:
			ahead++
		}
		// The message with the shortest delay has the best bound.
		apart = append(apart, low-min(max(from, last.low), to))
	}
	if len(c.ledgers) == 0 {
		c.off = false
		return Offset{}
	}
	slices.Sort(apart)
	n := len(apart)
	c.off = 2*ahead > n || 2*behind > n
	return Offset{
		Known: true, By: (apart[(n-1)/2] + apart[n/2]) / 2,
		Off: c.off, Doubtful: c.off || 2*(ahead+behind) >= n,
	}
}

// err returns why a node with this offset has no lease, nil if it may have one.
func (o Offset) err() error {
	if !o.Off {
		return nil
	}
	return &ClockError{o.By}
}

// ClockError reports a machine whose time of day is too far from the ledgers'.
type ClockError struct {
	By time.Duration // see [Offset]
}

func (e *ClockError) Error() string {
	side, by := "ahead of", e.By
	if by < 0 {
		side, by = "behind", -by
	}
	return fmt.Sprintf("the clock of this machine is %s %s the ledgers' clocks, and the limit is %s: "+
		"correct the clock (chronyc makestep), and the node serves again by itself", round(by), side, events.ClockLimit)
}

// round returns d with as many digits as are useful.
func round(d time.Duration) time.Duration {
	if d > time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(10 * time.Millisecond)
}

// timeOfDay returns bounds of the time of day minus boot time.
func (c *Config) timeOfDay() (low, high time.Duration) {
	const enough, maxTries = 2 * time.Millisecond, 5
	low, high = -unbounded, unbounded
	for range maxTries {
		before := c.Boottime()
		wall := time.Duration(c.Now().UnixNano())
		after := c.Boottime()
		if after-before < high-low || high == unbounded {
			low, high = wall-max(before, after), wall-min(before, after)
		}
		if high-low < enough {
			break
		}
	}
	return low, high
}
