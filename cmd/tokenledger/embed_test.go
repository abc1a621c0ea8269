package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestEmbed runs the commands of the runbook about tokens in pages, and then
// its HTTP requests.
func TestEmbed(t *testing.T) {
	blocks := docBlocks(t, "../../ops/runbooks/embed.md", "TestEmbed")
	if len(blocks) != 2 {
		t.Fatalf("the runbook has %d blocks that are run, want 2", len(blocks))
	}
	const begin = `
tokenledger serve 2> /dev/null &
until tokenledger nodes > /dev/null 2>&1; do sleep 0.1; done
address() { grep -o "\"$1\": *\"[^\"]*\"" "$TOKENLEDGER_DATA/run.json" | cut -d'"' -f4; }
LEDGER=$(address api) VERIFIER=$(address verify)
`
	out := runDoc(t, begin+blocks[0])
	for _, want := range []string{"allowed  yes", "lacking", "write:site/3", "read:site/4", "; no node accepts it any more, after ", "(1 of 1 applied"} {
		if !strings.Contains(squeeze(out), squeeze(want)) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if got := strings.Count(out, "\nexit code 7\n"); got != 5 {
		t.Errorf("%d checks were denied with exit code 7, want 5:\n%s", got, out)
	}
	if got := strings.Count(squeeze(out), "allowed yes"); got != 2 {
		t.Errorf("%d checks were allowed, want 2:\n%s", got, out)
	}

	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("******** NOT TESTED: no curl here. Install curl to test the commands over HTTP. ********")
	}
	out = runDoc(t, begin+blocks[1])
	got := slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return !strings.HasPrefix(line, `"allowed"`) && line != `"complete":true` })
	want := []string{`"allowed":true`, `"allowed":false`, `"allowed":false`, `"complete":true`, `"allowed":false`}
	if !slices.Equal(got, want) {
		t.Errorf("checks and receipt: %q, want %q:\n%s", got, want, out)
	}
}

// squeeze replaces every run of spaces by one space.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }
