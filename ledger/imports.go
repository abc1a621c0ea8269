package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/commit"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// ImportTokens is a request to take over tokens of a Matomo installation, or to
// bring them up to date.
type ImportTokens struct {
	Source string // name of the installation
	Tokens []ImportToken
	DryRun bool // change nothing
}

// ImportToken is one token as Matomo stores it.
type ImportToken struct {
	Account string // id
	Hash    events.MatomoHash
	App     string
	// Scopes narrow the token. None means that it inherits all grants.
	Scopes     []string
	Expires    time.Time // zero means never
	HeaderOnly bool
	Created    time.Time // in Matomo; zero if unknown
	LastUsed   time.Time // in Matomo; zero if never or unknown
	Migrated   bool      // Matomo 4 made it of the one token that a user had before
}

// ImportOutcome is the result of importing one token.
type ImportOutcome string

// The outcomes.
const (
	ImportCreated   ImportOutcome = "created"
	ImportUpdated   ImportOutcome = "updated"   // narrowed, or used since
	ImportUnchanged ImportOutcome = "unchanged" // it was imported before
	ImportEnded     ImportOutcome = "ended"     // it was imported and revoked, and stays so
	ImportRefused   ImportOutcome = "refused"
)

// ImportedToken is the result for one token of an import.
type ImportedToken struct {
	Outcome  ImportOutcome
	ID       events.TokenID // empty if refused, and in a dry run if it would be created
	Problem  error          // why it was refused
	Position events.Position
}

// MaxImport is the largest number of tokens in one request.
const MaxImport = 500

// ImportTokens creates tokens with the digests of Matomo's hashes, and returns what
// became of each, in order. A hash belongs forever to the token that had it first:
// a repeated import finds that token, and one that was revoked does not come back.
// A repeated import takes away and never gives: it narrows scopes, brings an end
// forward, adds the constraint header_only, and notes a later last use.
//
// An error concerns the whole request; tokens before it may have been created.
func (l *Ledger) ImportTokens(ctx context.Context, c authz.Principal, r ImportTokens) ([]ImportedToken, error) {
	// What is refused, or found unchanged, rests on every event that was acknowledged
	// before this request.
	if _, err := l.writer.Confirm(ctx); err != nil {
		return nil, err
	}
	c, err := l.authz.Current(c)
	if err != nil {
		return nil, err
	}
	if err := l.authz.Authorize(c, authz.ImportTokens, authz.Target{}); err != nil {
		return nil, err
	}
	if err := events.CheckSource(r.Source); err != nil {
		return nil, errdefs.Invalid("source", "%s", err)
	}
	if len(r.Tokens) > MaxImport {
		return nil, errdefs.Invalid("tokens", "has %d entries; the maximum is %d", len(r.Tokens), MaxImport)
	}
	if err := l.checkClock(); err != nil {
		return nil, err
	}
	out := make([]ImportedToken, len(r.Tokens))
	work, failed := errgroup.WithContext(ctx)
	work.SetLimit(importParallel)
	for i := range r.Tokens {
		if failed.Err() != nil {
			break
		}
		work.Go(func() (err error) {
			out[i], err = l.importToken(failed, c, r, &r.Tokens[i])
			return err
		})
	}
	err = work.Wait()
	if err == nil && ctx.Err() != nil {
		err = errdefs.Unavailable(ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("import tokens: some may be imported; send the same request again to continue: %w", err)
	}
	return out, nil
}

// importParallel is how many tokens of a request are imported at a time. The log
// stores the events of commands that run at the same time together.
const importParallel = 64

// errImportRefused is a refusal that concerns one token.
type errImportRefused struct{ error }

func refuseImport(format string, args ...any) error {
	return errImportRefused{fmt.Errorf(format, args...)}
}

// importToken imports one token. Its error concerns all.
func (l *Ledger) importToken(
	ctx context.Context,
	c authz.Principal,
	r ImportTokens,
	t *ImportToken,
) (ImportedToken, error) {
	p := &importPlan{source: r.Source, token: t, digest: t.Hash.Digest(), outcome: ImportUnchanged}
	var err error
	if p.scopes, err = l.parseScopes(t.Scopes, len(t.Scopes) == 0); err != nil {
		return ImportedToken{Outcome: ImportRefused, Problem: err}, nil
	}
	if p.account, err = events.ParseAccountID(t.Account); err != nil {
		return ImportedToken{Outcome: ImportRefused, Problem: err}, nil
	}
	if r.DryRun {
		id, err := l.dryImport(c, p)
		return p.result(id, 0, err)
	}
	out, err := l.runImport(ctx, c, p)
	return p.result(p.id, out.Position, err)
}

// dryImport plans an import. If another import creates the token in between, it looks
// again, as runImport does.
func (l *Ledger) dryImport(c authz.Principal, p *importPlan) (id events.TokenID, err error) {
	const maxTries = 4
	for range maxTries {
		id, err = l.cfg.View.TokenWith(p.digest)
		if err == nil || errors.Is(err, events.ErrNotFound) {
			_, err = l.planImport(c, p, id)
		}
		if !errors.Is(err, errImportedMeanwhile) {
			break
		}
	}
	return id, err
}

// importPlan is one token that is being imported.
type importPlan struct {
	source  string
	token   *ImportToken
	digest  events.Digest
	account events.AccountID
	scopes  []events.Scope
	id      events.TokenID
	outcome ImportOutcome // of the last attempt
}

func (p *importPlan) result(id events.TokenID, at events.Position, err error) (ImportedToken, error) {
	var refused errImportRefused
	switch {
	case errors.As(err, &refused):
		return ImportedToken{Outcome: ImportRefused, Problem: refused.error}, nil
	case err != nil:
		return ImportedToken{}, err
	}
	return ImportedToken{Outcome: p.outcome, ID: id, Position: at}, nil
}

// runImport creates the token, or changes the one that has the hash. The shard of
// a new token follows from the digest: so of two imports of one hash at the same
// time, the append of one fails, and finds the token of the other.
func (l *Ledger) runImport(ctx context.Context, c authz.Principal, p *importPlan) (commit.Outcome, error) {
	const maxTries = 4
	for try := 1; ; try++ {
		have, err := l.cfg.View.TokenWith(p.digest)
		if err != nil && !errors.Is(err, events.ErrNotFound) {
			return commit.Outcome{}, errdefs.Unavailable(err)
		}
		if p.id = have; have == "" {
			p.id = events.NewTokenID(l.cfg.Now(), events.ShardFor(p.key()))
		} else if change, err := l.planImport(c, p, have); err != nil || change == nil {
			return commit.Outcome{}, err // nothing to append
		}
		out, err := l.writer.Run(ctx, commit.Command{
			Name: "import", By: c, Request: []any{"import", p.source, p.digest},
			Noun: events.NounToken, About: string(p.id), Ending: false,
			NotBefore: func() (time.Time, error) {
				if _, err := l.cfg.View.Account(p.account); err != nil {
					return time.Time{}, nil // planImport reports it
				}
				return l.tokensBefore(p.account)
			},
			Decide: l.decider(func(l *Ledger, c authz.Principal) (events.Change, error) {
				return l.planImport(c, p, have)
			}),
		})
		if errors.Is(err, errImportedMeanwhile) && try < maxTries {
			continue
		}
		return out, err
	}
}

// key places all tokens with one digest in one shard.
func (p *importPlan) key() events.CommandKey {
	return events.NewCommandKey("", fmt.Sprintf("import\x00%x", p.digest[:]))
}

var errImportedMeanwhile = fmt.Errorf("%w: another import has created the token", ErrExists)

// planImport returns the event that creates the token, or that changes the token
// have, nil for none. It sets p.outcome.
func (l *Ledger) planImport(c authz.Principal, p *importPlan, have events.TokenID) (events.Change, error) {
	if err := l.authz.Authorize(c, authz.ImportTokens, authz.Target{}); err != nil {
		return nil, err
	}
	a, err := l.cfg.View.Account(p.account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil, refuseImport("account %s does not exist", p.account)
	case err != nil:
		return nil, errdefs.ViewError(err, "account %s", p.account)
	}
	if have != "" {
		return l.planImportAgain(p, a, have)
	}
	taken, err := l.cfg.View.DigestTaken(p.digest)
	switch {
	case err != nil:
		return nil, errdefs.Unavailable(err)
	case taken:
		return nil, errImportedMeanwhile
	case a.Erased:
		return nil, refuseImport("account %s is erased", p.account)
	}
	p.outcome = ImportCreated
	t := p.token
	change := &events.TokenCreated{
		Account: p.account, App: t.App, Scopes: p.scopes, Inherit: len(p.scopes) == 0, Expires: t.Expires,
		Secret: events.SecretRecord{Scheme: events.SchemeMatomo, Digest: p.digest, Format: events.FormatHex32},
		Import: &events.TokenImport{Source: p.source, Created: t.Created, LastUsed: t.LastUsed, Migrated: t.Migrated},
	}
	if t.HeaderOnly {
		change.Constraints = &events.Constraints{HeaderOnly: true}
	}
	if err := checkChange(change); err != nil {
		return nil, errImportRefused{err}
	}
	return change, nil
}

// usedLater is by how much the last use must be later to be noted again, so that a
// token that is always in use does not fill the log.
const usedLater = 24 * time.Hour

// planImportAgain returns the event that brings an imported token up to date.
func (l *Ledger) planImportAgain(p *importPlan, a *events.Account, id events.TokenID) (events.Change, error) {
	t, err := l.token(id)
	if err != nil {
		return nil, err
	}
	if t.Import == nil || t.Import.Source != p.source {
		return nil, refuseImport("token %s has this secret, and was not imported from %s", id, p.source)
	}
	if t.Account != a.ID {
		return nil, refuseImport("token %s has this secret, and belongs to account %s", id, t.Account)
	}
	cut, err := l.cutOff(t)
	switch {
	case err != nil:
		return nil, err
	case t.State == events.Revoked || cut || a.Erased:
		p.outcome = ImportEnded
		return nil, nil
	}
	p.outcome = ImportUnchanged
	edit := p.edit(t)
	var change events.Change
	scopes, narrower := p.narrowed(l.cfg.Model, t)
	switch {
	case narrower && len(scopes) == 0:
		return nil, refuseImport("token %s has no scope that %s still allows; revoke it, or change its scopes", id, p.source)
	case narrower:
		scoped := &events.TokenScoped{Scopes: scopes}
		if *edit != (events.TokenEdited{}) {
			scoped.Edit = edit
		}
		change = scoped
	case *edit != (events.TokenEdited{}):
		change = edit
	default:
		return nil, nil
	}
	p.outcome = ImportUpdated
	if err := checkChange(change); err != nil {
		return nil, errImportRefused{err}
	}
	return change, nil
}

// narrowed returns the scopes that a token has and that Matomo allows, and whether
// they are less than the token's. Matomo never gives it more.
func (p *importPlan) narrowed(m *events.Model, t *events.Token) (scopes []events.Scope, narrower bool) {
	switch {
	case len(p.scopes) == 0: // all of its account
		return nil, false
	case t.Inherit:
		return p.scopes, true
	}
	for _, have := range t.Scopes {
		if m.AnyCovers(p.scopes, have) {
			scopes = append(scopes, have)
			continue
		}
		narrower = true
		for _, allowed := range p.scopes {
			scopes = append(scopes, both(m, have, allowed)...)
		}
	}
	slices.SortFunc(scopes, events.Scope.Compare)
	return slices.Compact(scopes), narrower
}

// both returns the scope that two scopes cover, none if there is none. It has the
// permission and the resource of one of them each.
func both(m *events.Model, a, b events.Scope) []events.Scope {
	for _, s := range []events.Scope{
		a, b, {Permission: a.Permission, Type: b.Type, ID: b.ID}, {Permission: b.Permission, Type: a.Type, ID: a.ID},
	} {
		if m.Check(s) == nil && m.Covers(a, s) && m.Covers(b, s) {
			return []events.Scope{s}
		}
	}
	return nil
}

// edit returns what Matomo says of a token that narrows it or that is only noted.
func (p *importPlan) edit(t *events.Token) *events.TokenEdited {
	edit, now := &events.TokenEdited{}, p.token
	if !now.Expires.IsZero() && (t.Expires.IsZero() || now.Expires.Before(t.Expires)) {
		edit.Expires = &now.Expires
	}
	if now.HeaderOnly && (t.Constraints == nil || !t.Constraints.HeaderOnly) {
		edit.Constraints = t.Constraints.Clone()
		if edit.Constraints == nil {
			edit.Constraints = &events.Constraints{}
		}
		edit.Constraints.HeaderOnly = true
	}
	if now.LastUsed.Sub(t.Import.LastUsed) >= usedLater {
		edit.LastUsed = &now.LastUsed
	}
	return edit
}

// ImportFilter selects imported tokens. The zero filter selects all tokens.
type ImportFilter struct {
	Source   string // name of the installation
	Legacy   bool   // those that inherit
	Migrated bool   // those that Matomo 4 made of the tokens of version 3
	// UnusedFor selects those that Matomo had not seen in use for this time, when it
	// was last asked. A token that was never used counts from its creation.
	UnusedFor time.Duration
}

// matches reports whether the filter selects a token.
func (f ImportFilter) matches(t *events.Token, now time.Time) bool {
	if f == (ImportFilter{}) {
		return true
	}
	i := t.Import
	if i == nil || f.Source != "" && i.Source != f.Source || f.Legacy && !t.Inherit || f.Migrated && !i.Migrated {
		return false
	}
	if f.UnusedFor == 0 {
		return true
	}
	used := laterOf(i.LastUsed, i.Created)
	if used.IsZero() {
		used = t.Created
	}
	return now.Sub(used) >= f.UnusedFor
}
