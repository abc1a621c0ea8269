package clustertest

import (
	"os/exec"
	"path"
	"slices"
	"testing"
)

// TestEditsCompile applies every edit that breaks the product on purpose, also
// those whose scenes only the long form plays, and compiles what they change. An
// edit must follow the source that it edits.
func TestEditsCompile(t *testing.T) {
	sets := map[string][]Edit{
		"quick elections": quickElections(), "verifiers never move": {neverMove}, "a copy is not looked at": uncheckedCopy,
		"answers are held": append(slices.Clone(holdEdits), unconfirmed),
	}
	for _, b := range breakages {
		sets[b.name] = b.edits
	}
	root := moduleRoot(t)
	for name, edits := range sets {
		t.Run(name, func(t *testing.T) {
			args := []string{"build", "-overlay", overlay(t, root, t.TempDir(), edits)}
			if testing.Short() {
				return
			}
			var packages []string
			for _, e := range edits {
				packages = append(packages, "./"+path.Dir(e.File))
			}
			slices.Sort(packages)
			build := exec.Command("go", append(args, slices.Compact(packages)...)...)
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				t.Errorf("go build: %v\n%s", err, out)
			}
		})
	}
}
