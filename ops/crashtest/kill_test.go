package crashtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// TestKill kills the ledger and a verifier at random moments of a run of
// commands, also while they start.
func TestKill(t *testing.T) {
	t.Parallel()
	commands, kills := 1000, 10
	if testing.Short() {
		commands, kills = 200, 3
	}
	seed, rng := seeded(t)
	ledger := newLedger(t, node.Config{})
	ledger.run()
	verifier := newVerifier(t, "verifier", newLink(t, ledger), node.Config{})
	verifier.run()
	nodes := []*machine{ledger, verifier}

	w := newWorkload(ledger, seed, 8, commands)
	w.root = rootSecret(t, ledger.process())
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
	defer cancel()
	watchers := watch(ctx, t, w, nodes)
	end := w.begin(ctx)

	var found []dump // in indexes, after a kill
	for i, at := range moments(rng, kills, commands) {
		if err := w.reached(at); err != nil {
			t.Fatalf("waiting for command %d: %v: %v", at, err, end())
		}
		victims := [][]*machine{{ledger}, {verifier}, {ledger}, {ledger, verifier}}[i%4]
		t.Logf("kill %d, of %d nodes, after %d commands", i+1, len(victims), w.acked.Load())
		for _, m := range victims {
			m.process().Kill(t)
			if _, err := os.Stat(m.path("index")); errors.Is(err, fs.ErrNotExist) {
				// A kill can leave an index that cannot be opened. The node has
				// quarantined it, and rebuilds it when the log is available.
				t.Logf("%s has no index", m.cfg.Name)
				continue
			}
			found = append(found, dumpCopy(t, m, fmt.Sprintf("%s's index after kill %d", m.cfg.Name, i+1)))
		}
		for _, m := range victims {
			for rng.IntN(3) == 0 {
				p := m.start()
				select {
				case <-time.After(time.Duration(rng.IntN(400)) * time.Millisecond):
				case <-p.Exit():
					t.Fatalf("%s ended by itself: %s", p.Name, p.State())
				}
				p.Kill(t)
				t.Logf("killed %s while it started, after %d commands", p.Name, w.acked.Load())
			}
			m.run()
		}
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
		m.process().stop(t)
	}
	log := readLog(t, ledger.cfg.Data)
	checkLog(t, log, acks, true)
	for _, m := range nodes {
		checkWhole(t, m.cfg.Name+"'s index", filepath.Join(m.cfg.Data, "index"), log)
	}
	checkPrefixes(t, log, found...)
	checkSilence(t, nodes)
	retries, lost := 0, 0
	for _, c := range w.clients {
		retries, lost = retries+c.retries, lost+c.lost
	}
	t.Logf("%d commands acknowledged, %d requests sent again, %d secrets not shown; %d events in the log", len(acks), retries, lost, len(log))
}
