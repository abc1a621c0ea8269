package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// reportEvery is how often a verifier reports where nothing changes.
const reportEvery = time.Second

// report tells the ledger what this verifier has applied: at every change, and
// once a second.
func (n *Node) report(ctx context.Context) {
	for ctx.Err() == nil {
		at := n.index.Position()
		r := n.nodeReport(at)
		if b, err := json.Marshal(r); err == nil {
			// While the log is out of reach this fails, and nothing is lost:
			// the next report says all that this one would have said.
			_ = n.conn.Publish(events.NodeSubjectPrefix+n.name, b)
		}
		step, cancel := context.WithTimeout(ctx, reportEvery)
		if n.index.WaitApplied(step, at+1) != nil {
			<-step.Done() // stopped or nothing new: report again in a second
		}
		cancel()
	}
}

func (n *Node) nodeReport(at events.Position) ledger.NodeReport {
	r := ledger.NodeReport{
		Name: n.name, Position: at, AgeMS: -1, Version: n.cfg.Version,
		Epoch: n.index.Epoch(), Address: n.addrs.Verify,
	}
	if asOf, ok := n.index.FreshAsOf(); ok {
		r.AgeMS = (follow.Boottime() - asOf).Milliseconds()
	}
	if err := n.unready(); err != nil {
		r.Why = err.Error()
	} else {
		r.Ready = true
	}
	return r
}

// unready returns why the node does not answer checks, nil where it does.
func (n *Node) unready() error {
	if n.verify.Lease() > 0 {
		return nil
	}
	if err := n.index.Err(); err != nil {
		return err
	}
	return fmt.Errorf("the log was not heard of within the lease of %s", n.cfg.Lease)
}

func (n *Node) addresses() Addresses {
	a := Addresses{PID: os.Getpid(), Name: n.name, Metrics: "http://" + n.metricsListener.Addr().String()}
	if n.apiListener != nil {
		a.API = "http://" + n.apiListener.Addr().String()
	}
	if n.verifyListener != nil {
		a.Verify = "http://" + n.verifyListener.Addr().String()
	}
	if n.server != nil {
		a.NATS = n.server.URL()
	}
	return a
}

// writeRun writes run.json, by which programs on this machine find the node.
func (n *Node) writeRun() error {
	b, err := json.Marshal(n.addrs)
	if err != nil {
		return err
	}
	return n.folder.write(fileRun, append(b, '\n'))
}
