package embedded

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSealSkipsDiscarded deletes files that the server may delete after its
// stop: the store is still complete. Other files must exist.
func TestSealSkipsDiscarded(t *testing.T) {
	for name, tt := range map[string]struct {
		file  string
		whole bool
	}{
		"block":                   {"$SYS/_js_/S-R3F-abc/msgs/2.blk", false},
		"snapshot":                {"$SYS/_js_/S-R3F-abc/snapshots/snap.1.2", false},
		"block of a purge":        {"$SYS/_js_/S-R3F-abc/__msgs__/2.blk", true},
		"block that a purge adds": {"LEDGER/streams/KV_DIRECTORY/__new_msgs__/9.blk", true},
		"stream being deleted":    {"LEDGER/streams/.X3GHVOZYDN/msgs/1.blk", true},
		"group being deleted":     {"$SYS/_js_/.S-R3F-abc/tav.idx", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "jetstream", filepath.FromSlash(tt.file))
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("bytes"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := writeSeal(dir); err != nil {
				t.Fatal(err)
			}
			if sealed, err := checkSeal(dir); !sealed || err != nil {
				t.Fatalf("as it was sealed: %t, %v", sealed, err)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if sealed, err := checkSeal(dir); !sealed || (err == nil) != tt.whole {
				t.Errorf("without the file: %t, %v; want whole %t", sealed, err, tt.whole)
			}
		})
	}
}
