package crashtest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/node/nodetest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"

	"github.com/tokenledger/tokenledger/ops/testkit/disk"
)

// filler fills the disk that a process runs on.
type filler struct {
	t    testing.TB
	p    *process
	file *os.File
	size int64
}

func newFiller(t testing.TB, p *process) *filler {
	t.Helper()
	p.Until(t, "its disk is mounted", func() error {
		_, err := os.Lstat(p.Path("lock"))
		return err
	})
	// The file of an earlier filler is still there.
	f, err := os.OpenFile(p.Path("..", "filler"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // at worst it is closed already
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &filler{t: t, p: p, file: f, size: info.Size()}
}

// leave fills the disk until so many bytes are free, or frees space.
func (f *filler) leave(bytes int64) {
	f.t.Helper()
	const step = 1 << 20
	for {
		over := disk.Free(f.t, f.p.Path()) - bytes
		switch {
		case over < -step:
			f.size = max(0, f.size+over)
			if err := f.file.Truncate(f.size); err != nil {
				f.t.Fatal(err)
			}
			if f.size == 0 {
				return
			}
		case over < step && bytes > 0:
			return
		default:
			grow := max(4<<10, min(over, 8*step))
			switch err := syscall.Fallocate(int(f.file.Fd()), 0, f.size, grow); {
			case errors.Is(err, syscall.ENOSPC):
				if grow == 4<<10 || bytes > 0 {
					return
				}
			case err != nil:
				f.t.Fatal(err)
			default:
				f.size += grow
			}
		}
	}
}

// empty frees all space, also after the end of the process on the disk.
func (f *filler) empty() {
	f.t.Helper()
	if err := f.file.Truncate(0); err != nil {
		f.t.Fatal(err)
	}
	f.size = 0
}

// close closes the file, so that the disk can be mounted again.
func (f *filler) close() {
	f.t.Helper()
	if err := f.file.Close(); err != nil {
		f.t.Fatal(err)
	}
}

// TestFullDisk fills the ledger's disk step by step until nothing is left, and
// gives the space back. The process lives through all of it.
func TestFullDisk(t *testing.T) {
	d := disk.New(t, 400<<20, "that a full disk ends in refusals, and loses nothing")
	seed, _ := seeded(t)
	// A node on a full disk cannot write run.json, so its address is fixed.
	ledger := newLedger(t, node.Config{MetricsAddr: addrtest.Free(t)}).on(d)
	p := ledger.run()
	w := newWorkload(ledger, seed, 1, 100)
	w.root = rootSecret(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
	defer cancel()
	if err := w.do(ctx); err != nil {
		t.Fatal(err)
	}
	c := w.clients[0]
	// finish has a command carried out.
	finish := func() {
		t.Helper()
		if err := c.finish(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// refused tries the pending command and reports whether it was refused for
	// want of space.
	refused := func() bool {
		t.Helper()
		r, err := c.once(ctx, c.pending.command, wait.Limit)
		switch {
		case err != nil:
			t.Fatalf("%s: %v", c.pending.kind, err)
		case r.status == http.StatusOK || r.status == http.StatusCreated:
			return false
		case r.status != http.StatusServiceUnavailable || r.Code != "unavailable" || !strings.Contains(r.Detail, "disk is nearly full"):
			t.Fatalf("%s: %s, want 503 unavailable that names the disk", c.pending.kind, r)
		}
		return true
	}
	// until fills the disk until what plan plans is refused, and returns how
	// often it was not.
	f := newFiller(t, p)
	until := func(plan func()) (times int) {
		t.Helper()
		for left := disk.Free(t, p.Path()); left > 0; left -= 8 << 20 {
			f.leave(left)
			plan()
			if refused() {
				t.Logf("with %d MiB left, and %d times before: refused a %s", disk.Free(t, p.Path())>>20, times, c.pending.kind)
				return times
			}
			finish()
			times++
		}
		t.Fatal("it was done until nothing was left")
		return 0
	}

	c.createAccount()
	finish()
	account := c.accounts[len(c.accounts)-1]
	for range 20 {
		c.createToken(account)
		finish()
	}
	tokens := c.tokens[len(c.tokens)-20:]
	revoke := func() {
		c.revoke(tokens[0])
		tokens = tokens[1:]
	}

	until(func() { c.createToken(account) })
	making := c.pending
	if c.createAccount(); !refused() {
		t.Error("an account was made where no token was")
	}
	// What takes something away has a reserve of its own.
	if until(revoke) == 0 {
		t.Error("no token was revoked where none was made")
	}
	revoking := c.pending

	f.leave(0)
	t.Logf("with %d bytes left", disk.Free(t, p.Path()))
	for range 50 {
		for _, plan := range []func(){func() { c.createToken(account) }, c.createAccount, revoke} {
			if plan(); !refused() {
				t.Errorf("with nothing left, done: a %s", c.pending.kind)
			}
			tokens = c.tokens[len(c.tokens)-10:] // the revocation was refused
		}
		r, err := ask(ctx, p.WaitListening(t).Verify, w.root, "superuser")
		if err != nil || !r.Allowed {
			t.Errorf("with nothing left, the root token: %v, %s", err, r)
		}
	}
	if err := p.Ready(ctx); err != nil {
		t.Errorf("with nothing left, the node is not ready: %v", err)
	}

	// With space again, all goes on in the same process.
	f.leave(1 << 30)
	for _, pending := range []*planned{making, revoking} {
		c.pending = pending
		finish()
	}
	checkAnswers(t, w, []*machine{ledger})
	checkLog(t, fetchLog(t, p), w.acks(), true)

	// A node that is ended while nothing is left ends in peace. Started then,
	// it knows nothing until there is space.
	f.leave(0)
	p.stop(t)
	f.close()
	p = ledger.start()
	f = newFiller(t, p)
	p.Until(t, "it is not ready, and names the disk", func() error {
		return notReady(nodetest.Ready(ctx, "http://"+ledger.cfg.MetricsAddr), "too little disk space")
	})
	f.leave(1 << 30)
	p.WaitReady(t)
	if err := w.findLost(ctx); err != nil {
		t.Fatal(err)
	}
	checkAnswers(t, w, []*machine{ledger})
	checkLog(t, fetchLog(t, p), w.acks(), true)
	p.stop(t)
}

// TestDiskFilledAtOnce takes all space in one moment while commands are under
// way, past every reserve. The process may die of that: Badger maps its files
// into memory. Started again with space, it has lost nothing.
func TestDiskFilledAtOnce(t *testing.T) {
	const commands = 400
	fills := 2
	if testing.Short() {
		fills = 1
	}
	d := disk.New(t, 400<<20, "that a disk which is full at once loses nothing")
	seed, rng := seeded(t)
	ledger := newLedger(t, node.Config{}).on(d)
	ledger.mayDie = true
	p := ledger.run()
	w := newWorkload(ledger, seed, 8, commands)
	w.root = rootSecret(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
	defer cancel()
	f := newFiller(t, p)
	end := w.begin(ctx)
	for _, at := range moments(rng, fills, commands) {
		if err := w.reached(at); err != nil {
			t.Fatalf("waiting for command %d: %v: %v", at, err, end())
		}
		f.leave(0)
		// Some commands have met it when each client has been refused once.
		was := w.acked.Load()
		wait.Until(t, "each client was refused once", func() bool { return p.Exited() || w.refused.Load() >= 8 })
		t.Logf("filled after %d commands; %d were acknowledged since", was, w.acked.Load()-was)
		f.empty()
		w.refused.Store(0)
		was = w.acked.Load()
		// It may also have died just now, of a page that it had begun to write,
		// or be ready and about to end, because the log met the full disk
		// before the index did. So it goes on only where it takes commands
		// again.
		wait.Until(t, "it takes commands again, or has ended", func() bool {
			return p.Exited() || p.Ready(ctx) == nil && w.acked.Load() > was
		})
		if p.Exited() {
			t.Logf("the process ended: %s", p.State())
			f.close()
			p = ledger.start()
			f = newFiller(t, p)
			p.WaitReady(t)
		}
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if err := w.findLost(ctx); err != nil {
		t.Fatal(err)
	}
	checkAnswers(t, w, []*machine{ledger})
	checkLog(t, fetchLog(t, p), w.acks(), true)
}

// TestFullDiskOfVerifier fills a verifier's disk while the ledger goes on. The
// verifier cannot apply what comes, and refuses.
func TestFullDiskOfVerifier(t *testing.T) {
	d := disk.New(t, 400<<20, "that a verifier with a full disk refuses")
	seed, _ := seeded(t)
	ledger := newLedger(t, node.Config{})
	ledger.run()
	verifier := newVerifier(t, "verifier", newLink(t, ledger), node.Config{}).on(d)
	p := verifier.run()
	w := newWorkload(ledger, seed, 4, 100)
	w.root = rootSecret(t, ledger.process())
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
	defer cancel()
	work := func() {
		t.Helper()
		if err := w.do(ctx); err != nil {
			t.Fatal(err)
		}
		if err := w.findLost(ctx); err != nil {
			t.Fatal(err)
		}
	}
	work()
	nodes := []*machine{ledger, verifier}
	checkAnswers(t, w, nodes)
	f := newFiller(t, p)
	f.leave(0)
	if err := p.Ready(ctx); err != nil {
		t.Errorf("before there is anything to apply it is not ready: %v", err)
	}
	w.limit += 100
	work()
	p.Until(t, "it is not ready, and names the disk", func() error { return notReady(p.Ready(ctx), "too little disk space") })
	if r, err := ask(ctx, p.WaitListening(t).Verify, w.root); err != nil || r.status != http.StatusServiceUnavailable {
		t.Errorf("it answers %v, %s, want 503", err, r)
	}
	f.leave(1 << 30)
	checkAnswers(t, w, nodes)
	p.stop(t)
}
