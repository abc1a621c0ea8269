package ledger

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// minRecoveredLifetime is the minimum lifetime of a recovered token. If the policy
// limits lifetimes to seconds, a shorter one would leave no time to change it.
const minRecoveredLifetime = 24 * time.Hour

// Recovered is the result of [Ledger.RecoverRoot].
type Recovered struct {
	Account events.AccountID
	Login   string // of the account: root, or root-2 and so on
	Token   events.TokenID
	// Position is the position of the event that created the token.
	Position events.Position
	Expires  time.Time // of the token, zero if never
}

// RecoverRoot creates a token with the secret root and the permission superuser,
// for the case that no account has superuser any more. It authenticates no caller:
// access to a ledger's data folder, and so to the key of the log, is enough. The
// token's device label names the node.
//
// The token belongs to the account root, the first account, if that still has
// superuser. A root that was demoted, suspended or erased stays so, because its
// old tokens must not get their rights back. The token then belongs to a service
// account root-2, or the next free one. RecoverRoot appends only the events that
// are missing. After [ErrUnavailable], a call with the same secret continues. No
// other token is revoked.
//
// The policy's rule about who issues tokens does not apply. The token's lifetime
// is the policy's maximum, but at least a day.
func (l *Ledger) RecoverRoot(ctx context.Context, node string, root events.Secret) (Recovered, error) {
	got, err := l.recoverRoot(ctx, node, root)
	if err != nil {
		return got, fmt.Errorf("recover root: %w", err)
	}
	return got, nil
}

func (l *Ledger) recoverRoot(ctx context.Context, node string, root events.Secret) (got Recovered, err error) {
	// A log whose bootstrap did not finish has no root yet.
	for _, step := range []func(context.Context, events.Secret) error{l.firstPolicy, l.firstAccount} {
		if err := step(ctx, root); err != nil {
			return got, err
		}
	}
	if got.Account, got.Login, err = l.rootAccount(ctx); err != nil {
		return got, err
	}
	if got.Token, err = l.recoveredToken(ctx, got.Account, node, root); err != nil {
		return got, err
	}
	t, err := l.token(got.Token)
	if err != nil {
		return got, err
	}
	got.Position, got.Expires = t.CreatedIn, t.Expires
	return got, nil
}

// rootAccount returns the account for a recovered token, and its login. It creates
// the account if necessary.
//
// The login alone does not identify the account: after root was erased, another
// account may have the login, and must not become superuser. So each of these
// accounts is identified by the key with which this package reserved its login. No
// caller can have that key.
func (l *Ledger) rootAccount(ctx context.Context) (events.AccountID, string, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CommandTimeout)
	defer cancel()
	for n := 1; ; n++ {
		login, key := rootLogin, rootKey
		if n > 1 {
			login = fmt.Sprintf("%s-%d", rootLogin, n)
			key = events.NewCommandKey("", "recover "+login)
		}
		for range 2 { // try again if a concurrent call has just created it
			held, err := l.directory.Lookup(ctx, login)
			free := errors.Is(err, ErrNotFound)
			if err != nil && !free {
				return "", "", err
			}
			if held.Key == key {
				if ok, err := l.isActiveSuperuser(ctx, held.Account); err != nil || ok {
					return held.Account, login, err
				}
			}
			// Never create root again: it would be taken for the first account.
			if n == 1 || !free && held.Key != key {
				break
			}
			id, err := l.makeRoot(ctx, login, key)
			if !errors.Is(err, ErrExists) {
				return id, login, err
			}
		}
	}
}

// isActiveSuperuser reports whether an account has superuser and is neither
// suspended nor erased. It first applies the account's events up to the end of the
// log.
func (l *Ledger) isActiveSuperuser(ctx context.Context, id events.AccountID) (bool, error) {
	if err := l.writer.CatchUp(ctx, events.NounAccount, string(id)); err != nil {
		return false, err
	}
	a, err := l.cfg.View.Account(id)
	if errors.Is(err, events.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, errdefs.ViewError(err, "account %s", id)
	}
	return !a.Erased && !a.Suspended && l.cfg.Model.AnyCovers(a.Grants, events.Superuser), nil
}

// recoveredToken creates the token with the secret root, once.
func (l *Ledger) recoveredToken(
	ctx context.Context,
	account events.AccountID,
	node string,
	root events.Secret,
) (events.TokenID, error) {
	digest := root.Digest()
	key := "recover root " + hex.EncodeToString(digest[:])
	device := "recovered on " + node
	if events.LooksSecret(device) { // for example a node name of 32 hexadecimal characters
		device = "recovered"
	}
	now := l.cfg.Now()
	out, err := l.writer.Run(ctx, commit.Command{
		Key: key, Request: []any{"recover root", account},
		Noun: events.NounToken, About: string(events.NewTokenID(now, events.ShardFor(events.NewCommandKey("", key)))),
		NotBefore: func() (time.Time, error) { return l.tokensBefore(account) },
		Decide: l.decider(func(l *Ledger, _ authz.Principal) (events.Change, error) {
			switch ok, err := l.isActiveSuperuser(ctx, account); {
			case err != nil:
				return nil, err
			case !ok: // changed since it was found; the next call finds another
				return nil, fmt.Errorf(
					"%w: account %s was demoted, suspended or erased in the meantime; try again",
					ErrUnavailable,
					account,
				)
			}
			if err := l.checkClock(); err != nil {
				return nil, err
			}
			change := &events.TokenCreated{
				Account: account, App: rootLogin, Device: device,
				Scopes: []events.Scope{events.Superuser}, Secret: record(root),
			}
			policy, err := l.policy()
			if err != nil {
				return nil, err
			}
			if lifetime := time.Duration(policy.MaxLifetime) * time.Second; lifetime > 0 {
				before, err := l.tokensBefore(account)
				if err != nil {
					return nil, err
				}
				change.Expires = laterOf(now, before).Add(max(lifetime, minRecoveredLifetime)).UTC().Round(0)
			}
			return change, checkChange(change)
		}),
	})
	return events.TokenID(out.About), err
}
