package node

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector/replica"
)

// reportEvery is the time between two reports while nothing changes.
const reportEvery = time.Second

// report tells the ledgers the position that this node has applied: at every
// change, and once a second. A ledger reports too, because it checks its callers'
// tokens.
func (n *Node) report(ctx context.Context) error {
	for ctx.Err() == nil {
		at := n.index.Position()
		r := n.nodeReport(at)
		if b, err := json.Marshal(r); err == nil {
			// This fails while the log is unreachable. Nothing is lost: the next
			// report contains everything.
			_ = n.conn.Publish(events.NodeSubjectPrefix+n.name, b)
		}
		step, cancel := context.WithTimeout(ctx, reportEvery)
		switch err := n.index.WaitApplied(step, at+1); {
		case errors.Is(err, replica.ErrOpening):
			clock.Sleep(step, 10*time.Millisecond) // a receipt may wait for this index
		case err != nil:
			<-step.Done() // stopped or nothing new: report again in a second
		}
		cancel()
	}
	return nil
}

func (n *Node) nodeReport(at events.Position) ledger.NodeReport {
	index, _ := n.index.Statements()
	r := ledger.NodeReport{
		Name: n.name, Instance: n.holder.Instance, Roles: n.cfg.Roles, Position: at, Digest: index,
		LeaseMS: max(0, n.verify.Lease().Milliseconds()), Version: n.cfg.Version,
		Epoch: n.index.Epoch(), Address: n.address(n.verifyListener), Model: n.model,
		Copy: n.copy.report(),
	}
	if c := n.lease.Status().Clock; c.Known {
		r.Clock = new(events.InMilliseconds(c.By))
	}
	for permission, d := range n.cfg.Stale {
		if r.Stale == nil {
			r.Stale = map[string]events.Milliseconds{}
		}
		r.Stale[permission] = events.InMilliseconds(d)
	}
	err := n.unready()
	if err == nil {
		err = n.copy.err()
	}
	if err != nil {
		r.Why = err.Error()
	} else {
		r.Ready = true
	}
	return r
}

// unready returns why the node does not answer checks, or nil if it does.
func (n *Node) unready() error {
	if err := n.index.Err(); err != nil {
		return err
	}
	return n.lease.Err()
}

// errOpeningLedger is why a ledger is not ready though it has a lease.
var errOpeningLedger = errors.New("the ledger is being opened")

// unopened returns why the node is not ready, or nil if it is. A ledger is ready
// when its API is.
func (n *Node) unopened() error {
	select {
	case <-n.ready:
	default:
		if err := n.unready(); err != nil || !n.cfg.has(RoleLedger) {
			return err
		}
		return errOpeningLedger
	}
	if err := n.unready(); err != nil {
		return err
	}
	return n.copy.err()
}

func (n *Node) addresses() Addresses {
	a := Addresses{
		PID: os.Getpid(), Name: n.name,
		API: n.address(n.apiListener), Verify: n.address(n.verifyListener), Metrics: n.address(n.metricsListener),
	}
	a.Matomo = n.address(n.matomoListener)
	if n.certs != nil {
		a.Fingerprint = n.certs.Fingerprint()
	}
	if n.server != nil {
		a.NATS = n.server.url()
	}
	return a
}

// address returns the URL of a listener, empty if there is none.
func (n *Node) address(l net.Listener) string {
	switch {
	case l == nil:
		return ""
	case n.certs != nil:
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// writeRun writes run.json, in which programs on this machine find the addresses.
func (n *Node) writeRun() error {
	b, err := json.Marshal(n.addrs)
	if err != nil {
		return err
	}
	return n.dir.Write(datadir.Run, append(b, '\n'))
}
