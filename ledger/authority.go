package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Caller is who asks: a token of an account, or a person who signed in.
type Caller struct {
	Account events.AccountID
	Token   events.TokenID   // of two, either this
	Session events.SessionID // or this is set
	// Proved is when the person last proved to be who they are, zero for tokens.
	Proved  time.Time
	Address string         // of the client, without port
	Scopes  []events.Scope // effective: the token's within the account's
	// Inherit says that the scopes are all that the account has.
	Inherit bool
	// Constraints are the token's, nil for none.
	Constraints *events.Constraints
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

// RecentProof is how recent the proof of a person has to be for what makes or
// widens a right.
const RecentProof = 5 * time.Minute

// ErrProof reports a session whose person has to prove again who they are. The
// error is a [*ProofError].
var ErrProof = errors.New("proof of the person is needed")

// ProofError says how recent the proof has to be.
type ProofError struct {
	What   string // that was asked for, as in "make a token"
	MaxAge time.Duration
}

func (e *ProofError) Error() string {
	return fmt.Sprintf("%s: to %s, enter password or second factor again; it is good for %s", ErrProof, e.What, e.MaxAge)
}

// Unwrap makes the error [ErrProof].
func (e *ProofError) Unwrap() error { return ErrProof }

// hashRequest returns the hash of what a command asks.
func hashRequest(request any) (events.RequestHash, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	return events.HashRequest(b), nil
}
