package node

import (
	"context"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// openSignIn enables sign-in. The ledger must be open.
func (n *Node) openSignIn(ctx context.Context) (err error) {
	n.people, err = signin.Open(ctx, signin.Config{
		Conn: n.conn, View: n.index, Directory: n.ledger, Trail: n.ledger, Token: n.sessionCaller, Model: n.cfg.Model,
		Ready: func() bool { return n.verify.Lease() > 0 && n.lease.ClockErr() == nil }, Logger: n.log,
	})
	return err
}

// sessionCaller returns the principal that opens a session with a token.
func (n *Node) sessionCaller(ctx context.Context, secret, address string) (authz.Principal, error) {
	return n.authenticate(ctx, api.Credential{Token: secret, Address: address})
}

// forget deletes the sign-in data of an erased account.
func (n *Node) forget(ctx context.Context, account events.AccountID) error {
	return n.people.Erase(ctx, account)
}
