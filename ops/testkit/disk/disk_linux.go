package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// Disk is a small ext4 file system in an image file. Only the process that runs
// on the disk sees it mounted, so nothing stays mounted if a test is killed.
type Disk struct {
	image, mount string

	filler *os.File // nil unless the disk is filled
	size   int64    // of the filler

	cuts int // number of power cuts; each makes a new image file
}

// New makes an empty disk. If disks cannot be mounted here, it skips the test
// with a message about the missing coverage.
func New(t testing.TB, size int64, shows string) *Disk {
	t.Helper()
	d, err := Try(t, size)
	if err != nil {
		t.Skipf("NOT TESTED: %s. This needs root, mkfs.ext4 and loop devices: %v", shows, err)
	}
	return d
}

// Try makes an empty disk, and returns an error if disks cannot be mounted
// here.
func Try(t testing.TB, size int64) (*Disk, error) {
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
		// On Debian these folders are not in the PATH of an ordinary user.
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
		}
		return nil
	}
	// No blocks are reserved for root: the tests may run as root.
	if err := run("mkfs.ext4", "-q", "-m", "0", d.image); err != nil {
		return err
	}
	// Root alone does not suffice: in many containers root may not mount.
	return run("unshare", "--mount", "mount", "-o", "loop", d.image, d.mount)
}

// Image returns the image file, which changes with each power cut.
func (d *Disk) Image() string { return d.image }

// Mount returns the mount point, as the process on the disk sees it.
func (d *Disk) Mount() string { return d.mount }

// Wrap returns a command that mounts the disk and then runs another command. It
// must run in a mount namespace of its own, see [proc.Attributes].
func (d *Disk) Wrap(args []string) []string {
	return append(
		[]string{"sh", "-c", `mount -o loop "$1" "$2" && shift 2 && exec "$@"`, "sh", d.image, d.mount},
		args...)
}

// Fill takes all free space. mount is where the test finds the mounted disk: a
// path through the root of the process that runs on it.
func (d *Disk) Fill(t testing.TB, mount string) {
	t.Helper()
	if d.filler == nil {
		f, err := os.OpenFile(filepath.Join(mount, "filler"), os.O_RDWR|os.O_CREATE, 0o600)
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

// Release gives the space back that Fill took. It also closes the file on the
// disk, so that the next process can mount it.
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

// WaitUnmounted waits until no process has the disk mounted. Two mounts of one
// image would corrupt it.
func (d *Disk) WaitUnmounted(t testing.TB) {
	t.Helper()
	wait.Until(t, "the disk is not mounted any more", func() bool {
		out, err := exec.Command("losetup", "--associated", d.image).Output()
		return err != nil || len(out) == 0
	})
}

// FlushSome syncs a random half of the files in a folder of a stopped process,
// as the kernel does on its own in any order. Without it, a power cut loses all
// recent writes that the process did not sync.
func FlushSome(t testing.TB, rng *rand.Rand, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
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

// CutPower cuts the power of a disk whose process is stopped, and must be
// killed next. The next process finds only the writes that have reached the
// disk.
func (d *Disk) CutPower(t testing.TB) {
	t.Helper()
	d.cuts++
	after := fmt.Sprintf("%s.%d", d.image, d.cuts)
	// The file system writes in the background. If the complete copy equals the
	// image, the copy is the state at one moment.
	for range 20 {
		if err := copyFile(d.image, after); err != nil {
			t.Fatal(err)
		}
		same, err := sameFile(d.image, after)
		if err != nil {
			t.Fatal(err)
		}
		if same {
			d.image = after
			return
		}
	}
	t.Fatal("the file system goes on writing to the disk")
}

// Extract copies a folder of the disk, which no process may have mounted.
func (d *Disk) Extract(t testing.TB, folder, to string) {
	t.Helper()
	rel, err := filepath.Rel(d.mount, folder)
	if err != nil {
		t.Fatal(err)
	}
	d.WaitUnmounted(t)
	const script = `mount -o loop "$1" "$2" && cp -r "$2/$3" "$4"`
	copying := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", d.image, d.mount, rel, to)
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copy %s from a disk: %v: %s", rel, err, out)
	}
}

// Free returns the number of free bytes of the file system that holds a path.
func Free(t testing.TB, path string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
