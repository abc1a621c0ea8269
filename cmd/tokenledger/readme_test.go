package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// docBlocks returns the blocks of a document that follow a mark.
func docBlocks(t *testing.T, path, test string) []string {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	marked := regexp.MustCompile("(?s)<!-- run by cmd/tokenledger: " + test + " -->\n```sh\n(.*?)```")
	for _, block := range marked.FindAllStringSubmatch(string(doc), -1) {
		blocks = append(blocks, block[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no block that is marked to be run by %s", path, test)
	}
	return blocks
}

// runDoc runs a script as a new user would paste it, and returns its output.
func runDoc(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n"+script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "TOKENLEDGER_DATA="+t.TempDir(), "GORACE=atexit_sleep_ms=0",
		"TOKENLEDGER_API_ADDR=127.0.0.1:0", "TOKENLEDGER_VERIFY_ADDR=127.0.0.1:0", "TOKENLEDGER_METRICS_ADDR=127.0.0.1:0")
	var out, messages strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), messages.String())
	}
	return out.String()
}

// TestReadmeCluster runs the README's three ledgers, on addresses that others do
// not use.
func TestReadmeCluster(t *testing.T) {
	// l1 first has to notice that two connections are gone.
	const local = "tokenledger --data l1 nodes --local"
	script := strings.Replace(docBlocks(t, "../../README.md", "TestReadmeCluster")[0], local,
		"until [ $("+local+" 2>&1 | grep -c '^l[23] *missing') = 2 ]; do sleep 0.1; done; "+local, 1)
	out := runDoc(t, strings.ReplaceAll(script, "127.0.0.", freeNetwork(t)))
	for _, want := range []string{
		`(?m)^l1 +serving +\w+ `, `(?m)^allowed +yes$`, `(?m)^l1 +self`, `(?m)^l2 +missing$`, `(?m)^l3 +missing$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("the output does not match %s:\n%s", want, out)
		}
	}
}

// freeNetwork returns the prefix of loopback addresses without listeners.
func freeNetwork(t *testing.T) string {
	t.Helper()
	for i := range 200 {
		network := fmt.Sprintf("127.%d.%d.", 20+os.Getpid()%200, i)
		l, err := net.Listen("tcp", network+"1:7600")
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return network
	}
	t.Fatal("every network is in use")
	return ""
}

// TestReadme runs the README's first token.
func TestReadme(t *testing.T) {
	out := runDoc(t, docBlocks(t, "../../README.md", "TestReadme")[0])
	// Exit codes of verify, in the order of the README: the allowed ones end
	// the script unless they are 0, the others are printed.
	for _, want := range []string{"insufficient_scope", "invalid_token", "(1 of 1 applied"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if got := strings.Count(out, "\n7\n"); got != 2 {
		t.Errorf("%d checks were denied with exit code 7, want 2:\n%s", got, out)
	}
}
