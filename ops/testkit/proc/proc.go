// Package proc runs the processes of tests: it starts, pauses, resumes and ends
// them. A process ends with its test, even if the test panics or is killed.
package proc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// Command describes a process.
type Command struct {
	Name string   // in messages
	Args []string // the program first
	Env  []string // added to the test's environment without TOKENLEDGER_ variables

	// Isolated gives the process a mount namespace of its own, so that only this
	// process sees the disks it mounts.
	Isolated bool

	// Log receives each line of the output, and a line for each signal and for
	// the end of the process. Nil discards them.
	Log func(line string)

	// Owner is the test with which the process ends. Nil means the test that
	// starts the process, which may be a subtest.
	Owner testing.TB
}

// Process is a started process. It is safe for concurrent use.
type Process struct {
	Name string

	cmd      *exec.Cmd
	isolated bool
	out      *lineWriter
	exited   chan struct{} // closed after the end
}

// Start starts a process.
func Start(t testing.TB, c Command) *Process {
	t.Helper()
	p := &Process{
		Name: c.Name, cmd: exec.Command(c.Args[0], c.Args[1:]...), isolated: c.Isolated,
		out: &lineWriter{log: c.Log}, exited: make(chan struct{}),
	}
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "TOKENLEDGER_") })
	// By default the race detector delays the end of a process by a second.
	env = append(env, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	p.cmd.Env = append(env, c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = Attributes(c.Isolated)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState has the result
		p.out.flush()
		p.out.note("ended: " + p.cmd.ProcessState.String())
		close(p.exited)
	}()
	owner := c.Owner
	if owner == nil {
		owner = t
	}
	owner.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails if the process has ended
		<-p.exited
	})
	return p
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exit is closed after the process has ended.
func (p *Process) Exit() <-chan struct{} { return p.exited }

// Exited reports whether the process has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// State describes how the process ended, such as "exit status 1". The process
// must have ended.
func (p *Process) State() string { return p.cmd.ProcessState.String() }

// File returns the path under which the test finds a file of the process. The
// files of an isolated process are found only while the process exists.
func (p *Process) File(path string) string {
	if !p.isolated {
		return path
	}
	return filepath.Join(fmt.Sprintf("/proc/%d/root", p.PID()), path)
}

// Kill ends the process at once, as kill -9 does.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.exited
}

// Pause stops all threads of the process.
func (p *Process) Pause(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	// The signal takes effect later: a thread in a system call runs on.
	wait.Until(t, p.Name+" is paused", func() bool { return Stopped(p.PID()) })
}

// Resume continues a paused process.
func (p *Process) Resume(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

// Terminate sends SIGTERM and waits for the end of the process. It returns the
// exit status, or -1 if a signal ended the process.
func (p *Process) Terminate(t testing.TB) int {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	return p.Wait(t)
}

// Wait waits for the end of the process. It returns the exit status, or -1 if a
// signal ended the process.
func (p *Process) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(wait.Limit):
		p.signal(t, syscall.SIGQUIT) // a Go program prints its goroutines
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
		}
		t.Fatalf("%s does not end", p.Name)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Until waits until try returns nil. It fails the test at the time limit, or if
// the process ends first.
func (p *Process) Until(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	exited := false
	done := wait.For(wait.Limit, func() bool {
		exited = p.Exited() // read first: the process may have done it last
		err = try()
		return err == nil || exited
	})
	switch {
	case err == nil:
	case !done:
		t.Fatalf("%s: %s: not after %s: %v", p.Name, what, wait.Limit, err)
	default:
		t.Fatalf("%s: %s: the process ended first, with %s: %v", p.Name, what, p.State(), err)
	}
}

func (p *Process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	p.out.note("sent " + s.String())
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("send %s to %s: %v", s, p.Name, err)
	}
}

// configVariable makes the test binary run the function of [Main]. Its value is
// the argument of the function.
const configVariable = "TOKENLEDGER_TEST_PROCESS"

// Main runs the process in place of the tests if [Self] started it, and does not
// return then. TestMain calls Main first.
func Main(run func(config []byte) error) {
	config, ok := os.LookupEnv(configVariable)
	if !ok {
		return
	}
	if err := run([]byte(config)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Self returns the command that passes config, as JSON, to the function of
// [Main] in another process of the test binary.
func Self(t testing.TB, name string, config any) Command {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return Command{Name: name, Args: []string{program}, Env: []string{configVariable + "=" + string(raw)}}
}

// lineWriter passes the output of a process on, line by line.
type lineWriter struct {
	mu   sync.Mutex
	log  func(line string) // nil discards
	part []byte            // guarded by mu; a line that has not ended
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.part = append(w.part, b...)
	for {
		line, rest, ok := bytes.Cut(w.part, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.noteLocked(string(line))
		w.part = rest
	}
}

// flush passes on a last line without a line break.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.part) > 0 {
		w.noteLocked(string(w.part))
		w.part = nil
	}
}

func (w *lineWriter) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(line)
}

func (w *lineWriter) noteLocked(line string) {
	if w.log != nil {
		w.log(line)
	}
}
