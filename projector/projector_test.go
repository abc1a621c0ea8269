package projector_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
)

func TestWaitApplied(t *testing.T) {
	run := eventstest.History(31, 20)
	p := opened(t, run.Messages[:5])
	over, cancel := context.WithCancel(t.Context())
	cancel()

	for at := range events.Position(6) {
		if err := p.WaitApplied(over, at); err != nil {
			t.Errorf("WaitApplied(%d) at 5 = %v", at, err)
		}
	}
	if err := p.WaitApplied(over, 6); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitApplied(6) at 5 with an ended context = %v, want Canceled", err)
	}

	reason := errors.New("told to")
	p.Stop(reason)
	p.Stop(errors.New("told again"))
	if err := p.WaitApplied(t.Context(), 5); err != nil {
		t.Errorf("WaitApplied(5) at 5 when stopped = %v", err)
	}
	if err := p.WaitApplied(t.Context(), 6); !errors.Is(err, reason) {
		t.Errorf("WaitApplied(6) when stopped = %v, want the reason", err)
	}
	stopped(t, p, reason, run.Messages[5:])
	same(t, p, run.Messages[:5]) // which is still there to be read
}

// TestWaiting has its waiters wait for certain before what they wait for
// happens.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := eventstest.History(37, 20)
		p := open(t, t.TempDir())
		wait := func(at events.Position) chan error {
			done := make(chan error, 1)
			go func() { done <- p.WaitApplied(t.Context(), at) }()
			synctest.Wait()
			return done
		}
		waiting := func(done chan error) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-done:
				t.Errorf("WaitApplied returned %v too early", err)
			default:
			}
		}
		two, five, never := wait(2), wait(5), wait(1000)
		applied(t, p, run.Messages[:1])
		waiting(two)
		applied(t, p, run.Messages[1:3])
		if err := <-two; err != nil {
			t.Errorf("WaitApplied(2) = %v", err)
		}
		waiting(five)
		applied(t, p, run.Messages[3:])
		if err := <-five; err != nil {
			t.Errorf("WaitApplied(5) = %v", err)
		}
		waiting(never)
		reason := errors.New("told to")
		p.Stop(reason)
		if err := <-never; !errors.Is(err, reason) {
			t.Errorf("WaitApplied when stopped = %v, want the reason", err)
		}
		closed(t, p)

		p = open(t, t.TempDir())
		first := wait(1)
		closed(t, p)
		if err := <-first; err == nil {
			t.Error("WaitApplied on a closed index returned no error")
		}

		p = open(t, t.TempDir())
		defer closed(t, p)
		first = wait(1)
		if err := p.Apply(t.Context(), run.Messages[1:]); !errors.Is(err, projector.ErrGap) {
			t.Errorf("Apply past a gap = %v, want ErrGap", err)
		}
		if err := <-first; !errors.Is(err, projector.ErrGap) {
			t.Errorf("WaitApplied before a gap = %v, want ErrGap", err)
		}
	})
}

func TestFresh(t *testing.T) {
	run := eventstest.History(32, 20)
	p := opened(t, run.Messages[:10])
	check := func(want time.Duration, known bool) {
		t.Helper()
		if got, ok := p.FreshAsOf(); ok != known || got != want {
			t.Errorf("FreshAsOf() = %s, %t; want %s, %t", got, ok, want, known)
		}
	}
	check(0, false)
	p.Fresh(5*time.Second, 11) // of which one is missing
	check(0, false)
	p.Fresh(5*time.Second, 10)
	check(5*time.Second, true)
	p.Fresh(4*time.Second, 10) // an older question answered late
	check(5*time.Second, true)
	p.Fresh(9*time.Second, 11)
	check(5*time.Second, true)
	applied(t, p, run.Messages[10:])
	check(5*time.Second, true)
	p.Fresh(9*time.Second, 11)
	check(9*time.Second, true)
	p.Stop(errors.New("told to"))
	check(9*time.Second, false)
	p.Fresh(10*time.Second, 11)
	check(9*time.Second, false)
}

func TestCursor(t *testing.T) {
	run := eventstest.History(33, 7)
	dir := t.TempDir()
	p := open(t, dir)
	if at, anchor := p.Cursor(); at != 0 || anchor != nil || p.Epoch() != "" {
		t.Errorf("Cursor() of nothing = %d, %x, epoch %q", at, anchor, p.Epoch())
	}
	applied(t, p, run.Messages)
	for range 2 {
		want := sha256.Sum256(run.Messages[6].Data)
		if at, anchor := p.Cursor(); at != 7 || [32]byte(anchor) != want || p.Epoch() != run.Epoch {
			t.Errorf("Cursor() = %d, %x, epoch %q; want 7, %x, %q", at, anchor, p.Epoch(), want, run.Epoch)
		}
		closed(t, p)
		p = open(t, dir)
	}
	closed(t, p)
}

func TestConfig(t *testing.T) {
	for what, cfg := range map[string]projector.Config{
		"no folder":      {},
		"negative batch": {Dir: t.TempDir(), Batch: -1},
	} {
		if p, err := projector.Open(cfg); err == nil {
			t.Errorf("%s: Open did not refuse", what)
			closed(t, p)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := projector.Open(projector.Config{Dir: file}); err == nil || errors.Is(err, projector.ErrCorrupt) {
		t.Errorf("Open of a file = %v, want an error other than ErrCorrupt", err)
	}
}

func TestDiskReserve(t *testing.T) {
	const all = 1 << 62
	dir := t.TempDir()
	if _, err := projector.Open(projector.Config{Dir: dir, Reserve: all}); !errors.Is(err, projector.ErrDiskFull) {
		t.Errorf("Open = %v, want ErrDiskFull", err)
	}
	run := eventstest.History(34, 20)
	p := open(t, dir)
	applied(t, p, run.Messages[:10])
	p.SetReserve(all)
	if err := p.Apply(t.Context(), run.Messages[10:]); !errors.Is(err, projector.ErrDiskFull) {
		t.Errorf("Apply = %v, want ErrDiskFull", err)
	}
	p.SetReserve(0)
	stopped(t, p, projector.ErrDiskFull, run.Messages[10:])
	same(t, p, run.Messages[:10])
	closed(t, p)

	p = open(t, dir)
	applied(t, p, run.Messages[10:])
	same(t, p, run.Messages)
	closed(t, p)
}

// TestInUse: an index that another process has open is not corrupt, or it would
// be put aside under that one's feet.
func TestInUse(t *testing.T) {
	run := eventstest.History(35, 20)
	dir := t.TempDir()
	p := open(t, dir)
	applied(t, p, run.Messages[:10])
	if _, err := projector.Open(projector.Config{Dir: dir}); !errors.Is(err, projector.ErrInUse) || errors.Is(err, projector.ErrCorrupt) {
		t.Errorf("Open of an open index = %v, want ErrInUse", err)
	}
	applied(t, p, run.Messages[10:])
	same(t, p, run.Messages)
	closed(t, p)
	p = open(t, dir)
	same(t, p, run.Messages)
	closed(t, p)
}

func TestQuarantine(t *testing.T) {
	run := eventstest.History(36, 20)
	dir := filepath.Join(t.TempDir(), "index[1]")
	other := filepath.Join(filepath.Dir(dir), "index1.aside-20260101T000000Z")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	applied(t, p, run.Messages)
	closed(t, p)
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.FixedZone("", 3600))
	to, err := projector.Quarantine(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(to, dir) || !strings.Contains(to, "20260304T040607") {
		t.Errorf("Quarantine = %s, want it to say which index and when in UTC", to)
	}
	p = open(t, dir)
	if p.Position() != 0 {
		t.Errorf("position %d after Quarantine, want 0", p.Position())
	}
	applied(t, p, run.Messages)
	same(t, p, run.Messages)
	closed(t, p)

	p = open(t, to) // nothing is lost
	same(t, p, run.Messages)
	closed(t, p)

	again, err := projector.Quarantine(dir, now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) || to == again {
		t.Errorf("%s is still there after another was put aside: %v", to, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("Quarantine of %s deleted what another index had put aside: %v", dir, err)
	}
	if _, err := projector.Quarantine(filepath.Join(filepath.Dir(dir), "nothing"), now); err == nil {
		t.Error("Quarantine of nothing returned no error")
	}
}
