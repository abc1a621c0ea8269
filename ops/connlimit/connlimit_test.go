package connlimit_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/connlimit"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// client is a connection to a test's server.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, l net.Listener) *client {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{t, c, bufio.NewReader(c)}
}

func (c *client) send(path string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		c.t.Fatal(err)
	}
}

// answered reports whether the server answers what was sent.
func (c *client) answered() bool {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == 200
}

// closed waits until the server closes the connection.
func (c *client) closed() {
	c.t.Helper()
	if n, err := c.r.Read(make([]byte, 1)); n > 0 || err == nil {
		c.t.Error("the connection is open, and has something to read")
	}
}

// server is a server with a limit. A request of /wait is answered once hold is
// closed.
type server struct {
	*connlimit.Listener
	hold    chan struct{}
	waiting chan struct{} // receives a value for each request of /wait in flight
	idle    chan struct{} // receives a value when a connection becomes idle
}

func serve(t *testing.T, limit int) *server {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		Listener: connlimit.New(inner, "test", limit, slog.New(slog.DiscardHandler)),
		hold:     make(chan struct{}), waiting: make(chan struct{}, 100), idle: make(chan struct{}, 100),
	}
	web := &http.Server{
		ConnState: func(c net.Conn, state http.ConnState) {
			s.State(c, state)
			if state == http.StateIdle {
				s.idle <- struct{}{}
			}
		},
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/wait") {
				s.waiting <- struct{}{}
				<-s.hold
			}
		}),
	}
	go func() { _ = web.Serve(s.Listener) }()
	t.Cleanup(func() { _ = web.Close() })
	return s
}

func counts(t *testing.T, l *connlimit.Listener, want connlimit.Counts) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("the counts are %+v", want), func() bool { return l.Counts() == want })
}

// TestIdleMakeRoom closes the connection that has been idle for longest.
func TestIdleMakeRoom(t *testing.T) {
	l := serve(t, 2)
	first, second := dial(t, l), dial(t, l)
	for _, c := range []*client{second, first, second} { // first is idle for longest now
		c.send("/")
		if !c.answered() {
			t.Fatal("no answer below the limit")
		}
		<-l.idle // which is after the answer
	}
	third := dial(t, l)
	third.send("/")
	if !third.answered() {
		t.Error("no answer to a new connection while others are idle")
	}
	first.closed()
	second.send("/")
	if !second.answered() {
		t.Error("no answer to the connection that was idle for less")
	}
	counts(t, l.Listener, connlimit.Counts{Open: 2, Limit: 2, Closed: 1})
	_ = second.Close()
	_ = third.Close()
	counts(t, l.Listener, connlimit.Counts{Limit: 2, Closed: 1})
}

// TestSilentMakeRoom closes connections that never sent anything.
func TestSilentMakeRoom(t *testing.T) {
	l := serve(t, 3)
	var silent []*client
	for range 30 {
		silent = append(silent, dial(t, l))
	}
	counts(t, l.Listener, connlimit.Counts{Open: 3, Limit: 3, Closed: 27})
	c := dial(t, l)
	c.send("/")
	if !c.answered() {
		t.Error("no answer among silent connections")
	}
	for _, s := range silent[:28] {
		s.closed()
	}
}

// TestRequestsAreKept closes no connection with a request in flight.
func TestRequestsAreKept(t *testing.T) {
	l := serve(t, 2)
	busy := []*client{dial(t, l), dial(t, l)}
	for _, c := range busy {
		c.send("/wait")
		<-l.waiting
	}
	refused := dial(t, l)
	refused.closed()
	counts(t, l.Listener, connlimit.Counts{Open: 2, Limit: 2, Refused: 1})
	l.SetLimit(3)
	c := dial(t, l)
	c.send("/")
	if !c.answered() {
		t.Error("no answer after the limit was raised")
	}
	close(l.hold)
	for i, b := range busy {
		if !b.answered() {
			t.Errorf("no answer to request %d, which was in flight", i)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct{ files, used, most, verify, api, metrics int }{
		{1024, 60, 0, 450, 225, 45},
		{1024, 460, 0, 250, 125, 25}, // the index and the log have many files
		{256, 250, 0, 8, 8, 8},       // never none
		{1 << 20, 60, 0, 16384, 16384, 16384},
		{1024, 60, 100, 100, 100, 45},  // of an operator
		{1024, 60, 4000, 450, 225, 45}, // who cannot have more than there are
	} {
		got := connlimit.Limits(c.files, c.used, c.most)
		if got["verify"] != c.verify || got["api"] != c.api || got["metrics"] != c.metrics {
			t.Errorf("Limits(%d, %d, %d) = %v, want %d, %d, %d", c.files, c.used, c.most, got, c.verify, c.api, c.metrics)
		}
		sum := 0
		for _, n := range got {
			sum += n
		}
		if c.used < 200 && c.files <= 1024 && sum > c.files-c.used-connlimit.Spare {
			t.Errorf("Limits(%d, %d, %d) = %v: %d connections and %d files are too many", c.files, c.used, c.most, got, sum, c.used)
		}
	}
}
