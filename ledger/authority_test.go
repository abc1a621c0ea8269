package ledger_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ledger"
)

var update = flag.Bool("update", false, "write authority.md's table anew")

func TestAuthorityTable(t *testing.T) {
	const name, begin, end = "authority.md", "<!-- table -->\n", "<!-- /table -->"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", name)
	}
	if *update {
		if err := os.WriteFile(name, []byte(before+begin+ledger.AuthorityTable()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != ledger.AuthorityTable() {
		t.Errorf("%s is not what the code says; go test ./ledger -run AuthorityTable -update writes it", name)
	}
}
