package composetest

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// build makes the program as an operator does.
var build = sync.OnceValues(func() ([]byte, error) {
	cmd := exec.Command("make", "--no-print-directory", "-C", root, "build")
	// Where make runs the tests, it is not to tell this make about itself.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS")
	})
	return cmd.CombinedOutput()
})

// program returns the path of the program.
func program(t testing.TB) string {
	t.Helper()
	if out, err := build(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	path, err := filepath.Abs(filepath.Join(root, "bin/tokenledger"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// image is what a container starts from.
type image struct {
	// dirs hold the image's files, as they are in the root of a container.
	dirs []string
	// host has the container see the programs of this machine as well.
	host bool

	env, entrypoint, cmd []string
	user                 string
	stopSignal           string
}

// instruction is one of a Dockerfile.
type instruction struct {
	name, rest string
}

// instructions reads a Dockerfile that has none of what makes reading it hard.
func instructions(t testing.TB) []instruction {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	var out []instruction
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if strings.HasSuffix(line, `\`) || strings.Contains(line, "<<") {
			t.Fatalf("Dockerfile: %q: this test reads one line at a time", line)
		}
		name, rest, _ := strings.Cut(line, " ")
		out = append(out, instruction{strings.ToUpper(name), strings.TrimSpace(rest)})
	}
	return out
}

// buildImage makes under dir what docker build makes of the Dockerfile. Owners
// are kept where chown is true, for which this process has to be root.
func buildImage(t testing.TB, dir string, chown bool) image {
	t.Helper()
	program(t)
	img := image{dirs: []string{dir}}
	list := func(s string) (l []string) {
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			t.Fatalf("Dockerfile: %q is not a list in JSON: %v", s, err)
		}
		return l
	}
	for i, in := range instructions(t) {
		switch in.name {
		case "FROM":
			if i > 0 || in.rest != "scratch" {
				t.Fatalf("Dockerfile: FROM %s, want one FROM scratch", in.rest)
			}
		case "COPY":
			uid, gid := 0, 0
			args := strings.Fields(in.rest)
			if owner, ok := strings.CutPrefix(args[0], "--chown="); ok {
				if _, err := fmt.Sscanf(owner, "%d:%d", &uid, &gid); err != nil {
					t.Fatalf("Dockerfile: COPY %s: %v", in.rest, err)
				}
				args = args[1:]
			}
			if len(args) != 2 || strings.HasPrefix(args[0], "-") || strings.HasSuffix(args[1], "/") {
				t.Fatalf("Dockerfile: COPY %s: this test knows --chown, one source and a name for it", in.rest)
			}
			if !inContext(t, args[0]) {
				t.Fatalf("Dockerfile: COPY %s: .dockerignore leaves it out", in.rest)
			}
			if err := copyTree(filepath.Join(root, args[0]), filepath.Join(dir, args[1]), func(path string) error {
				if !chown {
					return nil
				}
				return os.Lchown(path, uid, gid)
			}); err != nil {
				t.Fatal(err)
			}
		case "ENV":
			img.env = append(img.env, in.rest)
		case "USER":
			img.user = in.rest
		case "ENTRYPOINT":
			img.entrypoint = list(in.rest)
		case "CMD":
			img.cmd = list(in.rest)
		default:
			t.Fatalf("Dockerfile: this test does not know %s", in.name)
		}
	}
	return img
}

// inContext reports whether .dockerignore leaves a path in.
func inContext(t testing.TB, path string) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	in := true
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		name, kept := strings.CutPrefix(line, "!")
		switch {
		case line == "" || line[0] == '#':
		case line == "*":
			in = false
		case kept && !strings.ContainsAny(name, "*?["):
			in = in || path == name || strings.HasPrefix(path, name+"/")
		default:
			t.Fatalf(".dockerignore: %q: this test knows * and !path", line)
		}
	}
	return in
}

// copyTree copies a file or a folder, and has each copy owned.
func copyTree(from, to string, own func(path string) error) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
		} else {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(at, b, 0o600); err != nil {
				return err
			}
		}
		if err := own(at); err != nil {
			return err
		}
		return os.Chmod(at, info.Mode().Perm())
	})
}

// TestImage looks at what is in the image.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	img := buildImage(t, dir, false)
	var got []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		got = append(got, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "/LICENSE", "/credentials", "/credentials/README", "/data", "/data/README", "/tokenledger"}
	if !slices.Equal(got, want) {
		t.Errorf("the image holds %q, want %q", got, want)
	}
	if user, _, _ := strings.Cut(img.user, ":"); !positive(user) {
		t.Errorf("the image's user is %q, want a number above 0", img.user)
	}
	// Nothing in the image could load a library.
	f, err := elf.Open(filepath.Join(dir, "tokenledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		t.Errorf("the program needs %s", libs)
	}
}

func positive(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0
}
