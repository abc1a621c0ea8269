package clustertest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a small file system in a file. Only the process that runs on it sees
// it mounted, and nothing is left behind where a test is killed.
type Disk struct {
	image, mount string

	filler *os.File // nil while nothing fills the disk
	size   int64    // of the filler

	cuts int // number of power cuts; each leaves an image of its own
}

// NewDisk makes an empty disk. It skips the test where disks cannot be mounted,
// naming what is then not tested.
func NewDisk(t testing.TB, size int64, shows string) *Disk {
	t.Helper()
	d, err := tryDisk(t, size)
	if err != nil {
		t.Skipf("NOT TESTED: %s. This needs root, mkfs.ext4 and loop devices: %v", shows, err)
	}
	return d
}

// tryDisk makes an empty disk, and fails if disks cannot be mounted.
func tryDisk(t testing.TB, size int64) (*Disk, error) {
	t.Helper()
	d := &Disk{image: filepath.Join(t.TempDir(), "disk"), mount: filepath.Join(t.TempDir(), "mounted")}
	if err := os.Mkdir(d.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	return d, d.format(size)
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

// flushSome writes some files of a frozen process to its disk, in no order, as
// the kernel does by itself. Nobody synced them.
func (d *Disk) flushSome(t testing.TB, rng *rand.Rand, p *Process) {
	t.Helper()
	err := filepath.WalkDir(p.File(d.mount), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || rng.IntN(2) == 0 {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cut takes the power from the disk of a frozen process. The next process finds
// what has reached the disk by now, and nothing else.
func (d *Disk) cut(t testing.TB) {
	t.Helper()
	d.cuts++
	after := fmt.Sprintf("%s.%d", d.image, d.cuts)
	// The file system writes by itself. If the copy is equal to the image when it
	// is complete, the copy is the image of one moment.
	for range 20 {
		if out, err := exec.Command("cp", "--sparse=always", d.image, after).CombinedOutput(); err != nil {
			t.Fatalf("copy a disk: %v: %s", err, out)
		}
		copied, err := sumOf(after)
		if err != nil {
			t.Fatal(err)
		}
		image, err := sumOf(d.image)
		if err != nil {
			t.Fatal(err)
		}
		if image == copied {
			d.image = after
			return
		}
	}
	t.Fatal("the disk does not come to rest")
}

// sumOf returns a checksum of a file that is mostly holes: of all blocks that are
// not zero, and of their places.
func sumOf(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	const size = 4096
	block, zero := make([]byte, size), make([]byte, size)
	for at := int64(0); ; {
		if at, err = f.Seek(at, unix.SEEK_DATA); errors.Is(err, syscall.ENXIO) {
			return [sha256.Size]byte(h.Sum(nil)), nil
		} else if err != nil {
			return sum, err
		}
		hole, err := f.Seek(at, unix.SEEK_HOLE)
		if err != nil {
			return sum, err
		}
		for at -= at % size; at < hole; at += size {
			n, err := f.ReadAt(block, at)
			if err != nil && err != io.EOF {
				return sum, err
			}
			if !bytes.Equal(block[:n], zero[:n]) {
				_, _ = fmt.Fprintf(h, "%d:%s", at, block[:n]) // a hash takes everything
			}
		}
	}
}

// extract copies a folder of the disk, which no process has mounted.
func (d *Disk) extract(t testing.TB, folder, to string) {
	t.Helper()
	rel, err := filepath.Rel(d.mount, folder)
	if err != nil {
		t.Fatal(err)
	}
	d.free(t)
	const script = `mount -o loop "$1" "$2" && cp -r "$2/$3" "$4"`
	copying := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", d.image, d.mount, rel, to)
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copy %s from a disk: %v: %s", rel, err, out)
	}
}
