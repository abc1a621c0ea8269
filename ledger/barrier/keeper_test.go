package barrier_test

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// Without leases, a wait completes as soon as its barrier was read.
func TestWaitForNobody(t *testing.T) {
	k := newFixture(t)
	proof, ok := k.Wait(t.Context(), 7)
	if !ok || !proof.Complete || proof.Covers != 7 || proof.Barrier == 0 || proof.Lease != lease || len(proof.Nodes) != 0 {
		t.Errorf("Wait = %+v, %t", proof, ok)
	}
}

// Each way in which a node stops, in order.
func TestWait(t *testing.T) {
	k := newFixture(t)
	well := k.log.Node("well", lease)
	leaving := k.log.Node("leaving", lease)
	cut := k.log.Node("cut", lease)
	cut.Stale = map[string]events.Milliseconds{"track": 60_000}
	for _, n := range []*ledgertest.Node{well, leaving, cut} {
		n.Join(3)
	}
	k.knows(3)
	k.pass(5 * time.Second)
	p := k.Begin(7)
	k.fenced(p)
	if got := how(k.open(p)); !maps.Equal(got, map[string]events.NodeStop{"well": "", "leaving": "", "cut": ""}) {
		t.Errorf("at first %v", got)
	}
	k.Report(well.Holder, "another log", 7)
	k.Report(events.Holder{Node: "well", Instance: "other"}, k.log.Epoch, 7)
	k.Report(well.Holder, k.log.Epoch, 6)
	if got := how(k.open(p)); got["well"] != "" {
		t.Errorf("after reports that say nothing %v", got)
	}
	k.Report(well.Holder, k.log.Epoch, 7)
	k.Report(well.Holder, k.log.Epoch, 2) // came late
	leaving.GiveUp(6)
	k.until("the end of leaving", func() bool { return how(p.Progress())["leaving"] == events.StopGivenUp })
	left := k.open(p)
	if got := how(left); got["well"] != events.StopApplied || got["cut"] != "" {
		t.Errorf("then %v", got)
	}
	// The last renewal of the node that is cut off was 5 s before the barrier.
	ends := lease + barrier.Margin(lease)
	for _, n := range left.Nodes {
		if n.Node == "cut" && n.Latest.Sub(left.Asked).Round(time.Second) != (ends-5*time.Second).Round(time.Second) {
			t.Errorf("the cut off node will have stopped after %s, want %s", n.Latest.Sub(left.Asked), ends-5*time.Second)
		}
	}
	k.pass(ends - 5*time.Second - time.Millisecond)
	k.open(p)
	k.pass(time.Millisecond)
	proof := k.over(p)
	if got := how(proof); !maps.Equal(got, map[string]events.NodeStop{"well": "applied", "leaving": "given_up", "cut": "lease_ended"}) {
		t.Errorf("at the end %v", got)
	}
	if proof.Took != ends-5*time.Second {
		t.Errorf("took %s, want %s", proof.Took, ends-5*time.Second)
	}
	for _, n := range proof.Nodes {
		if (n.Node == "cut") != (len(n.Stale) == 1) || n.Node == "cut" && n.Stale["track"].Sub(n.At) != time.Minute+time.Minute/100 {
			t.Errorf("%s goes on until %v, and stopped at %s", n.Node, n.Stale, n.At)
		}
	}
	// While it may serve stale answers, each later receipt says so.
	later, _ := k.Wait(t.Context(), 8)
	if got := how(later); got["cut"] != events.StopExpired {
		t.Errorf("a receipt while a node is stale: %+v", later)
	}
}

// A wait does not complete before the ledger has read the messages before the
// barrier: a node may have renewed its lease there.
func TestWaitReadsUpToTheBarrier(t *testing.T) {
	k := newFixture(t)
	n := k.log.Node("a", lease)
	n.Join(3)
	k.knows(1)
	k.leases.Stop()
	k.boot.pass(20 * time.Second)
	n.Renew(3) // stands before the barrier, and is not read
	p := k.Begin(7)
	k.fenced(p)
	k.pass(15 * time.Second) // the renewal that was read is over
	k.open(p)
	k.leases.Go()
	k.until("the reading", func() bool {
		return len(p.Progress().Nodes) == 1
	})
	k.open(p)
	k.pass(lease + barrier.Margin(lease) - 15*time.Second)
	if got := how(k.over(p)); got["a"] != events.StopExpired {
		t.Errorf("stopped by %v", got)
	}
}

// A node that joins after the barrier must obey it, so no wait includes the
// node.
func TestWaitNotForLaterNodes(t *testing.T) {
	k := newFixture(t)
	slow := k.log.Node("slow", lease)
	slow.Join(3)
	k.knows(1)
	p := k.Begin(7)
	k.fenced(p)
	late := k.log.Node("late", lease)
	late.Join(1)
	k.knows(2)
	k.Report(slow.Holder, k.log.Epoch, 7)
	if got := how(k.over(p)); !maps.Equal(got, map[string]events.NodeStop{"slow": "applied"}) {
		t.Errorf("stopped by %v", got)
	}
}

// A process that starts again reads back who may hold a lease.
func TestRestart(t *testing.T) {
	k := newFixture(t)
	n := k.log.Node("a", lease)
	gone := k.log.Node("gone", lease)
	n.Join(3)
	gone.Join(3)
	gone.GiveUp(3)
	k.knows(2)
	k.stop()
	again := start(t, k.log, "ledger-1", &boot{now: time.Second})
	again.until("the end of gone", func() bool {
		all := again.Holders()
		return len(all) == 2 && all[1].Until.IsZero()
	})
	again.pass(time.Second)
	p := again.Begin(7)
	again.fenced(p)
	again.open(p)
	n.Renew(7)
	if got := how(again.over(p)); !maps.Equal(got, map[string]events.NodeStop{"a": "applied"}) {
		t.Errorf("stopped by %v", got)
	}
}

// If the stream's first messages are gone, their senders may hold a lease, for the
// maximum lease at most.
func TestUnknownHolders(t *testing.T) {
	k := newFixture(t)
	first := k.Begin(7)
	k.over(first)
	k.LeasesLost(context.Canceled)
	k.LeasesBegin(1<<20, false)
	p := k.Begin(8)
	k.fenced(p)
	k.pass(lease + barrier.Margin(lease) - time.Millisecond)
	k.open(p)
	k.pass(time.Millisecond)
	k.over(p)
}

// A message that this version cannot read may be a lease.
func TestUnreadableLease(t *testing.T) {
	k := newFixture(t)
	n := k.log.Node("a", lease)
	n.Join(3)
	k.knows(1)
	k.log.StoreLease(events.RenewalSubjectPrefix+"b", []byte(`{"form":2}`))
	n.Renew(9)
	k.until("the second renewal", func() bool { return k.Holders()[0].Applied == 9 })
	p := k.Begin(7)
	k.fenced(p)
	k.pass(lease)
	k.open(p)
	k.pass(barrier.Margin(lease))
	k.over(p)
}

// A delayed renewal does not shorten the lease of a later one. A renewal of
// another epoch does not count as applied.
func TestOldRenewal(t *testing.T) {
	k := newFixture(t)
	n := k.log.Node("a", lease)
	n.Join(3)
	r := events.Renewal{Holder: n.Holder, Number: 9, Epoch: k.log.Epoch, Lease: events.InMilliseconds(lease)}
	k.log.PublishLease(&r)
	r.Number, r.Lease = 2, 0
	k.log.PublishLease(&r)
	r.Holder.Node, r.Epoch, r.Lease, r.Index.Position = "b", "01jd3qk8z5n0v7m2x4c6b8a9ef", 30_000, 1000
	k.log.PublishLease(&r)
	k.knows(2)
	p := k.Begin(7)
	k.fenced(p)
	if got := how(k.open(p)); !maps.Equal(got, map[string]events.NodeStop{"a": "", "b": ""}) {
		t.Errorf("waits for %v, want both", got)
	}
	k.pass(lease + barrier.Margin(lease))
	k.over(p)
}

// Concurrent waits share barriers.
func TestShare(t *testing.T) {
	k := newFixture(t)
	k.Wait(t.Context(), 1)
	before := k.Stats().Barriers
	const n = 200
	var waits sync.WaitGroup
	begun := make(chan struct{})
	for i := range n {
		waits.Go(func() {
			<-begun
			if _, ok := k.Wait(t.Context(), events.Position(i+2)); !ok {
				t.Error("a wait was given up")
			}
		})
	}
	close(begun)
	waits.Wait()
	if wrote := k.Stats().Barriers - before; wrote > n/2 {
		t.Errorf("%d barriers for %d waits", wrote, n)
	}

	// While one is in flight, all others share the next.
	k.link.Rule(ledgertest.First(1, ledgertest.Hold, ledgertest.Barrier))
	before = k.Stats().Barriers
	first := k.Begin(1000)
	k.until("the first barrier", func() bool { return k.link.Held() == 1 })
	var rest []*barrier.Pending
	for i := range n {
		rest = append(rest, k.Begin(events.Position(2000+i)))
	}
	k.link.Release()
	for _, p := range append(rest, first) {
		k.over(p)
	}
	// One or two, or a few more if periodic barriers are due in between.
	if wrote := k.Stats().Barriers - before; wrote > 5 {
		t.Errorf("%d barriers for %d waits, want 2", wrote, n+1)
	}
	if w := rest[0].Widest(); w.Covers != 2000+n-1 {
		t.Errorf("the widest proof covers %d, want %d", w.Covers, 2000+n-1)
	}
}

// Two ledgers write to one stream. Floors never fall, and each ledger uses the
// other's barriers.
func TestTwoLedgers(t *testing.T) {
	k := newFixture(t)
	other := start(t, k.log, "ledger-2", k.boot)
	n := k.log.Node("a", lease)
	n.Join(3)
	k.knows(1)
	other.knows(1)
	var waits sync.WaitGroup
	for i := range 100 {
		for _, l := range []*fixture{k, other} {
			waits.Go(func() {
				at := events.Position(10 + i)
				p := l.Begin(at)
				l.Report(n.Holder, l.log.Epoch, at)
				<-p.Done()
			})
		}
	}
	waits.Wait()
	var floor events.Position
	for _, b := range barriers(k.log) {
		if b.Floor < floor {
			t.Errorf("a floor of %d after one of %d", b.Floor, floor)
		}
		floor = b.Floor
	}
	if floor < 109 {
		t.Errorf("the last floor is %d, want at least 109", floor)
	}
	t.Logf("%+v and %+v", k.Stats(), other.Stats())

	// The other ledger's applied position does not matter.
	k.index.apply(500)
	p := other.Begin(200)
	other.Report(n.Holder, k.log.Epoch, 200)
	other.over(p)
}

// barriers returns every barrier that was written.
func barriers(l *ledgertest.Log) []*events.Barrier {
	var out []*events.Barrier
	for _, m := range l.LeaseMessages() {
		if _, b, _ := events.DecodeLease(m); b != nil {
			out = append(out, b)
		}
	}
	return out
}

// A barrier or its answer is lost, or the answer comes after all waits were
// cancelled.
func TestBarrierFaults(t *testing.T) {
	for name, rule := range map[string]ledgertest.Rule{
		"lost":        ledgertest.First(1, ledgertest.Lose, ledgertest.Barrier),
		"answer lost": ledgertest.First(1, ledgertest.Lose, ledgertest.BarrierWritten),
		"three lost":  ledgertest.First(3, ledgertest.Lose, ledgertest.Barrier),
		"late":        ledgertest.First(1, ledgertest.Hold, ledgertest.Barrier),
	} {
		t.Run(name, func(t *testing.T) {
			k := newFixture(t)
			k.Wait(t.Context(), 1)
			k.link.Rule(rule)
			p := k.Begin(7)
			if name == "late" {
				k.until("the barrier to be held back", func() bool { return k.link.Held() > 0 })
			}
			k.over(p)
			k.link.Release() // what was held back is refused by now
			k.over(k.Begin(8))
			var floor events.Position
			for _, b := range barriers(k.log) {
				if b.Floor < floor {
					t.Errorf("a floor of %d after one of %d", b.Floor, floor)
				}
				floor = b.Floor
			}
			if k.Stats().Failures == 0 {
				t.Error("no fault was noted")
			}
		})
	}
}

// A wait continues after its caller has cancelled, and others can join it.
func TestCallerGoes(t *testing.T) {
	k := newFixture(t)
	n := k.log.Node("a", lease)
	n.Join(3)
	k.knows(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if proof, ok := k.Wait(ctx, 7); ok || proof.Complete {
		t.Errorf("Wait = %+v, %t", proof, ok)
	}
	if got := k.Stats().Open; got != 1 {
		t.Errorf("%d waits are open, want 1", got)
	}
	p := k.Begin(7)
	if got := k.Stats().Open; got != 1 {
		t.Errorf("%d waits are open, want one for the same position", got)
	}
	k.Report(n.Holder, k.log.Epoch, 7)
	k.over(p)
}

// The keeper writes a barrier when a node joins, for new events, and
// periodically.
func TestUnasked(t *testing.T) {
	k := newFixture(t)
	count := func() int { return len(barriers(k.log)) }
	k.until("the first barrier", func() bool { return count() == 1 })
	k.log.Node("a", lease).Join(0)
	k.until("one for the node that joins", func() bool { return count() == 2 })
	k.index.apply(5)
	k.until("one for what was applied", func() bool {
		k.pass(time.Second)
		all := barriers(k.log)
		return all[len(all)-1].Floor == 5
	})
	before := count()
	k.pass(lease / 3)
	k.until("one after a third of a lease", func() bool { return count() > before })
}

// The stream of leases is lost, and created again.
func TestStreamMadeAnew(t *testing.T) {
	k := newFixture(t)
	for i := range 5 {
		k.over(k.Begin(events.Position(10 + i)))
	}
	n := k.log.Node("a", lease)
	n.Join(3)
	k.knows(1)
	p := k.Begin(20)
	k.fenced(p)
	k.log.ForgetLeases()
	n.Join(3)
	q := k.Begin(21)
	k.until("a barrier in the new stream", func() bool {
		all := barriers(k.log)
		return len(all) > 0 && all[0].Floor >= 20
	})
	k.Report(n.Holder, k.log.Epoch, 21)
	k.over(p)
	k.over(q)
}

// TestEndedLeases starts a second ledger after the first has waited for the lease of
// a node that was killed. The second ledger learns from a barrier that the lease has
// ended, and does not wait for it again.
func TestEndedLeases(t *testing.T) {
	k := newFixture(t)
	killed, stale, well := k.log.Node("killed", lease), k.log.Node("stale", lease), k.log.Node("well", lease)
	stale.Stale = map[string]events.Milliseconds{"track": 3_600_000}
	for _, n := range []*ledgertest.Node{killed, stale, well} {
		n.Join(3)
	}
	k.knows(3)
	p := k.Begin(7)
	k.fenced(p)
	k.Report(well.Holder, k.log.Epoch, 7)
	k.pass(lease + barrier.Margin(lease) + time.Millisecond)
	well.Renew(7)
	if got := how(k.over(p)); got["killed"] != events.StopExpired {
		t.Fatalf("killed stopped by %q, want lease_ended", got["killed"])
	}

	second := start(t, k.log, "ledger-2", &boot{now: 77 * time.Second})
	second.knows(3)
	left := func(name string) time.Duration {
		for _, h := range second.Holders() {
			if h.Node == name {
				return time.Until(h.Until)
			}
		}
		return lease
	}
	// A barrier can list the first lease of well too. The second one is read after it.
	second.until("the end of the lease of killed, and the renewal of well", func() bool {
		return left("killed") <= 0 && left("well") > 0
	})
	if left("stale") <= 0 {
		t.Errorf("%s left of the lease of stale; want more than 0", left("stale"))
	}
	second.Report(well.Holder, k.log.Epoch, 8)
	p = second.Begin(8)
	second.fenced(p)
	if got := how(second.open(p)); !maps.Equal(got, map[string]events.NodeStop{"stale": "", "well": events.StopApplied}) {
		t.Errorf("the second ledger waits for %v, want stale only", got)
	}

	// A renewal after that counts.
	killed.Renew(7)
	second.until("the renewal", func() bool { return left("killed") > 0 })
	later := second.Begin(9)
	second.fenced(later)
	if got := how(second.open(later)); got["killed"] != "" || len(got) != 3 {
		t.Errorf("after a renewal the second ledger waits for %v, want all three", got)
	}
}
