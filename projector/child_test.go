package projector_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// steps calls step with the number of each of n steps that is still to do.
type steps func(n int, step func(i int))

// childEnv is set in a test's child process: the seed, and the first step.
const childEnv = "PROJECTOR_TEST_CHILD"

// maxEnded is how many steps of a test may end a process.
const maxEnded = 5

// inChild has body carry out a test's numbered steps in a process of their own,
// and in one more from the next step on where one ended it: damage under an open
// table can come upon an assertion in a goroutine of Badger's, which nobody can
// recover. A node that meets it is down, and refuses the files at its next start;
// so that counts as refused. All that a step draws has to follow from the seed
// and its number.
func inChild(t *testing.T, body func(t *testing.T, seed uint64, each steps)) {
	var seed uint64
	first := 0
	if said := os.Getenv(childEnv); said != "" {
		if _, err := fmt.Sscan(said, &seed, &first); err != nil {
			t.Fatal(err)
		}
		body(t, seed, func(n int, step func(int)) {
			for i := first; i < n && !t.Failed(); i++ {
				fmt.Printf("step %d\n", i)
				step(i)
			}
		})
		return
	}
	seed, _ = seeded(t)
	for ended := 0; ; ended++ {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-test.short=%t", testing.Short()))
		child.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", childEnv, seed, first))
		out, err := child.CombinedOutput()
		said := string(out)
		switch {
		case err == nil:
			for line := range strings.Lines(said) {
				if strings.Contains(line, "_test.go:") {
					t.Log(strings.TrimSpace(line))
				}
			}
			t.Logf("%d steps ended the process", ended)
			return
		case !strings.Contains(said, "Assert failed") || ended == maxEnded:
			t.Fatalf("%v, after %d steps that ended the process:\n%s", err, ended, said[max(0, len(said)-8000):])
		}
		if _, err := fmt.Sscanf(said[strings.LastIndex(said, "step "):], "step %d", &first); err != nil {
			t.Fatalf("%v:\n%s", err, said)
		}
		first++
	}
}
