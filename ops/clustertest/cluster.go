package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node/nodetest"
	"github.com/tokenledger/tokenledger/ops/testkit/disk"
	"github.com/tokenledger/tokenledger/ops/testkit/netfault"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// Options configure a [Cluster].
type Options struct {
	// Ledgers is the number of ledgers: one or three. Zero means three.
	Ledgers int
	// Verifiers is the number of nodes that only verify.
	Verifiers int
	// Lease is the lease of every node. Zero means the default.
	Lease time.Duration
	// Program is the path of the program. Empty means [Build] without edits.
	Program string
	// Disks are the disks of nodes, by their names. Other nodes use a temporary
	// folder.
	Disks map[string]*disk.Disk
	// Env is added to the environment of every node.
	Env []string
}

// Cluster is a number of nodes, each a process of its own. A proxy carries
// every connection between two of them. Its queries are safe for concurrent
// use.
type Cluster struct {
	Journal *Journal
	Nodes   []*Node // the ledgers first: l1, l2, ... v1, v2, ...

	options Options
	owner   testing.TB // all processes end with this test
	creds   string     // folder of nats init; empty with one ledger
	links   map[link][]*netfault.Proxy

	mu   sync.Mutex
	root string // guarded by mu; the first token's secret
}

// link is the connections that one node makes to another.
type link struct{ from, to string }

// Node is a member of a cluster: its folder and addresses, and the processes
// that use them one after another. Queries are safe for concurrent use; one
// goroutine starts and ends the processes.
type Node struct {
	Name   string
	Ledger bool // it keeps the log and serves the API

	Data string // folder, as the node sees it
	// URLs, which do not change in a restart. API is empty if the node is no
	// ledger.
	API, Verify, Metrics string

	// Shift is added to the boot time of processes that start later.
	Shift time.Duration
	// Env is added to the environment of processes that start later.
	Env []string

	cluster *Cluster
	host    string
	clients endpoint   // of its log, for clients; zero if it is no ledger
	routes  endpoint   // of its log, for the other ledgers
	disk    *disk.Disk // nil for none
	args    []string

	mu      sync.Mutex
	process *proc.Process // guarded by mu; the latest, nil before the first
	lives   int           // guarded by mu; number of processes so far
}

// Start starts a cluster, and waits until every node answers checks. If the
// test fails, its log contains the output of the nodes.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := New(t, o)
	for _, n := range c.Nodes {
		n.Start(t)
		if n.Ledger && c.creds == "" {
			n.WaitReady(t) // it creates the key for the others
		}
	}
	for _, n := range c.Nodes {
		n.WaitReady(t)
	}
	return c
}

// New returns a cluster whose nodes are not started.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if _, err := sockets(); err != nil {
		t.Skipf("NOT TESTED: what becomes of a cluster under faults: %v", err)
	}
	if o.Ledgers == 0 {
		o.Ledgers = 3
	}
	if o.Program == "" {
		o.Program = Build(t)
	}
	c := &Cluster{Journal: NewJournal(), options: o, owner: t, links: map[link][]*netfault.Proxy{}}
	t.Cleanup(func() { c.report(t) })
	network := takeNetwork(t)
	for i := range o.Ledgers {
		n := c.add(t, fmt.Sprintf("l%d", i+1), network.host(1+i))
		n.Ledger = true
		n.API = "http://" + net.JoinHostPort(n.host, "7600")
		n.clients = endpoint{net.JoinHostPort(n.host, "7603"), net.JoinHostPort(network.host(101+i), "7603")}
		n.routes = endpoint{net.JoinHostPort(n.host, "7604"), net.JoinHostPort(network.host(101+i), "7604")}
	}
	for i := range o.Verifiers {
		c.add(t, fmt.Sprintf("v%d", i+1), network.host(51+i))
	}
	for _, n := range c.Ledgers() {
		c.open(t, n, n.clients)
		c.open(t, n, n.routes)
	}
	if o.Ledgers > 1 {
		c.issue(t)
	}
	for _, n := range c.Nodes {
		n.args = c.serve(n)
	}
	return c
}

// network is a part of loopback for one cluster alone. No other process takes
// the port of a node while the node is down.
type network struct{ a, b int }

// takeNetwork reserves an unused network until the test ends.
func takeNetwork(t testing.TB) network {
	t.Helper()
	for range 100 {
		n := network{1 + rand.IntN(254), rand.IntN(256)}
		// The open port marks the network as taken.
		l, err := net.Listen("tcp", net.JoinHostPort(n.host(254), "7600"))
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
			return n
		}
	}
	t.Fatal("no network of loopback is free")
	return network{}
}

// host returns an address of the network.
func (n network) host(i int) string { return fmt.Sprintf("127.%d.%d.%d", n.a, n.b, i) }

func (c *Cluster) add(t testing.TB, name, host string) *Node {
	t.Helper()
	n := &Node{
		Name: name, cluster: c, host: host, disk: c.options.Disks[name],
		Verify: "http://" + net.JoinHostPort(host, "7601"), Metrics: "http://" + net.JoinHostPort(host, "7602"),
	}
	n.Data = filepath.Join(t.TempDir(), name)
	if n.disk != nil {
		n.Data = filepath.Join(n.disk.Mount(), name)
	}
	c.Nodes = append(c.Nodes, n)
	return n
}

// endpoint is one port of a ledger's log server. Nodes connect to the proxied
// address, and the ledger listens at the server address. The servers of a
// cluster announce the proxied addresses to each other, so no node learns an
// address that bypasses the proxies.
type endpoint struct {
	proxied, server string // host:port
}

// open makes an endpoint of a ledger reachable for the nodes, each through a
// proxy of its own, and for the test. Other connections are closed.
func (c *Cluster) open(t testing.TB, to *Node, e endpoint) {
	t.Helper()
	proxies := map[string]*netfault.Proxy{tester: netfault.New(netfault.To(e.server))}
	for _, from := range c.Nodes {
		p := netfault.New(netfault.To(e.server))
		proxies[from.Name] = p
		if from != to {
			l := link{from.Name, to.Name}
			c.links[l] = append(c.links[l], p)
		}
	}
	l := netfault.Listen(t, e.proxied, func(conn net.Conn) *netfault.Proxy { return proxies[c.dialer(conn)] })
	t.Cleanup(func() {
		for _, p := range proxies {
			p.Close()
		}
		l.Close()
	})
}

// tester is the name of the test's own process among the nodes.
const tester = "test"

// dialer returns the name of the node that opened a connection, or an empty
// string if no node did.
func (c *Cluster) dialer(conn net.Conn) string {
	inode := socketOf(conn.RemoteAddr(), conn.LocalAddr())
	for _, n := range c.Nodes {
		if p := n.current(); p != nil && holds(p.PID(), inode) {
			return n.Name
		}
	}
	if holds(os.Getpid(), inode) {
		return tester
	}
	return ""
}

// issue creates the key and certificate of every node.
func (c *Cluster) issue(t testing.TB) {
	t.Helper()
	c.creds = filepath.Join(t.TempDir(), "credentials")
	args := []string{"nats", "init", c.creds}
	for _, n := range c.Nodes {
		if n.Ledger {
			args = append(args, "--ledger", n.Name+"="+n.host)
		} else {
			args = append(args, "--verifier", n.Name)
		}
	}
	p := proc.Start(t, proc.Command{
		Name: "init", Args: append([]string{c.options.Program}, args...), Log: c.Journal.log("init"),
	})
	if code := p.Wait(t); code != 0 {
		t.Fatalf("tokenledger nats init ended with exit status %d:\n%s", code, c.Journal.tail(20))
	}
}

// serve returns the arguments of a node.
func (c *Cluster) serve(n *Node) []string {
	bare := func(url string) string { return strings.TrimPrefix(url, "http://") }
	args := []string{
		"serve", "--data", n.Data, "--name", n.Name,
		"--verify-addr", bare(n.Verify), "--metrics-addr", bare(n.Metrics),
	}
	if c.options.Lease != 0 {
		args = append(args, "--lease", c.options.Lease.String())
	}
	var clients, routes []string
	for _, l := range c.Ledgers() {
		clients = append(clients, "nats://"+l.clients.proxied)
		routes = append(routes, "nats://"+l.routes.proxied)
	}
	switch {
	case !n.Ledger:
		args = append(args, "--roles", "verifier", "--nats", strings.Join(clients, ","))
	case c.creds == "":
		args = append(args, "--nats-listen", n.clients.server)
	default:
		args = append(
			args,
			"--nats-listen",
			n.clients.server,
			"--nats-cluster",
			strings.Join(routes, ","),
			"--nats-cluster-listen",
			n.routes.server,
		)
	}
	if n.Ledger {
		args = append(args, "--api-addr", bare(n.API))
	}
	switch {
	case c.creds != "":
		args = append(args, "--nats-credentials", filepath.Join(c.creds, "nodes", n.Name))
	case !n.Ledger:
		args = append(args, "--nats-key", filepath.Join(c.Nodes[0].Data, "verifier.nk"))
	}
	return args
}

// report logs the output of the nodes if the test failed.
func (c *Cluster) report(t testing.TB) {
	const most = 400
	path := filepath.Join(t.ArtifactDir(), "journal.log")
	if err := os.WriteFile(path, []byte(c.Journal.tail(0)), 0o600); err != nil {
		t.Logf("the journal is lost: %v", err)
	}
	if t.Failed() {
		t.Logf(
			"the last %d lines of the nodes' output (all: go test -artifacts, journal.log):\n%s",
			most,
			c.Journal.tail(most),
		)
	}
}

// Node returns the node with a name.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	panic("clustertest: no node " + name)
}

// Ledgers returns the nodes that keep the log.
func (c *Cluster) Ledgers() []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return !n.Ledger })
}

// Verifiers returns the nodes that only verify.
func (c *Cluster) Verifiers() []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return n.Ledger })
}

// Root returns the secret of the first token, which is a superuser.
func (c *Cluster) Root(t testing.TB) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root == "" {
		wait.Until(t, "a ledger has written the first token's secret", func() bool {
			for _, n := range c.Ledgers() {
				if b, err := os.ReadFile(n.File("root.token")); err == nil && len(b) > 0 {
					c.root = strings.TrimSpace(string(b))
				}
			}
			return c.root != ""
		})
	}
	return c.root
}

// Hold keeps back everything that one node sends to another, on every
// connection between them.
func (c *Cluster) Hold(from, to *Node) {
	c.Journal.Note("test", "hold %s -> %s", from.Name, to.Name)
	for _, p := range c.links[link{from.Name, to.Name}] {
		p.Hold(netfault.Forward)
	}
	for _, p := range c.links[link{to.Name, from.Name}] {
		p.Hold(netfault.Backward)
	}
}

// Split keeps back everything that two groups of nodes send to each other.
func (c *Cluster) Split(a, b []*Node) {
	for _, x := range a {
		for _, y := range b {
			c.Hold(x, y)
			c.Hold(y, x)
		}
	}
}

// Others returns the nodes that are not listed.
func (c *Cluster) Others(but ...*Node) []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return slices.Contains(but, n) })
}

// Sever closes every connection between two nodes, and each new one.
func (c *Cluster) Sever(a, b *Node) {
	c.Journal.Note("test", "sever %s and %s", a.Name, b.Name)
	for _, l := range []link{{a.Name, b.Name}, {b.Name, a.Name}} {
		for _, p := range c.links[l] {
			p.Sever()
		}
	}
}

// Connected reports whether a node has opened a connection to a ledger.
func (c *Cluster) Connected(from, to *Node) bool {
	return slices.ContainsFunc(c.links[link{from.Name, to.Name}], func(p *netfault.Proxy) bool { return p.Open() > 0 })
}

// Delay makes everything that one node sends to another arrive later.
func (c *Cluster) Delay(from, to *Node, d time.Duration) {
	c.Journal.Note("test", "delay %s -> %s by %s", from.Name, to.Name, d)
	for _, p := range c.links[link{from.Name, to.Name}] {
		p.Delay(netfault.Forward, d)
	}
	for _, p := range c.links[link{to.Name, from.Name}] {
		p.Delay(netfault.Backward, d)
	}
}

// Heal ends all faults between nodes.
func (c *Cluster) Heal() {
	c.Journal.Note("test", "heal")
	for _, proxies := range c.links {
		for _, p := range proxies {
			p.Reset()
		}
	}
}

// Bypasses returns the connections of nodes to the log that do not go through a
// proxy. If there is one, a fault did not cut the node off.
func (c *Cluster) Bypasses(t testing.TB) []string {
	t.Helper()
	list, err := sockets()
	if err != nil {
		t.Logf("NOT TESTED: that every connection between nodes goes through a proxy: %v", err)
		return nil
	}
	var found []string
	for _, s := range list {
		for _, to := range c.Ledgers() {
			if r := s.remote.String(); r != to.clients.server && r != to.routes.server {
				continue
			}
			for _, from := range c.Others(to) {
				if p := from.current(); p != nil && holds(p.PID(), s.inode) {
					found = append(found, fmt.Sprintf("%s -> %s at %s", from.Name, to.Name, s.remote))
				}
			}
		}
	}
	return found
}

// Start starts the node's next process and does not wait for it.
func (n *Node) Start(t testing.TB) *proc.Process {
	t.Helper()
	if p := n.current(); p != nil && !p.Exited() {
		t.Fatalf("%s is already running", n.Name)
	}
	if n.disk != nil {
		n.disk.WaitUnmounted(t)
	}
	c := n.cluster
	args := append([]string{c.options.Program}, n.args...)
	if n.disk != nil {
		args = n.disk.Wrap(args)
	}
	if n.Shift != 0 {
		args = shifted(n.Shift, args)
	}
	p := proc.Start(t, proc.Command{
		Name: n.Name, Args: args, Env: append(slices.Clone(c.options.Env), n.Env...),
		Isolated: n.disk != nil, Log: c.Journal.log(n.Name), Owner: c.owner,
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	n.lives++
	return p
}

// Process returns the node's latest process, nil before the first.
func (n *Node) Process() *proc.Process { return n.current() }

func (n *Node) current() *proc.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Life returns the number of processes that the node has had.
func (n *Node) Life() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lives
}

// File returns the path of a file in the data folder. If the folder is on a
// disk, the node must be running or paused.
func (n *Node) File(name ...string) string {
	path := filepath.Join(append([]string{n.Data}, name...)...)
	if p := n.current(); p != nil {
		return p.File(path)
	}
	return path
}

// PowerCut cuts the power of all nodes at once. Nodes with a disk of their own
// lose the writes that they did not sync, except some that rng chooses.
func (c *Cluster) PowerCut(t testing.TB, rng *rand.Rand) {
	t.Helper()
	c.Journal.Note("test", "power cut")
	for _, n := range c.Nodes {
		if !n.current().Exited() {
			n.Pause(t)
		}
	}
	var work sync.WaitGroup
	for _, n := range c.Nodes {
		if n.disk == nil || n.current().Exited() {
			continue
		}
		if rng.IntN(2) == 0 {
			disk.FlushSome(t, rng, n.current().File(n.disk.Mount()))
		}
		work.Go(func() { n.disk.CutPower(t) })
	}
	work.Wait()
	for _, n := range c.Nodes {
		n.Kill(t)
	}
}

// Kill ends the node's process at once.
func (n *Node) Kill(t testing.TB) { t.Helper(); n.current().Kill(t) }

// Pause pauses the node's process.
func (n *Node) Pause(t testing.TB) { t.Helper(); n.current().Pause(t) }

// Resume resumes the node's process.
func (n *Node) Resume(t testing.TB) { t.Helper(); n.current().Resume(t) }

// Stop stops the node's process, which must exit with status 0.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	if code := n.current().Terminate(t); code != 0 {
		t.Errorf("%s ended with exit status %d", n.Name, code)
	}
}

// Ready reports whether the node answers checks, and if not, why.
func (n *Node) Ready(ctx context.Context) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := nodetest.Ready(ctx, n.Metrics); err != nil {
		return false, err.Error()
	}
	return true, ""
}

// WaitReady waits until the node answers checks. It fails the test if the
// process ends first.
func (n *Node) WaitReady(t testing.TB) {
	t.Helper()
	n.Until(t, "it is ready", func() error {
		if ready, why := n.Ready(t.Context()); !ready {
			return errors.New(why)
		}
		return nil
	})
}

// Until waits until try returns nil. It fails the test if the process ends
// first, or at the time limit.
func (n *Node) Until(t testing.TB, what string, try func() error) {
	t.Helper()
	n.current().Until(t, what, try)
}
