package tokenledger_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// Size limits, so that a function fits on one screen.
const (
	maxFunctionLines = 80
	maxTestLines     = 100
	maxParameters    = 5
	maxColumns       = 120
	maxCode          = 90 // of a line whose texts make it longer
	tabColumns       = 4
)

// oversized returns the functions and lines under fsys that are over a limit. In
// tests only the length of functions is limited: their tables are wide.
func oversized(fsys fs.FS) ([]string, error) {
	var wrong []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && elsewhere(fsys, name):
			return fs.SkipDir
		case d.IsDir(), path.Ext(name) != ".go":
			return nil
		}
		test, maxLines := strings.HasSuffix(name, "_test.go"), maxFunctionLines
		if test {
			maxLines = maxTestLines
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(src), "\n") {
			// A text or a tag stays on one line, so that a search finds it.
			if n := columns(line); !test && n > maxColumns && columns(texts.ReplaceAllString(line, "")) > maxCode {
				wrong = append(wrong, fmt.Sprintf("%s:%d: %d columns, want at most %d", name, i+1, n, maxColumns))
			}
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			at := files.Position(f.Pos())
			if n := files.Position(f.End()).Line - at.Line - 1; n > maxLines {
				wrong = append(wrong, fmt.Sprintf("%s: %s has %d lines, want at most %d", at, f.Name.Name, n, maxLines))
			}
			n := f.Type.Params.NumFields()
			if n > 0 && isContext(f.Type.Params.List[0].Type) {
				n-- // it says nothing of what the function does
			}
			if !test && n > maxParameters {
				wrong = append(wrong, fmt.Sprintf("%s: %s has %d parameters, want at most %d", at, f.Name.Name, n, maxParameters))
			}
		}
		return nil
	})
	return wrong, err
}

// texts matches string literals.
var texts = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`")

// isContext reports whether a type is context.Context.
func isContext(t ast.Expr) bool {
	s, ok := t.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "Context"
}

// columns is how wide a line is in an editor.
func columns(line string) int {
	n := 0
	for _, r := range line {
		if n++; r == '\t' {
			n += tabColumns - 1
		}
	}
	return n
}

// TestSizes checks the size of functions and lines.
func TestSizes(t *testing.T) {
	wrong, err := oversized(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

// TestSizesAreSeen tests each limit.
func TestSizesAreSeen(t *testing.T) {
	for name, tt := range map[string]struct {
		src  string
		want string // what is wrong; empty if nothing is
		test bool
	}{
		"a short function":    {src: "func f(a, b, c, d, e int) {\n" + strings.Repeat("\t_ = 1\n", maxFunctionLines) + "}\n"},
		"a long function":     {"func f() {\n" + strings.Repeat("\t_ = 1\n", maxFunctionLines+1) + "}\n", "f has 81 lines", false},
		"a test at the limit": {"func f(a, b, c, d, e, g int) {\n" + strings.Repeat("\t_ = 1\n", maxTestLines) + "}\n", "", true},
		"a long test":         {"func f() {\n" + strings.Repeat("\t_ = 1\n", maxTestLines+1) + "}\n", "f has 101 lines", true},
		"many parameters":     {"func f(a, b, c int, d, e, g string) {}\n", "f has 6 parameters", false},
		"a context and five":  {"func f(ctx context.Context, a, b, c, d, e int) {}\n", "", false},
		"a context and six":   {"func f(ctx context.Context, a, b, c, d, e, g int) {}\n", "f has 6 parameters", false},
		"a long text":         {"const s = \"" + strings.Repeat("x", maxColumns) + "\"\n", "", false},
		"a line at the limit": {"//" + strings.Repeat("x", maxColumns-2) + "\n", "", false},
		"a long line":         {"//" + strings.Repeat("x", maxColumns-1) + "\n", "121 columns", false},
		"a long line by tabs": {"func f() {\n" + strings.Repeat("\t", 30) + "f()\n}\n", "123 columns", false},
	} {
		file := "x/x.go"
		if tt.test {
			file = "x/x_test.go"
		}
		wrong, err := oversized(fstest.MapFS{file: {Data: []byte("package x\n\n" + tt.src)}})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case tt.want == "" && len(wrong) > 0:
			t.Errorf("%s: %q, want nothing wrong", name, wrong)
		case tt.want != "" && (len(wrong) != 1 || !strings.Contains(wrong[0], tt.want)):
			t.Errorf("%s: %q, want one that says %q", name, wrong, tt.want)
		}
	}
}
