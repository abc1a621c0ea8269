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
	// Subject is the request's; an answer has that of what it answers. It is
	// empty for a message that answers nothing.
	Subject string
	Answer  bool
	Data    []byte // payload, without headers
}

// Fate is what becomes of a message.
type Fate int

// The fates.
const (
	Pass Fate = iota
	Lose
	Hold // until [Link.Release]
)

// Rule says what becomes of a message. It is called for one at a time.
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

// Read matches the request for a stored event.
func Read(m Message) bool {
	return !m.Answer && strings.HasPrefix(m.Subject, "$JS.API.DIRECT.GET.LEDGER")
}

// Link is the way of one connection to the log.
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

// Link connects as the ledger, by a way of its own. The way is closed when the
// test ends.
func (l *Log) Link(opts ...nats.Option) (*Link, *nats.Conn) {
	l.t.Helper()
	k := &Link{log: l, asked: map[string]string{}}
	nc := l.Conn(append([]nats.Option{nats.InProcessServer(k)}, opts...)...)
	l.t.Cleanup(func() {
		nc.Close() // first, or it would connect again
		k.close()
	})
	return k, nc
}

// Rule sets what becomes of messages from now on. Nil passes all.
func (k *Link) Rule(r Rule) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rule = r
}

// Held returns how many messages are held back.
func (k *Link) Held() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.held)
}

// Lost returns how many messages were lost.
func (k *Link) Lost() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lost
}

// Release lets go of the messages that are held back, oldest first.
func (k *Link) Release() {
	k.mu.Lock()
	let := k.held
	k.held = nil
	k.mu.Unlock()
	for _, h := range let {
		_ = h.to.write(h.raw) // a way that is closed loses it
	}
}

// InProcessConn makes the way to the server, each time the connection is made.
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

// pump carries frames from one end to the other until either is closed.
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

// writer lets frames that were held back and those that come meanwhile be
// written whole.
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

// readFrame reads one element and returns it as it came, too.
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
		return nil, f, fmt.Errorf("read a frame: %w", err)
	}
	headers := 0
	if sizes == 2 {
		if headers, err = strconv.Atoi(part[len(part)-2]); err != nil {
			return nil, f, fmt.Errorf("read a frame: %w", err)
		}
	}
	body := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, f, err
	}
	f.data = bytes.Clone(body[headers:size])
	return append(line, body...), f, nil
}
