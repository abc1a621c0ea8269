package clustertest

import (
	"bytes"
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

	"github.com/tokenledger/tokenledger/ops/testkit/disk"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// Patience bounds the waits of tests.
const Patience = wait.Limit

// Command describes a process.
type Command struct {
	Name string // in the test's log
	Path string // of the program
	Args []string
	Env  []string   // added to the environment of the test, without TOKENLEDGER_ variables
	Disk *disk.Disk // that it sees mounted; nil for none
	// Shift is added to the boot time of the process. It needs root and time
	// namespaces.
	Shift time.Duration
	// Journal receives the output of the process. Nil means a journal of its
	// own.
	Journal *Journal
	// Owner is the test with which the process ends. Nil means the test that
	// starts it, which may be a subtest.
	Owner testing.TB
}

// Process is a running program. It ends with the test, even if the test panics
// or is killed. It is safe for concurrent use.
type Process struct {
	Name string

	cmd     *exec.Cmd
	disk    *disk.Disk
	journal *Journal
	from    int           // where its lines in the journal begin
	ended   chan struct{} // closed once it has ended
}

// Run starts a process and does not wait for it.
func Run(t testing.TB, c Command) *Process {
	t.Helper()
	p := &Process{Name: c.Name, disk: c.Disk, journal: c.Journal, ended: make(chan struct{})}
	if p.journal == nil {
		p.journal = NewJournal()
	}
	p.from = p.journal.len()
	args := append([]string{c.Path}, c.Args...)
	if c.Disk != nil {
		args = c.Disk.Wrap(args)
	}
	if c.Shift != 0 {
		args = shifted(c.Shift, args)
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "TOKENLEDGER_") })
	p.cmd.Env = append(p.cmd.Env, c.Env...)
	p.cmd.SysProcAttr = proc.Attributes(c.Disk != nil)
	out := p.journal.writer(c.Name)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended stands in ProcessState
		out.flush()
		p.journal.Note(c.Name, "ended: %s", p.cmd.ProcessState)
		close(p.ended)
	}()
	if c.Owner == nil {
		c.Owner = t
	}
	c.Owner.Cleanup(func() {
		_ = p.cmd.Process.Kill() // at worst it has ended already
		<-p.ended
	})
	return p
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed once the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Over reports whether the process has ended.
func (p *Process) Over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// File returns the path at which the test finds a file of the process. If the
// file is on a disk that only the process has mounted, the process must be
// running or paused.
func (p *Process) File(path string) string {
	if p.disk == nil {
		return path
	}
	return filepath.Join(fmt.Sprintf("/proc/%d/root", p.PID()), path)
}

// Wrote reports whether the process wrote a text.
func (p *Process) Wrote(text string) bool { return p.journal.has(p.Name, p.from, text) }

// Kill ends the process at once, as kill -9 does.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.ended
}

// Freeze pauses the process, and waits until all its threads are stopped.
func (p *Process) Freeze(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	// The signal takes effect later: a thread in a system call runs on.
	Eventually(t, p.Name+" is stopped", func() bool { return proc.Stopped(p.PID()) })
}

// Thaw resumes a paused process.
func (p *Process) Thaw(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

// Terminate sends SIGTERM, waits until the process has ended, and returns its
// exit code, or -1 if a signal ended it.
func (p *Process) Terminate(t testing.TB) int {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	return p.Wait(t)
}

// Wait waits until the process has ended, and returns its exit code, or -1 if a
// signal ended it.
func (p *Process) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(Patience):
		p.signal(t, syscall.SIGQUIT) // a Go program prints its goroutines
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
		}
		t.Fatalf("%s does not end", p.Name)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *Process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	p.journal.Note(p.Name, "sent %s", s)
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("send %s to %s: %v", s, p.Name, err)
	}
}

// Eventually waits until ok returns true, and fails the test at the time limit.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	wait.Until(t, what, ok)
}

// Journal records the output of processes and the faults, in order.
type Journal struct {
	began time.Time

	mu    sync.Mutex
	lines []entry // guarded by mu
}

// entry is a line of the journal.
type entry struct {
	at   time.Duration // since the journal began
	who  string
	text string
}

// NewJournal returns an empty journal that begins now.
func NewJournal() *Journal { return &Journal{began: time.Now()} }

// Since returns the time since the journal began, by a monotonic clock.
func (j *Journal) Since() time.Duration { return time.Since(j.began) }

// Note adds a line.
func (j *Journal) Note(who, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, entry{j.Since(), who, fmt.Sprintf(format, args...)})
}

// tail returns the last lines of the journal, or all where most is 0.
func (j *Journal) tail(most int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	if most > 0 {
		lines = lines[max(0, len(lines)-most):]
	}
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%9.3fs %-4s %s\n", l.at.Seconds(), l.who, l.text)
	}
	return b.String()
}

func (j *Journal) len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.lines)
}

// has reports whether who wrote a text at or after a line.
func (j *Journal) has(who string, from int, text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(
		j.lines[from:],
		func(l entry) bool { return l.who == who && strings.Contains(l.text, text) },
	)
}

// writer returns a writer for the output of a process. It splits lines.
func (j *Journal) writer(who string) *lineWriter { return &lineWriter{journal: j, who: who} }

type lineWriter struct {
	journal *Journal
	who     string

	mu   sync.Mutex
	part []byte // guarded by mu; a line that has not ended
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
		w.journal.Note(w.who, "%s", line)
		w.part = rest
	}
}

// flush adds a last line without a line break.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.part) > 0 {
		w.journal.Note(w.who, "%s", w.part)
		w.part = nil
	}
}
