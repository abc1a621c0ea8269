package crashtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/node/nodetest"
	"github.com/tokenledger/tokenledger/ops/testkit/disk"
)

// machine is a data folder, and the node processes that use it one after
// another. One goroutine starts and ends them. Queries are safe for concurrent
// use.
type machine struct {
	t      testing.TB
	cfg    node.Config
	disk   *disk.Disk // holds the data folder; nil for none
	mayDie bool       // the process may end with a fatal error

	mu  sync.Mutex
	all []*process // guarded by mu; in order
}

// process is one process of a machine.
type process struct {
	*nodetest.Process
	out *output
}

// newMachine returns a machine whose node is not started. At the end of the
// test it checks the output of every process.
func newMachine(t testing.TB, cfg node.Config) *machine {
	t.Helper()
	if cfg.Data == "" {
		cfg.Data = filepath.Join(t.TempDir(), cfg.Name)
	}
	cfg.Version = "crashtest"
	m := &machine{t: t, cfg: cfg}
	t.Cleanup(func() {
		for _, p := range m.all { // the processes have ended
			m.checkOutput(p)
		}
	})
	return m
}

// on moves the data folder of a new machine to a disk.
func (m *machine) on(d *disk.Disk) *machine {
	m.disk, m.cfg.Data = d, filepath.Join(d.Mount(), "data")
	return m
}

// start starts the node and does not wait for it.
func (m *machine) start() *process {
	m.t.Helper()
	if p := m.process(); p != nil && !p.Exited() {
		m.t.Fatalf("%s is already running", m.cfg.Name)
	}
	p := &process{out: &output{}}
	p.Process = nodetest.Start(m.t, m.cfg, nodetest.Options{Disk: m.disk, Log: func(line string) {
		p.out.add(line)
		fmt.Fprintf(m.t.Output(), "%s: %s\n", m.cfg.Name, line)
	}})
	m.mu.Lock()
	m.all = append(m.all, p)
	m.mu.Unlock()
	return p
}

// run starts the node and waits until it listens.
func (m *machine) run() *process {
	m.t.Helper()
	p := m.start()
	p.WaitListening(m.t)
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
	if p == nil || p.Exited() {
		return node.Addresses{}, false
	}
	return p.Addresses()
}

// path returns the path of a file in the data folder. If the folder is on a
// disk, the node must be running or paused.
func (m *machine) path(name ...string) string {
	if m.disk != nil {
		return m.process().Path(name...)
	}
	return filepath.Join(append([]string{m.cfg.Data}, name...)...)
}

// checkOutput reports output that no process may write, such as a panic.
func (m *machine) checkOutput(p *process) {
	bad := []string{"DATA RACE", "panic:"}
	if !m.mayDie {
		bad = append(bad, "fatal error:") // such as SIGBUS
	}
	for _, bad := range bad {
		if p.out.has(bad) {
			m.t.Errorf("%s wrote %q:\n%s", m.cfg.Name, bad, p.out.tail())
		}
	}
}

// stop sends SIGTERM. The process must end with exit status 0.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if code := p.Terminate(t); code != 0 {
		t.Errorf("%s ended with %s, want exit status 0; its output:\n%s", p.Name, p.State(), p.out.tail())
	}
}

// cutPower cuts the power of a machine's disk while its process runs. If flush
// is true, some writes have reached the disk that the process did not sync.
func cutPower(t testing.TB, m *machine, rng *rand.Rand, flush bool) {
	t.Helper()
	p := m.process()
	p.Pause(t)
	if flush {
		disk.FlushSome(t, rng, p.Path())
	}
	m.disk.CutPower(t)
	p.Kill(t)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// output stores the output of a process.
type output struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (o *output) add(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.WriteString(line + "\n")
}

// String returns the whole output.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// has reports whether the process wrote a text.
func (o *output) has(text string) bool { return strings.Contains(o.String(), text) }

// tail returns the end of the output.
func (o *output) tail() string {
	const size = 4 << 10
	all := o.String()
	return all[max(0, len(all)-size):]
}
