package api

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	problems "github.com/tokenledger/tokenledger/events/problem"
)

// TestProblemsAreDescribed compares problems.md with the codes of the ledger's
// API and of the verifier.
func TestProblemsAreDescribed(t *testing.T) {
	raw, err := os.ReadFile("problems.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]string{}
	for _, part := range strings.Split(string(raw), "\n## ")[1:] {
		code, text, _ := strings.Cut(part, "\n")
		if _, twice := described[code]; twice {
			t.Errorf("%s is described twice", code)
		}
		described[code] = text
	}
	for _, is := range problems.All() {
		switch text, ok := described[is.Code]; {
		case !ok:
			t.Errorf("problems.md has no heading %s", is.Code)
		case !strings.HasPrefix(strings.TrimSpace(text), fmt.Sprintf("Status %d.", is.Status)):
			t.Errorf("%s is described as %.40q, and its status is %d", is.Code, text, is.Status)
		}
		delete(described, is.Code)
	}
	for code := range described {
		t.Errorf("problems.md describes %s, which does not exist", code)
	}
}

// TestProblemCodesExist checks that each code in this package is in the table
// of types. Another code would become an internal error.
func TestProblemCodesExist(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	use := regexp.MustCompile(`(?:\bproblem\(|\bcode :?= )"(\w+)"`)
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range use.FindAllStringSubmatch(string(src), -1) {
			found++
			if problems.Of(m[1]).Code != m[1] {
				t.Errorf("%s answers with %s, which is no problem's code", name, m[1])
			}
		}
	}
	if found == 0 {
		t.Error("found no code")
	}
}
