package projector_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// steps calls step with the numbers up to n, without those that are done
// already.
type steps func(n int, step func(i int))

// childEnv is set in the child process of a test: the seed, and the first step.
const childEnv = "PROJECTOR_TEST_CHILD"

// maxCrashes bounds the steps of a test that crash a process.
const maxCrashes = 5

// inChild runs the numbered steps of a test in a child process. If a step
// crashes that process, inChild counts the step as refused and continues in a
// new process: damage to an open table can fail an assertion in a goroutine of
// Badger, whose panic cannot be recovered. A node to which this happens is
// down, and refuses the files at its next start. Random choices of a step must
// depend only on the seed and its number.
func inChild(t *testing.T, body func(t *testing.T, seed uint64, each steps)) {
	var n uint64
	first := 0
	if env := os.Getenv(childEnv); env != "" {
		if _, err := fmt.Sscan(env, &n, &first); err != nil {
			t.Fatal(err)
		}
		body(t, n, func(count int, step func(int)) {
			for i := first; i < count && !t.Failed(); i++ {
				fmt.Printf("step %d\n", i)
				step(i)
			}
		})
		return
	}
	n = seed.New(t)
	for crashes := 0; ; crashes++ {
		child := exec.CommandContext(t.Context(), os.Args[0],
			"-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-test.short=%t", testing.Short()))
		child.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", childEnv, n, first))
		b, err := child.CombinedOutput()
		out := string(b)
		switch {
		case err == nil:
			for line := range strings.Lines(out) {
				if strings.Contains(line, "_test.go:") {
					t.Log(strings.TrimSpace(line))
				}
			}
			t.Logf("%d steps crashed the process", crashes)
			return
		case !strings.Contains(out, "Assert failed") || crashes == maxCrashes:
			t.Fatalf("%v, after %d steps that crashed the process:\n%s", err, crashes, out[max(0, len(out)-8000):])
		}
		if _, err := fmt.Sscanf(out[strings.LastIndex(out, "step "):], "step %d", &first); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		first++
	}
}
