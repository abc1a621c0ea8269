package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/projector"
)

// Connect connects to a ledger's log, with all that a ledger
// may do where there are several and as a verifier where there is one.
func (n *Node) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	var conn *nats.Conn
	// A busy machine may take longer than the library waits.
	n.Until(t, "its log can be connected to", func() (err error) {
		conn, err = n.connect()
		return err
	})
	t.Cleanup(conn.Close)
	return conn
}

func (n *Node) connect() (*nats.Conn, error) {
	if n.cluster.creds != "" {
		creds, err := embedded.LoadCredentials(filepath.Join(n.cluster.creds, "nodes", n.Name))
		if err != nil {
			return nil, err
		}
		return nats.Connect("nats://"+n.clients.proxied, creds.Options()...)
	}
	key, err := embedded.LoadKey(n.File("verifier.nk"))
	if err != nil {
		return nil, err
	}
	return nats.Connect("nats://"+n.clients.proxied, embedded.VerifierOptions(key)...)
}

// Leader waits until the ledgers that run agree on who leads a stream.
func (c *Cluster) Leader(t testing.TB, stream string) *Node {
	t.Helper()
	if len(c.Ledgers()) == 1 {
		return c.Ledgers()[0]
	}
	var conns []*nats.Conn
	for _, n := range c.Ledgers() {
		if p := n.Process(); p != nil && !p.Over() {
			conns = append(conns, n.Connect(t))
		}
	}
	var leader *Node
	Eventually(t, stream+" has a leader", func() bool {
		names := map[string]bool{}
		for _, conn := range conns {
			name, err := leaderOf(t.Context(), conn, stream)
			if err != nil || name == "" {
				return false
			}
			names[name] = true
			leader = c.Node(name)
		}
		return len(names) == 1
	})
	for _, conn := range conns {
		conn.Close()
	}
	return leader
}

// Lead makes a ledger the leader of a stream, and returns when all agree.
func (c *Cluster) Lead(t testing.TB, stream string, n *Node) {
	t.Helper()
	conn := n.Connect(t)
	defer conn.Close()
	order := fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, n.Name)
	Eventually(t, fmt.Sprintf("%s leads %s", n.Name, stream), func() bool {
		if c.Leader(t, stream) == n {
			return true
		}
		// It may be refused, as while another election is under way: then the
		// leader is asked again.
		_, _ = conn.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, order, time.Second)
		return false
	})
}

func leaderOf(ctx context.Context, conn *nats.Conn, stream string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	js, err := jetstream.New(conn)
	if err != nil {
		return "", err
	}
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return "", err
	}
	if s.CachedInfo().Cluster == nil {
		return "", errors.New("the stream has no cluster")
	}
	return s.CachedInfo().Cluster.Leader, nil
}

// Last returns the last sequence of a stream.
func (c *Cluster) Last(t testing.TB, stream string) uint64 {
	t.Helper()
	conn := c.Leader(t, stream).Connect(t)
	defer conn.Close()
	var last uint64
	Eventually(t, "the end of "+stream+" is known", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return false
		}
		last = s.CachedInfo().State.LastSeq
		return true
	})
	return last
}

// ReadLog returns the whole log, as a ledger has it that runs.
func (c *Cluster) ReadLog(t testing.TB) []events.Message {
	t.Helper()
	conn := c.Leader(t, events.StreamName).Connect(t)
	defer conn.Close()
	last := c.Last(t, events.StreamName)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	log := make([]events.Message, last)
	next := make(chan uint64)
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for seq := range next {
				m, err := getMessage(t.Context(), stream, seq)
				if err != nil {
					failed.Store(true)
					t.Errorf("position %d of %d cannot be read: %v", seq, last, err)
					continue
				}
				log[seq-1] = events.Message{Position: events.Position(seq), Subject: m.Subject, Data: m.Data}
			}
		})
	}
	for seq := range last {
		next <- seq + 1
	}
	close(next)
	wg.Wait()
	if failed.Load() {
		t.FailNow()
	}
	return log
}

// getMessage gets a message that is known to be there. Any replica may be asked,
// and one may not have it yet.
func getMessage(ctx context.Context, stream jetstream.Stream, seq uint64) (m *jetstream.RawStreamMsg, err error) {
	for range 20 {
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		m, err = stream.GetMsg(asking, seq)
		cancel()
		if err == nil || ctx.Err() != nil {
			return m, err
		}
	}
	return nil, err
}

// CompareIndexes compares the indexes of all nodes, which have to be stopped, to
// what the log is folded to.
func (c *Cluster) CompareIndexes(t testing.TB, log []events.Message) {
	t.Helper()
	want, at, err := dumpOf(filepath.Join(t.TempDir(), "fold"), log)
	if err != nil {
		t.Fatalf("fold the log: %v", err)
	}
	for _, n := range c.Nodes {
		dir := n.File("index")
		if n.disk != nil {
			dir = filepath.Join(t.TempDir(), "index")
			n.disk.Extract(t, filepath.Join(n.Data, "index"), dir)
		}
		got, position, err := dumpOf(dir, nil)
		switch {
		case err != nil:
			t.Errorf("I6: %s's index: %v", n.Name, err)
		case position != at:
			t.Errorf("I6: %s's index is at position %d, want %d", n.Name, position, at)
		case !bytes.Equal(got, want):
			t.Errorf("I6: %s's index is not what the log says: %s", n.Name, difference(got, want))
		}
	}
}

// dumpOf opens an index that no process has open, adds messages and returns what
// it holds.
func dumpOf(dir string, messages []events.Message) (content []byte, at events.Position, err error) {
	p, err := projector.Open(projector.Config{Dir: dir})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Apply(context.Background(), messages); err != nil {
		return nil, 0, err
	}
	var b bytes.Buffer
	if err := p.Dump(&b); err != nil {
		return nil, 0, err
	}
	return b.Bytes(), p.Position(), nil
}

// difference returns the first line in which two dumps differ.
func difference(got, want []byte) string {
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range max(len(g), len(w)) {
		switch {
		case i >= len(g):
			return fmt.Sprintf("it lacks %s", w[i])
		case i >= len(w):
			return fmt.Sprintf("it has %s besides", g[i])
		case !bytes.Equal(g[i], w[i]):
			return fmt.Sprintf("it has %s, want %s", g[i], w[i])
		}
	}
	return "nothing"
}
