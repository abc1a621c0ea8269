package api

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestProblemsAreDescribed holds problems.md to the codes that there are, of the
// ledger's API and of the verifier's.
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
	for code, is := range titles {
		switch text, ok := described[code]; {
		case !ok:
			t.Errorf("problems.md has no heading %s", code)
		case !strings.HasPrefix(strings.TrimSpace(text), fmt.Sprintf("Status %d.", is.status)):
			t.Errorf("%s is described as %.40q, and its status is %d", code, text, is.status)
		}
		if http.StatusText(is.status) == "" || is.title == "" {
			t.Errorf("%s has status %d and title %q", code, is.status, is.title)
		}
	}
	for code := range described {
		if _, ok := titles[code]; !ok {
			t.Errorf("problems.md describes %s, which does not exist", code)
		}
	}

	// The verifier cannot look into this package; its codes and titles are
	// the same all the same.
	files, err := filepath.Glob("../../verifier/*.go")
	if err != nil {
		t.Fatal(err)
	}
	refusal := regexp.MustCompile(`refuse\(w, http\.Status\w+, "(\w+)", "([^"]+)"`)
	found := 0
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range refusal.FindAllStringSubmatch(string(src), -1) {
			found++
			if titles[m[1]].title != m[2] {
				t.Errorf("%s refuses with %s, %q; its title is %q", name, m[1], m[2], titles[m[1]].title)
			}
		}
	}
	if found == 0 {
		t.Error("found no refusal of the verifier's")
	}
}
