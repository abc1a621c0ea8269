package disk

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	if err := os.Mkdir(filepath.Join(from, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("sub", "holes")
	f, err := os.Create(filepath.Join(from, name))
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("data"), size/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	CopyTree(t, from, to)
	same := func(want bool) {
		t.Helper()
		if got, err := sameFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil || got != want {
			t.Errorf("the files are the same: %t, %v, want %t", got, err, want)
		}
	}
	same(true)
	info, err := os.Stat(filepath.Join(to, name))
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != size || used > size/2 {
		t.Errorf("the copy has %d bytes and uses %d, want %d bytes, mostly holes", info.Size(), used, size)
	}
	f, err = os.OpenFile(filepath.Join(to, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, size/4); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	same(false)
}

// TestCutPower cuts the power of a disk. What was synced before is there
// afterwards, and what is written later is not, even if it is synced.
func TestCutPower(t *testing.T) {
	d := New(t, 16<<20, "that a power cut keeps synced data, and nothing later")
	args := d.Wrap([]string{"sh", "-c", "cd " + d.Mount() + " && echo kept >before && sync && echo done && exec sleep 600"})
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = proc.Attributes(true)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // both may have happened already
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "done\n" {
		t.Fatalf("the process wrote %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the process is stopped", func() bool { return proc.Stopped(cmd.Process.Pid) })
	d.CutPower(t)
	later, err := os.Create(fmt.Sprintf("/proc/%d/root%s/later", cmd.Process.Pid, d.Mount()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(later.Sync(), later.Close()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	to := filepath.Join(t.TempDir(), "after")
	d.Extract(t, d.Mount(), to)
	if b, err := os.ReadFile(filepath.Join(to, "before")); err != nil || string(b) != "kept\n" {
		t.Errorf("the file from before the cut holds %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(to, "later")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file from after the cut: %v, want that it does not exist", err)
	}
}
