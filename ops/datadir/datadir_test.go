package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/datadir"
)

func open(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // a test may have closed it
	return d
}

// TestNames pins the names of the files: operators, backups and scripts know
// them.
func TestNames(t *testing.T) {
	want := []string{"log", "index", "root.token", "ledger.nk", "verifier.nk", "ledger.pub", "ledger.json", "name", "run.json", "api.sock"}
	for i, got := range []string{
		datadir.Log, datadir.Index, datadir.RootToken, datadir.LedgerKey, datadir.VerifierKey,
		datadir.Signer, datadir.Note, datadir.Name, datadir.Run, datadir.Socket,
	} {
		if got != want[i] {
			t.Errorf("name %q, want %q", got, want[i])
		}
	}
}

// TestLocked opens a folder twice.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := open(t, path)
	_, err := datadir.Open(path)
	if !errors.Is(err, datadir.ErrInUse) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("Open of an open folder = %v, want ErrInUse that names the folder and the flag", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

// TestNote reads back what was written, and refuses a note that is damaged: a
// ledger that forgets its log would create an empty one.
func TestNote(t *testing.T) {
	d := open(t, t.TempDir())
	for _, tt := range []struct {
		note  datadir.LogNote
		known bool
	}{
		{datadir.LogNote{}, false},
		{datadir.LogNote{Epoch: "e1", Beginning: true}, false},
		{datadir.LogNote{Epoch: "e1"}, true},
	} {
		if tt.note.Epoch != "" {
			if err := d.WriteNote(tt.note); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := d.ReadNote(); err != nil || got != tt.note || got.Known() != tt.known {
			t.Errorf("ReadNote = %+v (known %t), %v; want %+v (known %t)", got, got.Known(), err, tt.note, tt.known)
		}
	}
	for _, damaged := range []string{"", "{", "{}", `{"beginning":true}`, "null"} {
		if err := os.WriteFile(d.File(datadir.Note), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := d.ReadNote(); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("ReadNote of %q = %+v, %v; want an error that says what to do", damaged, n, err)
		}
	}
}

// TestNodeName invents a name once, and refuses one that is not fit for a
// subject.
func TestNodeName(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	name, err := d.NodeName()
	if err != nil || datadir.CheckName(name) != nil {
		t.Fatalf("NodeName = %q, %v", name, err)
	}
	if again, err := d.NodeName(); err != nil || again != name {
		t.Errorf("NodeName again = %q, %v; want %q", again, err, name)
	}
	for _, bad := range []string{"", "a.b", "a b", "*", strings.Repeat("x", 65)} {
		if err := d.Write(datadir.Name, []byte(bad+"\n")); err != nil {
			t.Fatal(err)
		}
		if name, err := d.NodeName(); err == nil {
			t.Errorf("NodeName = %q, want an error", name)
		}
	}
}

// TestRootSecret creates the secret once, and refuses a file that others can
// read, a link, and a secret that is damaged.
func TestRootSecret(t *testing.T) {
	d := open(t, t.TempDir())
	s, err := d.RootSecret(events.DefaultFormat)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.RootSecret(events.DefaultFormat); err != nil || again.Reveal() != s.Reveal() {
		t.Errorf("RootSecret again = another one, %v", err)
	}
	path := d.File(datadir.RootToken)
	for what, prepare := range map[string]func() error{
		"others can read it": func() error { return os.Chmod(path, 0o644) },
		"it is damaged":      func() error { return d.Write(datadir.RootToken, []byte(s.Reveal()+"x\n")) },
		"it is a folder":     func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"it is a link": func() error {
			target := filepath.Join(t.TempDir(), "target")
			return errors.Join(os.RemoveAll(path), os.WriteFile(target, []byte(s.Reveal()+"\n"), 0o600), os.Symlink(target, path))
		},
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.RootSecret(events.DefaultFormat); err == nil || strings.Contains(err.Error(), s.Reveal()) {
			t.Errorf("%s: RootSecret = %v, want an error without the secret", what, err)
		}
		if err := errors.Join(os.RemoveAll(path), d.Write(datadir.RootToken, []byte(s.Reveal()+"\n"))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWriteChanged leaves a file alone that has its content.
func TestWriteChanged(t *testing.T) {
	d := open(t, t.TempDir())
	write := func(content string) os.FileInfo {
		if err := d.WriteChanged(datadir.Signer, []byte(content)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(d.File(datadir.Signer))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := write("a")
	if !os.SameFile(first, write("a")) {
		t.Error("a file with the same content was written again")
	}
	if os.SameFile(first, write("b")) {
		t.Error("a file with another content was not written")
	}
}
