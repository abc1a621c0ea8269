package ledgertest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// Message is a request to the server, or an answer from it.
type Message struct {
	// Subject is the subject of the request; an answer has the subject of its
	// request. It is empty for a message that answers no request.
	Subject string
	Answer  bool
	Data    []byte // payload, without headers
}

// Fate says whether a message is delivered.
type Fate int

// The fates.
const (
	Pass Fate = iota
	Lose
	Hold // until [Link.Release]
)

// Rule decides the fate of a message. Calls do not overlap.
type Rule func(Message) Fate

// First applies a fate to the first n messages that match.
func First(n int, fate Fate, match func(Message) bool) Rule {
	return func(m Message) Fate {
		if n > 0 && match(m) {
			n--
			return fate
		}
		return Pass
	}
}

// Append matches the append of an event.
func Append(m Message) bool { return !m.Answer && strings.HasPrefix(m.Subject, "ledger.") }

// Appended matches the answer to an append.
func Appended(m Message) bool { return m.Answer && strings.HasPrefix(m.Subject, "ledger.") }

// Read matches a request for a stored event.
func Read(m Message) bool {
	return !m.Answer && strings.HasPrefix(m.Subject, "$JS.API.DIRECT.GET.LEDGER")
}

// Link is one connection to the log, which a test can interrupt.
type Link struct {
	log *Log

	mu    sync.Mutex
	rule  Rule              // guarded by mu; nil passes all
	asked map[string]string // guarded by mu; inbox -> subject of the request
	held  []held            // guarded by mu
	lost  int               // guarded by mu
	ends  []net.Conn        // guarded by mu
	gone  bool              // guarded by mu
	pumps sync.WaitGroup
}

type held struct {
	to  *writer
	raw []byte
}

// Link connects as the ledger, through a link of its own. The link is closed
// when the test ends.
func (l *Log) Link(opts ...nats.Option) (*Link, *nats.Conn) {
	l.t.Helper()
	k := &Link{log: l, asked: map[string]string{}}
	nc := l.Conn(append([]nats.Option{nats.InProcessServer(k)}, opts...)...)
	l.t.Cleanup(func() {
		nc.Close() // first, or it would reconnect
		k.close()
	})
	return k, nc
}

// Rule sets the rule for all later messages. Nil passes all.
func (k *Link) Rule(r Rule) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rule = r
}

// Held returns the number of messages that are held.
func (k *Link) Held() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.held)
}

// Lost returns the number of messages that were lost.
func (k *Link) Lost() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lost
}

// Release delivers the held messages, oldest first.
func (k *Link) Release() {
	k.mu.Lock()
	let := k.held
	k.held = nil
	k.mu.Unlock()
	for _, h := range let {
		_ = h.to.write(h.raw) // a closed connection loses the message
	}
}

// InProcessConn connects to the server. The client calls it for each
// connection.
func (k *Link) InProcessConn() (net.Conn, error) {
	server, err := k.log.InProcessConn()
	if err != nil {
		return nil, err
	}
	client, near := net.Pipe()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		_ = server.Close()
		return nil, errClosed
	}
	k.ends = append(k.ends, server, near)
	k.pumps.Go(func() { k.pump(near, &writer{c: server}, false) })
	k.pumps.Go(func() { k.pump(server, &writer{c: near}, true) })
	return client, nil
}

func (k *Link) close() {
	k.mu.Lock()
	k.gone = true
	for _, c := range k.ends {
		_ = c.Close()
	}
	k.mu.Unlock()
	k.pumps.Wait()
}

// pump copies frames from one end to the other until either is closed.
func (k *Link) pump(from net.Conn, to *writer, answers bool) {
	defer to.c.Close()
	r := bufio.NewReader(from)
	for {
		raw, f, err := readFrame(r)
		if err != nil {
			return
		}
		if k.fate(f, answers, to, raw) != Pass {
			continue
		}
		if to.write(raw) != nil {
			return
		}
	}
}

func (k *Link) fate(f frame, answer bool, to *writer, raw []byte) Fate {
	if f.subject == "" {
		return Pass // not a message
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m := Message{Subject: f.subject, Answer: answer, Data: f.data}
	if answer {
		m.Subject = k.asked[f.subject]
	} else if f.reply != "" {
		k.asked[f.reply] = f.subject
	}
	if k.rule == nil {
		return Pass
	}
	fate := k.rule(m)
	switch fate {
	case Hold:
		k.held = append(k.held, held{to, raw})
	case Lose:
		k.lost++
	}
	return fate
}

// writer writes whole frames, also if held frames and new ones are written at
// the same time.
type writer struct {
	mu sync.Mutex
	c  net.Conn
}

func (w *writer) write(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.c.Write(b)
	return err
}

// frame is one element of the NATS client protocol; subject is empty unless it
// is a message.
type frame struct {
	subject, reply string
	data           []byte
}

// readFrame reads one element, and also returns its raw bytes.
func readFrame(r *bufio.Reader) (raw []byte, f frame, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, f, err
	}
	part := strings.Fields(string(line))
	if len(part) == 0 {
		return line, f, nil
	}
	// PUB <subject> [reply] <size>; HPUB has the headers' size before it. MSG
	// and HMSG have the subscription's id after the subject.
	sizes := 1
	verb := strings.ToUpper(part[0])
	switch verb {
	case "HPUB", "HMSG":
		sizes = 2
	case "PUB", "MSG":
	default:
		return line, f, nil
	}
	names := part[1 : len(part)-sizes]
	if strings.HasSuffix(verb, "MSG") {
		names = append(names[:1:1], names[2:]...)
	}
	f.subject = names[0]
	if len(names) > 1 {
		f.reply = names[1]
	}
	size, err := strconv.Atoi(part[len(part)-1])
	if err != nil {
		return nil, f, fmt.Errorf("read frame: %w", err)
	}
	headers := 0
	if sizes == 2 {
		if headers, err = strconv.Atoi(part[len(part)-2]); err != nil {
			return nil, f, fmt.Errorf("read frame: %w", err)
		}
	}
	body := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, f, err
	}
	f.data = bytes.Clone(body[headers:size])
	return append(line, body...), f, nil
}
