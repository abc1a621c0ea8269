package proc_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/proc"
)

// fault selects how the process of these tests ends.
type fault struct {
	Fail string // the error to return; empty waits for SIGTERM
}

func TestMain(m *testing.M) {
	proc.Main(func(config []byte) error {
		var f fault
		if err := json.Unmarshal(config, &f); err != nil {
			return err
		}
		if f.Fail != "" {
			return errors.New(f.Fail)
		}
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Print("running\nhalf a line")
		<-stop
		return nil
	})
	os.Exit(m.Run())
}

// lines collects the log of a process.
type lines struct {
	mu  sync.Mutex
	all []string // guarded by mu
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

func (l *lines) has(line string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.all, line)
}

func start(t *testing.T, f fault) (*proc.Process, *lines) {
	t.Helper()
	l := &lines{}
	c := proc.Self(t, "child", f)
	c.Log = l.add
	return proc.Start(t, c), l
}

// running waits until a process handles SIGTERM.
func running(t *testing.T, p *proc.Process, l *lines) {
	t.Helper()
	p.Until(t, "it runs", func() error {
		if !l.has("running") {
			return errors.New("no output")
		}
		return nil
	})
}

func TestTerminate(t *testing.T) {
	p, l := start(t, fault{})
	running(t, p, l)
	if p.Exited() {
		t.Error("a running process has exited")
	}
	if code := p.Terminate(t); code != 0 || !p.Exited() || p.State() != "exit status 0" {
		t.Errorf("exit status %d, %s", code, p.State())
	}
	for _, want := range []string{"half a line", "sent terminated", "ended: exit status 0"} {
		if !l.has(want) {
			t.Errorf("the log lacks %q: %q", want, l.all)
		}
	}
}

func TestFailure(t *testing.T) {
	p, l := start(t, fault{Fail: "no luck"})
	if code := p.Wait(t); code != 1 || !l.has("no luck") {
		t.Errorf("exit status %d, log %q", code, l.all)
	}
}

func TestKill(t *testing.T) {
	p, l := start(t, fault{})
	running(t, p, l)
	p.Kill(t)
	p.Kill(t) // has no effect
	if code := p.Wait(t); code != -1 || p.State() != "signal: killed" {
		t.Errorf("exit status %d, %s", code, p.State())
	}
}
