package api

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// clientLimit limits how many requests are in one state at the same time: of one
// client, and of all clients. It is for states that cost a client nothing.
type clientLimit struct {
	perClient, total int

	mu    sync.Mutex
	count map[string]int // client -> its requests; guarded by mu
	sum   int            // guarded by mu
}

func newClientLimit(perClient, total int) *clientLimit {
	return &clientLimit{perClient: perClient, total: total, count: map[string]int{}}
}

// acquire takes a place for a client until release is called. It returns false if
// there is none.
func (l *clientLimit) acquire(client string) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count[client] >= l.perClient || l.sum >= l.total {
		return nil, false
	}
	l.count[client]++
	l.sum++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sum--
		if l.count[client]--; l.count[client] == 0 {
			delete(l.count, client)
		}
	}, true
}

// addressClient identifies a client by its address: one IPv4 address, or 64 bits
// of an IPv6 address. Everything that is no address counts as one client.
func addressClient(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	bits := 64
	if a = a.Unmap().WithZone(""); a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // the bits fit
	return p.String()
}

// credentialClient identifies a client by its credential.
func credentialClient(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return string(sum[:])
}

// busy is the problem of a client with too many requests whose body is pending.
func busy() *Problem {
	p := problem("busy", "this client has too many requests whose body has not arrived; send fewer at once")
	p.after = time.Second
	return p
}
