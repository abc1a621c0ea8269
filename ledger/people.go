package ledger

import (
	"context"
	"fmt"

	"github.com/tokenledger/tokenledger/events"
)

// FindLogin returns the account that has a login, as the directory's leader has
// it, or [ErrNotFound]. What cannot be a login is looked for like any other, and
// is nobody's. It asks for no permission: its caller must not tell strangers what
// it learns.
func (l *Ledger) FindLogin(ctx context.Context, login string) (events.AccountID, error) {
	if checkLogin(login) != nil {
		login = ""
	}
	held, err := l.directory.holder(ctx, login)
	return held.Account, err
}

// LoginOf returns an account's login, empty where it was erased.
func (l *Ledger) LoginOf(ctx context.Context, account events.AccountID) (string, error) {
	p, err := l.directory.person(ctx, account)
	return p.Login, err
}

// AllowAll reports whether a caller may do an operation on all accounts.
func (l *Ledger) AllowAll(c Caller, op Operation) error { return l.may(c, op, target{}) }

// RecordProof appends that something changed by which an account's person proves
// to be who they are, once by its key. Of an erased account nothing is recorded.
func (l *Ledger) RecordProof(ctx context.Context, c Caller, key string, account events.AccountID, what events.Proof) (events.Position, error) {
	out, err := l.run(ctx, command{
		name: "record proof", caller: c, key: key, request: []any{"record proof", account, what},
		noun: events.NounAccount, about: string(account), ending: what == events.ProofSessionsEnded,
		decide: func(l *Ledger, _ Caller) (events.Change, error) {
			a, err := l.cfg.View.Account(account)
			if err != nil {
				return nil, foreign(err, "account %s", account)
			}
			if a.Erased {
				return nil, nil
			}
			change := &events.AccountProofChanged{Proof: what}
			return change, checkChange(change)
		},
	})
	if err != nil {
		return 0, fmt.Errorf("record a change of proof of %s: %w", account, err)
	}
	return out.position, nil
}
