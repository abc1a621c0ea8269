package clustertest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Disk is a small file system in a file. Only the process that runs on it sees
// it mounted, and nothing is left behind where a test is killed.
type Disk struct {
	image, mount string

	filler *os.File // nil while nothing fills the disk
	size   int64    // of the filler
}

// NewDisk makes an empty disk. It skips the test where disks cannot be mounted,
// naming what is then not tested.
func NewDisk(t testing.TB, size int64, shows string) *Disk {
	t.Helper()
	d := &Disk{image: filepath.Join(t.TempDir(), "disk"), mount: filepath.Join(t.TempDir(), "mounted")}
	if err := os.Mkdir(d.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.format(size); err != nil {
		t.Skipf("NOT TESTED: %s. This needs root, mkfs.ext4 and loop devices: %v", shows, err)
	}
	return d
}

func (d *Disk) format(size int64) error {
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	run := func(name string, args ...string) error {
		cmd := exec.Command(name, args...)
		// A plain user on Debian lacks where these are kept.
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
		}
		return nil
	}
	// Nothing is kept back for root, which the tests may be.
	if err := run("mkfs.ext4", "-q", "-m", "0", d.image); err != nil {
		return err
	}
	// Being root is not enough: many containers lack the right to mount.
	return run("unshare", "--mount", "mount", "-o", "loop", d.image, d.mount)
}

// wrap returns a command that runs another with the disk mounted.
func (d *Disk) wrap(args []string) []string {
	return append([]string{"sh", "-c", `mount -o loop "$1" "$2" && shift 2 && exec "$@"`, "sh", d.image, d.mount}, args...)
}

// Fill takes all space of the disk of a process that runs on it.
func (d *Disk) Fill(t testing.TB, p *Process) {
	t.Helper()
	if d.filler == nil {
		f, err := os.OpenFile(p.File(filepath.Join(d.mount, "filler")), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		d.filler, d.size = f, info.Size()
	}
	for step := int64(64 << 20); step >= 4<<10; {
		switch err := syscall.Fallocate(int(d.filler.Fd()), 0, d.size, step); {
		case errors.Is(err, syscall.ENOSPC):
			step /= 2
		case err != nil:
			t.Fatal(err)
		default:
			d.size += step
		}
	}
}

// Release gives the space back that Fill took, and lets go of the disk, so that
// another process can have it.
func (d *Disk) Release(t testing.TB) {
	t.Helper()
	if d.filler == nil {
		return
	}
	if err := errors.Join(d.filler.Truncate(0), d.filler.Close()); err != nil {
		t.Fatal(err)
	}
	d.filler, d.size = nil, 0
}

// free waits until no process has the disk mounted any more: two mounts of one
// file would spoil it.
func (d *Disk) free(t testing.TB) {
	t.Helper()
	Eventually(t, "nobody has the disk mounted", func() bool {
		out, err := exec.Command("losetup", "--associated", d.image).Output()
		return err != nil || len(out) == 0
	})
}
