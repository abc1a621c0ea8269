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
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

func TestWaitApplied(t *testing.T) {
	run := eventstest.History(31, 20)
	p := newIndex(t, run.Messages[:5])
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()

	for pos := range events.Position(6) {
		if err := p.WaitApplied(cancelled, pos); err != nil {
			t.Errorf("WaitApplied(%d) at 5 = %v", pos, err)
		}
	}
	if err := p.WaitApplied(cancelled, 6); !errors.Is(err, context.Canceled) {
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
	checkStopped(t, p, reason, run.Messages[5:])
	checkIndex(t, p, run.Messages[:5]) // still readable
}

// TestWaiting wakes waiters that are known to wait.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := eventstest.History(37, 20)
		p := open(t, t.TempDir())
		wait := func(pos events.Position) chan error {
			done := make(chan error, 1)
			go func() { done <- p.WaitApplied(t.Context(), pos) }()
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
		projectortest.Apply(t, p, run.Messages[:1])
		waiting(two)
		projectortest.Apply(t, p, run.Messages[1:3])
		if err := <-two; err != nil {
			t.Errorf("WaitApplied(2) = %v", err)
		}
		waiting(five)
		projectortest.Apply(t, p, run.Messages[3:])
		if err := <-five; err != nil {
			t.Errorf("WaitApplied(5) = %v", err)
		}
		waiting(never)
		reason := errors.New("told to")
		p.Stop(reason)
		if err := <-never; !errors.Is(err, reason) {
			t.Errorf("WaitApplied when stopped = %v, want the reason", err)
		}
		projectortest.Close(t, p)

		p = open(t, t.TempDir())
		first := wait(1)
		projectortest.Close(t, p)
		if err := <-first; err == nil {
			t.Error("WaitApplied on a closed index returned no error")
		}

		p = open(t, t.TempDir())
		defer projectortest.Close(t, p)
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
	p := newIndex(t, run.Messages[:10])
	check := func(want time.Duration, known bool) {
		t.Helper()
		if got, ok := p.FreshAsOf(); ok != known || got != want {
			t.Errorf("FreshAsOf() = %s, %t; want %s, %t", got, ok, want, known)
		}
	}
	check(0, false)
	p.Fresh(5*time.Second, 11) // position 11 is not applied yet
	check(0, false)
	p.Fresh(5*time.Second, 10)
	check(5*time.Second, true)
	p.Fresh(4*time.Second, 10) // an older proof
	check(5*time.Second, true)
	p.Fresh(9*time.Second, 11)
	check(5*time.Second, true)
	projectortest.Apply(t, p, run.Messages[10:])
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
	if pos, anchor := p.Cursor(); pos != 0 || anchor != nil || p.Epoch() != "" {
		t.Errorf("Cursor() of nothing = %d, %x, epoch %q", pos, anchor, p.Epoch())
	}
	projectortest.Apply(t, p, run.Messages)
	for range 2 {
		want := sha256.Sum256(run.Messages[6].Data)
		if pos, anchor := p.Cursor(); pos != 7 || [32]byte(anchor) != want || p.Epoch() != run.Epoch {
			t.Errorf("Cursor() = %d, %x, epoch %q; want 7, %x, %q", pos, anchor, p.Epoch(), want, run.Epoch)
		}
		projectortest.Close(t, p)
		p = open(t, dir)
	}
	projectortest.Close(t, p)
}

func TestConfig(t *testing.T) {
	for what, cfg := range map[string]projector.Config{
		"no folder":      {},
		"negative batch": {Dir: t.TempDir(), Batch: -1},
	} {
		if p, err := projector.Open(cfg); err == nil {
			t.Errorf("%s: Open did not refuse", what)
			projectortest.Close(t, p)
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
	projectortest.Apply(t, p, run.Messages[:10])
	p.SetReserve(all)
	if err := p.Apply(t.Context(), run.Messages[10:]); !errors.Is(err, projector.ErrDiskFull) {
		t.Errorf("Apply = %v, want ErrDiskFull", err)
	}
	p.SetReserve(0)
	checkStopped(t, p, projector.ErrDiskFull, run.Messages[10:])
	checkIndex(t, p, run.Messages[:10])
	projectortest.Close(t, p)

	p = open(t, dir)
	projectortest.Apply(t, p, run.Messages[10:])
	checkIndex(t, p, run.Messages)
	projectortest.Close(t, p)
}

// TestInUse checks that an open index is not reported as corrupt, because the
// caller would quarantine the folder while another process uses it.
func TestInUse(t *testing.T) {
	run := eventstest.History(35, 20)
	dir := t.TempDir()
	p := open(t, dir)
	projectortest.Apply(t, p, run.Messages[:10])
	if _, err := projector.Open(projector.Config{Dir: dir}); !errors.Is(err, projector.ErrInUse) || errors.Is(err, projector.ErrCorrupt) {
		t.Errorf("Open of an open index = %v, want ErrInUse", err)
	}
	projectortest.Apply(t, p, run.Messages[10:])
	checkIndex(t, p, run.Messages)
	projectortest.Close(t, p)
	p = open(t, dir)
	checkIndex(t, p, run.Messages)
	projectortest.Close(t, p)
}

func TestQuarantine(t *testing.T) {
	run := eventstest.History(36, 20)
	dir := filepath.Join(t.TempDir(), "index[1]")
	other := filepath.Join(filepath.Dir(dir), "index1.aside-20260101T000000Z")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	projectortest.Apply(t, p, run.Messages)
	projectortest.Close(t, p)
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.FixedZone("", 3600))
	to, err := projector.Quarantine(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(to, dir) || !strings.Contains(to, "20260304T040607") {
		t.Errorf("Quarantine = %s, want the name of the index and the time in UTC", to)
	}
	p = open(t, dir)
	if p.Position() != 0 {
		t.Errorf("position %d after Quarantine, want 0", p.Position())
	}
	projectortest.Apply(t, p, run.Messages)
	checkIndex(t, p, run.Messages)
	projectortest.Close(t, p)

	p = open(t, to) // the quarantined index is intact
	checkIndex(t, p, run.Messages)
	projectortest.Close(t, p)

	again, err := projector.Quarantine(dir, now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) || to == again {
		t.Errorf("%s still exists after the next Quarantine: %v", to, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("Quarantine of %s deleted a folder of another index: %v", dir, err)
	}
	if _, err := projector.Quarantine(filepath.Join(filepath.Dir(dir), "missing"), now); err == nil {
		t.Error("Quarantine of a missing folder returned no error")
	}
}
