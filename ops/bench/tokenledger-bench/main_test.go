package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUsage refuses what cannot be measured before anything is begun.
func TestUsage(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"--tokens", "1.5k"}, `--tokens: "1.5k" is not a number`},
		{[]string{"--tokens", "5"}, "tokens: 5 is not between 16 and"},
		{[]string{"--tokens", ""}, "tokens: name at least one size"},
		{[]string{"--threads", "two"}, `--threads: "two" is not a number`},
		{[]string{"--threads", "0"}, "threads: 0 is not between"},
		{[]string{"--duration", "1ms"}, "duration: 1ms is not between"},
		{[]string{"--rivals", "redis,mysql"}, `unknown rival "mysql"; choose from map, badger`},
		{[]string{"--output", "yaml"}, `--output: "yaml" is neither table nor json`},
		{[]string{"--fast"}, "unknown flag: --fast"},
		{[]string{"extra"}, `does not take "extra"`},
	}
	for _, tt := range tests {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), tt.args, &stdout, &stderr); code != exitUsage {
			t.Errorf("%q: exit code %d, want %d", tt.args, code, exitUsage)
		}
		if stdout.Len() > 0 || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%q: standard output %q, standard error %q; want nothing and %q", tt.args, &stdout, &stderr, tt.want)
		}
	}
}

// TestHelp names every flag on standard output.
func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Errorf("exit code %d, standard error %q", code, &stderr)
	}
	for _, flag := range []string{"tokens", "threads", "duration", "rivals", "out", "scratch", "seed", "output"} {
		if !strings.Contains(stdout.String(), "--"+flag+" ") {
			t.Errorf("the help does not name --%s:\n%s", flag, &stdout)
		}
	}
}

// TestReport measures for a moment. The table is on standard output, the
// progress on standard error, the report and the chart in the folder.
func TestReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	var stdout, stderr bytes.Buffer
	args := []string{
		"--tokens", "500", "--threads", "1", "--duration", "10ms", "--rivals", "map,jwt-hs256", "--seed", "3", "--out", dir,
	}
	if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	matches(t, "standard output", stdout.String(),
		`(?m)^## 500 tokens`, `(?m)^\| tokenledger, in process `, `(?m)^\| a Go map alone \(the limit\) `)
	matches(t, "standard error", stderr.String(),
		`500 tokens .* tokenledger: filling`, `(?m)^wrote .*/report/report.md and .*/report/cost.svg$`)
	for name, want := range map[string]string{fileReport: `(?m)^\| JWT, HS256`, fileChart: `(?m)^<svg `} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		matches(t, name, string(b), want)
	}
}

// TestJSON measures without rivals, and prints figures for programs.
func TestJSON(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"--tokens", "500", "--threads", "1", "--duration", "10ms", "--rivals", "", "-o", "json"}
	if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	var got struct {
		Sizes []struct {
			Tokens     int
			Contenders []struct{ ID string }
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	s := got.Sizes
	if len(s) != 1 || s[0].Tokens != 500 || len(s[0].Contenders) != 1 || s[0].Contenders[0].ID != "tokenledger" {
		t.Errorf("got %+v, want 500 tokens and tokenledger alone", got)
	}
	if strings.Contains(stderr.String(), "wrote") {
		t.Errorf("standard error says that a report was written: %s", &stderr)
	}
}

// matches checks that text matches each pattern.
func matches(t *testing.T, what, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(text) {
			t.Errorf("%s does not match %s:\n%s", what, p, text)
		}
	}
}
