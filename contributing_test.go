package tokenledger_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	recipeStep = regexp.MustCompile(`(?m)^\d+\. (?:.*\n(?:   .*\n)*)`)
	inCode     = regexp.MustCompile("`([^`\n]+)`")
	pathLike   = regexp.MustCompile(`^[\w./<>-]+$`)
	identifier = regexp.MustCompile(`^[A-Za-z]\w*$`)
)

// TestRecipes checks the recipes of CONTRIBUTING.md: the files and folders that a
// step names exist, and its files hold the identifiers that it names.
func TestRecipes(t *testing.T) {
	b, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n## Recipes\n")
	text, _, _ = strings.Cut(text, "\n## ")
	steps := recipeStep.FindAllString(text, -1)
	if len(steps) < 10 {
		t.Fatalf("%d steps of recipes, want at least 10", len(steps))
	}
	for _, step := range steps {
		var source strings.Builder // of the files that the step names
		var words []string
		for _, m := range inCode.FindAllStringSubmatch(step, -1) {
			switch name := m[1]; {
			case identifier.MatchString(name):
				words = append(words, name)
			case pathLike.MatchString(name) && strings.Contains(name, "/"):
				readPlace(t, name, &source)
			}
		}
		for _, w := range words {
			if !regexp.MustCompile(`\b` + w + `\b`).MatchString(source.String()) {
				t.Errorf("no file of the step names %s:\n%s", w, step)
			}
		}
	}
}

// readPlace adds the content of a file, or of the Go files in a folder. A name such
// as <noun> stands for any.
func readPlace(t *testing.T, name string, to *strings.Builder) {
	t.Helper()
	found, err := filepath.Glob(regexp.MustCompile(`<\w+>`).ReplaceAllString(name, "*"))
	if err != nil || len(found) == 0 {
		t.Errorf("CONTRIBUTING.md names %s, which does not exist", name)
	}
	for _, place := range found {
		files := []string{place}
		if s, err := os.Stat(place); err == nil && s.IsDir() {
			if files, err = filepath.Glob(filepath.Join(place, "*.go")); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			to.Write(b)
		}
	}
}
