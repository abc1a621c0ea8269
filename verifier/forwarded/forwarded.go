// Package forwarded finds the address of the client behind reverse proxies.
//
// # Promise
//
// Only a trusted proxy is believed. The address is read from right to left: each
// proxy appends the address that it saw, so the first one that is not a trusted
// proxy's is the client's, and what stands before it is the client's own claim.
//
// # Refusals
//
// A request of a trusted proxy whose headers name no address that can be read is
// refused: the proxy's own address in its place would be trusted, and would share
// the limits of all clients.
package forwarded

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Trusted are the networks of reverse proxies.
type Trusted []netip.Prefix

// Contains reports whether an address is that of a trusted proxy.
func (t Trusted) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(t, func(p netip.Prefix) bool { return p.Contains(a) })
}

// maxHops bounds the addresses that are read of a request.
const maxHops = 32

// Client returns the address of the client that sent a request. ok is false if a
// trusted proxy does not tell it. Without headers, a trusted peer is the client: a
// person or a health check on the proxy's machine.
func (t Trusted) Client(r *http.Request) (client netip.Addr, ok bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	client = peer.Addr().Unmap().WithZone("")
	if !t.Contains(client) {
		return client, true
	}
	hops, ok := hopsOf(r.Header)
	if !ok || len(hops) > maxHops {
		return netip.Addr{}, false
	}
	for _, hop := range slices.Backward(hops) {
		a, ok := parse(hop)
		if !ok {
			return netip.Addr{}, false
		}
		if client = a; !t.Contains(a) {
			break
		}
	}
	return client, true
}

// hopsOf returns the addresses in X-Forwarded-For, or else in Forwarded (RFC 7239).
// Both at once are refused, because a proxy that sets one may pass on the client's
// own value of the other.
func hopsOf(h http.Header) (hops []string, ok bool) {
	plain, standard := h.Values("X-Forwarded-For"), h.Values("Forwarded")
	switch {
	case len(plain) > 0 && len(standard) > 0:
		return nil, false
	case len(standard) > 0:
		return elementsOf(strings.Join(standard, ","))
	}
	for _, value := range plain {
		for hop := range strings.SplitSeq(value, ",") {
			hops = append(hops, strings.Trim(hop, " \t"))
		}
	}
	return hops, true
}

// elementsOf returns the parameter "for" of each element of a Forwarded header.
func elementsOf(value string) (hops []string, ok bool) {
	for _, element := range splitQuoted(value, ',') {
		hop, found := "", false
		for _, parameter := range splitQuoted(element, ';') {
			name, value, ok := strings.Cut(strings.Trim(parameter, " \t"), "=")
			if !ok || found && strings.EqualFold(name, "for") {
				return nil, false
			}
			if strings.EqualFold(name, "for") {
				hop, found = value, true
			}
		}
		if !found {
			return nil, false
		}
		if q, quoted := strings.CutPrefix(hop, `"`); quoted {
			if hop, ok = strings.CutSuffix(q, `"`); !ok || strings.ContainsAny(hop, `"\`) {
				return nil, false
			}
		}
		hops = append(hops, hop)
	}
	return hops, true
}

// splitQuoted splits text at a separator outside quotation marks.
func splitQuoted(text string, separator byte) (parts []string) {
	quoted, begin := false, 0
	for i := range len(text) {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == separator && !quoted:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

// parse reads an address as proxies write it, with or without a port.
func parse(hop string) (netip.Addr, bool) {
	if host, _, err := net.SplitHostPort(hop); err == nil {
		hop = host
	} else if inner, ok := strings.CutPrefix(hop, "["); ok {
		if hop, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, false
		}
	}
	a, err := netip.ParseAddr(hop)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// Handler passes requests on with the address of their client as RemoteAddr, and
// refuses those of trusted proxies that do not tell it. trusted returns the
// proxies that are trusted now.
func Handler(next http.Handler, trusted func() Trusted) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := trusted()
		if len(t) == 0 {
			next.ServeHTTP(w, r)
			return
		}
		client, ok := t.Client(r)
		if !ok {
			refuse(w)
			return
		}
		r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close")
	w.WriteHeader(http.StatusBadRequest)
	const body = `{"title":"malformed request","status":400,"code":"malformed_request","detail":"the proxy in front of this ` +
		`server sends no X-Forwarded-For or Forwarded header that names the client's address"}` + "\n"
	_, _ = w.Write([]byte(body)) // the client may be gone
}
