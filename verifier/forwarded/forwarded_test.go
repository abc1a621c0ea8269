package forwarded_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/forwarded"
)

var proxies = forwarded.Trusted{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func TestClient(t *testing.T) {
	type h = http.Header
	for _, c := range []struct {
		name, peer string
		header     http.Header
		want       string // empty for refused
	}{
		{"peer that is no proxy", "203.0.113.9:1", h{"X-Forwarded-For": {"192.0.2.1"}}, "203.0.113.9"},
		{"proxy itself", "10.0.0.1:1", h{}, "10.0.0.1"},
		{"one proxy", "10.0.0.1:1", h{"X-Forwarded-For": {"192.0.2.1"}}, "192.0.2.1"},
		{"claim of the client", "10.0.0.1:1", h{"X-Forwarded-For": {"127.0.0.1, 192.0.2.1"}}, "192.0.2.1"},
		{"claim that is a proxy's", "10.0.0.1:1", h{"X-Forwarded-For": {"10.9.9.9, 192.0.2.1"}}, "192.0.2.1"},
		{"two proxies", "10.0.0.1:1", h{"X-Forwarded-For": {"127.0.0.1, 192.0.2.1, 10.0.0.2"}}, "192.0.2.1"},
		{"two headers", "10.0.0.1:1", h{"X-Forwarded-For": {"127.0.0.1", "192.0.2.1,10.0.0.2"}}, "192.0.2.1"},
		{"only proxies", "10.0.0.1:1", h{"X-Forwarded-For": {"10.0.0.3, 10.0.0.2"}}, "10.0.0.3"},
		{"garbage before the client", "10.0.0.1:1", h{"X-Forwarded-For": {"<script>, 192.0.2.1"}}, "192.0.2.1"},
		{"garbage", "10.0.0.1:1", h{"X-Forwarded-For": {"192.0.2.1, unknown"}}, ""},
		{"empty", "10.0.0.1:1", h{"X-Forwarded-For": {""}}, ""},
		{"empty end", "10.0.0.1:1", h{"X-Forwarded-For": {"192.0.2.1,"}}, ""},
		{"port", "10.0.0.1:1", h{"X-Forwarded-For": {"192.0.2.1:4711"}}, "192.0.2.1"},
		{"IPv6", "[fd00::1]:1", h{"X-Forwarded-For": {"2001:db8::7"}}, "2001:db8::7"},
		{"IPv6 in brackets", "[fd00::1]:1", h{"X-Forwarded-For": {"[2001:db8::7]"}}, "2001:db8::7"},
		{"IPv6 with port", "[fd00::1]:1", h{"X-Forwarded-For": {"[2001:db8::7]:80"}}, "2001:db8::7"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1", h{"X-Forwarded-For": {"::ffff:192.0.2.1"}}, "192.0.2.1"},
		{"zone", "10.0.0.1:1", h{"X-Forwarded-For": {"fe80::1%eth0"}}, ""},
		{"Forwarded", "10.0.0.1:1", h{"Forwarded": {`for=192.0.2.1;proto=https;by=10.0.0.1`}}, "192.0.2.1"},
		{"Forwarded, claim", "10.0.0.1:1", h{"Forwarded": {`for=127.0.0.1, For="[2001:db8::7]:80" ; proto=https`}}, "2001:db8::7"},
		{"Forwarded, quoted comma", "10.0.0.1:1", h{"Forwarded": {`for="a,for=127.0.0.1", for=192.0.2.1`}}, "192.0.2.1"},
		{"Forwarded, open quote", "10.0.0.1:1", h{"Forwarded": {`for="x, for=192.0.2.1`}}, ""},
		{"Forwarded, hidden", "10.0.0.1:1", h{"Forwarded": {`for=_hidden`}}, ""},
		{"Forwarded without for", "10.0.0.1:1", h{"Forwarded": {`proto=https`}}, ""},
		{"Forwarded, for twice", "10.0.0.1:1", h{"Forwarded": {`for=192.0.2.1;for=192.0.2.2`}}, ""},
		{"both headers", "10.0.0.1:1", h{"Forwarded": {`for=127.0.0.1`}, "X-Forwarded-For": {"192.0.2.1"}}, ""},
		{"no peer", "@", h{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := proxies.Client(&http.Request{RemoteAddr: c.peer, Header: c.header})
			if text := got.String(); ok != (c.want != "") || ok && text != c.want {
				t.Errorf("%s, %v, want %q", text, ok, c.want)
			}
		})
	}
}

func TestHandler(t *testing.T) {
	seen := ""
	trusted := proxies
	h := forwarded.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.RemoteAddr }),
		func() forwarded.Trusted { return trusted })
	send := func(claim string) int {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, seen = "10.0.0.1:4711", ""
		r.Header.Set("X-Forwarded-For", claim)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	if code := send("192.0.2.1"); code != 200 || seen != "192.0.2.1:0" {
		t.Errorf("%d, %s", code, seen)
	}
	if code := send("unknown"); code != 400 || seen != "" {
		t.Errorf("%d, %s, want it refused", code, seen)
	}
	trusted = nil
	if code := send("192.0.2.1"); code != 200 || seen != "10.0.0.1:4711" {
		t.Errorf("%d, %s, want the peer's address if no proxy is trusted", code, seen)
	}
}
