package node

import (
	"context"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// openSignIn lets people in, by the ledger that is open.
func (n *Node) openSignIn(ctx context.Context) (err error) {
	n.people, err = signin.Open(ctx, signin.Config{
		Conn: n.conn, View: n.index, Directory: n.ledger, Trail: n.ledger, Token: n.opens, Model: n.cfg.Model,
		Ready: func() bool { return n.verify.Lease() > 0 && n.lease.ClockErr() == nil }, Logger: n.log,
	})
	return err
}

// opens tells who opens a session by a token.
func (n *Node) opens(ctx context.Context, secret, address string) (authz.Principal, error) {
	return n.authenticate(ctx, api.Credential{Token: secret, Address: address})
}

// forget deletes what an erased account's person proved to be theirs by.
func (n *Node) forget(ctx context.Context, account events.AccountID) error {
	return n.people.Erase(ctx, account)
}
