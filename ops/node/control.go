package node

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Control directs a node while it runs. The zero Control does nothing.
type Control struct {
	// Reload asks for the configuration to be read again, with Load.
	Reload <-chan struct{}
	Load   func() (Config, error)
	// Hurry is closed to cut off the requests that a stop waits for.
	Hurry <-chan struct{}
	// Overdue is called if a stop takes longer than [StopLimit]. The lease has
	// been given up by then, unless that is what hangs.
	Overdue func()
}

// StopLimit is how long a stop may take. Its parts have limits of their own, which
// together are shorter.
const StopLimit = 27 * time.Second

// ending limits how long a stop takes.
type ending struct {
	mu    sync.Mutex
	over  bool        // guarded by mu
	timer *time.Timer // guarded by mu; nil before the stop begins
}

// begin notes that the node stops.
func (e *ending) begin(overdue func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer == nil && !e.over && overdue != nil {
		e.timer = time.AfterFunc(StopLimit, overdue)
	}
}

// end notes that the node has stopped.
func (e *ending) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	if e.timer != nil {
		e.timer.Stop()
	}
}

// caught runs a part of the node. A panic ends it with an error, so that the node
// stops in order and gives its lease up.
func (n *Node) caught(what string, part func() error) (err error) {
	defer n.catch(what, &err)
	return part()
}

// catch turns a panic into an error. Defer it.
func (n *Node) catch(what string, err *error) {
	if v := recover(); v != nil {
		n.log.Error("a part of the node panicked; the node stops", "part", what, "err", fmt.Sprint(v),
			"stack", string(debug.Stack()))
		*err = fmt.Errorf("%s: panic: %v", what, v)
		n.ending.begin(n.cfg.Control.Overdue)
	}
}

// hurried returns a context that ends with ctx, or once a stop has to be hurried.
func (n *Node) hurried(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if hurry := n.cfg.Control.Hurry; hurry != nil {
		go func() {
			select {
			case <-hurry:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, cancel
}
