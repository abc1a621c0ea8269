package composetest

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// names tells containers where others are that run and share a network with
// them, as Docker's name server does.
type names struct {
	addrs map[string]addresses // service -> network -> address; not changed once one asks

	mu sync.Mutex
	up map[string]bool // guarded by mu
}

func (n *names) set(service string, up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up[service] = up
}

// serve answers on an address until the test ends.
func (n *names) serve(t testing.TB, at netip.Addr) {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 53)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			size, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if reply := n.answer(b[:size], from.Addr().Unmap()); reply != nil {
				_, _ = c.WriteToUDPAddrPort(reply, from) // what is lost is asked again
			}
		}
	}()
}

// answer is what one who asks is told, nil for nothing.
func (n *names) answer(question []byte, from netip.Addr) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	found := n.find(strings.TrimSuffix(q.Name.String(), "."), from)
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	if len(found) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range found {
		if q.Type != dnsmessage.TypeA {
			break // there is the name, and nothing of that type
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: a.As4()},
		})
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}

// find returns the addresses of a service that runs, on the networks of the one
// who asks.
func (n *names) find(service string, from netip.Addr) (found []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up[service] {
		return nil
	}
	for _, own := range n.addrs {
		asks := false
		for _, a := range own {
			asks = asks || a.Addr() == from
		}
		if !asks {
			continue
		}
		for network := range own {
			if a, shared := n.addrs[service][network]; shared {
				found = append(found, a.Addr())
			}
		}
	}
	return found
}
