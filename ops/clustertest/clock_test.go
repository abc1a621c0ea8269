package clustertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// jumpVariable names the folder where a program with [clockEdits] finds what
// its clocks are to say.
const jumpVariable = "CLUSTERTEST_JUMPS"

// clockEdits make a program whose clocks jump when a test says so: the one that
// people and time servers set, in all of the program, and the one of time since
// the machine started, by which leases are measured. Setting the machine's own
// would jump the clocks of everything else, and there is no other way to reach a
// Go program's.
func clockEdits(t *testing.T) []Edit {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	std := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	return []Edit{
		{
			File: filepath.Join(std, "time.go"),
			Old:  "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}",
			New:  "\tsec, nsec, mono := runtimeNow()\n\tsec += wallJump.Load()\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}",
		},
		{
			File: filepath.Join(std, "jump.go"),
			New: `package time

import "sync/atomic"

var wallJump, bootJump atomic.Int64

func Jump(wall, boot int64) { wallJump.Store(wall); bootJump.Store(boot) }

func BootJump() Duration { return Duration(bootJump.Load()) * Second }
`,
		},
		{
			File: "projector/follow/boottime_linux.go",
			Old:  "return time.Duration(ts.Nano())",
			New:  "return time.Duration(ts.Nano()) + time.BootJump()",
		},
		{
			File: "cmd/tokenledger/jump.go",
			New: `package main

import (
	"fmt"
	"os"
	"time"
)

func init() {
	dir := os.Getenv("` + jumpVariable + `")
	if dir == "" {
		return
	}
	go func() {
		path, last := fmt.Sprintf("%s/%d", dir, os.Getpid()), ""
		for range time.Tick(10 * time.Millisecond) {
			b, err := os.ReadFile(path)
			var wall, boot int64
			if n, _ := fmt.Sscan(string(b), &wall, &boot); err != nil || n != 2 || string(b) == last {
				continue
			}
			last = string(b)
			time.Jump(wall, boot)
			_ = os.WriteFile(path+".done", b, 0o600)
		}
	}()
}
`,
		},
	}
}

// jump sets a node's clocks, as seconds from what they are by themselves, and
// returns when they are.
func jump(t *testing.T, dir string, n *Node, wall, boot int) {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprint(n.Process().PID()))
	text := fmt.Sprintln(wall, boot)
	n.cluster.Journal.Note("test", "%s's clocks: %+d s, and %+d s since its start", n.Name, wall, boot)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	Eventually(t, n.Name+" has taken the time", func() bool {
		b, err := os.ReadFile(path + ".done")
		return err == nil && string(b) == text
	})
}

// refused counts the checks that a node has refused since a time.
func (c *campaign) refused(n *Node, since time.Duration) (count int) {
	for _, check := range c.load.Record().Checks {
		if check.Node == n.Name && check.Verdict == Unavailable && check.Began >= since {
			count++
		}
	}
	return count
}

// TestClockJumps sets clocks on and back while nodes run.
func TestClockJumps(t *testing.T) {
	long(t)
	dir := t.TempDir()
	c := newCampaign(t, Options{
		Verifiers: 3, Lease: shortLease,
		Program: Build(t, clockEdits(t)...), Env: []string{jumpVariable + "=" + dir},
	})
	const hour = 3600
	for _, by := range []int{hour, -hour, 0} {
		c.fault(t, fmt.Sprintf("people set clocks to %+d s", by), func(t *testing.T) {
			nodes := []*Node{c.anyVerifier(), c.leader(t), c.follower(t)}
			since := c.load.Now()
			for _, n := range nodes {
				jump(t, dir, n, by, 0)
			}
			c.sleep(t, 2*c.lease)
			c.load.Proofs(t, 20)
			for _, n := range nodes {
				if k := c.refused(n, since); k > 0 {
					t.Errorf("I11: %s refused %d checks because somebody set its clock", n.Name, k)
				}
			}
		})
	}
	c.fault(t, "a machine sleeps for longer than its lease", func(t *testing.T) {
		v := c.anyVerifier()
		since := c.load.Now()
		for i := range 3 {
			jump(t, dir, v, 0, (i+1)*int(c.lease/time.Second+1))
			v.WaitReady(t)
			c.load.Proofs(t, 2)
		}
		k := c.refused(v, since)
		t.Logf("%s slept three times and refused %d checks when it woke", v.Name, k)
		if k == 0 {
			t.Errorf("%s answered on when it woke, past its lease", v.Name)
		}
	})
	c.finish(t)
}
