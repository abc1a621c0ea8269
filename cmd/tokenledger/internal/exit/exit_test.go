package exit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestCause keeps each path once: in the message, or in the cause.
func TestCause(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "nofile")
	_, err := os.Open(missing)
	for _, tt := range []struct {
		err   error
		named []string
		want  string
	}{
		{err, nil, "open " + missing + ": no such file or directory"},
		{err, []string{dir}, "open " + missing + ": no such file or directory"},
		{err, []string{missing}, "no such file or directory"},
		{fmt.Errorf("read settings: %w", err), []string{missing}, "read settings: no such file or directory"},
		{errors.Join(errors.New("a"), errors.New("b")), nil, "a; b"},
	} {
		if got := Cause(tt.err, tt.named...); got != tt.want {
			t.Errorf("Cause(%q, %q) = %q, want %q", tt.err, tt.named, got, tt.want)
		}
	}
}
