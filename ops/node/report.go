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

// reportEvery is how often a node reports where nothing changes.
const reportEvery = time.Second

// report tells the ledgers what this node has applied: at every change, and
// once a second. A ledger reports too, because it checks its callers' tokens.
func (n *Node) report(ctx context.Context) error {
	for ctx.Err() == nil {
		at := n.index.Position()
		r := n.nodeReport(at)
		if b, err := json.Marshal(r); err == nil {
			// While the log is out of reach this fails, and nothing is lost:
			// the next report says all that this one would have said.
			_ = n.conn.Publish(events.NodeSubjectPrefix+n.name, b)
		}
		step, cancel := context.WithTimeout(ctx, reportEvery)
		switch err := n.index.WaitApplied(step, at+1); {
		case errors.Is(err, replica.ErrOpening):
			clock.Sleep(step, 10*time.Millisecond) // a receipt may wait for what it holds
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
		Epoch: n.index.Epoch(), Address: address(n.verifyListener), Model: n.model,
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

// unready returns why the node does not answer checks, nil where it does.
func (n *Node) unready() error {
	if err := n.index.Err(); err != nil {
		return err
	}
	return n.lease.Err()
}

// errOpeningLedger is why a ledger is not ready though it has a lease.
var errOpeningLedger = errors.New("the ledger is being opened")

// unopened returns why the node does not do all that it is for, nil where it
// does: a ledger is ready when its API is.
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
		API: address(n.apiListener), Verify: address(n.verifyListener), Metrics: address(n.metricsListener),
	}
	if n.server != nil {
		a.NATS = n.server.url()
	}
	return a
}

// address returns the URL of a listener, empty where there is none.
func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return "http://" + l.Addr().String()
}

// writeRun writes run.json, by which programs on this machine find the node.
func (n *Node) writeRun() error {
	b, err := json.Marshal(n.addrs)
	if err != nil {
		return err
	}
	return n.dir.Write(datadir.Run, append(b, '\n'))
}
