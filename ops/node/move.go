package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// The times of a mover, as shares of the lease. The first move happens within a
// third of the lease: after patience, jitter and one look. Two more servers are
// tried before the lease ends.
const (
	patienceShare = 4  // without progress for lease/4, the node moves
	jitterShare   = 20 // up to lease/20 is added, so that nodes do not move together
	pauseShare    = 6  // a server has lease/6 to show progress
	longestShare  = 2  // lease/2 is the longest pause, after every server was tried
	lookShare     = 60 // lease/60 passes between two looks
)

// mover decides when a node leaves its server of the log. A connection proves
// nothing: a server that is cut off from the leader keeps its clients. Progress
// does: a renewal that is acknowledged and read back, and an index that receives
// the events that its lease waits for.
//
// It has no clock and does no I/O. One goroutine uses it.
type mover struct {
	lease   time.Duration
	servers int                                     // number of servers to try
	jitter  func(limit time.Duration) time.Duration // random, from 0 to limit

	began      bool
	looked     time.Duration // time of the last look
	renewed    time.Duration // last time that renewals made progress or were not due
	indexed    time.Duration // last time that the index made progress or lacked nothing
	since      time.Duration // first time that this connection was seen or requested
	moved      time.Duration // time of the last move
	tries      int           // moves since the last progress
	extra      time.Duration // jitter before the next first move
	reconnects uint64
	confirmed  uint64
	position   uint64
}

// sight is a node's view of the log at one moment.
type sight struct {
	connected  bool
	reconnects uint64 // of the connection so far

	asking    bool   // the node is renewing its lease
	confirmed uint64 // renewals acknowledged and read back

	lacking  bool   // the index waits for events of the log
	position uint64 // rises with the events that the index receives
}

func newMover(lease time.Duration, servers int) *mover {
	random := func(limit time.Duration) time.Duration { return rand.N(limit + 1) }
	return &mover{lease: lease, servers: servers, jitter: random}
}

// look takes the node's view at a time and returns why the node has to move, or
// an empty reason if it does not. The caller must move if there is a reason.
func (m *mover) look(now time.Duration, s sight) (reason string) {
	// A process that was paused has seen nothing, so the times start again.
	if !m.began || now-m.looked > m.lease/patienceShare/2 {
		m.began = true
		m.renewed, m.indexed, m.since = now, now, now
		m.extra = m.jitter(m.lease / jitterShare)
	}
	m.looked = now
	if !s.asking || s.confirmed != m.confirmed {
		m.renewed = now
	}
	if !s.lacking || s.position != m.position {
		m.indexed = now
	}
	m.confirmed, m.position = s.confirmed, s.position
	if m.tries > 0 && m.renewed > m.moved && m.indexed > m.moved {
		m.tries = 0
		m.extra = m.jitter(m.lease / jitterShare)
	}
	// Without a connection, the library tries the servers in turn.
	if !s.connected || s.reconnects != m.reconnects {
		m.since, m.reconnects = now, s.reconnects
	}
	if !s.connected || now-m.since < m.pause() {
		return ""
	}
	patience := m.lease/patienceShare + m.extra
	switch {
	case now-m.renewed >= patience:
		reason = fmt.Sprintf(
			"no renewal was acknowledged and read back for %s",
			(now - m.renewed).Round(time.Millisecond),
		)
	case now-m.indexed >= patience:
		reason = fmt.Sprintf("the index lacks events and got none for %s", (now - m.indexed).Round(time.Millisecond))
	default:
		return ""
	}
	m.tries++
	m.moved, m.since = now, now
	return reason
}

// pause returns how long a connection has to show progress. It grows each time
// that every server was tried without progress.
func (m *mover) pause() time.Duration {
	return min(m.lease/pauseShare*time.Duration(1+m.tries/max(1, m.servers)), m.lease/longestShare)
}

// moveLineEvery is the minimum time between two log lines about moves.
const moveLineEvery = time.Minute

// watchServer moves the connection to the log to the next server of --nats when
// the mover decides so. It does not run in a ledger that keeps the log itself,
// which has no other server.
func (n *Node) watchServer(ctx context.Context) error {
	servers := serversIn(n.cfg.NATS)
	if servers == 0 {
		return nil
	}
	m := newMover(n.cfg.Lease, servers)
	tick := time.NewTicker(n.cfg.Lease / lookShare)
	defer tick.Stop()
	var logged time.Duration // time of the last line; 0 before the first
	var silent int           // moves since then
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, s, stopped := clock.Boottime(), n.sight(), follow.IsFatal(n.index.Err())
		if s.connected && s.reconnects != m.reconnects {
			n.lease.Hurry()
		}
		reason := m.look(now, s)
		if reason == "" {
			continue
		}
		from := n.conn.ConnectedUrlRedacted()
		if err := n.conn.ForceReconnect(); err != nil {
			return nil // closed for good: the node stops
		}
		n.moves.Add(1)
		silent++
		n.quiet.Store(logged > 0 && now-logged < moveLineEvery)
		if !n.quiet.Load() {
			n.log.Warn("log server gives no progress; moving to another",
				"server", from, "reason", reason, "moves", silent)
			logged, silent = now, 0
		}
		if stopped {
			n.index.Retry()
		}
	}
}

// sight returns the node's view of the log now.
func (n *Node) sight() sight {
	lease := n.lease.Status()
	_, fresh := n.index.FreshAsOf()
	err := n.index.Err()
	return sight{
		connected: n.conn.Status() == nats.CONNECTED, reconnects: n.conn.Stats().Reconnects,
		asking: lease.Asking, confirmed: lease.Confirmed,
		// For an index that stopped because of its own fault, another server does
		// not help. If the log has a gap, another server may have the event.
		lacking:  err == nil && (lease.Lacking || !fresh) || follow.IsFatal(err),
		position: uint64(n.index.Position()),
	}
}

// serversIn returns the number of servers to try, or 0 if a new connection can
// only lead to the same one. A host name may stand for several servers.
func serversIn(urls string) int {
	if urls == "" {
		return 0
	}
	list := strings.Split(urls, ",")
	if len(list) > 1 {
		return len(list)
	}
	raw := strings.TrimSpace(list[0])
	if !strings.Contains(raw, "://") {
		raw = "nats://" + raw
	}
	if u, err := url.Parse(raw); err != nil || net.ParseIP(u.Hostname()) != nil {
		return 0
	}
	return 1
}

// connectTimeout bounds the time to connect to a server of the log, so that a
// server that is cut off does not use up the lease.
func (c Config) connectTimeout() time.Duration {
	const shortest, longest = time.Second, 2 * time.Second
	return max(shortest, min(c.Lease/pauseShare, longest))
}

// gapTimeout is how long a message may be missing from the log before the index
// stops. A server that is cut off may lack it. The node must have moved by then,
// so the timeout is longer than any pause of a mover.
func (c Config) gapTimeout() time.Duration {
	const shortest = 5 * time.Second
	if serversIn(c.NATS) == 0 {
		return shortest
	}
	return max(shortest, c.Lease)
}
