package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
)

// httpInstance is an HTTP server on loopback that answers checks over kept-alive
// connections. The client is minimal, so that the figures are those of the
// server and the system.
type httpInstance struct {
	server *http.Server
	addr   string
	path   string
	good   []byte // part of an answer that allows
	failed chan error
}

func serveHTTP(h http.Handler, path string) (*httpInstance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i := &httpInstance{
		server: &http.Server{Handler: h}, // a connection may wait long for its turn
		addr:   l.Addr().String(), path: path,
		good: []byte(`{"allowed":true`), failed: make(chan error, 1),
	}
	go func() { i.failed <- i.server.Serve(l) }()
	return i, nil
}

// startHTTP serves the product's own handler with the existing index.
func startHTTP(_ context.Context, s *stand) (instance, error) {
	p, ok := s.ready[productID].(*product)
	if !ok {
		return nil, errors.New("tokenledger did not start before it")
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/verify", p.verifier.Handler())
	mux.Handle("/v1/verify/batch", p.verifier.BatchHandler())
	return serveHTTP(mux, "/v1/verify")
}

// startHTTPMap serves the minimal alternative: a JSON body, a map, and a JSON
// answer (RFC 7662 section 2.2, with our names).
func startHTTPMap(ctx context.Context, s *stand) (instance, error) {
	m, ok := s.ready["map"].(mapInstance)
	if !ok {
		started, err := startMap(ctx, s)
		if err != nil {
			return nil, err
		}
		m = started.(mapInstance)
	}
	sites := make(map[string]int, sites)
	for i, scopes := range siteScopes("view") {
		sites[scopes[0].String()] = i
	}
	return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Token string   `json:"token"`
			Need  []string `json:"need"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Need) != 1 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		token, known := sites[body.Need[0]]
		allowed, _ := m.check(query{body.Token, token}) // a map does not fail
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(struct {
			Allowed bool `json:"allowed"`
		}{allowed && known})
	}), "/")
}

func (i *httpInstance) facts() (facts, error) { return facts{}, nil }

func (i *httpInstance) stop() error {
	err := i.server.Close()
	if failed := <-i.failed; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err
}

func (i *httpInstance) session() (checker, error) { return i.dial(1) }

// dial opens a connection for requests of so many checks each.
func (i *httpInstance) dial(batch int) (*httpSession, error) {
	path := i.path
	if batch > 1 {
		path += "/batch"
	}
	c, err := net.Dial("tcp", i.addr)
	if err != nil {
		return nil, err
	}
	return &httpSession{
		c: c, in: make([]byte, 128<<10), good: i.good,
		head: "POST " + path + " HTTP/1.1\r\nHost: " + i.addr + "\r\nContent-Type: application/json\r\nContent-Length: ",
	}, nil
}

// httpSession is one kept-alive connection. It sends a question in one write,
// and usually reads the answer in one read.
type httpSession struct {
	c         net.Conn
	head      string
	body, out []byte
	in        []byte // as large as an answer can be
	good      []byte
}

func (s *httpSession) close() error { return s.c.Close() }

func appendCheck(b []byte, q query) []byte {
	b = append(b, `{"token":"`...)
	b = append(b, q.secret...)
	b = append(b, `","need":["view:site/`...)
	b = strconv.AppendInt(b, int64(site(q.token)), 10)
	return append(b, `"]}`...)
}

func (s *httpSession) check(q query) (bool, error) {
	s.body = appendCheck(s.body[:0], q)
	answer, err := s.ask()
	return bytes.Contains(answer, s.good), err
}

// askAbout sends several questions in one request, and returns the answer, which
// is valid until the next call.
func (s *httpSession) askAbout(w *workload, first, n int) ([]byte, error) {
	if n == 1 {
		s.body = appendCheck(s.body[:0], w.at(first))
		return s.ask()
	}
	s.body = append(s.body[:0], `{"checks":[`...)
	for i := range n {
		if i > 0 {
			s.body = append(s.body, ',')
		}
		s.body = appendCheck(s.body, w.at((first+i)%w.len()))
	}
	s.body = append(s.body, "]}"...)
	return s.ask()
}

// ask sends the body and reads the answer's, which is valid until the next one.
func (s *httpSession) ask() ([]byte, error) {
	s.out = append(s.out[:0], s.head...)
	s.out = strconv.AppendInt(s.out, int64(len(s.body)), 10)
	s.out = append(append(s.out, "\r\n\r\n"...), s.body...)
	if _, err := s.c.Write(s.out); err != nil {
		return nil, fmt.Errorf("ask over HTTP: %w", err)
	}
	return s.answer()
}

// The parts of an answer's head, as net/http writes it.
var (
	statusOK    = []byte("HTTP/1.1 200 ")
	lengthField = []byte("\r\nContent-Length: ")
	endOfHead   = []byte("\r\n\r\n")
)

// answer reads an answer and returns its body.
func (s *httpSession) answer() ([]byte, error) {
	head, whole := 0, 0 // lengths, once they are known
	for n := 0; whole == 0 || n < whole; {
		if n == len(s.in) {
			return nil, fmt.Errorf("an answer over HTTP has more than %d bytes", n)
		}
		more, err := s.c.Read(s.in[n:])
		if n += more; err != nil {
			return nil, fmt.Errorf("read the answer over HTTP: %w", err)
		}
		if end := bytes.Index(s.in[:n], endOfHead); end >= 0 && whole == 0 {
			head = end + len(endOfHead)
			length, err := lengthOf(s.in[:head])
			if err != nil {
				return nil, err
			}
			whole = head + length
		}
	}
	return s.in[head:whole], nil
}

// lengthOf returns the length of the body that follows a head.
func lengthOf(head []byte) (int, error) {
	_, after, ok := bytes.Cut(head, lengthField)
	digits, _, _ := bytes.Cut(after, []byte("\r"))
	length, err := strconv.Atoi(string(digits))
	if !ok || err != nil || length < 0 || !bytes.HasPrefix(head, statusOK) {
		return 0, fmt.Errorf("an answer over HTTP is not 200 with a length: %q", head)
	}
	return length, nil
}
