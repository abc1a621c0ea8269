// Package datadir is a node's data folder: the names of its files, the lock that
// keeps other processes out, and the small files that a node writes itself.
//
// Every file is written as a whole and readable by its owner alone. [Open]
// refuses a folder that other users can write to, because they could plant files
// or links in it.
package datadir

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/ledger/embedded"
)

// Names in the data folder.
const (
	Log         = "log"                 // folder: the log's server's own store
	Index       = "index"               // folder: the node's index; others beside it begin with this name
	RootToken   = "root.token"          // secret of the first token
	LedgerKey   = "ledger.nk"           // key by which ledgers join the log's server
	VerifierKey = "verifier.nk"         // key by which verifiers join the log's server
	Signer      = "ledger.pub"          // public half of LedgerKey, which signs snapshots
	Note        = "ledger.json"         // which log this node has known; see [LogNote]
	Name        = "name"                // the node's name, if none was given
	Run         = "run.json"            // where the running process listens
	TLSCert     = "tls-self-signed.crt" // self-signed certificate, if one was asked for
	TLSKey      = "tls-self-signed.key" // its key
	Socket      = "api.sock"            // socket of the running process, for programs of the owner
	lock        = "lock"                // locked while a process uses the folder
)

// ErrInUse reports a data folder that another process uses.
var ErrInUse = errors.New("data folder is in use by another process")

// Dir is a data folder that this process has locked.
type Dir struct {
	path string
	lock *os.File
}

// Open locks the data folder at path, and creates it if it is missing. It refuses
// a folder that other users can write to ([embedded.ErrFolder]), and one that
// another process uses ([ErrInUse]).
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := embedded.CheckFolder(path); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lock), os.O_RDWR|os.O_CREATE|disk.NoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := disk.Lock(f); err != nil {
		if errors.Is(err, disk.ErrLocked) {
			err = fmt.Errorf("%s: %w; stop it, or name another folder with --data", path, ErrInUse)
		}
		return nil, errors.Join(err, f.Close())
	}
	return &Dir{path: path, lock: f}, nil
}

// Close unlocks the folder.
func (d *Dir) Close() error { return d.lock.Close() }

// Path returns the folder's path.
func (d *Dir) Path() string { return d.path }

// File returns the path of a file in the folder.
func (d *Dir) File(name string) string { return filepath.Join(d.path, name) }

// LogNote is what a ledger remembers of the log that it has known, so that a log
// that is gone is told from one that never was.
type LogNote struct {
	// Epoch is the log's. It is empty if this ledger has known none.
	Epoch string `json:"epoch"`
	// Beginning says that this ledger is creating the log, which other ledgers
	// keep too, and has not finished.
	Beginning bool `json:"beginning,omitempty"`
}

// Known reports whether the log was created, by this ledger or another.
func (n LogNote) Known() bool { return n.Epoch != "" && !n.Beginning }

// ReadNote returns the note, or the zero LogNote if there is none.
func (d *Dir) ReadNote() (LogNote, error) {
	var n LogNote
	raw, err := os.ReadFile(d.File(Note))
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &n)
	}
	if err == nil && n.Epoch == "" {
		err = errors.New("it names no epoch")
	}
	if err != nil {
		return LogNote{}, fmt.Errorf("%s cannot be read: %w; restore it from a backup", d.File(Note), err)
	}
	return n, nil
}

// WriteNote replaces the note.
func (d *Dir) WriteNote(n LogNote) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return d.Write(Note, append(raw, '\n'))
}

// Write replaces a file: a crash leaves the old content or the new one. Only its
// owner can read it. See [disk.ReplaceExclusive].
func (d *Dir) Write(name string, content []byte) error {
	return disk.ReplaceExclusive(d.File(name), content)
}

// WriteChanged is [Dir.Write], but writes nothing if the file has this content
// already: a node starts on a full disk, too.
func (d *Dir) WriteChanged(name string, content []byte) error {
	if have, err := os.ReadFile(d.File(name)); err == nil && bytes.Equal(have, content) {
		return nil
	}
	return d.Write(name, content)
}

// ReadSecret reads a file that holds a secret, up to 4 KiB of it. It follows no
// symbolic link, and refuses a file that other users can read or may have made.
func (d *Dir) ReadSecret(name string) ([]byte, error) {
	file, err := os.OpenFile(d.File(name), os.O_RDONLY|disk.NoFollow|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", d.File(name))
	case disk.SecretRule{}.Check(d.File(name), info) != nil:
		return nil, fmt.Errorf(
			"%s: %w: delete it, and revoke its token if they may have", d.File(name), disk.SecretRule{}.Check(d.File(name), info),
		)
	case ok && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to user %d, who may have made it: delete it", d.File(name), st.Uid)
	}
	const maxSecret = 4 << 10 // more than any secret has
	return io.ReadAll(io.LimitReader(file, maxSecret))
}

// RootSecret returns the secret in root.token, and creates it if the file is
// missing.
func (d *Dir) RootSecret(format events.Format) (events.Secret, error) {
	raw, err := d.ReadSecret(RootToken)
	if errors.Is(err, os.ErrNotExist) {
		s := format.NewSecret(events.ServiceAccount)
		return s, d.Write(RootToken, []byte(s.Reveal()+"\n"))
	}
	if err != nil {
		return events.Secret{}, err
	}
	s, err := format.ParseSecret(strings.TrimSpace(string(raw)))
	if err != nil {
		return s, fmt.Errorf("%s: %w; delete the file and start again", d.File(RootToken), err)
	}
	return s, nil
}

// NodeName returns the node's name. If there is none yet it invents one and
// stores it: names have to differ between nodes and stay the same over restarts.
func (d *Dir) NodeName() (string, error) {
	raw, err := os.ReadFile(d.File(Name))
	if err == nil {
		name := strings.TrimSpace(string(raw))
		return name, CheckName(name)
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
	return name, d.Write(Name, []byte(name+"\n"))
}

// CheckName reports a name that cannot be part of a NATS subject.
func CheckName(name string) error {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return fmt.Errorf("node name %s: want up to 64 letters, digits, '-' or '_'", events.Quote(name))
	}
	return nil
}

// Free space in bytes that is kept on the disk. The log stops growing before the
// index has to stop ([projector.Config.Reserve]): an index is closed by a full
// disk. Commands that end something may use more of the space than others.
const (
	IndexReserve  = 64 << 20
	endingReserve = 96 << 20
	otherReserve  = 160 << 20
)

// CheckSpace returns why the log should not grow, nil if it may. ending says
// that the command ends something.
func (d *Dir) CheckSpace(ending bool) error {
	need := uint64(otherReserve)
	if ending {
		need = endingReserve
	}
	free, _, err := disk.Space(d.path)
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("disk is nearly full: %d MiB are free and %d are needed", free>>20, need>>20)
	}
	return nil
}
