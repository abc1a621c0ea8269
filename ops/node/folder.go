package node

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
)

// Names in the data folder.
const (
	fileLock     = "lock"
	fileLedger   = "ledger.json"
	dirLog       = "log"
	dirIndex     = "index"
	fileRoot     = "root.token"
	fileLedgerNK = "ledger.nk"
	fileVerifier = "verifier.nk"
	fileSigner   = "ledger.pub"
	fileName     = "name"
	fileRun      = "run.json"
	fileSocket   = "api.sock"
)

var (
	// ErrInUse reports a data folder that another process uses.
	ErrInUse = errors.New("data folder is in use by another process")
	// ErrLogGone reports a data folder that had a log and has none now.
	ErrLogGone = errors.New("the log of this data folder is gone")
)

// folder is a data folder that this process holds.
type folder struct {
	path string
	lock *os.File
}

// takeFolder makes the folder where it is missing, and holds it. It refuses one
// that other users may write.
func takeFolder(path string) (*folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := embedded.CheckFolder(path); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, fileLock), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w; stop it, or name another folder with --data", path, ErrInUse), lock.Close())
	}
	return &folder{path: path, lock: lock}, nil
}

// release lets go of the folder.
func (f *folder) release() error { return f.lock.Close() }

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// note is what ledger.json says.
type note struct {
	Epoch string `json:"epoch"`
	// Beginning says that this node is beginning the log, which others keep
	// too, and is not done.
	Beginning bool `json:"beginning,omitempty"`
}

// note returns what ledger.json says of the log of this folder, and whether
// there is one.
func (f *folder) note() (n note, ok bool, err error) {
	raw, err := os.ReadFile(f.file(fileLedger))
	if errors.Is(err, os.ErrNotExist) {
		return n, false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &n)
	}
	if err == nil && n.Epoch == "" {
		err = errors.New("it names no epoch")
	}
	if err != nil {
		return n, false, fmt.Errorf("%s cannot be read: %w; restore it from a backup", f.file(fileLedger), err)
	}
	return n, true, nil
}

// began returns the epoch of the log that was begun in this folder, and whether
// one was.
func (f *folder) began() (epoch string, ok bool, err error) {
	n, ok, err := f.note()
	if err != nil || !ok || n.Beginning {
		return "", false, err
	}
	return n.Epoch, true, nil
}

// hasIndex reports whether the folder has an index that something was applied
// to.
func (f *folder) hasIndex() bool {
	folders, _, err := beside(f.file(dirIndex))
	return err != nil || slices.ContainsFunc(folders, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "MANIFEST"))
		return err == nil
	})
}

// begin records that the log was begun.
func (f *folder) begin(epoch string) error { return f.writeNote(note{Epoch: epoch}) }

// beginning records that this node is about to begin the log.
func (f *folder) beginning(epoch string) error {
	return f.writeNote(note{Epoch: epoch, Beginning: true})
}

func (f *folder) writeNote(n note) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return f.write(fileLedger, append(raw, '\n'))
}

// write replaces a file so that a crash leaves the old one or the new one. Only
// its owner can read it. It follows no link and writes no file that is there.
func (f *folder) write(name string, content []byte) error {
	tmp := f.file(name) + ".tmp"
	if info, err := os.Lstat(tmp); err == nil && info.Mode().IsRegular() {
		if err := os.Remove(tmp); err != nil { // a crash left it
			return err
		}
	}
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, f.file(name)); err != nil {
		return err
	}
	dir, err := os.Open(f.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// keep makes sure that a file has a content. Where it has, nothing is written: a
// node starts on a full disk, too.
func (f *folder) keep(name string, content []byte) error {
	if have, err := os.ReadFile(f.file(name)); err == nil && bytes.Equal(have, content) {
		return nil
	}
	return f.write(name, content)
}

// read reads a file that holds a secret. It follows no link, and refuses a file
// that others may have read or made.
func (f *folder) read(name string) ([]byte, error) {
	file, err := os.OpenFile(f.file(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	const others = 0o077
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", f.file(name))
	case info.Mode().Perm()&others != 0:
		return nil, fmt.Errorf("others may read %s (mode %04o): delete it, and revoke its token if they may have", f.file(name), info.Mode().Perm())
	case ok && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to user %d, who may have made it: delete it", f.file(name), st.Uid)
	}
	const most = 4 << 10 // more than any secret has
	return io.ReadAll(io.LimitReader(file, most))
}

// rootSecret returns the secret in root.token, making one where the file is
// missing.
func (f *folder) rootSecret(format events.Format) (events.Secret, error) {
	raw, err := f.read(fileRoot)
	if errors.Is(err, os.ErrNotExist) {
		s := format.NewSecret(events.ServiceAccount)
		return s, f.write(fileRoot, []byte(s.Reveal()+"\n"))
	}
	if err != nil {
		return events.Secret{}, err
	}
	s, err := format.ParseSecret(strings.TrimSpace(string(raw)))
	if err != nil {
		return s, fmt.Errorf("%s: %w; delete the file and start again", f.file(fileRoot), err)
	}
	return s, nil
}

// name returns the node's name, making one up where there is none: names have
// to differ between nodes, and to stay the same over restarts.
func (f *folder) name() (string, error) {
	raw, err := os.ReadFile(f.file(fileName))
	if err == nil {
		name := strings.TrimSpace(string(raw))
		return name, checkName(name)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, host)
	name := host[:min(len(host), 40)] + "-" + strings.ToLower(rand.Text()[:6])
	return name, f.write(fileName, []byte(name+"\n"))
}

// checkName reports a name that cannot be part of a subject.
func checkName(name string) error {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return fmt.Errorf("node name %s: want up to 64 letters, digits, '-' or '_'", events.Quote(name))
	}
	return nil
}

// Space left on the disk, in bytes, below which the log takes no more. The
// index keeps the least for itself ([projector.Config.Reserve]): it would be
// killed by a full disk. What takes something away may use more than what
// gives.
const (
	indexReserve  = 64 << 20
	endingReserve = 96 << 20
	otherReserve  = 160 << 20
)

// room reports why the log should not grow, nil where it may.
func (f *folder) room(ending bool) error {
	need := uint64(otherReserve)
	if ending {
		need = endingReserve
	}
	free, _, err := diskSpace(f.path)
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("disk is nearly full: %d MiB are free and %d are needed", free>>20, need>>20)
	}
	return nil
}

func diskSpace(path string) (free, total uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("look at the disk: %w", err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
