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

// Shares of the lease that a mover goes by. The first move comes within a third
// of the lease: after patience, jitter and one look. Two more servers are tried
// before the lease ends.
const (
	patienceShare = 4  // lease/4 without progress is too long
	jitterShare   = 20 // lease/20 at most is added, so that nodes do not move at once
	pauseShare    = 6  // lease/6 is what a server gets to show progress
	longestShare  = 2  // lease/2 is the longest pause, once every server was tried
	lookShare     = 60 // lease/60 is between two looks
)

// mover decides when a node leaves the server of the log that it is connected
// to. A connection that is up proves nothing: a server that is cut off from the
// leader keeps its clients. Only progress does: a renewal that is acknowledged
// and read back, and an index that gets the events that its lease waits for.
//
// It has no clock and does no I/O. One goroutine uses it.
type mover struct {
	lease   time.Duration
	servers int                                    // that there are to try
	jitter  func(most time.Duration) time.Duration // random, at most that

	began      bool
	looked     time.Duration // when look was called last
	renewed    time.Duration // when the renewals made progress last, or were not due
	indexed    time.Duration // when the index made progress last, or lacked nothing
	since      time.Duration // when this connection was seen first, or asked for
	moved      time.Duration // when the last move was
	tries      int           // moves since the last progress
	extra      time.Duration // of jitter, before the next first move
	reconnects uint64
	confirmed  uint64
	position   uint64
}

// sight is what a node sees of the log.
type sight struct {
	connected  bool
	reconnects uint64 // of the connection so far

	asking    bool   // the node renews its lease
	confirmed uint64 // renewals that were acknowledged and read back

	lacking  bool   // the index waits for events of the log
	position uint64 // rises with what the index gets
}

func newMover(lease time.Duration, servers int) *mover {
	random := func(most time.Duration) time.Duration { return rand.N(most + 1) }
	return &mover{lease: lease, servers: servers, jitter: random}
}

// look takes what the node sees at a time and returns why it has to move, empty
// if it does not. A reason counts as a move: the caller makes it.
func (m *mover) look(now time.Duration, s sight) (reason string) {
	// A process that stood still has seen nothing, so it starts to count again.
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
	// While there is no connection, the library tries the servers in turn.
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

// pause returns how long a connection gets to show progress. It grows each time
// that all servers were tried in vain: then they are equally bad.
func (m *mover) pause() time.Duration {
	return min(m.lease/pauseShare*time.Duration(1+m.tries/max(1, m.servers)), m.lease/longestShare)
}

// moveLineEvery is the least time between two lines about moves.
const moveLineEvery = time.Minute

// watchServer moves the connection to the log to the next server of --nats
// whenever the mover says so. It does not run in a ledger that keeps the log
// itself: that one has no other server to go to.
func (n *Node) watchServer(ctx context.Context) error {
	servers := elsewhere(n.cfg.NATS)
	if servers == 0 {
		return nil
	}
	m := newMover(n.cfg.Lease, servers)
	tick := time.NewTicker(n.cfg.Lease / lookShare)
	defer tick.Stop()
	var said time.Duration // when the last line was written; 0 before the first
	var silent int         // moves since then
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
			return nil // it is closed for good: the node stops
		}
		n.moves.Add(1)
		silent++
		n.quiet.Store(said > 0 && now-said < moveLineEvery)
		if !n.quiet.Load() {
			n.log.Warn(
				"log server gives no progress; moving to another",
				"server",
				from,
				"reason",
				reason,
				"moves",
				silent,
			)
			said, silent = now, 0
		}
		if stopped {
			n.index.Retry()
		}
	}
}

// sight returns what the node sees of the log now.
func (n *Node) sight() sight {
	lease := n.lease.Status()
	_, fresh := n.index.FreshAsOf()
	err := n.index.Err()
	return sight{
		connected: n.conn.Status() == nats.CONNECTED, reconnects: n.conn.Stats().Reconnects,
		asking: lease.Asking, confirmed: lease.Confirmed,
		// An index that stopped by its own fault lacks nothing that another server
		// has. One whose log has a gap may find the event elsewhere.
		lacking:  err == nil && (lease.Lacking || !fresh) || follow.IsFatal(err),
		position: uint64(n.index.Position()),
	}
}

// elsewhere returns how many servers there are to try, 0 if a new connection
// could lead to no other. A host name may stand for several servers.
func elsewhere(urls string) int {
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

// connectTimeout is how long a server of the log may take to accept a
// connection, so that one that is cut off does not use up the lease.
func (c Config) connectTimeout() time.Duration {
	const least, most = time.Second, 2 * time.Second
	return max(least, min(c.Lease/pauseShare, most))
}

// gapTimeout is how long a message may be missing from the log before the index
// stops. A server that is cut off may lack it, and the node has to be elsewhere
// by then, so it is longer than any pause of a mover.
func (c Config) gapTimeout() time.Duration {
	const least = 5 * time.Second
	if elsewhere(c.NATS) == 0 {
		return least
	}
	return max(least, c.Lease)
}
