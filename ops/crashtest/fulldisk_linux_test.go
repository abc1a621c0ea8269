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

// filler fills the disk of a process.
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
	// An earlier filler may have left its file.
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

// leave fills the disk up to a number of free bytes, or frees space.
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

// empty frees all space, even after the end of the process.
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

// fullDisk is a ledger on a small disk, and a client that sends one command at a
// time.
type fullDisk struct {
	t      *testing.T
	ctx    context.Context
	ledger *machine
	w      *workload
	c      *client
	f      *filler
}

func newFullDisk(t *testing.T) *fullDisk {
	t.Helper()
	d := disk.New(t, 400<<20, "that a full disk causes refusals, and loses nothing")
	seed, _ := seeded(t)
	// A node on a full disk cannot write run.json, so its address is fixed.
	ledger := newLedger(t, node.Config{MetricsAddr: addrtest.Free(t)}).on(d)
	p := ledger.run()
	w := newWorkload(ledger, seed, 1, 100)
	w.root = rootSecret(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
	t.Cleanup(cancel)
	if err := w.do(ctx); err != nil {
		t.Fatal(err)
	}
	return &fullDisk{t: t, ctx: ctx, ledger: ledger, w: w, c: w.clients[0], f: newFiller(t, p)}
}

// free returns the free space of the disk.
func (d *fullDisk) free() int64 { return disk.Free(d.t, d.ledger.process().Path()) }

// finish sends the pending command until it is acknowledged.
func (d *fullDisk) finish() {
	d.t.Helper()
	if err := d.c.finish(d.ctx); err != nil {
		d.t.Fatal(err)
	}
}

// refused sends the pending command once, and reports whether the ledger refused it
// because of the disk.
func (d *fullDisk) refused() bool {
	d.t.Helper()
	kind := d.c.pending.kind
	r, err := d.c.once(d.ctx, d.c.pending.command, wait.Limit)
	switch {
	case err != nil:
		d.t.Fatalf("%s: %v", kind, err)
	case r.status == http.StatusOK || r.status == http.StatusCreated:
		return false
	case r.status != http.StatusServiceUnavailable || r.Code != "unavailable" || !strings.Contains(r.Detail, "disk is nearly full"):
		d.t.Fatalf("%s: %s, want 503 unavailable that names the disk", kind, r)
	}
	return true
}

// fillUntilRefused fills the disk in steps, and sends a command after each, until
// the ledger refuses one. It returns the number of accepted commands.
func (d *fullDisk) fillUntilRefused(plan func()) (accepted int) {
	d.t.Helper()
	for left := d.free(); left > 0; left -= 8 << 20 {
		d.f.leave(left)
		plan()
		if d.refused() {
			d.t.Logf("with %d MiB free, after %d accepted: refused a %s", d.free()>>20, accepted, d.c.pending.kind)
			return accepted
		}
		d.finish()
		accepted++
	}
	d.t.Fatal("the ledger accepted commands until the disk was full")
	return 0
}

// check compares the node's answers and the log with the acknowledged commands.
func (d *fullDisk) check() {
	d.t.Helper()
	checkAnswers(d.t, d.w, []*machine{d.ledger})
	checkLog(d.t, fetchLog(d.t, d.ledger.process()), d.w.acks(), true)
}

// TestFullDisk fills the ledger's disk in steps, and frees the space again. The
// process keeps running.
func TestFullDisk(t *testing.T) {
	d := newFullDisk(t)
	c, p := d.c, d.ledger.process()
	c.createAccount()
	d.finish()
	account := c.accounts[len(c.accounts)-1]
	for range 20 {
		c.createToken(account)
		d.finish()
	}
	create := func() { c.createToken(account) }
	tokens := c.tokens[len(c.tokens)-20:]
	revoke := func() {
		c.revoke(tokens[0])
		tokens = tokens[1:]
	}

	d.fillUntilRefused(create)
	creation := c.pending
	if c.createAccount(); !d.refused() {
		t.Error("the ledger created an account after it had refused a token")
	}
	// Commands that restrict something have a reserve of their own.
	if d.fillUntilRefused(revoke) == 0 {
		t.Error("the ledger refused to revoke a token as early as to create one")
	}
	revocation := c.pending

	d.f.leave(0)
	t.Logf("with %d bytes free", d.free())
	for range 50 {
		for _, plan := range []func(){create, c.createAccount, revoke} {
			if plan(); !d.refused() {
				t.Errorf("on a full disk the ledger accepted a %s", c.pending.kind)
			}
			tokens = c.tokens[len(c.tokens)-10:] // the revocation was refused
		}
		r, err := ask(d.ctx, p.WaitListening(t).Verify, d.w.root, "superuser")
		if err != nil || !r.Allowed {
			t.Errorf("on a full disk, the root token: %v, %s", err, r)
		}
	}
	if err := p.Ready(d.ctx); err != nil {
		t.Errorf("on a full disk, the node is not ready: %v", err)
	}

	// With free space, the same process continues.
	d.f.leave(1 << 30)
	for _, pending := range []*planned{creation, revocation} {
		c.pending = pending
		d.finish()
	}
	d.check()
	d.restartFull()
}

// restartFull stops the node gracefully on a full disk, and starts it again. The
// node is not ready until there is free space.
func (d *fullDisk) restartFull() {
	t := d.t
	t.Helper()
	d.f.leave(0)
	d.ledger.process().stop(t)
	d.f.close()
	p := d.ledger.start()
	d.f = newFiller(t, p)
	p.Until(t, "it is not ready, and names the disk", func() error {
		return notReady(nodetest.Ready(d.ctx, "http://"+d.ledger.cfg.MetricsAddr), "too little disk space")
	})
	d.f.leave(1 << 30)
	p.WaitReady(t)
	if err := d.w.findLost(d.ctx); err != nil {
		t.Fatal(err)
	}
	d.check()
	p.stop(t)
}

// TestDiskFilledAtOnce fills the disk at once, beyond every reserve, while
// commands run. The process may die: Badger maps its files into memory. After a
// restart with free space, nothing is lost.
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
		// Each client must meet the full disk once.
		was := w.acked.Load()
		wait.Until(t, "each client was refused once", func() bool { return p.Exited() || w.refused.Load() >= 8 })
		t.Logf("filled after %d commands; %d were acknowledged since", was, w.acked.Load()-was)
		f.empty()
		w.refused.Store(0)
		was = w.acked.Load()
		// The process may have died of a page that it had begun to write, or it may
		// be ready and about to end, because the log met the full disk first. So
		// the test waits for an acknowledged command.
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

// TestFullDiskOfVerifier fills a verifier's disk while the ledger takes
// commands. The verifier cannot apply new events, and refuses checks.
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
