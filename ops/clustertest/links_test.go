package clustertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/lease"
)

// quickElections make a program whose log chooses a leader within a tenth of
// the usual time: 0.4 to 0.9 s instead of 4 to 9 s. Otherwise a lease of some
// seconds ends during an election, and a verifier without a lease shows nothing
// about its connection. A lease of 3 s then has the same ratio to an election
// as the default lease of 30 s to the usual election. The server has no option
// for this, so the program sets its variables.
func quickElections() []Edit {
	return []Edit{{
		File: "cmd/tokenledger/elections.go",
		New: `package main

import (
	"time"
	_ "unsafe"

	_ "github.com/nats-io/nats-server/v2/server"
)

//go:linkname minElectionTimeout github.com/nats-io/nats-server/v2/server.minElectionTimeout
var minElectionTimeout time.Duration

//go:linkname maxElectionTimeout github.com/nats-io/nats-server/v2/server.maxElectionTimeout
var maxElectionTimeout time.Duration

//go:linkname minCampaignTimeout github.com/nats-io/nats-server/v2/server.minCampaignTimeout
var minCampaignTimeout time.Duration

//go:linkname maxCampaignTimeout github.com/nats-io/nats-server/v2/server.maxCampaignTimeout
var maxCampaignTimeout time.Duration

//go:linkname hbInterval github.com/nats-io/nats-server/v2/server.hbInterval
var hbInterval time.Duration

//go:linkname lostQuorumInterval github.com/nats-io/nats-server/v2/server.lostQuorumInterval
var lostQuorumInterval time.Duration

//go:linkname lostQuorumCheck github.com/nats-io/nats-server/v2/server.lostQuorumCheck
var lostQuorumCheck time.Duration

func init() {
	for _, d := range []*time.Duration{
		&minElectionTimeout, &maxElectionTimeout, &minCampaignTimeout, &maxCampaignTimeout,
		&hbInterval, &lostQuorumInterval, &lostQuorumCheck,
	} {
		if *d == 0 {
			panic("the server's variables have other names")
		}
		*d /= 10
	}
}
`,
	}}
}

// cutLink is a link between two ledgers that is cut, one way or both.
type cutLink struct {
	from, to string
	both     bool
}

func (l cutLink) String() string {
	if l.both {
		return fmt.Sprintf("between %s and %s, both ways", l.from, l.to)
	}
	return fmt.Sprintf("from %s to %s", l.from, l.to)
}

// cutLinks are all links between three ledgers, each cut in one direction, in
// the other, and in both.
func cutLinks() (all []cutLink) {
	for _, pair := range [][2]string{{"l1", "l2"}, {"l1", "l3"}, {"l2", "l3"}} {
		a, b := pair[0], pair[1]
		all = append(all, cutLink{from: a, to: b}, cutLink{from: b, to: a}, cutLink{from: a, to: b, both: true})
	}
	return all
}

// newLinks starts three ledgers, and a verifier for each. The load is light, so
// that a busy machine does not hide a fault.
func newLinks(t *testing.T, length time.Duration, edits ...Edit) *harness {
	t.Helper()
	seed, rng := seeded(t)
	c := &harness{rng: rng, lease: length, told: map[string]bool{}}
	c.Cluster = Start(t, Options{Verifiers: 3, Lease: length, Program: Build(t, edits...)})
	c.load = Begin(t, c.Cluster, LoadOptions{
		Seed: seed, Clients: 6, Pause: 20 * time.Millisecond, Wait: 2*c.lease + 3*time.Second,
	})
	c.load.Proofs(t, 5)
	return c
}

// connectVerifiers connects each verifier to one ledger: the first to the
// first, and so on.
func (c *harness) connectVerifiers(t *testing.T) {
	t.Helper()
	for i, v := range c.Verifiers() {
		for j, l := range c.Ledgers() {
			if j != i%len(c.Ledgers()) {
				c.Sever(v, l)
			}
		}
	}
	for i, v := range c.Verifiers() {
		l := c.Ledgers()[i%len(c.Ledgers())]
		v.Until(t, "it is connected to "+l.Name, func() error {
			if !c.Connected(v, l) {
				return fmt.Errorf("it is connected to another ledger")
			}
			return nil
		})
	}
	c.Heal()
	for _, v := range c.Verifiers() {
		v.WaitReady(t)
	}
	c.load.Proofs(t, 3)
}

// answers waits until a verifier has answered some checks that began after a
// time.
func (c *harness) answers(t *testing.T, v *Node, since time.Duration) {
	t.Helper()
	v.Until(t, fmt.Sprintf("it answers checks again that begin after %s", since.Round(time.Millisecond)), func() error {
		if n := c.answered(v, since); n < 20 {
			return fmt.Errorf("it has answered %d", n)
		}
		return nil
	})
}

// answered counts the checks that began after a time and that a node answered.
func (c *harness) answered(n *Node, since time.Duration) (count int) {
	for _, check := range c.load.Record().Checks {
		if check.Node == n.Name && check.Verdict.answered() && check.Began > since {
			count++
		}
	}
	return count
}

// pulse monitors the preconditions of TestLinks: a majority of the ledgers
// commits renewals, connections to one of them succeed in time, and no process
// is starved of CPU.
type pulse struct {
	lease time.Duration
	stop  func()

	mu    sync.Mutex
	beats []beat // guarded by mu; by time
}

// beat is one measurement: its end, and whether the preconditions held.
type beat struct {
	at   time.Duration
	well bool
}

// watch measures until the test ends. It connects to a ledger that works.
func (c *harness) watch(t *testing.T, ledger *Node) *pulse {
	ctx, cancel := context.WithCancel(t.Context())
	p := &pulse{lease: c.lease}
	var wg sync.WaitGroup
	p.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(p.stop)
	look := func(every time.Duration, well func() bool) {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				is := well()
				p.mu.Lock()
				p.beats = append(p.beats, beat{c.load.Now(), is})
				p.mu.Unlock()
			}
		})
	}
	// A ledger renews its own lease, so two thirds of it are left while
	// renewals are committed. All nodes are asked, so a starved node delays the
	// measurement.
	look(p.lease/30, func() bool {
		began, most := c.load.Now(), 0.0
		for _, n := range c.Nodes {
			left, err := n.Metric(ctx, "tokenledger_lease_seconds")
			if n.Ledger && err == nil {
				most = max(most, left)
			}
		}
		return most >= p.lease.Seconds()*2/3 && c.load.Now()-began < p.lease/6
	})
	look(p.lease/6, func() bool {
		began := c.load.Now()
		conn, err := ledger.connect()
		if err == nil {
			conn.Close()
		}
		return err == nil && c.load.Now()-began < p.lease/6
	})
	return p
}

// well reports whether the preconditions held for a whole lease before a time.
// It returns false if there were too few measurements.
func (p *pulse) well(at time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := at - p.lease
	for _, b := range p.beats {
		switch {
		case b.at <= at-p.lease:
		case !b.well || b.at-last > p.lease/6:
			return false
		case b.at > at:
			return true
		default:
			last = b.at
		}
	}
	return false
}

// cutOne cuts a link for longer than a lease. A verifier is connected to each
// ledger, and the ledger at the end of the link is the leader, so it loses what
// its followers send. Every verifier must answer again meanwhile, except stuck,
// which may be nil. It returns the checks that verifiers refused while the
// preconditions held, and whether stuck answered a check past its lease.
func (c *harness) cutOne(t *testing.T, l cutLink, stuck *Node) (refused []Check, unstuck bool) {
	t.Helper()
	from, to := c.Node(l.from), c.Node(l.to)
	c.Lead(t, events.LeaseStreamName, to)
	c.Lead(t, events.StreamName, to)
	c.connectVerifiers(t)
	pulse := c.watch(t, to)
	c.Hold(from, to)
	if l.both {
		c.Hold(to, from)
	}
	cut := c.load.Now()
	for c.load.Now() < cut+c.lease+c.lease/3 {
		c.load.Proofs(t, 1)
	}
	c.load.Proofs(t, 3)
	for _, v := range c.Verifiers() {
		if v != stuck {
			c.answers(t, v, cut+c.lease)
		}
	}
	unstuck = stuck == nil || c.answered(stuck, cut+c.lease) > 0
	healed := c.load.Now()
	pulse.stop()
	well, all := 0, 0
	for _, check := range c.load.Record().Checks {
		if c.Node(check.Node).Ledger || check.Began < cut || check.Began > healed {
			continue
		}
		all++
		if !pulse.well(check.Began) {
			continue
		}
		well++
		if check.Verdict == Unavailable {
			refused = append(refused, check)
		}
	}
	t.Logf("the link was cut for %s; %d of %d checks came after a lease in which all was well; %d of them were refused",
		(healed - cut).Round(time.Millisecond), well, all, len(refused))
	return refused, unstuck
}

// TestLinks cuts the link between each two of three ledgers, in each direction
// and in both, with a verifier connected to each ledger. Every verifier answers
// again while the link is cut, none stops answering while a majority works, and
// revocations get their receipts and take effect meanwhile (I3).
func TestLinks(t *testing.T) {
	together(t)
	c := newLinks(t, shortLease, quickElections()...)
	c.cutAll(t, cutLinks())
}

// TestLinksUsual does the same with the default lease and the usual elections.
func TestLinksUsual(t *testing.T) {
	long(t)
	c := newLinks(t, lease.DefaultLease)
	c.cutAll(t, cutLinks()[:3])
}

// cutAll cuts links, one after another, and ends the load.
func (c *harness) cutAll(t *testing.T, links []cutLink) {
	for _, l := range links {
		c.fault(t, "cut the link "+l.String(), func(t *testing.T) {
			refused, _ := c.cutOne(t, l, nil)
			for i, check := range refused {
				if i < 3 {
					t.Errorf("refused although a majority of the ledgers had worked for a lease: %s", check)
				}
			}
		})
	}
	moves := 0.0
	for _, v := range c.Verifiers() {
		n, err := v.Metric(t.Context(), "tokenledger_log_moves_total")
		if err != nil {
			t.Error(err)
		}
		moves += n
	}
	if moves == 0 {
		t.Error("no verifier changed its ledger, so the test shows nothing")
	}
	t.Logf("verifiers moved %.0f times", moves)
	c.finish(t)
}

// neverMove makes verifiers that never change their ledger.
var neverMove = Edit{"ops/node/move.go", "	m.tries++\n", "	if true {\n		return \"\"\n	}\n	m.tries++\n"}

// TestLinksBroken tests TestLinks itself: it must find verifiers that never
// change their ledger.
func TestLinksBroken(t *testing.T) {
	together(t)
	c := newLinks(t, shortLease, append(quickElections(), neverMove)...)
	for try := 1; ; try++ {
		_, unstuck := c.cutOne(t, cutLink{from: "l1", to: "l2"}, c.Node("v1"))
		c.recover(t)
		if !unstuck {
			return // found: the others answered, and this verifier refused every check
		}
		// A busy machine broke its connection, so it connected to another
		// ledger.
		if try == 10 {
			t.Fatal("the test does not find verifiers that never change their ledger")
		}
	}
}
