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

// closing is an upstream that answers the first request of each connection, and
// closes the connection when it has read the second one.
func closing(t *testing.T) (url string, methods chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	methods = make(chan string, 16)
	serve := func(c net.Conn) {
		defer c.Close()
		for r, first := bufio.NewReader(c), true; ; first = false {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			form, _ := io.ReadAll(q.Body)
			methods <- q.Method + " " + string(form) + q.Header.Get("X-Idempotency-Key")
			if !first {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return "http://" + l.Addr().String(), methods
}

// TestClosedConnection sends a call that came by GET again if Matomo closed the
// connection, and no other.
func TestClosedConnection(t *testing.T) {
	upstream, methods := closing(t)
	f := newFixtureAt(t, upstream, nil)
	token := f.token("view:site/1")
	call := api + "VisitsSummary.get&idSite=1&token_auth=" + token
	want := "POST token_auth=" + backend
	for _, times := range []int{1, 2} { // the second meets the kept connection
		if status, body := f.ask("GET", call, ""); status != 200 || body != "ok" {
			t.Fatalf("a call by GET: %d %q", status, body)
		}
		for range times {
			if got := <-methods; got != want {
				t.Fatalf("Matomo got %q, want %q", got, want)
			}
		}
	}
	form := strings.TrimPrefix(call, "/index.php?")
	if status, _ := f.ask("POST", "/index.php", form, header("Idempotency-Key", "x")); status != 502 {
		t.Errorf("a call by POST on a connection that Matomo closed: %d", status)
	}
	<-methods
	if len(methods) > 0 {
		t.Errorf("the call by POST was sent again: %s", <-methods)
	}
}

// TestAnswerWithBackendToken replaces the gateway's token in answers of each kind of
// length.
func TestAnswerWithBackendToken(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "short": 1, "long": 300 << 10} {
		for _, flush := range []bool{false, true} {
			upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text := strings.Repeat("a"+backend, size/10)
				if size == 1 {
					text = backend[1:] + backend + backend
				}
				if flush {
					w.(http.Flusher).Flush()
				} else {
					w.Header().Set("Content-Length", fmt.Sprint(len(text)))
				}
				_, _ = io.WriteString(w, text)
			}))
			f := newFixtureAt(t, upstream.URL, nil)
			token := f.token("view:site/1")
			status, body := f.ask("GET", api+"VisitsSummary.get&idSite=1&token_auth="+token, "")
			want := strings.Repeat("a"+token, size/10)
			if size == 1 {
				want = strings.ReplaceAll(backend[1:]+backend+backend, backend, token)
			}
			if status != 200 || body != want {
				t.Errorf("%s, in chunks %v: status %d, %d bytes, want %d", name, flush, status, len(body), len(want))
			}
			upstream.Close()
		}
	}
}
