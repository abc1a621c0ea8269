// Package connlimit keeps the connections of a node below the files that its
// process may open.
//
// # Promise
//
// Each listener has a limit of its own, so that connections to one do not starve
// another, the log or the index. At the limit, a new connection takes the place of
// the one that has been idle for longest: one that waits for its next request, or
// else one that has sent nothing yet. A connection with a request in flight is
// never closed. If all of them have one, the new connection is closed at once: a
// client that is refused can go elsewhere, one that waits in a queue cannot.
// (golang.org/x/net/netutil.LimitListener lets new ones wait, so idle connections
// lock everybody out.)
package connlimit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// A Listener limits the connections of a listener. Its server must call State.
type Listener struct {
	net.Listener
	name string
	log  *slog.Logger

	mu    sync.Mutex
	limit int            // guarded by mu
	open  map[*conn]bool // guarded by mu
	// idle and fresh are lists of connections, the oldest first: those that wait
	// for another request, and those that have sent nothing. Guarded by mu.
	idle, fresh queue
	counts      Counts // guarded by mu; only the totals
}

// Counts describes the connections of a listener.
type Counts struct {
	Open, Limit int
	Closed      uint64 // idle ones that were closed for a new one
	Refused     uint64 // new ones that were closed, because none was idle
}

// New limits the connections of l. The name is for the log.
func New(l net.Listener, name string, limit int, log *slog.Logger) *Listener {
	return &Listener{Listener: l, name: name, limit: limit, log: log, open: map[*conn]bool{}}
}

// Name returns the listener's name.
func (l *Listener) Name() string { return l.name }

// SetLimit changes the limit. Connections beyond a lower one stay.
func (l *Listener) SetLimit(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
}

// Counts returns what becomes of the connections.
func (l *Listener) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	c.Open, c.Limit = len(l.open), l.limit
	return c
}

// Accept returns the next connection that there is room for.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.admit(inner); c != nil {
			return c, nil
		}
		_ = inner.Close() // the client sees that, whatever Close says
	}
}

// admit makes room for a connection. It returns nil if there is none.
func (l *Listener) admit(inner net.Conn) *conn {
	l.mu.Lock()
	limit := l.limit
	var victim *conn
	full := len(l.open) >= limit
	if full {
		if victim = l.idle.first(); victim == nil {
			victim = l.fresh.first()
		}
		if victim == nil {
			l.counts.Refused++
			l.mu.Unlock()
			l.log.Warn("connection refused: the listener is at its limit, and no connection is idle",
				"listener", l.name, "limit", limit)
			return nil
		}
		l.counts.Closed++
		l.removeLocked(victim)
	}
	c := &conn{Conn: inner, listener: l}
	l.open[c] = true
	l.fresh.add(c)
	l.mu.Unlock()
	if full {
		_ = victim.Conn.Close() // at worst it is closed already
		l.log.Warn("idle connection closed: the listener is at its limit", "listener", l.name, "limit", limit)
	}
	return c
}

func (l *Listener) removeLocked(c *conn) {
	delete(l.open, c)
	l.idle.remove(c)
	l.fresh.remove(c)
}

// State is the server's [http.Server.ConnState].
func (l *Listener) State(nc net.Conn, state http.ConnState) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open[c] {
		return
	}
	switch state {
	case http.StateActive:
		l.idle.remove(c)
		l.fresh.remove(c)
	case http.StateIdle:
		l.fresh.remove(c)
		l.idle.add(c)
	case http.StateHijacked, http.StateClosed:
		l.removeLocked(c)
	}
}

// conn is a connection that counts against a listener's limit until it is closed.
type conn struct {
	net.Conn
	listener   *Listener
	prev, next *conn // in the queue that it is in, guarded by listener.mu
	in         *queue
}

// Close closes the connection, and gives its place to another.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.listener.mu.Lock()
	c.listener.removeLocked(c)
	c.listener.mu.Unlock()
	return err
}

// CloseWrite ends the sending half. An HTTP server does that before it closes a
// connection whose request it has not read, so that the client still receives the
// answer.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("close the sending half: %w", errors.ErrUnsupported)
}

// A queue is a list of connections, the oldest first.
type queue struct{ head, tail *conn }

func (q *queue) first() *conn { return q.head }

func (q *queue) add(c *conn) {
	if c.in == q {
		return
	}
	c.in, c.prev, c.next = q, q.tail, nil
	if q.tail != nil {
		q.tail.next = c
	} else {
		q.head = c
	}
	q.tail = c
}

func (q *queue) remove(c *conn) {
	if c.in != q {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.tail = c.prev
	}
	c.in, c.prev, c.next = nil, nil, nil
}

// RecountEvery is how often limits follow the files that are open.
const RecountEvery = 10 * time.Second
