package crashtest

import (
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// link is the way from verifiers to the log: an address that stays while the
// ledger listens elsewhere after each start. A port that was free is no such
// address, since another process may take it in between.
type link struct {
	ledger   *machine
	listener net.Listener

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu; nil once the test is over
}

func newLink(t testing.TB, ledger *machine) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{ledger: ledger, listener: listener, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		for conn := range l.conns {
			_ = conn.Close()
		}
		l.conns = nil
		l.mu.Unlock()
		wg.Wait()
	})
	return l
}

// url is what verifiers are told.
func (l *link) url() string { return "nats://" + l.listener.Addr().String() }

// carry carries bytes both ways until either side is closed.
func (l *link) carry(conn net.Conn) {
	defer l.drop(conn)
	if !l.hold(conn) {
		return
	}
	log, err := l.dial()
	if err != nil {
		return
	}
	defer l.drop(log)
	if !l.hold(log) {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(conn, log)
		_ = conn.Close()
	}()
	_, _ = io.Copy(log, conn)
	_ = log.Close()
	<-back
}

// dial connects to the log. An address that is fixed is tried also while the
// ledger has not said that it listens.
func (l *link) dial() (net.Conn, error) {
	to := l.ledger.settings.NATSListen
	if strings.HasSuffix(to, ":0") {
		a, ok := l.ledger.addresses()
		if !ok {
			return nil, errors.New("the ledger does not listen")
		}
		u, err := url.Parse(a.NATS)
		if err != nil {
			return nil, err
		}
		to = u.Host
	}
	return net.Dial("tcp", to)
}

func (l *link) hold(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return false
	}
	l.conns[conn] = true
	return true
}

func (l *link) drop(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}
