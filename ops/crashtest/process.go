package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// patience bounds the waits of tests.
const patience = wait.Limit

// nodeVariable makes the test binary run a node. Its value is a [settings] as
// JSON.
const nodeVariable = "TOKENLEDGER_CRASHTEST_NODE"

// settings are the settings of a node's process.
type settings struct {
	Data       string
	Name       string
	Roles      []string
	NATS       string
	NATSKey    string
	NATSListen string
	Lease      time.Duration
	// Image is the image of a disk that the process mounts on Mount first.
	// Empty means no disk.
	Image, Mount string
}

// runNode runs a node, and returns the exit code.
func runNode(raw string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := runNodeWith(raw, log); err != nil {
		log.Error("node ended", "err", err)
		return 1
	}
	return 0
}

func runNodeWith(raw string, log *slog.Logger) error {
	var s settings
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return err
	}
	if s.Image != "" {
		if out, err := exec.Command("mount", "-o", "loop", s.Image, s.Mount).CombinedOutput(); err != nil {
			return fmt.Errorf("mount %s: %w: %s", s.Image, err, out)
		}
	}
	n, err := node.New(node.Config{
		Data: s.Data, Name: s.Name, Roles: s.Roles,
		NATS: s.NATS, NATSKey: s.NATSKey, NATSListen: s.NATSListen,
		APIAddr: "127.0.0.1:0", VerifyAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
		Lease: s.Lease, Version: "crashtest", Logger: log,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return n.Run(ctx)
}

// machine is a data folder, and the node processes that use it one after
// another. One goroutine starts and ends them. Queries are safe for concurrent
// use.
type machine struct {
	t        testing.TB
	settings settings
	mayDie   bool // a fatal error of the process is no failure

	mu  sync.Mutex
	all []*process // guarded by mu; in order
}

// newMachine returns a machine whose node is not started yet.
func newMachine(t testing.TB, s settings) *machine {
	t.Helper()
	if s.Data == "" {
		s.Data = filepath.Join(t.TempDir(), s.Name)
	}
	m := &machine{t: t, settings: s}
	t.Cleanup(func() {
		if p := m.process(); p != nil {
			p.kill()
		}
	})
	return m
}

// process is one process of a node.
type process struct {
	t      testing.TB
	name   string
	data   string
	cmd    *exec.Cmd
	out    *output
	mayDie bool
	ended  chan struct{} // closed once it has ended

	mu    sync.Mutex
	addrs node.Addresses // guarded by mu; zero until it listens
}

// start starts the node and does not wait for it.
func (m *machine) start() *process {
	m.t.Helper()
	if p := m.process(); p != nil && !p.over() {
		m.t.Fatalf("%s is already running", m.settings.Name)
	}
	raw, err := json.Marshal(m.settings)
	if err != nil {
		m.t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	p := &process{
		t: m.t, name: m.settings.Name, data: m.settings.Data, cmd: exec.Command(program), mayDie: m.mayDie,
		out: &output{name: m.settings.Name, to: m.t.Output()}, ended: make(chan struct{}),
	}
	// By default the race detector makes a process wait a second at its end.
	p.cmd.Env = append(os.Environ(), nodeVariable+"="+string(raw), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = proc.Attributes(m.settings.Image != "")
	if err := p.cmd.Start(); err != nil {
		m.t.Fatalf("start %s: %v", m.settings.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended stands in ProcessState
		close(p.ended)
	}()
	m.mu.Lock()
	m.all = append(m.all, p)
	m.mu.Unlock()
	return p
}

// run starts the node and waits until it listens.
func (m *machine) run() *process {
	m.t.Helper()
	p := m.start()
	p.waitListening()
	return p
}

// process returns the latest process, or nil.
func (m *machine) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all) == 0 {
		return nil
	}
	return m.all[len(m.all)-1]
}

// addresses returns the addresses of the node, or false while it does not
// listen.
func (m *machine) addresses() (node.Addresses, bool) {
	p := m.process()
	if p == nil || p.over() {
		return node.Addresses{}, false
	}
	return p.addresses()
}

// path returns the path of a file in the machine's data folder. If the folder
// is on a disk, the node must be running or paused.
func (m *machine) path(name ...string) string {
	if m.settings.Image != "" {
		return m.process().path(name...)
	}
	return filepath.Join(append([]string{m.settings.Data}, name...)...)
}

// path returns the path at which the test finds a file of the data folder. If
// the folder is on a disk, the process must not have ended.
func (p *process) path(name ...string) string {
	path := filepath.Join(append([]string{p.data}, name...)...)
	if p.isolated() {
		// The mounts of another process are visible through its root.
		path = filepath.Join(fmt.Sprintf("/proc/%d/root", p.cmd.Process.Pid), path)
	}
	return path
}

func (p *process) isolated() bool { return proc.Isolates(p.cmd.SysProcAttr) }

// addresses reads the addresses of the process. It returns false if the process
// has not written them yet, and ignores those of an earlier process.
func (p *process) addresses() (node.Addresses, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.addrs != (node.Addresses{}) {
		return p.addrs, true
	}
	var a node.Addresses
	raw, err := os.ReadFile(p.path("run.json"))
	if err != nil || json.Unmarshal(raw, &a) != nil || a.PID != p.cmd.Process.Pid {
		return node.Addresses{}, false
	}
	p.addrs = a
	return a, true
}

// waitListening waits until the process listens, and returns its addresses.
func (p *process) waitListening() node.Addresses {
	p.t.Helper()
	var a node.Addresses
	p.eventually("it listens", func() (ok bool) {
		a, ok = p.addresses()
		return ok
	})
	return a
}

// waitReady waits until the process answers checks.
func (p *process) waitReady() {
	p.t.Helper()
	p.waitListening()
	p.eventually("it is ready", func() bool {
		status, _ := p.readyz()
		return status == http.StatusOK
	})
}

// readyz returns the answer of /readyz, with status 0 if there is none.
func (p *process) readyz() (status int, why string) {
	a, ok := p.addresses()
	if !ok {
		return 0, "it does not listen"
	}
	resp, err := quickly.Get(a.Metrics + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// quickly is an HTTP client with a short timeout.
var quickly = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}

// eventually waits until ok returns true. It fails the test at the time limit,
// or if the process ends first.
func (p *process) eventually(what string, ok func() bool) {
	p.t.Helper()
	if err := poll(patience, func() (bool, error) {
		over := p.over() // read first: the last thing that the process did may be the effect
		if ok() {
			return true, nil
		}
		if over {
			return false, fmt.Errorf("the process ended: %s", p.cmd.ProcessState)
		}
		return false, nil
	}); err != nil {
		p.t.Fatalf("%s: waiting until %s: %v; its output:\n%s", p.name, what, err, p.out.tail())
	}
}

// poll calls ok until it returns true or an error, or until limit has passed.
func poll(limit time.Duration, ok func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("it took too long")
		}
		<-tick.C
	}
}

// over reports whether the process has ended.
func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// kill ends the process at once, as kill -9 does.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("kill %s: %v", p.name, err)
	}
	<-p.ended
	p.check()
}

// freeze pauses the process.
func (p *process) freeze() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatalf("stop %s: %v", p.name, err)
	}
	// The signal takes effect later: a thread in a system call runs on.
	p.eventually("it is stopped", func() bool { return proc.Stopped(p.cmd.Process.Pid) })
}

// thaw resumes a paused process.
func (p *process) thaw() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Fatalf("resume %s: %v", p.name, err)
	}
}

// stop sends SIGTERM. The process must end with exit status 0.
func (p *process) stop() {
	p.t.Helper()
	if code := p.terminate(); code != 0 {
		p.t.Errorf("%s ended with %s, want exit status 0; its output:\n%s", p.name, p.cmd.ProcessState, p.out.tail())
	}
}

// terminate sends SIGTERM, waits until the process has ended, and returns its
// exit code, or -1 if a signal ended it.
func (p *process) terminate() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("stop %s: %v", p.name, err)
	}
	return p.wait()
}

// wait waits until the process has ended, and returns its exit code, or -1 if a
// signal ended it.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end; its output:\n%s", p.name, p.out.tail())
	}
	p.check()
	return p.cmd.ProcessState.ExitCode()
}

// check reports output that no process may write, such as a panic.
func (p *process) check() {
	p.t.Helper()
	bad := []string{"DATA RACE", "panic:"}
	if !p.mayDie {
		bad = append(bad, "fatal error:") // such as SIGBUS
	}
	for _, bad := range bad {
		if p.out.has(bad) {
			p.t.Errorf("%s wrote %q:\n%s", p.name, bad, p.out.tail())
		}
	}
}

// output stores the output of a process, and copies it to the test's log.
type output struct {
	name string
	to   io.Writer

	mu   sync.Mutex
	all  bytes.Buffer // guarded by mu
	part []byte       // guarded by mu; a line that has not ended
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(b)
	o.part = append(o.part, b...)
	for {
		line, rest, ok := bytes.Cut(o.part, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		fmt.Fprintf(o.to, "%s: %s\n", o.name, line)
		o.part = rest
	}
}

// String returns the whole output.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// has reports whether the process wrote a text.
func (o *output) has(text string) bool { return strings.Contains(o.String(), text) }

// last returns the last line of the output.
func (o *output) last() string {
	lines := strings.Split(strings.TrimSpace(o.tail()), "\n")
	return lines[len(lines)-1]
}

// tail returns the end of the output.
func (o *output) tail() string {
	const most = 4 << 10
	all := o.String()
	return all[max(0, len(all)-most):]
}
