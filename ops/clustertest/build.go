package clustertest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Edit changes one source file for a build. The file itself stays unchanged.
type Edit struct {
	// File is a path from the root of the module, or an absolute one.
	File string
	// Old is replaced by New. It must occur in the file exactly once. Empty
	// means that New is the content of a new file.
	Old string
	New string
}

// builds caches the programs that [Build] made, by their edits.
var builds struct {
	sync.Mutex
	dir  string // guarded by the mutex; empty outside of [Main]
	made map[string]string
}

// Main runs the tests of a package for its TestMain, and returns the exit code.
// It deletes the programs of [Build] at the end.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clustertest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // at worst it remains among the temporary files
	builds.Lock()
	builds.dir, builds.made = dir, map[string]string{}
	builds.Unlock()
	return m.Run()
}

// Build compiles the program without the race detector, and returns its path.
// With edits, the program has a fault that a test must find. Build compiles
// each program once in a run.
func Build(t testing.TB, edits ...Edit) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	if builds.dir == "" {
		t.Fatal("TestMain must call clustertest.Main")
	}
	name := fmt.Sprint(edits)
	if path, ok := builds.made[name]; ok {
		return path
	}
	root := moduleRoot(t)
	dir, err := os.MkdirTemp(builds.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "tokenledger")
	args := []string{"build", "-buildvcs=false", "-o", program}
	if len(edits) > 0 {
		args = append(args, "-overlay", overlay(t, root, dir, edits))
	}
	build := exec.Command("go", append(args, "./cmd/tokenledger")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build with %d edits: %v\n%s", len(edits), err, out)
	}
	builds.made[name] = program
	return program
}

// overlay writes the edited files to dir, and returns the overlay file for the
// go command.
func overlay(t testing.TB, root, dir string, edits []Edit) string {
	t.Helper()
	replace := map[string]string{} // file -> file that is compiled instead
	for i, e := range edits {
		file := e.File
		if !filepath.IsAbs(file) {
			file = filepath.Join(root, filepath.FromSlash(file))
		}
		from := file
		if replace[file] != "" {
			from = replace[file] // edited before
		}
		text := e.New
		switch b, err := os.ReadFile(from); {
		case e.Old == "" && err == nil:
			t.Fatalf("edit of %s: the file exists, but the edit has no Old text", e.File)
		case e.Old != "" && err != nil:
			t.Fatalf("edit of %s: %v", e.File, err)
		case e.Old != "":
			if n := strings.Count(string(b), e.Old); n != 1 {
				t.Fatalf(
					"edit of %s: the file contains this text %d times, want once; adapt the edit to the change of the file:\n%s",
					e.File,
					n,
					e.Old,
				)
			}
			text = strings.Replace(string(b), e.Old, e.New, 1)
		}
		to := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(file)))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[file] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}
