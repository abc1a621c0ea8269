package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// RevokeMany is a request to revoke all tokens that match every given field.
type RevokeMany struct {
	Account       string // id or login
	App           string // as the token names it
	Device        string // as the token names it
	Scope         string // a scope that the token has, of its own or inherited
	CreatedBefore time.Time
	Import        ImportFilter

	Reason string
	// IncludeSelf includes the caller's own token.
	IncludeSelf bool
	// DryRun changes nothing.
	DryRun bool
	// StartReceipt starts the wait for a receipt as soon as a position is known.
	// [Ledger.AwaitReceipt] with the result's position returns the receipt.
	StartReceipt bool
	// After is Next of an earlier request that stopped.
	After events.TokenID
}

// RevokedMany is the result of a bulk revocation.
type RevokedMany struct {
	// Position from which on the tokens are revoked.
	Position events.Position
	Matched  int // tokens that match and were examined
	Revoked  int // of them, revoked by this request, or that a dry run would revoke
	Already  int // of them, ended before
	// Tokens are some of the revoked tokens.
	Tokens []events.TokenID
	// Spared means that the caller's own token matches and was not revoked.
	Spared bool
	// At is the position of the one event that revoked all of them, 0 if each has an
	// event of its own or none was revoked.
	At events.Position
	// Uncounted means that more tokens match than were counted. All are revoked.
	Uncounted bool
	// Next is After of the request that continues this one, empty if it is
	// finished.
	Next     events.TokenID
	Replayed bool
}

// Bounds of one request. The next request continues.
const (
	maxRevoked   = 10_000           // tokens that are revoked one by one
	maxListed    = 100              // in the answer
	bulkTime     = 30 * time.Second // for examining and revoking tokens
	maxCounted   = 1000             // of the tokens that one event revoked
	bulkPage     = 500
	bulkParallel = 16
)

// RevokeMany revokes tokens in bulk. One event revokes all tokens of an account, or
// all that were created before a time; any other selection is revoked token by
// token. A request that is sent again continues with the remaining tokens.
func (l *Ledger) RevokeMany(ctx context.Context, c authz.Principal, key string, r RevokeMany) (RevokedMany, error) {
	out, err := l.revokeMany(ctx, c, key, r)
	if err != nil {
		return out, fmt.Errorf("revoke tokens: %w", err)
	}
	return out, nil
}

func (l *Ledger) revokeMany(ctx context.Context, c authz.Principal, key string, r RevokeMany) (RevokedMany, error) {
	b := &bulkRevocation{l: l, caller: c, key: key, r: r, began: l.cfg.Now()}
	if err := b.check(); err != nil {
		return RevokedMany{}, err
	}
	// Match on a state that holds every token that was acknowledged before this
	// request.
	at, err := l.writer.Confirm(ctx)
	if err != nil {
		return RevokedMany{}, err
	}
	if b.caller, err = l.authz.Current(c); err != nil {
		return RevokedMany{}, err
	}
	if err := b.authorize(ctx); err != nil {
		return RevokedMany{}, err
	}
	b.out.Position = at
	switch {
	case r.DryRun:
		return b.out, b.forEachMatch(ctx, b.live, nil)
	case b.isCutoff():
		return b.out, b.revokeByCutoff(ctx)
	}
	if err := b.forEachMatch(ctx, b.live, b.revoke); err != nil {
		return b.out, err
	}
	return b.out, b.revokeSelf(ctx)
}

// bulkRevocation is one request that is being carried out.
type bulkRevocation struct {
	l       *Ledger
	caller  authz.Principal
	key     string
	r       RevokeMany
	began   time.Time
	account events.AccountID // empty for any
	scope   events.Scope     // zero for any
	upTo    events.Position  // only tokens that were created at a lower position; 0 for any
	out     RevokedMany
}

// isCutoff reports whether one event can revoke all tokens that match.
func (b *bulkRevocation) isCutoff() bool {
	return b.r.App == "" && b.r.Device == "" && b.r.Scope == "" && b.r.Import == (ImportFilter{})
}

// check returns what is wrong with the request, independent of the state.
func (b *bulkRevocation) check() error {
	r := b.r
	if r.Account == "" && b.isCutoff() && r.CreatedBefore.IsZero() {
		return fmt.Errorf(
			"%w: give at least one of account, app, device, scope, created_before, source, legacy, migrated and unused_for; "+
				"without any, every token would be revoked",
			ErrInvalid,
		)
	}
	if !r.CreatedBefore.IsZero() {
		if err := b.l.checkClock(); err != nil {
			return err
		}
	}
	if r.CreatedBefore.After(b.began) {
		return errdefs.Invalid("created_before", "is in the future")
	}
	if err := checkChange(&events.TokenRevoked{Reason: r.Reason}); err != nil {
		return err
	}
	if r.Scope != "" {
		list, err := b.l.checkScopes("scope", []string{r.Scope})
		if err != nil {
			return err
		}
		b.scope = list[0]
	}
	return nil
}

// authorize sets the account whose tokens are examined, and returns nil if the
// caller may revoke them.
func (b *bulkRevocation) authorize(ctx context.Context) error {
	c := b.caller
	var err error
	switch {
	case b.r.Account != "":
		if b.account, err = b.l.resolveFor(ctx, c, authz.RevokeAccount, b.r.Account); err != nil {
			return err
		}
		if !b.isCutoff() && b.l.authz.IsSiteAdmin(c) {
			break // matches selects those that the caller may revoke
		}
		return b.l.authorizeAccount(c, authz.RevokeAccount, b.account)
	case b.isCutoff() || b.l.authz.IsSuperuser(c):
		return b.l.authz.Authorize(c, authz.RevokeEverywhere, authz.Target{})
	case !b.l.authz.IsSiteAdmin(c):
		b.account = c.Account // it has no relation to other accounts
		return b.l.authorizeAccount(c, authz.RevokeAccount, b.account)
	}
	// A site admin must re-authenticate as for an account.
	return b.l.authz.CheckReauth(c, authz.RevokeAccount)
}

// request is compared with that of an earlier command with the same key.
func (b *bulkRevocation) request(about string) any {
	r := b.r
	if r.Import != (ImportFilter{}) {
		about += fmt.Sprintf("\x00%+v", r.Import)
	}
	return []any{"revoke many", b.account, r.App, r.Device, r.Scope, r.CreatedBefore, r.Reason, r.IncludeSelf, about}
}

// matches reports whether the request selects a token and the caller may revoke
// it.
func (b *bulkRevocation) matches(t *events.Token) (bool, error) {
	if b.account != "" && t.Account != b.account ||
		b.r.App != "" && t.App != b.r.App ||
		b.r.Device != "" && t.Device != b.r.Device ||
		!b.r.CreatedBefore.IsZero() && !t.Created.Before(b.r.CreatedBefore) ||
		b.upTo > 0 && t.CreatedIn >= b.upTo || !b.r.Import.matches(t, b.began) {
		return false, nil
	}
	a, err := b.l.cfg.View.Account(t.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return false, nil
	case err != nil:
		return false, errdefs.Unavailable(err)
	}
	on := authz.TokenTarget(t, a)
	if b.scope != (events.Scope{}) && !b.l.cfg.Model.AnyCovers(on.Scopes, b.scope) {
		return false, nil
	}
	switch err := b.l.authz.Authorize(b.caller, authz.RevokeToken, on); {
	case errors.Is(err, ErrUnavailable):
		return false, err
	default:
		return err == nil, nil
	}
}

// live reports whether a token is neither revoked nor cut off.
func (b *bulkRevocation) live(t *events.Token) (bool, error) {
	if t.State == events.Revoked {
		return false, nil
	}
	cut, err := b.l.cutOff(t)
	return !cut, err
}

// forEachMatch counts the tokens that match, until bulkTime has passed: as revoked
// if wanted is true, otherwise as ended before. It passes the wanted tokens to
// end, a page at a time, if end is not nil.
func (b *bulkRevocation) forEachMatch(
	ctx context.Context,
	wanted func(*events.Token) (bool, error),
	end func(context.Context, []*events.Token) error,
) error {
	deadline := b.began.Add(bulkTime)
	for after := b.r.After; ; {
		page, more, err := b.l.cfg.View.Tokens(b.account, nil, after, bulkPage)
		if err != nil {
			return errdefs.Unavailable(err)
		}
		var list []*events.Token
		for _, t := range page {
			after = t.ID
			switch matches, err := b.matches(t); {
			case err != nil:
				return err
			case !matches:
				continue
			}
			wants, err := wanted(t)
			if err != nil {
				return err
			}
			b.out.Matched++
			b.out.Position = max(b.out.Position, t.Version)
			switch {
			case !wants:
				b.out.Already++
			case t.ID == b.caller.Token && !b.r.IncludeSelf:
				b.out.Spared = true
			case t.ID == b.caller.Token && end != nil: // revoked last, see revokeSelf
			default:
				list = append(list, t)
			}
		}
		if end != nil {
			if err := end(ctx, list); err != nil {
				return err
			}
		} else {
			b.count(list)
		}
		if !more {
			b.out.Next = ""
			return nil
		}
		b.out.Next = after
		switch {
		case ctx.Err() != nil, b.l.cfg.Now().After(deadline),
			end != nil && b.out.Revoked+bulkPage > maxRevoked,
			b.upTo > 0 && b.out.Matched >= maxCounted:
			return nil
		}
	}
}

func (b *bulkRevocation) count(list []*events.Token) {
	b.out.Revoked += len(list)
	for _, t := range list {
		if len(b.out.Tokens) < maxListed {
			b.out.Tokens = append(b.out.Tokens, t.ID)
		}
	}
}

// revoke revokes tokens one by one, several in parallel. It stops at the first
// error.
func (b *bulkRevocation) revoke(ctx context.Context, list []*events.Token) error {
	var mu sync.Mutex // guards b.out
	work, failed := errgroup.WithContext(ctx)
	work.SetLimit(bulkParallel)
	for _, t := range list {
		if failed.Err() != nil {
			break
		}
		work.Go(func() error {
			out, err := b.revokeOne(ctx, t.ID)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			b.out.Position = max(b.out.Position, out.Position)
			b.count([]*events.Token{t})
			return nil
		})
	}
	err := work.Wait()
	if err == nil && ctx.Err() != nil {
		err = errdefs.Unavailable(ctx.Err())
	}
	if err != nil {
		return fmt.Errorf(
			"%d tokens were revoked, but not all; send the same request again to continue: %w",
			b.out.Revoked,
			err,
		)
	}
	slices.Sort(b.out.Tokens)
	return nil
}

// revokeSelf revokes the caller's own token, if it matches, after all others. From
// then on the caller can revoke nothing.
func (b *bulkRevocation) revokeSelf(ctx context.Context) error {
	if !b.r.IncludeSelf || b.caller.Token == "" || b.out.Next != "" {
		return nil
	}
	t, err := b.l.token(b.caller.Token)
	if err != nil {
		return err
	}
	for _, meant := range []func(*events.Token) (bool, error){b.matches, b.live} {
		if ok, err := meant(t); err != nil || !ok {
			return err
		}
	}
	return b.revoke(ctx, []*events.Token{t})
}

// revokeOne revokes one token, with a key derived from the request's.
func (b *bulkRevocation) revokeOne(ctx context.Context, id events.TokenID) (commit.Outcome, error) {
	key := b.key
	if key != "" {
		key += "\x00" + string(id)
	}
	return b.l.writer.Run(ctx, commit.Command{
		Name: "revoke", By: b.caller, Key: key, Request: b.request(string(id)),
		Noun: events.NounToken, About: string(id), Ending: true,
		Decide: b.l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			t, _, err := l.authorizedToken(c, authz.RevokeToken, id)
			if err != nil || t.State == events.Revoked {
				return nil, err
			}
			return &events.TokenRevoked{Reason: b.r.Reason}, nil
		}),
	})
}

// revokeByCutoff revokes all of an account's tokens, or all that were created
// before a time, with one event. Without a time, the event ends every token before
// it in the log, so no clock matters.
func (b *bulkRevocation) revokeByCutoff(ctx context.Context) error {
	var endedBefore func(*events.Token) (bool, error) // before the event, as of its decision
	out, err := b.l.writer.Run(ctx, b.cutoffCommand(&endedBefore))
	if err != nil {
		return err
	}
	at, cutOff := out.Position, out.Kind == events.KindAccountTokensRevoked ||
		out.Kind == events.KindPolicyTokensRevoked
	if cutOff {
		b.out.At, b.upTo = at, at
	} else { // all of them had ended before
		at = max(at, b.l.Position())
		b.upTo = at + 1
	}
	b.out.Position, b.out.Replayed = at, out.Replayed
	if b.r.StartReceipt {
		b.l.receipts.begin(at)
	}
	err = b.forEachMatch(ctx, func(t *events.Token) (bool, error) {
		// A token that is revoked by itself was so before the event, or is since then.
		if !cutOff || t.State == events.Revoked && t.Version <= at {
			return false, nil
		}
		if endedBefore == nil {
			return true, nil
		}
		ended, err := endedBefore(t)
		return !ended, err
	}, nil)
	b.out.Position = at
	b.out.Uncounted, b.out.Next = b.out.Next != "", ""
	return err
}

// cutoffCommand returns the command that appends the event. Its decision sets
// endedBefore, which reports whether a token had ended before the event.
func (b *bulkRevocation) cutoffCommand(endedBefore *func(*events.Token) (bool, error)) commit.Command {
	c := commit.Command{
		Name: "revoke tokens", By: b.caller, Key: b.key, Request: b.request(""),
		Noun: events.NounPolicy, About: events.PolicyName, Ending: true,
		Decide: b.l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			if err := b.spareSelf(); err != nil {
				return nil, err
			}
			change, ended, err := b.planCutoff(l, c)
			if err != nil || change == nil {
				return nil, err
			}
			*endedBefore = ended
			return change, checkChange(change)
		}),
	}
	if b.account != "" {
		c.Noun, c.About = events.NounAccount, string(b.account)
	}
	return c
}

// planCutoff returns the event that revokes the tokens, and a function that reports
// whether a token has ended before. The event is nil if the request has a time and
// all tokens created before it have ended.
func (b *bulkRevocation) planCutoff(
	l *Ledger,
	c authz.Principal,
) (change events.Change, ended func(*events.Token) (bool, error), err error) {
	policy, err := l.policy()
	if err != nil {
		return nil, nil, err
	}
	if b.account == "" {
		if err := l.authz.Authorize(c, authz.RevokeEverywhere, authz.Target{}); err != nil {
			return nil, nil, err
		}
		if !policy.NotBefore.Before(b.r.CreatedBefore) {
			return nil, nil, nil
		}
		ended = func(t *events.Token) (bool, error) {
			a, err := b.l.cfg.View.Account(t.Account)
			if err != nil {
				return false, errdefs.ViewError(err, "account %s", t.Account)
			}
			return events.CutOff(t, a, policy), nil
		}
		return &events.PolicyTokensRevoked{NotBefore: b.r.CreatedBefore, Reason: b.r.Reason}, ended, nil
	}
	if err := l.authorizeAccount(c, authz.RevokeAccount, b.account); err != nil {
		return nil, nil, err
	}
	a, err := l.cfg.View.Account(b.account)
	if err != nil {
		return nil, nil, errdefs.ViewError(err, "account %s", b.account)
	}
	ended = func(t *events.Token) (bool, error) { return events.CutOff(t, a, policy), nil }
	if !b.r.CreatedBefore.IsZero() && !laterOf(a.NotBefore, policy.NotBefore).Before(b.r.CreatedBefore) {
		return nil, nil, nil
	}
	return &events.AccountTokensRevoked{NotBefore: b.r.CreatedBefore, Reason: b.r.Reason}, ended, nil
}

// spareSelf returns an error if the event would revoke the caller's own token
// without IncludeSelf. One event cannot leave a token out.
func (b *bulkRevocation) spareSelf() error {
	if b.r.IncludeSelf || b.caller.Token == "" {
		return nil
	}
	t, err := b.l.token(b.caller.Token)
	if err != nil {
		return err
	}
	meant := b.r.CreatedBefore.IsZero() || t.Created.Before(b.r.CreatedBefore)
	if b.account != "" && t.Account != b.account || !meant {
		return nil
	}
	switch live, err := b.live(t); {
	case err != nil:
		return err
	case live:
		return errdefs.Invalid("include_self", "is not set, but your own token matches; set it, or use another token")
	}
	return nil
}
