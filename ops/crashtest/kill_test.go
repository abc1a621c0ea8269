package crashtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// TestKill ends the ledger and a verifier with kill -9 at random moments of a
// run of commands, also while they start.
func TestKill(t *testing.T) {
	commands, kills := 1000, 10
	if testing.Short() {
		commands, kills = 200, 3
	}
	seed, rng := seeded(t)
	ledger := newLedger(t, settings{})
	ledger.run()
	verifier := newVerifier(t, "verifier", newLink(t, ledger), settings{})
	verifier.run()
	nodes := []*machine{ledger, verifier}

	w := newWorkload(ledger, seed, 8, commands)
	w.root = rootSecret(t, ledger.process())
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	watchers := watch(ctx, t, w, nodes)
	end := w.begin(ctx)

	var found []dump // in indexes, after a kill
	for i, at := range moments(rng, kills, commands) {
		if err := w.reached(at); err != nil {
			t.Fatalf("waiting for command %d: %v: %v", at, err, end())
		}
		victims := [][]*machine{{ledger}, {verifier}, {ledger}, {ledger, verifier}}[i%4]
		for _, m := range victims {
			m.process().kill()
			found = append(found, dumpCopy(t, m))
		}
		for _, m := range victims {
			for rng.IntN(3) == 0 {
				p := m.start()
				select {
				case <-time.After(time.Duration(rng.IntN(400)) * time.Millisecond):
				case <-p.ended:
					t.Fatalf("%s ended by itself: %s", p.name, p.cmd.ProcessState)
				}
				p.kill()
				t.Logf("killed %s while it started, after %d commands", p.name, w.acked.Load())
			}
			m.run()
		}
		t.Logf("killed %d of the nodes after %d commands", len(victims), at)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if err := w.findLost(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	watchers.Wait()

	acks := w.acks()
	checkAnswers(t, w, nodes)
	for _, m := range nodes {
		m.process().stop()
	}
	log := readLog(t, ledger.settings.Data)
	checkLog(t, log, acks, true)
	for _, m := range nodes {
		checkWhole(t, m.settings.Name+"'s index", filepath.Join(m.settings.Data, "index"), log)
	}
	for i, d := range found {
		checkPrefix(t, fmt.Sprintf("the index found after kill %d", i+1), d, log)
	}
	checkSilence(t, w, nodes)
	retries, lost := 0, 0
	for _, c := range w.clients {
		retries, lost = retries+c.retries, lost+c.lost
	}
	t.Logf("%d commands acknowledged, %d requests sent again, %d secrets not shown; %d events in the log", len(acks), retries, lost, len(log))
}

// moments returns n different numbers of commands, in order.
func moments(rng *rand.Rand, n, commands int) []int64 {
	var list []int64
	for _, at := range rng.Perm(commands * 9 / 10)[:n] {
		list = append(list, int64(at+1))
	}
	slices.Sort(list)
	return list
}

// dumpCopy reads a copy of a dead node's index, so that the node itself has to
// deal with what it left.
func dumpCopy(t *testing.T, m *machine) dump {
	t.Helper()
	to := filepath.Join(t.TempDir(), "index")
	copyTree(t, filepath.Join(m.settings.Data, "index"), to)
	return dumpIndex(t, to)
}

// watch asks every node time and again about secrets that were revoked, until
// ctx ends. A node that has applied the revocation must refuse, and what it has
// applied never becomes less, whatever happens to it.
func watch(ctx context.Context, t *testing.T, w *workload, nodes []*machine) *sync.WaitGroup {
	var wg sync.WaitGroup
	for i, m := range nodes {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			var seen events.Position
			answers := 0
			tick := time.NewTicker(4 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					t.Logf("%s answered %d checks of revoked secrets", m.settings.Name, answers)
					return
				case <-tick.C:
				}
				a, listens := m.addresses()
				revoked, any := w.anyRevoked(rng)
				if !listens || !any {
					continue
				}
				r, err := ask(ctx, a.Verify, revoked.secret)
				if err != nil || r.status != http.StatusOK {
					continue // it is dead, or does not know
				}
				answers++
				if r.Allowed && r.Position >= revoked.position {
					t.Errorf("%s at position %d accepts a secret that was revoked at %d", m.settings.Name, r.Position, revoked.position)
				}
				if r.Position < seen {
					t.Errorf("%s went back from position %d to %d", m.settings.Name, seen, r.Position)
				}
				seen = max(seen, r.Position)
			}
		})
	}
	return &wg
}

// checkAnswers waits until every node has applied what was acknowledged, and
// asks about every secret.
func checkAnswers(t *testing.T, w *workload, nodes []*machine) {
	t.Helper()
	var end events.Position
	for _, a := range w.acks() {
		end = max(end, a.position)
	}
	list := w.expectations()
	accepted := 0
	for _, m := range nodes {
		p := m.process()
		p.waitReady()
		verify := p.waitListening().Verify
		p.eventually(fmt.Sprintf("it has applied position %d", end), func() bool {
			r, err := ask(t.Context(), verify, w.root)
			return err == nil && r.Position >= end
		})
		for _, want := range list {
			r, err := ask(t.Context(), verify, want.secret, want.need)
			if err != nil || r.status != http.StatusOK {
				t.Fatalf("%s: %v, %s", m.settings.Name, err, r)
			}
			if r.Allowed != want.allowed {
				t.Errorf("%s: %s for %s: allowed is %t (%s), want %t", m.settings.Name, want.about, want.need, r.Allowed, r.Reason, want.allowed)
			}
			if r.Allowed {
				accepted++
			}
		}
	}
	t.Logf("%d questions to each of %d nodes, %d accepted", len(list), len(nodes), accepted)
	if accepted == 0 {
		t.Error("nothing was accepted, so the refusals show nothing")
	}
}

// checkSilence reports a secret in what a node wrote.
func checkSilence(t *testing.T, w *workload, nodes []*machine) {
	t.Helper()
	for _, m := range nodes {
		for _, s := range w.secrets() {
			if m.process().out.has(s) {
				t.Errorf("%s wrote a secret", m.settings.Name)
			}
		}
	}
}
