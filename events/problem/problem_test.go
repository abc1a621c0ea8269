package problem

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"testing"
)

// TestTypes checks that the types are distinct, and that their statuses are
// errors.
func TestTypes(t *testing.T) {
	codes, titles := map[string]bool{}, map[string]bool{}
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for _, p := range All() {
		if codes[p.Code] || titles[p.Title] {
			t.Errorf("%s: another type has its code or its title %q", p.Code, p.Title)
		}
		codes[p.Code], titles[p.Title] = true, true
		if !word.MatchString(p.Code) || p.Title == "" {
			t.Errorf("code %q, title %q: want a word and a title", p.Code, p.Title)
		}
		if p.Status < 400 || http.StatusText(p.Status) == "" {
			t.Errorf("%s: status %d is not an error of HTTP", p.Code, p.Status)
		}
		if Of(p.Code) != p {
			t.Errorf("Of(%q) = %+v, want %+v", p.Code, Of(p.Code), p)
		}
	}
	if got := Of("no_such_code"); got != Internal {
		t.Errorf("Of an unknown code = %+v, want %+v", got, Internal)
	}
}

// TestAllIsComplete counts the declared types, because All is maintained by
// hand.
func TestAllIsComplete(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.CompositeLit); ok {
			if name, ok := lit.Type.(*ast.Ident); ok && name.Name == "Type" {
				declared++
			}
		}
		return true
	})
	if declared != len(All()) {
		t.Errorf("All lists %d types, and %d are declared", len(All()), declared)
	}
}

// TestWrite checks every byte of an answer, with and without fields.
func TestWrite(t *testing.T) {
	for name, tt := range map[string]struct {
		body Details
		want string
	}{
		"without fields": {
			New(Unavailable, "the node is starting"),
			`{"type":"/problems/unavailable","title":"Temporarily unavailable","status":503,` +
				`"detail":"the node is starting","code":"unavailable"}`,
		},
		"with a field": {
			New(InvalidRequest, "a: b", Field{"body.a", "b"}),
			`{"type":"/problems/invalid_request","title":"Invalid request","status":422,` +
				`"detail":"a: b","code":"invalid_request","errors":[{"location":"body.a","message":"b"}]}`,
		},
	} {
		w := httptest.NewRecorder()
		Write(w, tt.body.Status, tt.body)
		h := w.Result().Header
		if w.Code != tt.body.Status || w.Body.String() != tt.want || h.Get("Content-Type") != MediaType ||
			h.Get("Content-Length") != strconv.Itoa(len(tt.want)) {
			t.Errorf("%s: %d %v %s\nwant %s", name, w.Code, h, w.Body, tt.want)
		}
	}
}
