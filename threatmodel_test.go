package tokenledger_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModel holds the threat model to the tests: each row names at least one,
// and all that it names exist.
func TestThreatModel(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	tests := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join("ops", "design", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, opened := strings.Cut(string(b), "<!-- threats -->")
	table, _, closed := strings.Cut(rest, "<!-- /threats -->")
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if !opened || !closed || len(rows) < 3 {
		t.Fatal("the page has no table of threats")
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	for _, row := range rows[2:] { // after the head
		cells := strings.Split(strings.Trim(row, "|"), "|")
		if len(cells) != 4 {
			t.Errorf("a row has %d columns, want 4: %s", len(cells), row)
			continue
		}
		who := strings.TrimSpace(cells[0])
		found := named.FindAllStringSubmatch(cells[3], -1)
		if len(found) == 0 {
			t.Errorf("%s: the row names no test", who)
		}
		for _, m := range found {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", who, m[1])
			}
		}
	}
}
