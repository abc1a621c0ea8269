// Package netfault carries TCP connections between parts under test, and fails
// as networks do: it holds bytes back, delays them, and breaks connections.
package netfault

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// Direction is one direction of a [Proxy].
type Direction int

// The directions of a proxy.
const (
	Forward  Direction = iota // from the client to the server
	Backward                  // from the server to the client
	directions
)

// Proxy carries TCP connections to a server, until a test interrupts them. It
// is safe for concurrent use.
type Proxy struct {
	dial  func() (net.Conn, error)
	gates [directions]gate

	mu       sync.Mutex
	severed  bool              // guarded by mu
	conns    map[net.Conn]bool // guarded by mu; nil once the proxy is closed
	accepted int               // guarded by mu
}

// New returns a proxy that connects to the server with dial. The connections
// come from a [Listener].
func New(dial func() (net.Conn, error)) *Proxy {
	p := &Proxy{dial: dial, conns: map[net.Conn]bool{}}
	for i := range p.gates {
		p.gates[i].open()
	}
	return p
}

// To returns a function that connects to a TCP address.
func To(addr string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.Dial("tcp", addr) }
}

// Start starts a proxy on a free port of loopback, and returns its address. The
// proxy ends with the test.
func Start(t testing.TB, dial func() (net.Conn, error)) (p *Proxy, addr string) {
	t.Helper()
	p = New(dial)
	l := Listen(t, "127.0.0.1:0", func(net.Conn) *Proxy { return p })
	t.Cleanup(func() {
		p.Close()
		l.Close()
	})
	return p, l.Addr()
}

// Close closes every connection, and each new one.
func (p *Proxy) Close() {
	p.mu.Lock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	for i := range p.gates {
		p.gates[i].open()
	}
}

// Listener accepts connections, and has a proxy carry each of them.
type Listener struct {
	listener net.Listener
	work     sync.WaitGroup
}

// Listen listens at an address. route returns the proxy of a connection, or nil
// to close the connection.
func Listen(t testing.TB, addr string, route func(net.Conn) *Proxy) *Listener {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	l := &Listener{listener: listener}
	l.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.work.Go(func() {
				if p := route(conn); p != nil {
					p.carry(conn)
				}
				_ = conn.Close()
			})
		}
	})
	return l
}

// Addr returns the address that clients connect to.
func (l *Listener) Addr() string { return l.listener.Addr().String() }

// Close stops listening, and waits until all connections have ended. Close
// their proxies first.
func (l *Listener) Close() {
	_ = l.listener.Close()
	l.work.Wait()
}

// Hold keeps back the bytes of a direction, as a network does that loses every
// packet: connections stay open, and neither side is told. No new connection
// reaches the server. When Hold returns, no byte arrives any more.
func (p *Proxy) Hold(d Direction) {
	g := &p.gates[d]
	g.shut()
	// A write that waits for its reader times out here. The pump repeats it
	// once the gate is open.
	p.mu.Lock()
	for conn := range p.conns {
		_ = conn.SetWriteDeadline(time.Now())
	}
	p.mu.Unlock()
	g.drained()
}

// Release ends [Proxy.Hold]. The bytes that were held back arrive.
func (p *Proxy) Release(d Direction) { p.gates[d].open() }

// Delay makes all later bytes of a direction arrive later by a time.
func (p *Proxy) Delay(d Direction, by time.Duration) {
	g := &p.gates[d]
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay = by
}

// Sever closes every connection, and each new one, until [Proxy.Restore].
func (p *Proxy) Sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.severed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
}

// Restore ends [Proxy.Sever].
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.severed = false
}

// Reset ends everything that the test did to the proxy.
func (p *Proxy) Reset() {
	p.Restore()
	for d := range directions {
		p.Delay(d, 0)
		p.Release(d)
	}
}

// Open returns the number of open connections.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2 // each has two ends
}

// Accepted returns the number of connections so far, closed ones included.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// carry carries a connection until one of its sides is closed.
func (p *Proxy) carry(client net.Conn) {
	defer p.drop(client)
	p.mu.Lock()
	p.accepted++
	p.mu.Unlock()
	if !p.keep(client) {
		return
	}
	// A TCP handshake needs both directions.
	for i := range p.gates {
		p.gates[i].wait()
	}
	server, err := p.dial()
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.keep(server) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { pump(client, server, &p.gates[Forward], &p.gates[Backward]) })
	wg.Go(func() { pump(server, client, &p.gates[Backward], &p.gates[Forward]) })
	wg.Wait()
}

// keep registers a connection. It returns false if the connection must be
// closed.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil || p.severed {
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

// chunk is the result of one read, and the time at which it is to arrive.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pump carries one direction until either side is closed. The end of a
// connection travels as its bytes do: the other side learns of it only through
// an open gate.
func pump(from, to net.Conn, way, back *gate) {
	chunks := make(chan chunk, 64)
	gone := make(chan struct{}) // closed when the writer has ended
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			select {
			case chunks <- chunk{b[:n], time.Now().Add(way.latency())}:
			case <-gone:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer close(gone)
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		for len(c.bytes) > 0 {
			way.enter()
			_ = to.SetWriteDeadline(time.Time{})
			if way.isShut() { // the deadline that Hold set was for this write
				_ = to.SetWriteDeadline(time.Now())
			}
			n, err := to.Write(c.bytes)
			way.leave()
			c.bytes = c.bytes[n:]
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				back.wait()
				_ = from.Close()
				return
			}
		}
	}
	way.wait()
	_ = to.Close()
}

// gate lets the writes of one direction through while it is open.
type gate struct {
	mu      sync.Mutex
	closed  bool          // guarded by mu
	opened  chan struct{} // guarded by mu; closed while the gate is open
	inside  int           // guarded by mu; number of writes in progress
	emptied chan struct{} // guarded by mu; closed at the end of the last write; nil if nothing waits for that
	delay   time.Duration // guarded by mu
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		g.opened = make(chan struct{})
		close(g.opened)
		return
	}
	if g.closed {
		g.closed = false
		close(g.opened)
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		g.opened = make(chan struct{})
	}
}

// wait returns when the gate is open.
func (g *gate) wait() {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	<-opened
}

// enter waits until the gate is open, and begins a write.
func (g *gate) enter() {
	for {
		g.mu.Lock()
		if !g.closed {
			g.inside++
			g.mu.Unlock()
			return
		}
		opened := g.opened
		g.mu.Unlock()
		<-opened
	}
}

// leave ends a write.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.emptied != nil {
		close(g.emptied)
		g.emptied = nil
	}
}

// drained returns when no write is in progress.
func (g *gate) drained() {
	g.mu.Lock()
	if g.inside == 0 {
		g.mu.Unlock()
		return
	}
	if g.emptied == nil {
		g.emptied = make(chan struct{})
	}
	emptied := g.emptied
	g.mu.Unlock()
	<-emptied
}

func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

func (g *gate) latency() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.delay
}
