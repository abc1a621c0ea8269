package ledger

import (
	"encoding/json"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
)

// Caller is who asks: the account and token that authenticated, and what they
// may do together.
type Caller struct {
	Account events.AccountID
	Token   events.TokenID
	Address string         // of the client, without port
	Scopes  []events.Scope // effective: the token's within the account's
}

func (c Caller) actor() events.Actor {
	return events.Actor{Account: c.Account, Token: c.Token, Address: c.Address}
}

// operation is something that a caller may or may not do.
type operation string

// The operations.
const (
	manageTokens   operation = "manage tokens"
	readTokens     operation = "read tokens"
	manageAccounts operation = "manage accounts"
	readAccounts   operation = "read accounts"
	readNodes      operation = "read nodes"
	readReceipts   operation = "read receipts"
)

// authority is the whole of who may do what: operation -> scopes of which one
// is needed.
var authority = map[operation][]events.Scope{
	manageTokens:   {events.Superuser},
	readTokens:     {events.Audit},
	manageAccounts: {events.Superuser},
	readAccounts:   {events.Audit},
	readNodes:      {events.Audit},
	readReceipts:   {events.Audit},
}

// may returns nil where the caller may do op, and otherwise [ErrForbidden] with
// the permission that is missing.
func (l *Ledger) may(c Caller, op operation) error {
	needs := authority[op]
	for _, need := range needs {
		if l.cfg.Model.AnyCovers(c.Scopes, need) {
			return nil
		}
	}
	return fmt.Errorf("%w: to %s needs the permission %s, which this token does not have", ErrForbidden, op, needs[0])
}

// hashRequest returns the hash of what a command asks.
func hashRequest(request any) (events.RequestHash, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	return events.HashRequest(b), nil
}
