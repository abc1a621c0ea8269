package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// RevokeMany asks to end all tokens that match every field that is given.
type RevokeMany struct {
	Account string    // id or login
	App     string    // as the token names it
	Device  string    // likewise
	Scope   string    // what the token may do, by its own scopes or by what it inherits
	Before  time.Time // made before it

	Reason string
	// IncludeSelf lets the caller's own token be among them.
	IncludeSelf bool
	// DryRun changes nothing.
	DryRun bool
	// Prove begins to wait for the proof as soon as there is something to
	// prove; [Ledger.Prove] with the result's position returns it.
	Prove bool
	// After goes on behind a token where an earlier request stopped.
	After events.TokenID
}

// RevokedMany is what became of it.
type RevokedMany struct {
	// Position that the answer rests on: what is revoked is so from there on.
	Position events.Position
	Matched  int // tokens that match and were looked at
	Revoked  int // of them, ended by this request; by a dry run, those that would be
	Already  int // of them, ended before
	// Tokens are some of those that were revoked.
	Tokens []events.TokenID
	// Spared says that the caller's own token matches and was left.
	Spared bool
	// At names the one event that ended all of them, 0 where each was ended by
	// one of its own, or none was.
	At events.Position
	// Uncounted says that there are more than were counted. All are revoked.
	Uncounted bool
	// Next is where another request has to go on, empty where this one came to
	// the end.
	Next     events.TokenID
	Replayed bool
}

// Bounds of one request. What is left is for the next one.
const (
	mostRevoked = 10_000           // tokens that are ended one by one
	mostListed  = 100              // in the answer
	bulkTime    = 30 * time.Second // for looking at tokens and ending them
	mostCounted = 1000             // of those that one event has ended
	bulkPage    = 500
	bulkAtOnce  = 16
)

// RevokeMany ends tokens together. All of an account's, or all that were made
// before a time, end by one event; else each by one of its own. A request that
// is sent again goes on with those that are left.
func (l *Ledger) RevokeMany(ctx context.Context, c authz.Principal, key string, r RevokeMany) (RevokedMany, error) {
	out, err := l.revokeMany(ctx, c, key, r)
	if err != nil {
		return out, fmt.Errorf("revoke tokens: %w", err)
	}
	return out, nil
}

func (l *Ledger) revokeMany(ctx context.Context, c authz.Principal, key string, r RevokeMany) (RevokedMany, error) {
	b := &bulk{Ledger: l, caller: c, key: key, r: r, began: l.cfg.Now()}
	if err := b.check(); err != nil {
		return RevokedMany{}, err
	}
	// What matches is looked for in a state that holds every token whose making
	// was acknowledged before this request.
	at, err := l.writer.Confirm(ctx)
	if err != nil {
		return RevokedMany{}, err
	}
	if b.caller, err = l.authz.Current(c); err != nil {
		return RevokedMany{}, err
	}
	if err := b.permit(ctx); err != nil {
		return RevokedMany{}, err
	}
	b.out.Position = at
	switch {
	case r.DryRun:
		return b.out, b.each(ctx, b.live, nil)
	case b.asOne():
		return b.out, b.together(ctx)
	}
	if err := b.each(ctx, b.live, b.revoke); err != nil {
		return b.out, err
	}
	return b.out, b.revokeSelf(ctx)
}

// bulk is one request on its way.
type bulk struct {
	*Ledger
	caller  authz.Principal
	key     string
	r       RevokeMany
	began   time.Time
	account events.AccountID // empty for any
	scope   events.Scope     // zero for any
	upTo    events.Position  // only tokens that were created at a lower position; 0 for any
	out     RevokedMany
}

// asOne reports whether one event can end all that match.
func (b *bulk) asOne() bool { return b.r.App == "" && b.r.Device == "" && b.r.Scope == "" }

// check reports what is wrong with the request, whatever the state.
func (b *bulk) check() error {
	r := b.r
	if r.Account == "" && b.asOne() && r.Before.IsZero() {
		return fmt.Errorf("%w: name at least one of account, app, device, scope and created_before; nothing that ends every token there is goes without", ErrInvalid)
	}
	if !r.Before.IsZero() {
		if err := b.clock(); err != nil {
			return err
		}
	}
	if r.Before.After(b.began) {
		return errdefs.Invalid("created_before", "is in the future")
	}
	if err := checkChange(&events.TokenRevoked{Reason: r.Reason}); err != nil {
		return err
	}
	if r.Scope != "" {
		list, err := b.checkScopes("scope", []string{r.Scope})
		if err != nil {
			return err
		}
		b.scope = list[0]
	}
	return nil
}

// permit settles whose tokens are looked at, and whether the caller may.
func (b *bulk) permit(ctx context.Context) error {
	c := b.caller
	var err error
	switch {
	case b.r.Account != "":
		if b.account, err = b.resolveFor(ctx, c, authz.RevokeAccount, b.r.Account); err != nil {
			return err
		}
		if !b.asOne() && b.authz.IsSiteAdmin(c) {
			break // of the account's tokens, those that the caller may revoke
		}
		return b.mayAccount(c, authz.RevokeAccount, b.account)
	case b.asOne() || b.authz.IsSuperuser(c):
		return b.authz.Authorize(c, authz.RevokeEverywhere, authz.Target{})
	case !b.authz.IsSiteAdmin(c):
		b.account = c.Account // to others it has no relation
		return b.mayAccount(c, authz.RevokeAccount, b.account)
	}
	// An admin of some resources: by the proof that the rule for an account asks.
	return b.authz.CheckReauth(c, authz.RevokeAccount)
}

// request is what a retry has to match.
func (b *bulk) request(about string) any {
	r := b.r
	return []any{"revoke many", b.account, r.App, r.Device, r.Scope, r.Before, r.Reason, r.IncludeSelf, about}
}

// matches reports whether a token is one of those that are meant, and the caller
// may end it.
func (b *bulk) matches(t *events.Token) (bool, error) {
	if b.account != "" && t.Account != b.account ||
		b.r.App != "" && t.App != b.r.App ||
		b.r.Device != "" && t.Device != b.r.Device ||
		!b.r.Before.IsZero() && !t.Created.Before(b.r.Before) ||
		b.upTo > 0 && t.CreatedIn >= b.upTo {
		return false, nil
	}
	a, err := b.cfg.View.Account(t.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return false, nil
	case err != nil:
		return false, errdefs.Unavailable(err)
	}
	on := authz.TokenTarget(t, a)
	if b.scope != (events.Scope{}) && !b.cfg.Model.AnyCovers(on.Scopes, b.scope) {
		return false, nil
	}
	switch err := b.authz.Authorize(b.caller, authz.RevokeToken, on); {
	case errors.Is(err, ErrUnavailable):
		return false, err
	default:
		return err == nil, nil
	}
}

// live reports whether a token has not ended for ever.
func (b *bulk) live(t *events.Token) (bool, error) {
	if t.State == events.Revoked {
		return false, nil
	}
	cut, err := b.cutOff(t)
	return !cut, err
}

// each looks at every token that matches, for as long as there is time, and
// counts it: as revoked where wanted says so, and as having ended before where
// not. Those that are wanted go to end, a page at a time.
func (b *bulk) each(ctx context.Context, wanted func(*events.Token) (bool, error), end func(context.Context, []*events.Token) error) error {
	deadline := b.began.Add(bulkTime)
	for after := b.r.After; ; {
		page, more, err := b.cfg.View.Tokens(b.account, nil, after, bulkPage)
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
			case t.ID == b.caller.Token && end != nil: // last of all, see revokeSelf
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
		case ctx.Err() != nil, b.cfg.Now().After(deadline),
			end != nil && b.out.Revoked+bulkPage > mostRevoked,
			b.upTo > 0 && b.out.Matched >= mostCounted:
			return nil
		}
	}
}

func (b *bulk) count(list []*events.Token) {
	b.out.Revoked += len(list)
	for _, t := range list {
		if len(b.out.Tokens) < mostListed {
			b.out.Tokens = append(b.out.Tokens, t.ID)
		}
	}
}

// revoke ends tokens one by one, some at once.
func (b *bulk) revoke(ctx context.Context, list []*events.Token) error {
	var (
		mu    sync.Mutex
		work  sync.WaitGroup
		slots = make(chan struct{}, bulkAtOnce)
		first error
	)
	for _, t := range list {
		mu.Lock()
		stop := first != nil || ctx.Err() != nil
		mu.Unlock()
		if stop {
			break
		}
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			out, err := b.revokeOne(ctx, t.ID)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				first = err
				return
			}
			b.out.Position = max(b.out.Position, out.Position)
			b.count([]*events.Token{t})
		})
	}
	work.Wait()
	if first == nil && ctx.Err() != nil {
		first = errdefs.Unavailable(ctx.Err())
	}
	if first != nil {
		return fmt.Errorf("%d tokens were revoked, and more are left; send the same request again to go on: %w", b.out.Revoked, first)
	}
	slices.Sort(b.out.Tokens)
	return nil
}

// revokeSelf ends the caller's own token, if it is among those that are meant,
// once all others have ended. From then on the caller may end nothing more.
func (b *bulk) revokeSelf(ctx context.Context) error {
	if !b.r.IncludeSelf || b.caller.Token == "" || b.out.Next != "" {
		return nil
	}
	t, err := b.token(b.caller.Token)
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

// revokeOne ends one token, on a key of its own under the request's.
func (b *bulk) revokeOne(ctx context.Context, id events.TokenID) (commit.Outcome, error) {
	key := b.key
	if key != "" {
		key += "\x00" + string(id)
	}
	return b.writer.Run(ctx, commit.Command{
		Name: "revoke", By: b.caller, Key: key, Request: b.request(string(id)),
		Noun: events.NounToken, About: string(id), Ending: true,
		Decide: b.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			t, _, err := l.aim(c, authz.RevokeToken, id)
			if err != nil || t.State == events.Revoked {
				return nil, err
			}
			return &events.TokenRevoked{Reason: b.r.Reason}, nil
		}),
	})
}

// together ends all of an account's tokens, or all that were created before a
// time, by one event. Without a time it ends what stands before it in the log, so
// no clock has a say.
func (b *bulk) together(ctx context.Context) error {
	var ended func(*events.Token) (bool, error) // before this, as of the decision
	c := commit.Command{
		Name: "revoke tokens", By: b.caller, Key: b.key, Request: b.request(""),
		Noun: events.NounPolicy, About: events.PolicyName, Ending: true,
		Decide: b.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
			if err := b.spareSelf(); err != nil {
				return nil, err
			}
			what, before, err := b.cut(l, c)
			if err != nil || what == nil {
				return nil, err
			}
			ended = before
			return what, checkChange(what)
		}),
	}
	if b.account != "" {
		c.Noun, c.About = events.NounAccount, string(b.account)
	}
	out, err := b.writer.Run(ctx, c)
	if err != nil {
		return err
	}
	did := out.Kind == events.KindAccountTokensRevoked || out.Kind == events.KindPolicyTokensRevoked
	at := out.Position
	if did {
		b.out.At, b.upTo = at, at
	} else { // all had ended before
		at = max(at, b.Position())
		b.upTo = at + 1
	}
	b.out.Position, b.out.Replayed = at, out.Replayed
	if b.r.Prove {
		b.receipts.begin(b.out.Position)
	}
	// A token that is revoked was so before the event, or has been since.
	err = b.each(ctx, func(t *events.Token) (bool, error) {
		if !did || t.State == events.Revoked && t.Version <= at {
			return false, nil
		}
		if ended == nil {
			return true, nil
		}
		was, err := ended(t)
		return !was, err
	}, nil)
	b.out.Position = at
	b.out.Uncounted, b.out.Next = b.out.Next != "", ""
	return err
}

// cut returns the event that ends the tokens, and what tells whether an earlier
// one has ended a token by now. The event is nil if a time is named and all that
// were created before it have ended.
func (b *bulk) cut(l *Ledger, c authz.Principal) (change events.Change, ended func(*events.Token) (bool, error), err error) {
	policy, err := l.policy()
	if err != nil {
		return nil, nil, err
	}
	if b.account == "" {
		if err := l.authz.Authorize(c, authz.RevokeEverywhere, authz.Target{}); err != nil {
			return nil, nil, err
		}
		if !policy.TokensBefore.Before(b.r.Before) {
			return nil, nil, nil
		}
		return &events.PolicyTokensRevoked{Before: b.r.Before, Reason: b.r.Reason}, func(t *events.Token) (bool, error) {
			a, err := b.cfg.View.Account(t.Account)
			if err != nil {
				return false, errdefs.ViewError(err, "account %s", t.Account)
			}
			return events.CutOff(t, a, policy), nil
		}, nil
	}
	if err := l.mayAccount(c, authz.RevokeAccount, b.account); err != nil {
		return nil, nil, err
	}
	a, err := l.cfg.View.Account(b.account)
	if err != nil {
		return nil, nil, errdefs.ViewError(err, "account %s", b.account)
	}
	ended = func(t *events.Token) (bool, error) { return events.CutOff(t, a, policy), nil }
	if !b.r.Before.IsZero() && !laterOf(a.TokensBefore, policy.TokensBefore).Before(b.r.Before) {
		return nil, nil, nil
	}
	return &events.AccountTokensRevoked{Before: b.r.Before, Reason: b.r.Reason}, ended, nil
}

// spareSelf refuses an event that would end the caller's own token, which one
// event cannot leave out.
func (b *bulk) spareSelf() error {
	if b.r.IncludeSelf || b.caller.Token == "" {
		return nil
	}
	t, err := b.token(b.caller.Token)
	if err != nil {
		return err
	}
	meant := b.r.Before.IsZero() || t.Created.Before(b.r.Before)
	if b.account != "" && t.Account != b.account || !meant {
		return nil
	}
	switch live, err := b.live(t); {
	case err != nil:
		return err
	case live:
		return errdefs.Invalid("include_self", "is not set, and your own token is among them; set it, or use a token that is not")
	}
	return nil
}
