package embedded

import (
	"io"
	"net"
	"sync"
	"testing"
)

// link is a TCP proxy between two servers that can be cut.
type link struct {
	l net.Listener

	mu    sync.Mutex
	cut   bool              // guarded by mu
	conns map[net.Conn]bool // guarded by mu
	wg    sync.WaitGroup
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{l: l, conns: map[net.Conn]bool{}}
	k.wg.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil || !k.keep(from, out) {
				from.Close()
				if err == nil {
					out.Close()
				}
				continue
			}
			for _, pair := range [][2]net.Conn{{from, out}, {out, from}} {
				k.wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1]) // ends with the link or a side of it
					pair[0].Close()
					pair[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		k.end()
		k.wg.Wait()
	})
	return k
}

func (k *link) keep(conns ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range conns {
		k.conns[c] = true
	}
	return !k.cut
}

// end cuts the link permanently.
func (k *link) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = true
	k.l.Close()
	for c := range k.conns {
		c.Close()
	}
}
