package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/testkit/history"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/projector"
)

// Connect connects to a ledger's log: with the rights of a ledger if there are
// several ledgers, else with those of a verifier.
func (n *Node) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	var conn *nats.Conn
	// On a busy machine one attempt may time out.
	n.Until(t, "its log accepts connections", func() (err error) {
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

// Leader waits until all running ledgers name the same leader of a stream.
func (c *Cluster) Leader(t testing.TB, stream string) *Node {
	t.Helper()
	if len(c.Ledgers()) == 1 {
		return c.Ledgers()[0]
	}
	var conns []*nats.Conn
	for _, n := range c.Ledgers() {
		if p := n.Process(); p != nil && !p.Exited() {
			conns = append(conns, n.Connect(t))
		}
	}
	var leader *Node
	wait.Until(t, stream+" has a leader", func() bool {
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

// Lead makes a ledger the leader of a stream, and returns when all ledgers
// agree.
func (c *Cluster) Lead(t testing.TB, stream string, n *Node) {
	t.Helper()
	conn := n.Connect(t)
	defer conn.Close()
	order := fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, n.Name)
	wait.Until(t, fmt.Sprintf("%s leads %s", n.Name, stream), func() bool {
		if c.Leader(t, stream) == n {
			return true
		}
		// The server may refuse, for example during another election. Then the
		// request is repeated.
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
	wait.Until(t, "the last sequence of "+stream+" is known", func() bool {
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

// ReadLog returns the whole log, from a running ledger.
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
	log, err := history.Read(t.Context(), stream, last)
	if err != nil {
		t.Fatalf("read the log: %v", err)
	}
	return log
}

// CompareIndexes compares the indexes of all nodes to the fold of the log. The
// nodes must be stopped.
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
			t.Errorf("I6: %s's index differs from the fold of the log: %s", n.Name, history.FirstDifference(got, want))
		}
	}
}

// dumpOf opens an index that no process has open, applies messages, and returns
// a dump of the index and its position.
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
