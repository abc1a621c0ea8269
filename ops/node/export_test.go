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
