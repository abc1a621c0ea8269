package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// readmeBlock is the part of the README that is run, behind its mark.
var readmeBlock = regexp.MustCompile("(?s)<!-- run by cmd/tokenledger: TestReadme -->\n```sh\n(.*?)```")

// TestReadme runs the README's first token as a new user would paste it.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := readmeBlock.FindSubmatch(readme)
	if block == nil {
		t.Fatal("the README has no block that is marked to be run")
	}
	script := "set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n" + string(block[1])
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "TOKENLEDGER_DATA="+t.TempDir(), "GORACE=atexit_sleep_ms=0",
		"TOKENLEDGER_API_ADDR=127.0.0.1:0", "TOKENLEDGER_VERIFY_ADDR=127.0.0.1:0", "TOKENLEDGER_METRICS_ADDR=127.0.0.1:0")
	var out, messages strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), messages.String())
	}
	// Exit codes of verify, in the order of the README: the allowed ones end
	// the script unless they are 0, the others are printed.
	for _, want := range []string{"insufficient_scope", "invalid_token", "(1 of 1 applied"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if got := strings.Count(out.String(), "\n7\n"); got != 2 {
		t.Errorf("%d checks were denied with exit code 7, want 2:\n%s", got, out.String())
	}
}
