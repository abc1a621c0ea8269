package ledger

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// Token is a token with its current rights and state.
type Token struct {
	*events.Token
	// Login is that of the token's account, if [Ledger.AddLogins] added it.
	Login string
	// Effective are the token's scopes within its account's grants. It is empty if
	// the token is not accepted.
	Effective []events.Scope
	// Ended says why the token is of no use now, empty if it is active. It is one of
	// TokenStates.
	Ended string
	// EndsSoon means that the token is accepted now and expires within the policy's
	// warning period.
	EndsSoon bool
	// InGrace are the secrets from before the last rotation that are still valid.
	InGrace []events.SecretSlot
}

// TokenStates are the states of a token as [TokenFilter] takes them. A token that
// can do nothing is not active: its account may be suspended, or have lost all
// grants that the token is confined to, or the policy may refuse its secret.
var TokenStates = []string{
	"active", "suspended", "revoked", "expired", stateAccountSuspended, stateNoScopes, stateSecretRefused,
}

const (
	stateAccountSuspended = "account suspended"
	stateNoScopes         = "no scopes"
	stateSecretRefused    = "secret refused"
)

// GetToken returns one token.
func (l *Ledger) GetToken(c authz.Principal, id events.TokenID) (Token, error) {
	t, _, err := l.authorizedToken(c, authz.SeeToken, id)
	if err != nil {
		return Token{}, err
	}
	return l.show(t)
}

// TokenFilter selects tokens. Empty fields select all.
type TokenFilter struct {
	Account string // id or login
	Site    string // id of a site; the same as Resource site/ID
	// Resource is type/id. It selects tokens with a scope on the resource, or on all
	// resources of its type.
	Resource string
	State    string // one of TokenStates
	// Expiring selects active tokens that expire within this time. Zero selects all.
	Expiring time.Duration

	App, Device string // labels
	Owner       string // id or login: tokens of the accounts that it owns
	Prefix      string // the beginning of an id, from "tok_" on
	Unended     bool   // leaves out tokens that are revoked or expired
	Import      ImportFilter
}

// ListTokens returns up to limit tokens that the caller may see, in order of id,
// starting after the given id, and whether there are more.
func (l *Ledger) ListTokens(
	ctx context.Context,
	c authz.Principal,
	f TokenFilter,
	after events.TokenID,
	limit int,
) ([]Token, bool, error) {
	wanted, err := l.filter(f)
	if err != nil {
		return nil, false, err
	}
	accounts, err := l.lookIn(ctx, c, f.Account)
	if err != nil {
		return nil, false, err
	}
	owner, err := l.ownerOf(ctx, c, f)
	if err != nil {
		return nil, false, err
	}
	var failed error // the first error of wanted or of the view
	keep := func(t *events.Token) bool {
		if failed != nil {
			return false
		}
		var keeps bool
		if keeps, failed = wanted(t); failed != nil || !keeps {
			return false
		}
		a, err := l.cfg.View.Account(t.Account)
		if err != nil && !errors.Is(err, events.ErrNotFound) {
			failed = errdefs.Unavailable(err)
		}
		return err == nil && (owner == "" || a.Owner == owner) && l.authz.CanSee(c, authz.TokenTarget(t, a))
	}
	if f.Prefix != "" {
		after = max(after, beforePrefix(f.Prefix))
		keep = untilPrefixEnds(f.Prefix, keep)
	}
	var list []*events.Token
	more := false
	for _, account := range accounts {
		some, rest, err := l.cfg.View.Tokens(account, keep, after, limit)
		if err != nil {
			return nil, false, errdefs.Unavailable(err)
		}
		if failed != nil {
			return nil, false, failed
		}
		if n := len(some); f.Prefix != "" && n > 0 && !strings.HasPrefix(string(some[n-1].ID), f.Prefix) {
			some = slices.DeleteFunc(some, func(t *events.Token) bool {
				return !strings.HasPrefix(string(t.ID), f.Prefix)
			})
			rest = false
		}
		list, more = append(list, some...), more || rest
	}
	slices.SortFunc(list, func(a, b *events.Token) int { return strings.Compare(string(a.ID), string(b.ID)) })
	if len(list) > limit {
		list, more = list[:limit], true
	}
	out := make([]Token, len(list))
	for i, t := range list {
		if out[i], err = l.show(t); err != nil {
			return nil, false, err
		}
	}
	return out, more, nil
}

// ownerOf returns the owner that a filter names, empty for none.
func (l *Ledger) ownerOf(ctx context.Context, c authz.Principal, f TokenFilter) (events.AccountID, error) {
	if f.Owner == "" {
		return "", nil
	}
	id, err := l.resolveFor(ctx, c, authz.SeeAccount, f.Owner)
	var field *errdefs.FieldError
	if errors.As(err, &field) {
		err = errdefs.Invalid("owner", "%s", field.Problem)
	}
	return id, err
}

// firstWith returns the lowest id with a prefix.
func firstWith(prefix string) (events.TokenID, error) {
	const length = len("tok_00000000000000000000000000")
	return events.ParseTokenID(prefix + strings.Repeat("0", max(0, length-len(prefix))))
}

// beforePrefix returns the id right before all ids with a valid prefix, empty if
// there is none.
func beforePrefix(prefix string) events.TokenID {
	first, err := firstWith(prefix)
	if err != nil {
		return ""
	}
	b := first.Bytes()
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]--; b[i] != 0xff {
			return events.TokenIDFrom(b)
		}
	}
	return ""
}

// untilPrefixEnds is keep for the ids with a prefix. It also keeps ids behind them,
// so that the list is soon full: the caller removes those.
func untilPrefixEnds(prefix string, keep func(*events.Token) bool) func(*events.Token) bool {
	return func(t *events.Token) bool {
		if strings.HasPrefix(string(t.ID), prefix) {
			return keep(t)
		}
		return string(t.ID) > prefix
	}
}

// AddLogins adds the logins of the tokens' accounts, where the caller may see them.
func (l *Ledger) AddLogins(ctx context.Context, c authz.Principal, list ...*Token) {
	accounts := make([]events.AccountID, len(list))
	for i, t := range list {
		accounts[i] = t.Account
	}
	logins := l.Logins(ctx, c, accounts)
	for _, t := range list {
		t.Login = logins[t.Account]
	}
}

// Logins returns the logins of accounts that the caller may see. Logins are not in
// the index: while they cannot be read, they are left out.
func (l *Ledger) Logins(
	ctx context.Context,
	c authz.Principal,
	accounts []events.AccountID,
) map[events.AccountID]string {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seen := map[events.AccountID]string{}
	for _, id := range accounts {
		if _, ok := seen[id]; ok {
			continue
		}
		a, err := l.cfg.View.Account(id)
		if err != nil {
			continue
		}
		seen[id] = ""
		if !a.Erased && l.authz.CanSeeDetails(c, a) {
			p, err := l.directory.Get(ctx, id)
			if err != nil {
				return seen
			}
			seen[id] = p.Login
		}
	}
	return seen
}

// lookIn returns the accounts to list tokens of: the named account, or the
// caller's own and those that it owns, or "" for all accounts.
func (l *Ledger) lookIn(ctx context.Context, c authz.Principal, account string) ([]events.AccountID, error) {
	everywhere := l.authz.CanSeeAll(c) || l.authz.IsSiteAdmin(c)
	if account != "" {
		id, err := l.resolveFor(ctx, c, authz.SeeAccount, account)
		if err == nil && !everywhere {
			err = l.authorizeAccount(c, authz.SeeAccount, id)
		}
		return []events.AccountID{id}, err
	}
	if everywhere {
		return []events.AccountID{""}, nil
	}
	out := []events.AccountID{c.Account}
	if l.authz.CanManage(c) {
		owned, _, err := l.accounts(func(a *events.Account) bool { return a.Owner == c.Account }, "", math.MaxInt)
		if err != nil {
			return nil, err
		}
		for _, a := range owned {
			out = append(out, a.ID)
		}
	}
	return out, nil
}

// filter checks f and returns the function that selects tokens, whatever their
// accounts' owner.
func (l *Ledger) filter(f TokenFilter) (func(*events.Token) (bool, error), error) {
	if f.State != "" && !slices.Contains(TokenStates, f.State) {
		return nil, errdefs.Invalid("state", "is one of %s", strings.Join(TokenStates, ", "))
	}
	if f.Expiring < 0 {
		return nil, errdefs.Invalid("expiring", "is negative")
	}
	if err := checkPrefix(f.Prefix); err != nil {
		return nil, err
	}
	typ, id, err := l.resourceOf(f)
	if err != nil {
		return nil, err
	}
	return func(t *events.Token) (bool, error) {
		if f.App != "" && t.App != f.App || f.Device != "" && t.Device != f.Device ||
			!f.Import.matches(t, l.cfg.Now()) {
			return false, nil
		}
		state, err := l.stateOf(t)
		if err != nil || f.Unended && (state == "revoked" || state == "expired") {
			return false, err
		}
		if f.State != "" || f.Expiring != 0 {
			if state, err = l.usefulState(t, state); err != nil || f.State != "" && f.State != state {
				return false, err
			}
		}
		if f.Expiring != 0 &&
			(state != string(events.Active) || t.Expires.IsZero() || t.Expires.Sub(l.cfg.Now()) > f.Expiring) {
			return false, nil
		}
		if typ == "" {
			return true, nil
		}
		return l.concerns(t, typ, id)
	}, nil
}

// MinTokenPrefix is the shortest beginning of an id that tokens are found by: "tok_"
// and four characters.
const MinTokenPrefix = len("tok_") + 4

// checkPrefix checks the beginning of a token's id. A whole id is one too.
func checkPrefix(s string) error {
	switch _, err := firstWith(s); {
	case s == "":
		return nil
	case events.LooksSecret(s):
		return errdefs.Invalid("prefix", "is a secret; treat it as leaked if others saw it")
	case err != nil || len(s) < MinTokenPrefix:
		return errdefs.Invalid("prefix", "must be tok_ and at least 4 of the characters of a token's id")
	}
	return nil
}

// resourceOf returns the resource that a filter names, empty for none.
func (l *Ledger) resourceOf(f TokenFilter) (typ, id string, err error) {
	field, resource := "resource", f.Resource
	if f.Site != "" {
		if f.Resource != "" {
			return "", "", errdefs.Invalid("site", "and resource cannot both be given")
		}
		field, resource = "site", "site/"+f.Site
	}
	if resource == "" {
		return "", "", nil
	}
	typ, id, _ = strings.Cut(resource, "/")
	if err := l.cfg.Model.CheckResource(typ, id); err != nil {
		return "", "", errdefs.Invalid(field, "%s", err)
	}
	return typ, id, nil
}

// concerns reports whether a token has an effective scope on a resource.
func (l *Ledger) concerns(t *events.Token, typ, id string) (bool, error) {
	effective, err := l.effective(t)
	return slices.ContainsFunc(effective, func(s events.Scope) bool {
		return s == events.Superuser || s.Type == typ && (s.ID == id || s.ID == "*")
	}), err
}

// stateOf returns a token's own state, including "expired", and "revoked" for
// tokens that a bulk revocation ended. The token may still be of no use.
func (l *Ledger) stateOf(t *events.Token) (string, error) {
	if t.State == events.Revoked {
		return "revoked", nil
	}
	switch cut, err := l.cutOff(t); {
	case err != nil:
		return "", err
	case cut:
		return "revoked", nil
	case expired(t, l.cfg.Now()):
		return "expired", nil
	}
	return string(t.State), nil
}

// cutOff reports whether the token was ended by a bulk revocation, of its account
// or of all accounts, or by the erasure of its account.
func (l *Ledger) cutOff(t *events.Token) (bool, error) {
	a, err := l.cfg.View.Account(t.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return true, nil
	case err != nil:
		return false, errdefs.Unavailable(err)
	case a.Erased:
		return true, nil
	}
	policy, err := l.policy()
	return err == nil && events.CutOff(t, a, policy), err
}

// usefulState returns the state of a token whose own state is given: other than
// active if the token can do nothing.
func (l *Ledger) usefulState(t *events.Token, own string) (string, error) {
	if own != string(events.Active) {
		return own, nil
	}
	a, err := l.cfg.View.Account(t.Account)
	if err != nil {
		return "", errdefs.ViewError(err, "account %s", t.Account)
	}
	policy, err := l.policy()
	if err != nil {
		return "", err
	}
	scopes := a.Grants
	if !t.Inherit {
		scopes = l.cfg.Model.Intersect(t.Scopes, a.Grants)
	}
	newest := len(t.Secrets) - 1
	switch {
	case a.Suspended:
		return stateAccountSuspended, nil
	case newest >= 0 && t.Secrets[newest].Format == events.FormatHex32 && policy.LegacyEnded(l.cfg.Now()):
		return stateSecretRefused, nil
	case len(scopes) == 0:
		return stateNoScopes, nil
	}
	return own, nil
}

// show returns a token with its current rights and state.
func (l *Ledger) show(t *events.Token) (Token, error) {
	effective, err := l.effective(t)
	if err != nil {
		return Token{}, err
	}
	state, err := l.stateOf(t)
	if err != nil {
		return Token{}, err
	}
	if state, err = l.usefulState(t, state); err != nil {
		return Token{}, err
	}
	shown := Token{Token: t, Effective: effective}
	if state != string(events.Active) {
		shown.Ended, shown.Effective = state, nil
	}
	if shown.Ended == "" {
		shown.InGrace = inGrace(t, l.cfg.Now())
	}
	policy, err := l.policy()
	shown.EndsSoon = shown.Ended == "" && policy.Warns(l.cfg.Now(), t.Expires)
	return shown, err
}

// effective returns a token's scopes within its account's grants.
func (l *Ledger) effective(t *events.Token) ([]events.Scope, error) {
	a, err := l.cfg.View.Account(t.Account)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, errdefs.Unavailable(err)
	case t.Inherit:
		return a.Grants, nil
	}
	return events.NewScopeSet(t.Scopes).Meet(l.cfg.Model, l.grants.of(a)), nil
}

// grantSets keeps the grants of accounts with many of them ready, for the lists
// that ask for each token of an account.
type grantSets struct {
	mu   sync.Mutex
	sets map[events.AccountID]grantSet // guarded by mu; at most maxGrantSets
}

type grantSet struct {
	version events.Position // of the account
	set     *events.ScopeSet
}

const (
	manyGrants   = 16
	maxGrantSets = 64
)

func (g *grantSets) of(a *events.Account) *events.ScopeSet {
	if len(a.Grants) <= manyGrants {
		return events.NewScopeSet(a.Grants)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	kept, ok := g.sets[a.ID]
	if !ok || kept.version != a.Version {
		kept = grantSet{a.Version, events.NewScopeSet(a.Grants)}
		if g.sets == nil || len(g.sets) == maxGrantSets {
			g.sets = map[events.AccountID]grantSet{}
		}
		g.sets[a.ID] = kept
	}
	return kept.set
}
