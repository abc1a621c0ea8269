package api

import (
	"crypto/sha256"
	"net/netip"
	"sync"
)

// clientLimit bounds how many requests of one client are in a state that costs
// the client nothing, and how many of all clients are.
type clientLimit struct {
	each, all int

	mu    sync.Mutex
	count map[string]int // client -> its requests; guarded by mu
	total int            // guarded by mu
}

func newClientLimit(each, all int) *clientLimit {
	return &clientLimit{each: each, all: all, count: map[string]int{}}
}

// enter takes a place for a client. It returns false if there is none. The place
// is free again when leave is called.
func (l *clientLimit) enter(from string) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count[from] >= l.each || l.total >= l.all {
		return nil, false
	}
	l.count[from]++
	l.total++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.total--
		if l.count[from]--; l.count[from] == 0 {
			delete(l.count, from)
		}
	}, true
}

// strangerAt is a client that is known by its address alone: one IPv4 address, or
// 64 bits of an IPv6 address. All that is no address is one client.
func strangerAt(address string) string {
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

// callerWith is a client that is known by its credential.
func callerWith(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return string(sum[:])
}
