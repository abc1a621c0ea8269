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

// recoveredLife is the least that a recovered token lives: a policy that lets
// tokens live for seconds could else not be changed any more.
const recoveredLife = 24 * time.Hour

// Recovered is what [Ledger.RecoverRoot] came to.
type Recovered struct {
	Account events.AccountID
	Login   string // of the account: root, or root-2 and so on
	Token   events.TokenID
	// Position of the event that made the token.
	Position events.Position
	Expires  time.Time // of the token, zero if never
}

// RecoverRoot makes root the secret of a new token with the permission
// superuser, for when nobody has that any more. Nobody is asked who they are: it
// is for those who hold a ledger's data folder, and so the key that the log is
// written with. The node is named in the token's label of device.
//
// The token's account is root, the first one, where it has superuser itself.
// Where it was demoted, suspended or erased it stays so, since what was taken
// from its other tokens must not come back: then the account is a service
// account of its own, root-2, or the next one that is free. Only what is needed
// is appended, and a call that is repeated with the same secret, as after
// [ErrUnavailable], goes on with what is left. No other token is ended.
//
// No rule about who makes tokens applies. The token lives as long as the policy
// lets tokens live, but a day at least.
func (l *Ledger) RecoverRoot(ctx context.Context, node string, root events.Secret) (Recovered, error) {
	got, err := l.recoverRoot(ctx, node, root)
	if err != nil {
		return got, fmt.Errorf("recover root: %w", err)
	}
	return got, nil
}

func (l *Ledger) recoverRoot(ctx context.Context, node string, root events.Secret) (got Recovered, err error) {
	// A log whose birth was not finished, and never will be, has no root yet.
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

// rootAccount returns the account that a recovered token is to have, and its
// login. It makes the account where it has to.
//
// A login alone says nothing: once root was erased, another may have taken it,
// and must not become superuser by that. So each of these accounts is known by
// the key that this package reserved its login with, which no caller can have.
func (l *Ledger) rootAccount(ctx context.Context) (events.AccountID, string, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CommandTimeout)
	defer cancel()
	for n := 1; ; n++ {
		login, key := rootLogin, rootKey
		if n > 1 {
			login = fmt.Sprintf("%s-%d", rootLogin, n)
			key = events.NewCommandKey("", "recover "+login)
		}
		for range 2 { // once more where a rival has just made it
			held, err := l.directory.Lookup(ctx, login)
			free := errors.Is(err, ErrNotFound)
			if err != nil && !free {
				return "", "", err
			}
			if held.Key == key {
				if reigns, err := l.reigns(ctx, held.Account); err != nil || reigns {
					return held.Account, login, err
				}
			}
			// What is made anew under the name of root would pass for the first account.
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

// reigns reports whether an account has superuser and its tokens are accepted,
// once what this process knows of it is up to the log.
func (l *Ledger) reigns(ctx context.Context, id events.AccountID) (bool, error) {
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

// recoveredToken makes the token whose secret is root, once.
func (l *Ledger) recoveredToken(
	ctx context.Context,
	account events.AccountID,
	node string,
	root events.Secret,
) (events.TokenID, error) {
	digest := root.Digest()
	key := "recover root " + hex.EncodeToString(digest[:])
	device := "recovered on " + node
	if events.LooksSecret(device) { // as a name may that is 32 hexadecimal characters
		device = "recovered"
	}
	now := l.cfg.Now()
	out, err := l.writer.Run(ctx, commit.Command{
		Key: key, Request: []any{"recover root", account},
		Noun: events.NounToken, About: string(events.NewTokenID(now, events.ShardFor(events.NewCommandKey("", key)))),
		NotBefore: func() (time.Time, error) { return l.tokensBefore(account) },
		Decide: l.decider(func(l *Ledger, _ authz.Principal) (events.Change, error) {
			switch reigns, err := l.reigns(ctx, account); {
			case err != nil:
				return nil, err
			case !reigns: // since it was found; the next try finds another
				return nil, fmt.Errorf(
					"%w: account %s was demoted, suspended or erased meanwhile",
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
			if life := time.Duration(policy.MaxLifetime) * time.Second; life > 0 {
				before, err := l.tokensBefore(account)
				if err != nil {
					return nil, err
				}
				change.Expires = laterOf(now, before).Add(max(life, recoveredLife)).UTC().Round(0)
			}
			return change, checkChange(change)
		}),
	})
	return events.TokenID(out.About), err
}
