package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/nodetest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = wait.Limit

// server is a node with its HTTP API, and direct access to its log.
type server struct {
	t       testing.TB
	node    *node.Node
	host    string // of the API, as host:port
	root    string // secret of the first token
	log     jetstream.JetStream
	counted ledgertest.ChangeCounter
}

func start(t testing.TB) *server {
	t.Helper()
	n, dir := nodetest.Start(t)
	for end := time.Now().Add(patience); n.Verifier().Lease() <= 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the node gets no lease")
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "root.token"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, node: n, host: strings.TrimPrefix(n.Addresses().API, "http://"), root: strings.TrimSpace(string(raw))}
	key, err := embedded.LoadKey(filepath.Join(dir, "verifier.nk"))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(n.Addresses().NATS, embedded.VerifierOptions(key)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if s.log, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return s
}

// end returns the position of the log's last event.
func (s *server) end() events.Position {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := s.log.Stream(ctx, events.StreamName)
	if err != nil {
		s.t.Fatal(err)
	}
	return events.Position(stream.CachedInfo().State.LastSeq)
}

// changes returns the number of events that change a record.
func (s *server) changes() events.Position {
	s.t.Helper()
	return s.counted.Count(s.t, s.log, 0)
}

// answer is the response to a request.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any // nil where it is not JSON
}

// code returns a problem's code.
func (a answer) code() string {
	code, _ := a.body["code"].(string)
	return code
}

// at returns a value in the body, as in at("token", "id").
func (a answer) at(path ...string) any {
	var v any = a.body
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// text is at for text.
func (a answer) text(path ...string) string {
	text, _ := a.at(path...).(string)
	return text
}

// into decodes the body into a type, which must have all of its fields.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	reflect.ValueOf(v).Elem().SetZero() // else what is absent would be what was there before
	d := json.NewDecoder(bytes.NewReader(a.raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v: %s", err, a.raw)
	}
}

// request is written byte by byte, so that it can be malformed in any way.
type request struct {
	line   string   // as in "GET /v1/tokens"
	header []string // beyond the usual ones; "-Name" leaves one of those out
	body   string
}

// bytes returns what is sent. The usual headers are the root token, JSON, and
// the end of the connection after the answer.
func (r request) bytes(s *server) []byte {
	line := r.line
	if strings.Count(line, " ") == 1 {
		line += " HTTP/1.1"
	}
	usual := [][2]string{
		{"Host", s.host},
		{"Authorization", "Bearer " + s.root},
		{"Connection", "close"},
	}
	if r.body != "" {
		usual = append(usual, [2]string{"Content-Type", "application/json"}, [2]string{"Content-Length", fmt.Sprint(len(r.body))})
	}
	var b bytes.Buffer
	b.WriteString(line + "\r\n")
	for _, h := range usual {
		replaced := false
		for _, mine := range r.header {
			name, _, _ := strings.Cut(strings.TrimPrefix(mine, "-"), ":")
			replaced = replaced || strings.EqualFold(name, h[0])
		}
		if !replaced {
			b.WriteString(h[0] + ": " + h[1] + "\r\n")
		}
	}
	for _, h := range r.header {
		if !strings.HasPrefix(h, "-") {
			b.WriteString(h + "\r\n")
		}
	}
	b.WriteString("\r\n" + r.body)
	return b.Bytes()
}

// send sends a request on a connection of its own.
func (s *server) send(r request) answer {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.host)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	// The server may refuse, and close, before it has read all.
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(r.bytes(s))
		written <- err
	}()
	method, _, _ := strings.Cut(r.line, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("%s: %v", r.line, err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.raw, err = io.ReadAll(resp.Body); err != nil {
		s.t.Fatalf("%s: %v", r.line, err)
	}
	conn.Close()
	<-written
	_ = json.Unmarshal(a.raw, &a.body)
	return a
}

// do sends JSON as the root account.
func (s *server) do(line string, body any, header ...string) answer {
	s.t.Helper()
	r := request{line: line, header: header}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		r.body = string(b)
	}
	return s.send(r)
}

// must is do, and fails the test unless the request succeeds.
func (s *server) must(line string, body any, header ...string) answer {
	s.t.Helper()
	a := s.do(line, body, header...)
	if a.status/100 != 2 {
		s.t.Fatalf("%s: status %d: %s", line, a.status, a.raw)
	}
	return a
}

// token creates a token of an existing account.
func (s *server) token(account string, scopes ...string) (id, secret string) {
	s.t.Helper()
	a := s.must("POST /v1/tokens", m{"account": account, "scopes": scopes})
	return a.text("token", "id"), a.text("secret")
}

// m is a JSON object.
type m = map[string]any

// digest returns the stored digest of a secret, which could be mistaken for a secret.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// conn is a connection that is written to byte by byte.
type conn struct {
	*net.TCPConn
	t testing.TB
}

func (s *server) dial() conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.host)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	return conn{c.(*net.TCPConn), s.t}
}

// drain returns everything until the server closes the connection.
func (c conn) drain() string {
	c.t.Helper()
	b, err := io.ReadAll(c)
	if err, ok := err.(net.Error); ok && err.Timeout() {
		c.t.Errorf("the server has not closed the connection after %s", patience)
	}
	return string(b)
}

func (c conn) closeWrite() {
	c.t.Helper()
	if err := c.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
