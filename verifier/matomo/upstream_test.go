package matomo_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// badUpstream serves one raw answer on each connection, after the request's head.
func badUpstream(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, answer)
			}
			_ = c.Close()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestUpstreamFails answers in the client's format if Matomo is down or talks
// nonsense, and cuts the client's answer off where Matomo's was, if it is long.
func TestUpstreamFails(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	for what, url := range map[string]string{
		"down": "http://" + down.Addr().String(), "closing at once": badUpstream(t, ""), "nonsense": badUpstream(t, "hello\r\n\r\n"),
	} {
		f := newFixtureAt(t, url, nil)
		secret := f.token("read:site/1")
		status, body := f.ask("GET", api+"VisitsSummary.get&idSite=1&format=json&token_auth="+secret, "")
		if status != http.StatusBadGateway || body != `{"result":"error","message":"Matomo did not answer."}` {
			t.Errorf("%s: %d %s", what, status, body)
		}
		if n := f.gateway.Stats().UpstreamFailed; n != 1 {
			t.Errorf("%s: %d failures are counted", what, n)
		}
		if log := f.log.String(); strings.Contains(log, secret) || strings.Contains(log, backend) {
			t.Errorf("%s: the log has a token: %s", what, log)
		}
	}
	// A short answer with a token is read first, so that the client gets an error.
	for length, want := range map[int]string{100: "502", 1 << 20: "200 cut"} {
		f := newFixtureAt(t, badUpstream(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\npart", length)), nil)
		resp, err := http.Get(f.url + api + "VisitsSummary.get&idSite=1&token_auth=" + f.token("read:site/1"))
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(resp.StatusCode)
		if _, err := io.ReadAll(resp.Body); err != nil {
			got += " cut"
		}
		_ = resp.Body.Close()
		if got != want {
			t.Errorf("an answer of %d bytes, cut: %s, want %s", length, got, want)
		}
	}
}

// TestSlowClient checks the token when the whole request has arrived, and holds
// nothing for Matomo until then.
func TestSlowClient(t *testing.T) {
	got := make(chan struct{}, 8)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got <- struct{}{} }))
	defer upstream.Close()
	f := newFixtureAt(t, upstream.URL, nil)
	id, secret := f.create(created(f, "read:site/1"), "")
	c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	form := "idSite=1&token_auth=" + secret
	fmt.Fprintf(c, "POST %sVisitsSummary.get HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		api, len(form), form[:10])
	f.Log.Revoke(id)
	f.Follow()
	fmt.Fprint(c, form[10:])
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || len(got) > 0 {
		t.Errorf("a token that was revoked during the upload gets %d, Matomo got %d requests", resp.StatusCode, len(got))
	}
}
