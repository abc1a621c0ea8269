package proxytest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay passes connections on, and counts and cuts them.
type relay struct {
	addr   string
	target string

	mu       sync.Mutex
	accepted int                   // guarded by mu
	isCut    bool                  // guarded by mu
	open     map[net.Conn]struct{} // guarded by mu
}

func startRelay(t testing.TB, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String(), target: target, open: map[net.Conn]struct{}{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.cut(true)
		wg.Wait()
	})
	return r
}

func (r *relay) pass(c net.Conn) {
	defer func() { _ = c.Close() }()
	to, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	r.mu.Lock()
	r.accepted++
	if r.isCut {
		r.mu.Unlock()
		return
	}
	r.open[c], r.open[to] = struct{}{}, struct{}{}
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, to}, {to, c}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
	delete(r.open, to)
}

// cut ends all connections and lets none begin, or lets them again.
func (r *relay) cut(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCut = yes
	if yes {
		for c := range r.open {
			_ = c.Close()
		}
	}
}

// connections returns how many there were so far.
func (r *relay) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}
