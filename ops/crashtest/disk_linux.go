package crashtest

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
)

// disk is a file system in a file. Only the process that was started on it sees
// it mounted.
type disk struct {
	t     testing.TB
	image string
	mount string // where processes mount it
	turn  int    // number of the image; each power cut leaves a new one
}

// newDisk makes an empty disk. It skips the test where disks cannot be mounted,
// naming what is then not tested.
func newDisk(t testing.TB, size int64, shows string) *disk {
	t.Helper()
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "disk"), mount: filepath.Join(t.TempDir(), "mounted")}
	if err := os.Mkdir(d.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.format(size); err != nil {
		t.Skipf("NOT TESTED: %s. This needs root, mkfs.ext4 and loop devices: %v", shows, err)
	}
	return d
}

func (d *disk) format(size int64) error {
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
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

// use has a machine's processes run on the disk.
func (d *disk) use(s settings) settings {
	s.Image, s.Mount, s.Data = d.image, d.mount, filepath.Join(d.mount, "data")
	return s
}

// cut is a power cut while a process runs: what has reached the disk by now is
// all that the next process finds. Where flush is true, some files have reached
// it that nobody synced.
func (d *disk) cut(m *machine, rng *rand.Rand, flush bool) {
	d.t.Helper()
	p := m.process()
	p.freeze()
	if flush {
		flushSome(d.t, rng, p)
	}
	d.turn++
	after := fmt.Sprintf("%s.%d", d.image, d.turn)
	// The file system writes on by itself. A copy that is equal to the image
	// when it is complete is what the image was at one moment.
	for try := 0; ; try++ {
		if err := copyFile(d.image, after); err != nil {
			d.t.Fatal(err)
		}
		same, err := sameFile(d.image, after)
		if err != nil {
			d.t.Fatal(err)
		}
		if same {
			break
		}
		if try == 20 {
			d.t.Fatal("the disk does not come to rest")
		}
	}
	p.kill()
	d.image = after
	m.settings.Image = after
}

// flushSome writes some of the files of a process's data folder to the disk, as
// the kernel does in an order of its own. Without this, what is young is not
// there after a power cut, unless its writer synced it.
func flushSome(t testing.TB, rng *rand.Rand, p *process) {
	t.Helper()
	err := filepath.WalkDir(p.path(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || rng.IntN(2) == 0 {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sameFile reports whether two files hold the same; a hole holds zeros.
func sameFile(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	errOther := errors.New("they differ")
	other := make([]byte, 1<<16)
	for _, pair := range [][2]*os.File{{f, g}, {g, f}} {
		err := visitData(pair[0], func(at int64, b []byte) error {
			n, err := pair[1].ReadAt(other[:len(b)], at)
			if n < len(b) {
				return err
			}
			if !bytes.Equal(b, other[:n]) {
				return errOther
			}
			return nil
		})
		if errors.Is(err, errOther) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// free returns how many bytes a process's disk has left.
func free(t testing.TB, p *process) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(p.path(), &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
