package crashtest

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"

	"github.com/tokenledger/tokenledger/ops/testkit/disk"
)

// diskSize is enough for the space that a node keeps free, and for the logs of
// these tests.
const diskSize = 512 << 20

// TestPowerCut cuts the ledger's power several times while commands run, and
// restarts it each time on the remaining disk.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	commands, cuts := 800, 8
	if testing.Short() {
		commands, cuts = 150, 3
	}
	d := disk.New(t, diskSize, "that a power cut loses nothing that was acknowledged")
	seed, rng := seeded(t)
	ledger := newLedger(t, node.Config{}).on(d)
	ledger.run()
	w := newWorkload(ledger, seed, 8, commands)
	w.root = rootSecret(t, ledger.process())

	for i, at := range moments(rng, cuts, commands) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
		end := w.begin(ctx)
		if err := w.reached(at); err != nil {
			cancel()
			t.Fatalf("waiting for command %d: %v: %v", at, err, end())
		}
		began := time.Now()
		cutPower(t, ledger, rng, i%2 == 1)
		took := time.Since(began)
		// Replies that arrive now were sent before the cut, and count.
		cancel()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		p := ledger.run()
		log := fetchLog(t, p)
		acks := w.acks()
		t.Logf("cut %d after %d commands, in %s; the log holds %d events", i+1, len(acks), took.Round(time.Millisecond), len(log))
		checkLog(t, log, acks, false)
		checkLogins(t, w)
		if t.Failed() {
			return
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
	defer cancel()
	if err := w.do(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.findLost(ctx); err != nil {
		t.Fatal(err)
	}
	checkAnswers(t, w, []*machine{ledger})
	log := fetchLog(t, ledger.process())
	checkLog(t, log, w.acks(), true)
	p := ledger.process()
	p.Pause(t)
	checkPrefixes(t, log, dumpCopy(t, ledger, "the index"))
	p.Kill(t)
}

// TestPowerCutAtTheBeginning cuts the power while the ledger starts for the
// first time, after each step. The ledger then starts again or continues, and
// does not take the partial files for a lost log.
func TestPowerCutAtTheBeginning(t *testing.T) {
	t.Parallel()
	_, rng := seeded(t)
	steps := []string{
		"lock", "ledger.nk", "verifier.nk", "log/jetstream", "log/jetstream/LEDGER/streams/LEDGER",
		"log/jetstream/LEDGER/streams/LEDGER/meta.sum", "index", "index/MANIFEST", "log/jetstream/LEDGER/streams/LEDGER/msgs/1.blk",
		"log/jetstream/LEDGER/streams/KV_DIRECTORY/msgs/1.blk", "root.token", "ledger.json", "run.json",
	}
	rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	if testing.Short() {
		steps = steps[:4]
	}
	for i, step := range steps {
		t.Run(strings.ReplaceAll(step, "/", "-"), func(t *testing.T) {
			d := disk.New(t, diskSize, "that a ledger starts again after a power cut in its first moments")
			ledger := newLedger(t, node.Config{}).on(d)
			p := ledger.start()
			for deadline := time.Now().Add(wait.Limit); !exists(p.Path(step)); {
				if p.Exited() || time.Now().After(deadline) {
					t.Fatalf("the node did not create %s; its output:\n%s", step, p.out.tail())
				}
				runtime.Gosched() // do not sleep: the next step follows immediately
			}
			cutPower(t, ledger, rng, i%2 == 1)
			p = ledger.run()
			p.WaitReady(t)
			r, err := ask(t.Context(), p.WaitListening(t).Verify, rootSecret(t, p), "superuser")
			if err != nil || !r.Allowed {
				t.Errorf("the root token is not accepted: %v, %s", err, r)
			}
			checkLog(t, fetchLog(t, p), nil, true)
			p.stop(t)
		})
	}
}

// TestEndedByPowerCut ends sessions, invitations, codes and accounts in all
// ways, and cuts the power.
func TestEndedByPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("not part of the short form; make full runs it")
	}
	t.Parallel()
	d := disk.New(t, diskSize, "that nothing that was ended or erased comes back after a power cut")
	_, rng := seeded(t)
	m := newLedger(t, node.Config{}).on(d)
	m.run()
	flush := false
	testEnded(t, oneLedger(t, m, func() {
		cutPower(t, m, rng, flush)
		flush = !flush
		m.run()
	}))
}
