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

// beginLog writes the log's first events, and notes that it was begun. The
// secret of the first token is on disk before its event is in the log.
func (n *Node) beginLog(ctx context.Context, epoch string) error {
	root, err := n.dir.RootSecret(n.format)
	if err != nil {
		return err
	}
	begin := func() error { return n.ledger.Bootstrap(ctx, root) }
	if err := n.patiently(ctx, "log cannot be begun yet", begin); err != nil {
		return err
	}
	n.log.Info("log begun", "epoch", epoch, "root_token", n.dir.File(datadir.RootToken))
	return n.dir.WriteNote(datadir.LogNote{Epoch: epoch})
}

// recoverRoot makes a token with superuser and writes its secret to root.token,
// unless the one that is there is good for that. Where it does not succeed, the
// node goes on without: checks do not depend on it.
func (n *Node) recoverRoot(ctx context.Context) error {
	file := n.dir.File(datadir.RootToken)
	if err := n.awaitBirth(ctx); err != nil {
		return err
	}
	was, err := n.judgeRoot()
	if err == nil && was == verifier.Allowed.String() {
		n.log.Warn(
			"root.token has superuser, so nothing was recovered; start without --recover-root",
			"root_token",
			file,
		)
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
		n.log.Error(
			"root was not recovered, and root.token may be good for nothing; start again with --recover-root",
			"root_token",
			file,
			"err",
			err,
		)
		return nil
	}
	expires := "never"
	if !got.Expires.IsZero() {
		expires = got.Expires.Format(time.RFC3339)
	}
	n.log.Warn(
		"root was recovered: root.token has superuser again; start without --recover-root",
		"root_token",
		file,
		"was",
		was,
		"account_id",
		got.Account,
		"login",
		got.Login,
		"token_id",
		got.Token,
		"position",
		got.Position,
		"expires",
		expires,
	)
	return nil
}

// newRoot puts a new secret in the place of root.token's, and makes its token.
//
// The secret is always a new one. One that is on disk and that the log does not
// know need not be left from a process that died here: it may be of another
// log, or of a later part of this one that a restore has lost, where it was
// revoked.
func (n *Node) newRoot(ctx context.Context) (got ledger.Recovered, err error) {
	if err := n.dir.CheckSpace(false); err != nil {
		return got, err // while the file is as it was
	}
	root := n.format.NewSecret(events.ServiceAccount)
	if err := n.dir.Write(datadir.RootToken, []byte(root.Reveal()+"\n")); err != nil {
		return got, fmt.Errorf("write %s: %w", datadir.RootToken, err)
	}
	// Past this point the secret is on disk, and good for nothing until its token
	// is in the log.
	err = n.patiently(ctx, "root cannot be recovered yet", func() (err error) {
		got, err = n.ledger.RecoverRoot(ctx, n.name, root)
		return err
	})
	return got, err
}

// judgeRoot returns what a check for superuser comes to with root.token's
// secret, as a reason's name, and "missing" where there is none.
func (n *Node) judgeRoot() (string, error) {
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

// noLease lets a verifier answer without one. The node asks itself, after it has
// read the whole log, and does not tell others what it hears.
type noLease struct{}

func (noLease) Valid() (int64, bool)         { return 0, true }
func (noLease) Remaining() time.Duration     { return time.Hour }
func (noLease) MinPosition() events.Position { return 0 }

// awaitBirth waits until the log has its first token. Another ledger that is
// about to make it leaves that out where it finds one. It is not waited for
// without end: that ledger may be lost.
func (n *Node) awaitBirth(ctx context.Context) error {
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

// For how long the log is asked to take what a start writes, and how often.
const (
	startPatience = 30 * time.Second
	startPause    = 200 * time.Millisecond
)

// patiently does what leaves out what was done before. A log of several copies
// that was made a moment ago, or whose servers have just started, may still be
// choosing its leader, so it is asked again for a while.
func (n *Node) patiently(ctx context.Context, complaint string, do func() error) error {
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
