package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/verifier"
)

// bootstrap appends the first events to a new log, and notes that the log exists.
// The secret of the first token is on disk before its event is in the log.
func (n *Node) bootstrap(ctx context.Context, epoch string) error {
	root, err := n.dir.RootSecret(n.format)
	if err != nil {
		return err
	}
	begin := func() error { return n.ledger.Bootstrap(ctx, root) }
	if err := n.whileUnavailable(ctx, "cannot append the first events yet", begin); err != nil {
		return err
	}
	n.log.Info("log created", "epoch", epoch, "root_token", n.dir.File(datadir.RootToken))
	return n.dir.WriteNote(datadir.LogNote{Epoch: epoch})
}

// recoverRoot creates a token with superuser and writes its secret to root.token,
// unless the secret there has superuser. If that fails, the node runs without it:
// checks do not depend on it.
func (n *Node) recoverRoot(ctx context.Context) error {
	file := n.dir.File(datadir.RootToken)
	if err := n.awaitFirstToken(ctx); err != nil {
		return err
	}
	was, err := n.checkRoot()
	if err == nil && was == verifier.Allowed.String() {
		n.log.Warn("root.token has superuser, so nothing was recovered; start without --recover-root",
			"root_token", file)
		return nil
	}
	var got ledger.Recovered
	if err == nil {
		got, err = n.newRoot(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		n.log.Error("root was not recovered, and root.token may not work; start again with --recover-root",
			"root_token", file, "err", err)
		return nil
	}
	expires := "never"
	if !got.Expires.IsZero() {
		expires = got.Expires.Format(time.RFC3339)
	}
	n.log.Warn(
		"root was recovered: root.token has superuser again; start without --recover-root",
		"root_token", file, "was", was, "account_id", got.Account, "login", got.Login,
		"token_id", got.Token, "position", got.Position, "expires", expires)
	return nil
}

// newRoot replaces the secret in root.token by a new one, and creates its token.
//
// The secret is always new. A secret on disk that the log does not know need not
// come from a process that crashed here. It may be from another log, or from
// events that a restore has lost, in which it was revoked.
func (n *Node) newRoot(ctx context.Context) (got ledger.Recovered, err error) {
	if err := n.dir.CheckSpace(false); err != nil {
		return got, err // the file is unchanged
	}
	root := n.format.NewSecret(events.ServiceAccount)
	if err := n.dir.Write(datadir.RootToken, []byte(root.Reveal()+"\n")); err != nil {
		return got, fmt.Errorf("write %s: %w", datadir.RootToken, err)
	}
	// Past this point the secret is on disk. It works once its token is in the
	// log.
	err = n.whileUnavailable(ctx, "cannot recover root yet", func() (err error) {
		got, err = n.ledger.RecoverRoot(ctx, n.name, root)
		return err
	})
	return got, err
}

// checkRoot checks the secret in root.token for superuser. It returns the name of
// the decision's reason, or "missing" if there is no secret.
func (n *Node) checkRoot() (string, error) {
	raw, err := n.dir.ReadSecret(datadir.RootToken)
	if errors.Is(err, os.ErrNotExist) {
		return "missing", nil
	}
	if err != nil {
		return "", err
	}
	v, err := verifier.New(
		verifier.Config{Index: n.index, Lease: noLease{}, Format: n.format, Model: n.cfg.Model, Logger: n.log},
	)
	if err != nil {
		return "", err
	}
	d := v.Check(strings.TrimSpace(string(raw)), verifier.Request{Need: []events.Scope{events.Superuser}})
	if d.Reason == verifier.Unavailable {
		return "", errors.Join(errors.New("the index cannot be read"), n.index.Err())
	}
	return d.Reason.String(), nil
}

// noLease lets a verifier answer without a lease. The node uses it for itself,
// after it has read the whole log, and answers no other caller with it.
type noLease struct{}

func (noLease) Valid() (int64, bool)         { return 0, true }
func (noLease) Remaining() time.Duration     { return time.Hour }
func (noLease) MinPosition() events.Position { return 0 }

// awaitFirstToken waits until the log has its first token: another ledger that is
// about to create it does not do so if it finds one. The wait is limited, because
// that ledger may be lost.
func (n *Node) awaitFirstToken(ctx context.Context) error {
	for began := time.Now(); ; {
		list, _, err := n.index.Tokens("", nil, "", 1)
		if err == nil && len(list) > 0 || time.Since(began) > startPatience {
			return nil
		}
		if !clock.Sleep(ctx, startPause) {
			return ctx.Err()
		}
	}
}

// How long and how often the first events are retried.
const (
	startPatience = 30 * time.Second
	startPause    = 200 * time.Millisecond
)

// whileUnavailable repeats an idempotent command for a while if the log is
// unavailable. A replicated log that was just created, or whose servers have just
// started, may still be electing its leader.
func (n *Node) whileUnavailable(ctx context.Context, complaint string, do func() error) error {
	for began := time.Now(); ; {
		err := do()
		if !errors.Is(err, ledger.ErrUnavailable) || time.Since(began) > startPatience {
			return err
		}
		n.log.Warn(complaint, "err", err)
		if !clock.Sleep(ctx, startPause) {
			return err
		}
	}
}
