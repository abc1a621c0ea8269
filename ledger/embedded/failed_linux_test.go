package embedded

import (
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// On a full disk the server reports the error and refuses further appends.
// After a restart it has every acknowledged event.
func TestFailedWrite(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)

	// A limit on file sizes simulates a full disk. With the signal ignored, the
	// write returns an error.
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = 1 << 16
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}
	defer restore()

	var acked uint64
	var failure error
	for failure == nil {
		f, err := js.PublishAsync("ledger.token.aa.created", make([]byte, 1<<10))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case ack := <-f.Ok():
			acked = ack.Sequence
		case err := <-f.Err():
			t.Logf("append after %d: %v", acked, err)
			failure = <-k.Failed()
		case failure = <-k.Failed():
		case <-testContext(t).Done():
			t.Fatal("the server neither answered nor said that it failed")
		}
	}
	if !strings.Contains(failure.Error(), "until it is restarted") {
		t.Errorf("Failed gave %v, which does not say what to do", failure)
	}
	t.Log(failure)
	restore()
	k.stop()

	k.start()
	js = k.asLedger()
	info, err := OpenStream(testContext(t), js)
	if err != nil {
		t.Fatal(err)
	}
	if uint64(info.Last) < acked || acked == 0 {
		t.Errorf("the last position is %d after %d was acknowledged", info.Last, acked)
	}
	mustPublish(t, js, "ledger.token.aa.created", "again")
}
