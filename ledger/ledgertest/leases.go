package ledgertest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
)

// Barrier matches a request to write a barrier.
func Barrier(m Message) bool { return !m.Answer && m.Subject == events.BarrierSubject }

// BarrierWritten matches the answer to such a request.
func BarrierWritten(m Message) bool { return m.Answer && m.Subject == events.BarrierSubject }

// LeaseHandler receives the messages of the stream of leases.
type LeaseHandler interface {
	LeasesBegin(from events.LeaseSeq, whole bool)
	LeaseRead(m events.LeaseMessage)
	LeasesLost(err error)
}

// Leases reads the stream of leases from its first message, as a ledger does. A
// test can pause it.
type Leases struct {
	log  *Log
	wake chan struct{}

	mu      sync.Mutex
	again   bool // guarded by mu; begin at the first message
	stopped bool // guarded by mu
}

// Leases returns a reader. Call Run to start it.
func (l *Log) Leases() *Leases { return &Leases{log: l, wake: make(chan struct{}, 1)} }

// FromFirst restarts at the first message of the stream.
func (r *Leases) FromFirst() { r.set(func() { r.again = true }) }

// Exists tells the reader that there is a message.
func (r *Leases) Exists(events.LeaseSeq) { r.set(func() {}) }

// Stop pauses the reader until Go.
func (r *Leases) Stop() { r.set(func() { r.stopped = true }) }

// Go ends a pause.
func (r *Leases) Go() { r.set(func() { r.stopped = false }) }

func (r *Leases) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run passes messages to h until ctx ends.
func (r *Leases) Run(ctx context.Context, h LeaseHandler) error {
	tail := make(chan *nats.Msg, 4096)
	sub, err := r.log.Conn().ChanSubscribe(events.LeaseTailFilter, tail)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	for next := uint64(0); ; {
		r.mu.Lock()
		again, stopped := r.again, r.stopped
		r.again = false
		r.mu.Unlock()
		if again {
			stream, err := r.log.js.Stream(ctx, events.LeaseStreamName)
			if err != nil { // the stream is being recreated
				if ctx.Err() != nil {
					return nil
				}
				r.FromFirst()
				continue
			}
			next = max(1, stream.CachedInfo().State.FirstSeq)
			h.LeasesBegin(events.LeaseSeq(next), next == 1)
		}
		for next > 0 && !stopped {
			stream, err := r.log.js.Stream(ctx, events.LeaseStreamName)
			if err != nil {
				break // the stream is being recreated
			}
			m, err := stream.GetMsg(ctx, next)
			if err != nil {
				break // there is no such message yet
			}
			h.LeaseRead(events.LeaseMessage{Seq: events.LeaseSeq(m.Sequence), Subject: m.Subject, Data: m.Data})
			next++
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tail:
		case <-r.wake:
		case <-time.After(50 * time.Millisecond): // if the request failed for another reason
		}
	}
}

// Node simulates a verifier. It renews its lease and reports its position when
// the test says so.
type Node struct {
	events.Holder
	// Lease is the lease that the node requests. Stale is how long it answers
	// beyond the lease, for each permission.
	Lease time.Duration
	Stale map[string]events.Milliseconds

	log    *Log
	conn   *nats.Conn
	number uint64
}

// Node returns a verifier that has not renewed or reported yet.
func (l *Log) Node(name string, lease time.Duration) *Node {
	l.t.Helper()
	id := ulid.Make().String()
	return &Node{
		Holder: events.Holder{Node: name, Instance: lower(id[len(id)-8:])},
		Lease:  lease,
		log:    l,
		conn:   l.Conn(),
	}
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c - 'A' + 'a'
		}
	}
	return string(b)
}

// Renew requests a lease with the index at a position, and returns the sequence
// of the renewal.
func (n *Node) Renew(at events.Position) events.LeaseSeq {
	n.log.t.Helper()
	return n.renew(n.Lease, at, false)
}

// Join requests the first lease, as a node does when it starts.
func (n *Node) Join(at events.Position) events.LeaseSeq {
	n.log.t.Helper()
	return n.renew(n.Lease, at, true)
}

// GiveUp releases the lease.
func (n *Node) GiveUp(at events.Position) events.LeaseSeq {
	n.log.t.Helper()
	return n.renew(0, at, false)
}

func (n *Node) renew(lease time.Duration, at events.Position, joining bool) events.LeaseSeq {
	n.log.t.Helper()
	n.number++
	r := events.Renewal{
		Holder: n.Holder, Number: n.number, Epoch: n.log.Epoch, Joining: joining, Lease: events.InMilliseconds(lease),
		Stale: n.Stale, Index: events.Statement{Position: at},
	}
	return n.log.PublishLease(&r)
}

// PublishLease stores a renewal.
func (l *Log) PublishLease(r *events.Renewal) events.LeaseSeq {
	l.t.Helper()
	data, err := r.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.StoreLease(r.Subject(), data)
}

// StoreLease stores a message in the stream of leases, valid or not.
func (l *Log) StoreLease(subject string, data []byte) events.LeaseSeq {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := l.js.Publish(ctx, subject, data)
	if err != nil {
		l.t.Fatal(err)
	}
	return events.LeaseSeq(ack.Sequence)
}

// Report reports that the node has applied a position.
func (n *Node) Report(at events.Position) {
	n.log.t.Helper()
	b, err := json.Marshal(map[string]any{
		"name": n.Node, "instance": n.Instance, "position": at, "ready": true, "epoch": n.log.Epoch,
	})
	if err != nil {
		n.log.t.Fatal(err)
	}
	if err := n.conn.Publish(events.NodeSubjectPrefix+n.Node, b); err != nil {
		n.log.t.Fatal(err)
	}
}

// Follow reports each new position of the log at once and renews the lease, as
// a healthy node does, until the test ends.
func (n *Node) Follow(t testing.TB) {
	t.Helper()
	tail := make(chan *nats.Msg, 1<<16)
	sub, err := n.conn.ChanSubscribe(events.TailFilter, tail)
	if err != nil {
		t.Fatal(err)
	}
	n.Join(n.log.End())
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		again := time.NewTicker(max(n.Lease/6, time.Millisecond))
		defer again.Stop()
		last := n.log.End()
		n.Report(last)
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-tail:
				// If several messages are waiting, report only the last.
				for waiting := true; waiting; {
					if at, err := parseTail(m); err == nil {
						last = max(last, at)
					}
					select {
					case m = <-tail:
					default:
						waiting = false
					}
				}
				n.Report(last)
			case <-again.C:
				n.Renew(last)
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
		_ = sub.Unsubscribe()
	})
}

func parseTail(m *nats.Msg) (events.Position, error) {
	var at events.Position
	err := json.Unmarshal([]byte(m.Header.Get("Nats-Sequence")), &at)
	return at, err
}

// LeaseMessages returns all messages of the stream of leases.
func (l *Log) LeaseMessages() []events.LeaseMessage {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := l.js.Stream(ctx, events.LeaseStreamName)
	if err != nil {
		l.t.Fatal(err)
	}
	state := stream.CachedInfo().State
	var all []events.LeaseMessage
	for seq := max(1, state.FirstSeq); seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, events.LeaseMessage{Seq: events.LeaseSeq(seq), Subject: m.Subject, Data: m.Data})
	}
	return all
}

// ForgetLeases deletes the stream of leases and creates it again.
func (l *Log) ForgetLeases() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.js.DeleteStream(ctx, events.LeaseStreamName); err != nil {
		l.t.Fatal(err)
	}
	if _, err := embedded.EnsureLeases(ctx, l.js, embedded.LeaseLimits{Epoch: l.Epoch}); err != nil {
		l.t.Fatal(err)
	}
}
