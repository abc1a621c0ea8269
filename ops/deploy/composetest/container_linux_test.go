package composetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// blueprint is what a process is told that is to become a container.
type blueprint struct {
	Hostname string
	Root     string // an empty folder, for the root file system
	Image    []piece
	Mounts   []mount // in the order in which they are made
	ReadOnly bool
	Network  []string // commands of ip
	UID, GID int
	// NoNewPrivileges keeps programs with other rights from being of use.
	NoNewPrivileges bool
	Dir             string
	Env, Args       []string
}

// piece is a file, a folder or a link in the root of an image.
type piece struct {
	Name string
	From string // where it is outside
	Link string // where it leads, for a link
	Dir  bool
}

// mount is a volume, a folder or file of this machine, or a file system in
// memory.
type mount struct {
	At       string
	From     string // empty for one in memory
	Options  string // of one in memory
	ReadOnly bool
}

// becomeContainer makes this process the first one of a container. It returns
// only with an error.
func becomeContainer() error {
	runtime.LockOSThread() // some of what is set holds for the thread
	// What is told has an end when the network is there.
	var b blueprint
	told := os.NewFile(3, "blueprint")
	if err := json.NewDecoder(told).Decode(&b); err != nil {
		return err
	}
	if err := told.Close(); err != nil {
		return err
	}
	if err := ip(b.Network...); err != nil {
		return err
	}
	syscall.Umask(0)
	if err := b.makeRoot(); err != nil {
		return err
	}
	syscall.Umask(0o022)
	if err := syscall.Sethostname([]byte(b.Hostname)); err != nil {
		return err
	}
	if err := syscall.Chroot(b.Root); err != nil {
		return err
	}
	if err := os.Chdir(b.Dir); err != nil {
		return err
	}
	path, err := lookPath(b.Args[0], b.Env)
	if err != nil {
		return err
	}
	if err := dropRights(b.UID, b.GID, b.NoNewPrivileges); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, b.Args, b.Env))
}

// makeRoot mounts the root file system and all that is in it.
func (b *blueprint) makeRoot() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this container: %w", err)
	}
	if err := syscall.Mount("tmpfs", b.Root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, p := range b.Image {
		at := filepath.Join(b.Root, p.Name)
		var err error
		switch {
		case p.Link != "":
			err = os.Symlink(p.Link, at)
		default:
			err = bind(p.From, at, true)
		}
		if err != nil {
			return err
		}
	}
	if err := b.makeSystem(); err != nil {
		return err
	}
	for _, m := range b.Mounts {
		at := filepath.Join(b.Root, m.At)
		if m.From != "" {
			if err := bind(m.From, at, m.ReadOnly); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", at, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, m.Options); err != nil {
			return fmt.Errorf("mount %s: %w", m.At, err)
		}
	}
	if !b.ReadOnly {
		return nil
	}
	return syscall.Mount("", b.Root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
}

// makeSystem mounts what every container has.
func (b *blueprint) makeSystem() error {
	proc, dev := filepath.Join(b.Root, "proc"), filepath.Join(b.Root, "dev")
	for _, dir := range []string{proc, dev} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := syscall.Mount("proc", proc, "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", dev, "tmpfs", syscall.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		if err := bind("/dev/"+name, filepath.Join(dev, name), false); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+to, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// bind mounts a file or a folder elsewhere, and makes the place where it is
// missing.
func bind(from, at string, readOnly bool) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(at); errors.Is(err, fs.ErrNotExist) {
		dir := at
		if !info.IsDir() {
			dir = filepath.Dir(at)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if !info.IsDir() {
			if err := os.WriteFile(at, nil, 0o644); err != nil {
				return err
			}
		}
	}
	if err := syscall.Mount(from, at, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, at, err)
	}
	if !readOnly {
		return nil
	}
	if err := syscall.Mount("", at, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("keep %s from being written: %w", at, err)
	}
	return nil
}

// dropRights makes this process that of another user. Its capabilities go with
// that.
func dropRights(uid, gid int, noNewPrivileges bool) error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	if err := syscall.Setuid(uid); err != nil {
		return err
	}
	const setNoNewPrivs = 38 // PR_SET_NO_NEW_PRIVS
	if noNewPrivileges {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
			return fmt.Errorf("no new privileges: %w", errno)
		}
	}
	return nil
}

// lookPath finds a program by the PATH of an environment.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, v := range env {
		list, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			if path := filepath.Join(dir, name); exec.Command(path).Err == nil {
				if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
					return path, nil
				}
			}
		}
	}
	return "", fmt.Errorf("there is no program %s", name)
}
