package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// jumpVariable names the folder from which a program with [clockEdits] reads
// the offsets of its clocks. wallVariable is the initial offset of its wall
// clock, in milliseconds.
const (
	jumpVariable = "CLUSTERTEST_JUMPS"
	wallVariable = "CLUSTERTEST_WALL"
)

// clockEdits make a program whose clocks jump when a test says so: the wall
// clock and the boot time, which measures leases. A test cannot set the
// machine's clock, because all processes use it. A Go program has no other hook
// for its clocks.
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
			New:  "\tsec, nsec, mono := runtimeNow()\n\tsec, nsec = jumped(sec, nsec)\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}",
		},
		{
			File: filepath.Join(std, "jump.go"),
			New: `package time

import "sync/atomic"

var wallJump, bootJump atomic.Int64

func Jump(wall, boot int64) { wallJump.Store(wall); bootJump.Store(boot) }

func BootJump() Duration { return Duration(bootJump.Load()) * Millisecond }

func jumped(sec int64, nsec int32) (int64, int32) {
	all := int64(nsec) + wallJump.Load()*1e6
	sec += all / 1e9
	if all %= 1e9; all < 0 {
		sec, all = sec-1, all+1e9
	}
	return sec, int32(all)
}
`,
		},
		{
			File: "events/clock/boottime_linux.go",
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
	var start int64
	if n, _ := fmt.Sscan(os.Getenv("` + wallVariable + `"), &start); n == 1 {
		time.Jump(start, 0)
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

// jump sets the offsets of a node's clocks, and returns when they are in
// effect.
func jump(t *testing.T, dir string, n *Node, wall, boot time.Duration) {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprint(n.Process().PID()))
	text := fmt.Sprintln(wall.Milliseconds(), boot.Milliseconds())
	n.cluster.Journal.Note("test", "%s's clocks: %s, and %s since its start", n.Name, wall, boot)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, n.Name+" has taken the time", func() bool {
		b, err := os.ReadFile(path + ".done")
		return err == nil && string(b) == text
	})
}

// refused counts the checks that a node refused after a time.
func (c *harness) refused(n *Node, since time.Duration) (count int) {
	for _, check := range c.load.Record().Checks {
		if check.Node == n.Name && check.Verdict == Unavailable && check.Began >= since {
			count++
		}
	}
	return count
}

// TestClockJumps moves clocks forward and back while nodes run.
func TestClockJumps(t *testing.T) {
	long(t)
	dir := t.TempDir()
	c := newHarness(t, Options{
		Verifiers: 3, Lease: shortLease,
		Program: Build(t, clockEdits(t)...), Env: []string{jumpVariable + "=" + dir},
	})
	for _, by := range []time.Duration{time.Hour, -time.Hour, 5 * time.Second, -5 * time.Second, 200 * time.Millisecond, -200 * time.Millisecond} {
		c.fault(t, fmt.Sprintf("people set clocks by %s", by), func(t *testing.T) {
			nodes := []*Node{c.anyVerifier(), c.follower(t)}
			since := c.load.Now()
			for _, n := range nodes {
				jump(t, dir, n, by, 0)
			}
			if by.Abs() > events.ClockLimit {
				for _, n := range nodes {
					waitClock(t, n)
				}
			}
			c.sleep(t, 2*c.lease)
			c.load.Proofs(t, 20)
			for _, n := range nodes {
				if k := c.refused(n, since); k > 0 && by.Abs() < events.ClockLimit {
					t.Errorf("I11: %s refused %d checks after its clock was set by %s", n.Name, k, by)
				}
				jump(t, dir, n, 0, 0)
			}
		})
	}
	c.fault(t, "a machine sleeps for longer than its lease", func(t *testing.T) {
		v := c.anyVerifier()
		since := c.load.Now()
		for i := range 3 {
			// The kernel moves the wall clock by the same time.
			slept := time.Duration(i+1) * (c.lease + time.Second)
			jump(t, dir, v, 0, slept)
			v.WaitReady(t)
			c.load.Proofs(t, 2)
		}
		k := c.refused(v, since)
		t.Logf("%s slept three times and refused %d checks when it woke", v.Name, k)
		if k == 0 {
			t.Errorf("%s answered after it woke, past its lease", v.Name)
		}
	})
	c.finish(t)
}

// waitClock waits until a node reports that its clock makes it not ready.
func waitClock(t *testing.T, n *Node) {
	t.Helper()
	n.Until(t, "it refuses because of its clock", func() error {
		if ready, why := n.Ready(t.Context()); ready || !strings.Contains(why, "the clock of this machine") {
			return fmt.Errorf("ready: %t, %s", ready, why)
		}
		return nil
	})
}

// denies waits until a node answers a check of a secret, and fails the test if
// the node allows the secret. A node without a lease has not allowed it either.
func (d *fixture) denies(n *Node, s, what string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), wait.Limit)
	defer cancel()
	if a, err := n.Check(ctx, s, "view:site/1"); err != nil || a.Allowed {
		d.t.Errorf("%s after the receipt: %s answers %v, %s", what, n.Name, err, a)
	}
}

// offset returns the clock offset of a node that a ledger shows.
func (d *fixture) offset(at, of *Node) (time.Duration, error) {
	a, err := d.send(at, http.MethodGet, "/v1/nodes", nil)
	if err != nil {
		return 0, err
	}
	for _, item := range a.Items {
		var n struct {
			Name  string `json:"name"`
			Clock *int64 `json:"clock_offset_ms"`
		}
		if json.Unmarshal(item, &n) == nil && n.Name == of.Name && n.Clock != nil {
			return time.Duration(*n.Clock) * time.Millisecond, nil
		}
	}
	return 0, errors.New("it is not shown")
}

// TestWrongClocks moves the clocks of a verifier and of a ledger. Tokens that
// end by position end on every node with the receipt, regardless of clocks. A
// node with a large clock offset reports the offset, also at the start, and
// answers again once its clock is right.
func TestWrongClocks(t *testing.T) {
	together(t)
	dir := t.TempDir()
	d := newFixture(t, Options{
		Verifiers: 2, Lease: shortLease,
		Program: Build(t, clockEdits(t)...), Env: []string{jumpVariable + "=" + dir},
	})
	l3, v2 := d.Nodes[2], d.Nodes[4]
	moved := []*Node{l3, v2}
	amounts := []time.Duration{-time.Hour, -200 * time.Millisecond, 5 * time.Second}
	if *chaosFlag {
		amounts = append(amounts, -5*time.Second, time.Hour)
	}
	for _, by := range amounts {
		d.in(t).wrong(by, dir, moved)
	}
	for _, by := range amounts {
		if by.Abs() < events.ClockLimit {
			continue
		}
		for _, n := range moved {
			n.Stop(t)
			n.Env = []string{fmt.Sprintf("%s=%d", wallVariable, by.Milliseconds())}
			n.Start(t)
		}
		for _, n := range moved {
			waitClock(t, n)
		}
		if a, err := v2.Check(t.Context(), d.root); err == nil && a.Status == http.StatusOK {
			t.Errorf("a verifier that started %s off answers: %s", by, a)
		}
		for _, n := range moved {
			n.Env = nil
			jump(t, dir, n, 0, 0)
		}
		for _, n := range moved {
			n.WaitReady(t)
		}
	}
}

// wrong ends tokens while some nodes' clocks are wrong.
func (d *fixture) wrong(by time.Duration, dir string, moved []*Node) {
	d.t.Helper()
	l1, l2, l3 := d.Nodes[0], d.Nodes[1], d.Nodes[2]
	account := d.makeAccount(fmt.Sprint("owner", by.Milliseconds()))
	list := d.make(3, account)
	for _, n := range moved {
		jump(d.t, dir, n, by, 0)
	}
	through := l3 // its clock is wrong, but within the limit
	if by.Abs() > events.ClockLimit {
		through = l1
		for _, n := range moved {
			waitClock(d.t, n)
			n.Until(d.t, "its clock's offset is shown", func() error {
				if got, err := d.offset(l1, n); err != nil || (got-by).Abs() > time.Second {
					return fmt.Errorf("%s, %v; want %s", got, err, by)
				}
				return nil
			})
		}
		if a, err := d.send(l3, http.MethodPost, "/v1/tokens", map[string]any{"account": account, "app": "desk", "scopes": []string{"view:site/1"}, "expires_in": "1h"}); err == nil && a.Status != http.StatusServiceUnavailable {
			d.t.Errorf("a ledger whose clock is %s off: %s, want 503", by, a)
		}
	}
	proven := func(what string, a Answer) {
		d.t.Helper()
		if _, ok := a.Proof(); !ok {
			d.t.Errorf("%s: no receipt: %s", what, a)
		}
	}
	a := d.must(through, http.MethodPost, "/v1/tokens/"+list[0].id+"/rotate?wait=60s", map[string]any{"grace": "0s"})
	proven("rotation", a)
	for _, n := range d.Nodes {
		d.denies(n, list[0].secret, "the old secret")
	}
	revoke := func(at *Node, secrets ...string) {
		d.t.Helper()
		proven("all of an account's tokens", d.must(at, http.MethodPost, "/v1/revocations?wait=60s", map[string]any{"account": account}))
		for _, n := range d.Nodes {
			for _, s := range secrets {
				d.denies(n, s, "a token among all of its account's")
			}
		}
	}
	revoke(through, a.Secret, list[1].secret, list[2].secret)
	made := d.make1(l1, account)
	revoke(l2, made)
	for _, n := range moved {
		jump(d.t, dir, n, 0, 0)
	}
	for _, n := range moved {
		n.WaitReady(d.t)
	}
}

// make1 creates a token through a ledger, and waits until a node allows it.
func (d *fixture) make1(at *Node, account string) string {
	d.t.Helper()
	a := d.must(at, http.MethodPost, "/v1/tokens", map[string]any{"account": account, "app": "desk", "scopes": []string{"view:site/1"}})
	at.Until(d.t, "it allows the token", func() error {
		got, err := at.Check(d.t.Context(), a.Secret, "view:site/1")
		if err == nil && !got.Allowed {
			err = errors.New(got.String())
		}
		return err
	})
	return a.Secret
}
