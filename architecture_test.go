// The packages of this module look one way only:
//
//	events <- ledger
//	events <- projector <- verifier
//	all of them <- ops <- cmd
//
// ledger and projector meet in events alone. These tests keep it so.
package tokenledger_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// module is the path that go.mod gives this repository.
const module = "github.com/tokenledger/tokenledger"

// rooms are the top-level folders, each with those that it may import. A new
// import between them is an architectural decision.
var rooms = map[string][]string{
	"events":    {},
	"ledger":    {"events"},
	"projector": {"events"},
	"verifier":  {"events", "projector"},
	"ops":       {"events", "ledger", "projector", "verifier"},
	"cmd":       {"events", "ledger", "projector", "verifier", "ops"},
}

// floors are packages with limited imports within their top-level folder. A
// package that is not listed may import any package there.
var floors = map[string][]string{
	"ledger/errdefs":   {},
	"ledger/authz":     {"ledger/errdefs"},
	"ledger/directory": {"ledger/bucket", "ledger/errdefs"},
	"ledger/commit":    {"ledger/authz", "ledger/errdefs"},
}

// guests are libraries that only one folder may import, so that replacing one
// changes only that folder.
var guests = []guest{
	{library: "github.com/danielgtaylor/huma", home: "ledger/api"},
	{library: "github.com/pquerna/otp", home: "ledger/signin", tests: true},
	{library: "github.com/nats-io/nats-server", home: "ledger/embedded", tests: true},
}

type guest struct {
	library string
	home    string
	tests   bool // tests and kits may use it too
}

// A survey holds the imports of the whole tree.
type survey struct {
	packages map[string]int // room -> packages that are part of the program
	arrows   int            // imports from one folder of ours to another
	wrong    []string       // what breaks a rule, one sentence each
}

// look reads the imports of every Go file under fsys, with any build tags.
func look(fsys fs.FS) (survey, error) {
	s := survey{packages: make(map[string]int)}
	counted := make(map[string]bool)
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && elsewhere(fsys, name) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, src, parser.ImportsOnly)
		if err != nil {
			return err
		}

		f := importer{dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go")}
		if !f.test && !counted[f.dir] {
			counted[f.dir] = true
			s.packages[room(f.dir)]++
			if _, known := rooms[room(f.dir)]; !known {
				s.wrong = append(s.wrong, fmt.Sprintf("%s: no rule says what %s may import", name, f.dir))
			}
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if strings.HasPrefix(imported, module+"/") {
				s.arrows++
			}
			if why := f.objection(imported); why != "" {
				s.wrong = append(s.wrong, fmt.Sprintf("%s: %s", files.Position(spec.Pos()), why))
			}
		}
		return nil
	})
	return s, err
}

// elsewhere reports whether dir is not part of this module.
func elsewhere(fsys fs.FS, dir string) bool {
	base := path.Base(dir)
	if base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_' {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

// An importer is a Go file that imports something.
type importer struct {
	dir  string // from the root of the module
	test bool
}

// objection returns why f must not import a path, empty if it may.
func (f importer) objection(imported string) string {
	for _, g := range guests {
		if within(imported, g.library) && !within(f.dir, g.home) && !(g.tests && (f.test || kit(f.dir))) {
			return fmt.Sprintf("only %s may import %s", g.home, g.library)
		}
	}

	dir, ours := strings.CutPrefix(imported, module+"/")
	from, to := room(f.dir), room(dir)
	switch {
	case !ours:
		return ""
	case to == "cmd" && from != "cmd":
		return "nothing may import cmd"
	case f.test || kit(f.dir) && within(dir, "ops/testkit"):
		return "" // the compiler says what a test may import
	case from != to && !slices.Contains(rooms[from], to):
		return fmt.Sprintf("%s may not import %s", from, dir)
	case from == to && floors[f.dir] != nil && !slices.Contains(floors[f.dir], dir):
		return fmt.Sprintf("%s may not import %s", f.dir, dir)
	case kit(dir) && !kit(f.dir):
		return fmt.Sprintf("%s is for tests", dir)
	}
	return ""
}

// room is the top-level folder that dir is in, or "." for the root.
func room(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// kit reports whether dir holds help for tests, as events/eventstest does.
func kit(dir string) bool {
	return strings.HasSuffix(path.Base(dir), "test") || within(dir, "ops/testkit")
}

// within reports whether p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// TestArrows checks every import against the tables above.
func TestArrows(t *testing.T) {
	gomod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(gomod), "module "+module+"\n") {
		t.Fatalf("go.mod does not begin with module %s, so no import here would count as ours", module)
	}

	s, err := look(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range s.wrong {
		t.Error(wrong)
	}
	for dir := range floors {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("floors names %s, which is not there", dir)
		}
	}
	for name := range rooms {
		if s.packages[name] == 0 {
			t.Errorf("found no package in %s, so its rule holds for nothing", name)
		}
	}
	if s.arrows == 0 {
		t.Error("found no import of one package of ours by another")
	}
}

// TestArrowsAreSeen tests the check itself on trees of one file each, which are
// allowed or wrong in one way.
func TestArrowsAreSeen(t *testing.T) {
	const (
		huma = "github.com/danielgtaylor/huma/v2"
		nats = "github.com/nats-io/nats-server/v2/server"
	)
	tests := []struct {
		file, imports string
		want          string // what is wrong; empty when nothing is
	}{
		{"events/event.go", "encoding/json", ""},
		{"ledger/ledger.go", module + "/events", ""},
		{"ledger/api/api.go", module + "/ledger", ""},
		{"projector/projector.go", module + "/events", ""},
		{"verifier/proxy/proxy.go", module + "/projector", ""},
		{"ops/node/node.go", module + "/verifier/proxy", ""},
		{"cmd/tokenledger/main.go", module + "/ops/node", ""},
		{"projector/replica/replica.go", module + "/events/clock", ""},
		{"ledger/embedded/key.go", module + "/events/disk", ""},
		{"ops/node/node.go", module + "/projector/replica", ""},
		{"ops/datadir/datadir.go", module + "/ledger/embedded", ""},

		{"ledger/authz/rules.go", module + "/ledger/errdefs", ""},
		{"ledger/errdefs/errdefs.go", module + "/events", ""},

		{"ledger/authz/rules.go", module + "/ledger", "ledger/authz may not import ledger"},
		{"ledger/errdefs/errdefs.go", module + "/ledger/authz", "ledger/errdefs may not import ledger/authz"},
		{"events/event.go", module + "/ledger", "events may not import ledger"},
		{"events/eventstest/fold.go", module + "/projector", "events may not import projector"},
		{"ledger/ledger.go", module + "/projector", "ledger may not import projector"},
		{"projector/pipeline.go", module + "/ledger/api", "projector may not import ledger/api"},
		{"projector/catalog.go", module + "/verifier", "projector may not import verifier"},
		{"verifier/verifier.go", module + "/ledger", "verifier may not import ledger"},
		{"verifier/verifier.go", module + "/ops/node", "verifier may not import ops/node"},
		{"projector/replica/replica.go", module + "/ops/datadir", "projector may not import ops/datadir"},
		{"ledger/genesis/genesis.go", module + "/ops/datadir", "ledger may not import ops/datadir"},
		{"events/clock/sleep.go", module + "/projector/follow", "events may not import projector/follow"},
		{"verifier/matomo/gateway.go", module + "/ops/metrics", "verifier may not import ops/metrics"},
		{"ops/node/node.go", module + "/cmd/tokenledger", "nothing may import cmd"},
		{"ops/node/node_test.go", module + "/cmd/tokenledger", "nothing may import cmd"},

		{"ledger/ledger_test.go", module + "/ops/clustertest", ""},
		{"ledger/ledger_test.go", module + "/events/eventstest", ""},
		{"ops/clustertest/cluster.go", module + "/events/eventstest", ""},
		{"ledger/ledgertest/log.go", module + "/projector/projectortest", "ledger may not import projector/projectortest"},
		{"ledger/ledgertest/log.go", module + "/ops/testkit/wait", ""},
		{"cmd/tokenledger/demo.go", module + "/ops/clustertest", "ops/clustertest is for tests"},
		{"ops/node/node.go", module + "/ops/testkit/wait", "ops/testkit/wait is for tests"},
		{"events/codec.go", module + "/events/eventstest", "events/eventstest is for tests"},

		{"ledger/api/api.go", huma, ""},
		{"ledger/api/v1/tokens.go", huma + "/adapters/humago", ""},
		{"ledger/ledger.go", huma, "only ledger/api may import github.com/danielgtaylor/huma"},
		{"ledger/apikeys/keys.go", huma, "only ledger/api may import github.com/danielgtaylor/huma"},
		{"ledger/ledger_test.go", huma, "only ledger/api may import github.com/danielgtaylor/huma"},
		{"ledger/embedded/server.go", nats, ""},
		{"ledger/ledger_test.go", nats, ""},
		{"ops/clustertest/cluster.go", nats, ""},
		{"ops/node/node.go", nats, "only ledger/embedded may import github.com/nats-io/nats-server"},
		{"ops/node/node.go", "github.com/nats-io/nats-server-exporter", ""},

		{"ledger/signin/code.go", "github.com/pquerna/otp/totp", ""},
		{"ledger/api/people_test.go", "github.com/pquerna/otp/totp", ""},
		{"cmd/tokenledger/login.go", "github.com/pquerna/otp/totp", "only ledger/signin may import github.com/pquerna/otp"},

		{"util/util.go", "fmt", "no rule says what util may import"},
		{"tokenledger.go", "fmt", "no rule says what . may import"},
		{"ledger/testdata/x.go", module + "/cmd", ""},
		{".hidden/x.go", module + "/cmd", ""},
	}
	for _, tt := range tests {
		s, err := look(fstest.MapFS{
			tt.file: {Data: fmt.Appendf(nil, "//go:build never\n\npackage x\n\nimport _ %q\n", tt.imports)},
		})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case tt.want == "" && len(s.wrong) > 0:
			t.Errorf("%s importing %s: %q, want nothing wrong", tt.file, tt.imports, s.wrong)
		case tt.want != "" && (len(s.wrong) != 1 || !strings.HasSuffix(s.wrong[0], ": "+tt.want)):
			t.Errorf("%s importing %s: %q, want one that ends in %q", tt.file, tt.imports, s.wrong, tt.want)
		}
	}
}

// TestArrowsOfOtherModules ignores modules inside this one.
func TestArrowsOfOtherModules(t *testing.T) {
	s, err := look(fstest.MapFS{
		"tools/go.mod":   {Data: []byte("module " + module + "/tools\n")},
		"tools/tools.go": {Data: []byte("package tools\n\nimport _ \"" + module + "/cmd\"\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.wrong) > 0 || len(s.packages) > 0 {
		t.Errorf("look = %+v, want nothing of tools", s)
	}
}

// rivals are libraries that only the benchmark's module may use. The product
// must not link them, because every linked library has to be trusted and
// patched.
var rivals = regexp.MustCompile(`^github\.com/(jackc/pgx|golang-jwt/jwt|redis|gomodule/redigo)(/|$)`)

// TestProductHoldsNoRivals checks the program's dependencies. The library
// nats-io/jwt is allowed: the NATS server needs it for accounts.
func TestProductHoldsNoRivals(t *testing.T) {
	for _, known := range []string{"github.com/jackc/pgx/v5", "github.com/golang-jwt/jwt/v5", "github.com/redis/rueidis"} {
		if !rivals.MatchString(known) {
			t.Errorf("the pattern does not match %s", known)
		}
	}
	deps := strings.Fields(run(t, ".", "list", "-deps", "./cmd/tokenledger"))
	if !slices.Contains(deps, module+"/verifier") {
		t.Fatalf("go list names %d packages, and not the verifier", len(deps))
	}
	for _, dep := range deps {
		if rivals.MatchString(dep) {
			t.Errorf("cmd/tokenledger is linked with %s", dep)
		}
	}
}

// TestBenchmarkBuilds builds the benchmark's module against this tree, because
// go build and go vet in this module leave it out.
func TestBenchmarkBuilds(t *testing.T) { run(t, "ops/bench", "vet", "./...") }

// run runs the go command in a folder and returns its standard output.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"-C", dir}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s in %s: %v\n%s", strings.Join(args, " "), dir, err, &stderr)
	}
	return string(out)
}
