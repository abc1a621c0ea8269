package api

import (
	"net/netip"
	"sync"
)

// addressLimit bounds how many requests of one client are in a state that costs
// the client nothing, and how many of all clients are.
type addressLimit struct {
	each, all int

	mu    sync.Mutex
	count map[netip.Prefix]int // guarded by mu
	total int                  // guarded by mu
}

func newAddressLimit(each, all int) *addressLimit {
	return &addressLimit{each: each, all: all, count: map[netip.Prefix]int{}}
}

// enter takes a place for a client. It returns false if there is none. The place
// is free again when leave is called.
func (l *addressLimit) enter(address string) (leave func(), ok bool) {
	from := clientPrefix(address)
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

// clientPrefix is what one client can choose addresses from: an IPv4 address, or
// 64 bits of an IPv6 address. All that is no address is one client.
func clientPrefix(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 64
	if a = a.Unmap().WithZone(""); a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // the bits fit
	return p
}
