package tokenledger_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// messageGaps are the parts of a message that differ each time.
var messageGaps = regexp.MustCompile(`…|\bNAME\b|\bN\b`)

// TestRunbookMessages checks that the program still has each message that a
// runbook explains. An operator searches the runbook for the text on the screen.
func TestRunbookMessages(t *testing.T) {
	var source bytes.Buffer
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		source.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"README.md", "running.md", "sign-in.md"} {
		for _, message := range messagesOf(t, filepath.Join("ops", "runbooks", page)) {
			for _, part := range messageGaps.Split(message, -1) {
				if !bytes.Contains(source.Bytes(), []byte(part)) {
					t.Errorf("ops/runbooks/%s explains %q, but no code has %q: change the runbook with the message", page, message, part)
				}
			}
		}
	}
}

// messagesOf returns the messages in the first column of a runbook's table.
func messagesOf(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, opened := strings.Cut(string(b), "<!-- messages -->")
	table, _, closed := strings.Cut(rest, "<!-- /messages -->")
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if !opened || !closed || len(rows) < 3 {
		t.Fatalf("%s has no table of messages", path)
	}
	var messages []string
	quoted := regexp.MustCompile("`([^`]+)`")
	for _, row := range rows[2:] { // after the head
		cell, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		found := quoted.FindAllStringSubmatch(cell, -1)
		if len(found) == 0 {
			t.Errorf("%s: a row names no message: %s", path, row)
		}
		for _, m := range found {
			messages = append(messages, m[1])
		}
	}
	return messages
}
