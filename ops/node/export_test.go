package node

import (
	"context"
	"errors"
)

// PublishSnapshot writes a snapshot of a ledger's index now.
func (n *Node) PublishSnapshot(ctx context.Context) error {
	p, err := n.publisher(1)
	if err != nil {
		return err
	}
	written, err := p.Once(ctx)
	if err == nil && !written {
		err = errors.New("none was due")
	}
	return err
}

// Fail makes a part of the node fail in one of the ways of which a stop must give
// the lease up: "listener", "error" or "panic".
func (n *Node) Fail(how string) {
	switch how {
	case "listener":
		_ = n.verifyListener.Close()
	case "error":
		n.parts.run("test", func(context.Context) error { return errors.New("a part failed") })
	case "panic":
		n.parts.run("test", func(context.Context) error { panic("a part panicked") })
	}
}
