package clustertest

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// Way is one direction of a [Relay].
type Way int

// The directions of a relay.
const (
	Forth Way = iota // from who connects
	Back             // to who connects
	ways
)

// Relay is a way between two nodes that a test can close: it carries TCP
// connections to an address. Any goroutine may use it.
type Relay struct {
	target string
	gates  [ways]gate

	mu      sync.Mutex
	severed bool              // guarded by mu
	conns   map[net.Conn]bool // guarded by mu; nil once the test is over
}

func newRelay(target string) *Relay {
	r := &Relay{target: target, conns: map[net.Conn]bool{}}
	for i := range r.gates {
		r.gates[i].open()
	}
	return r
}

// end closes every connection, and each new one.
func (r *Relay) end() {
	r.mu.Lock()
	for conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	for i := range r.gates {
		r.gates[i].open()
	}
}

// A door is an address where connections come in, each to go on by a relay.
type door struct {
	listener net.Listener
	// relay returns the way on of a connection, nil where there is none.
	relay func(net.Conn) *Relay
	work  sync.WaitGroup
}

// openDoor opens a door at an address.
func openDoor(t testing.TB, addr string, relay func(net.Conn) *Relay) *door {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	d := &door{listener: listener, relay: relay}
	d.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			d.work.Go(func() {
				if r := d.relay(conn); r != nil {
					r.carry(conn)
				}
				_ = conn.Close()
			})
		}
	})
	return d
}

// close closes the door and waits for its relays, which have ended.
func (d *door) close() {
	_ = d.listener.Close()
	d.work.Wait()
}

// Hold keeps back what travels in a direction, as a network does that loses
// every packet: connections stay, and nobody is told. When it returns, nothing
// goes through any more. No new connection comes about.
func (r *Relay) Hold(w Way) {
	g := &r.gates[w]
	g.shut()
	// A write that waits for its reader gives up, and is taken up again later.
	r.mu.Lock()
	for conn := range r.conns {
		_ = conn.SetWriteDeadline(time.Now())
	}
	r.mu.Unlock()
	g.drained()
}

// Pass lets through what travels in a direction, with all that was held back.
func (r *Relay) Pass(w Way) { r.gates[w].open() }

// Delay has everything that travels in a direction arrive later.
func (r *Relay) Delay(w Way, d time.Duration) {
	g := &r.gates[w]
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay = d
}

// Sever breaks every connection, and each new one, until [Relay.Mend].
func (r *Relay) Sever() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.severed = true
	for conn := range r.conns {
		_ = conn.Close()
	}
}

// Carries returns how many connections the relay carries.
func (r *Relay) Carries() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns) / 2 // each has two ends
}

// Mend ends what Sever began.
func (r *Relay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.severed = false
}

// carry carries a connection until one of its sides is closed.
func (r *Relay) carry(near net.Conn) {
	defer r.drop(near)
	if !r.keep(near) {
		return
	}
	// A handshake needs both directions.
	for i := range r.gates {
		r.gates[i].wait()
	}
	far, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer r.drop(far)
	if !r.keep(far) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { pump(near, far, &r.gates[Forth], &r.gates[Back]) })
	wg.Go(func() { pump(far, near, &r.gates[Back], &r.gates[Forth]) })
	wg.Wait()
}

func (r *Relay) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil || r.severed {
		return false
	}
	r.conns[conn] = true
	return true
}

func (r *Relay) drop(conn net.Conn) {
	_ = conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
}

// chunk is what was read at once, and when it is to arrive.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pump carries one direction until either side is gone. That one is, travels as
// bytes do: the other learns of it only through an open gate.
func pump(from, to net.Conn, way, back *gate) {
	chunks := make(chan chunk, 64)
	gone := make(chan struct{}) // closed once nobody takes chunks
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			select {
			case chunks <- chunk{b[:n], time.Now().Add(way.lateness())}:
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
			if way.isShut() { // the deadline was meant for this write
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

// gate is what a direction goes through.
type gate struct {
	mu      sync.Mutex
	closed  bool          // guarded by mu
	opened  chan struct{} // guarded by mu; closed while the gate is open
	inside  int           // guarded by mu; writes under way
	emptied chan struct{} // guarded by mu; closed when none is, where someone waits for that
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

// enter waits until the gate is open and begins a write.
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

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.emptied != nil {
		close(g.emptied)
		g.emptied = nil
	}
}

// drained returns when no write is under way.
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

func (g *gate) lateness() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.delay
}
