package api_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestHalfOpenByStranger holds many requests open with an unknown token. They
// are refused immediately, and the operator's commands succeed.
func TestHalfOpenByStranger(t *testing.T) {
	s := start(t)
	unknown := s.root[:len(s.root)-6] + "000000"
	const most = 70 // more than one address may have open
	for i := range most {
		conn := s.dial()
		if _, err := fmt.Fprintf(conn, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n{", unknown); err != nil {
			t.Fatal(err)
		}
		if got := conn.first(len("HTTP/1.1 401")); got != "HTTP/1.1 401" {
			t.Fatalf("request %d is answered with %q, want 401 without its body", i, got)
		}
	}
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user"})
}

// TestHalfOpenByCaller holds as many requests open as one credential may. The
// next one is refused, and other callers are not.
func TestHalfOpenByCaller(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/1", "manage_tokens"}})
	secret := s.must("POST /v1/tokens", m{"account": "alice", "scopes": []string{"view:site/1", "manage_tokens"}}).text("secret")
	const most = 64
	head := "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret +
		"\r\nContent-Type: application/json\r\nContent-Length: 44\r\nExpect: 100-continue\r\n\r\n"
	for range most {
		conn := s.dial()
		if _, err := conn.Write([]byte(head)); err != nil {
			t.Fatal(err)
		}
		// The server asks for the body once it has let the request in.
		const asks = "HTTP/1.1 100 Continue"
		if got := conn.first(len(asks)); got != asks {
			t.Fatalf("the server says %q; want it to ask for the body", got)
		}
	}
	conn := s.dial()
	if _, err := conn.Write([]byte(strings.Replace(head, "Expect: 100-continue\r\n", "", 1) + strings.Repeat(" ", 44))); err != nil {
		t.Fatal(err)
	}
	if got := conn.first(len("HTTP/1.1 429")); got != "HTTP/1.1 429" {
		t.Errorf("one too many is answered with %q, want 429", got)
	}
	s.must("POST /v1/accounts", m{"login": "bob", "kind": "user"})
}

// first returns the first bytes that the server sends.
func (c conn) first(n int) string {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}
