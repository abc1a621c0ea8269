package authz_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ledger/authz"
)

var update = flag.Bool("update", false, "write the table of authority.md")

// TestAuthorityTable checks that authority.md has the table of the rules.
func TestAuthorityTable(t *testing.T) {
	const name, begin, end = "../authority.md", "<!-- table -->\n", "<!-- /table -->"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no markers for the table", name)
	}
	if *update {
		if err := os.WriteFile(name, []byte(before+begin+authz.Table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != authz.Table() {
		t.Errorf("%s differs from the rules; run go test ./ledger/authz -run AuthorityTable -update", name)
	}
}
