package ledger

import (
	"fmt"
	"slices"
	"strings"
)

// AuthorityTable returns the table of who may do what, in Markdown. authority.md
// holds it.
func AuthorityTable() string {
	var b strings.Builder
	b.WriteString("| to |")
	for _, by := range relations {
		fmt.Fprintf(&b, " %s |", by)
	}
	b.WriteString(" a person's proof | a token's mint |\n|---|" + strings.Repeat("---|", len(relations)+2) + "\n")
	for _, r := range authority {
		fmt.Fprintf(&b, "| %s |", r.op)
		for _, by := range relations {
			mark := ""
			if slices.Contains(r.by, by) {
				mark = "yes"
			}
			fmt.Fprintf(&b, " %s |", mark)
		}
		proof, mint := "", ""
		if r.grows || r.proof {
			proof = "recent"
		}
		if r.grows {
			mint = "needed"
		}
		fmt.Fprintf(&b, " %s | %s |\n", proof, mint)
	}
	return b.String()
}
