package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Caller is who asks: a token of an account, or a person who signed in.
type Caller struct {
	Account events.AccountID
	// Token is the one that authenticated, or that the session was begun with.
	// It is empty where a person signed in.
	Token events.TokenID
	// Secret is the digest of the token's secret that was sent, or that the
	// session was opened with. Zero stands for any of the token's.
	Secret  events.Digest
	Session events.SessionID // empty where a token authenticated
	// Opened is the position that the ledger had applied when it opened the
	// session, and Began when that was, by its clock.
	Opened events.Position
	Began  time.Time
	// Proved is when the person last proved to be who they are, zero for tokens.
	Proved  time.Time
	Address string         // of the client, without port
	Scopes  []events.Scope // effective: the token's within the account's
	// Inherit says that the scopes are all that the account has.
	Inherit bool
}

func (c Caller) actor() events.Actor {
	return events.Actor{Account: c.Account, Token: c.Token, Session: c.Session, Opened: c.Opened, Address: c.Address}
}

// Operation is a command or a query, as the table of who may do what has it.
type Operation string

// The operations.
const (
	MakeToken     Operation = "make a token"
	SeeToken      Operation = "see a token"
	WidenToken    Operation = "widen a token"
	ChangeToken   Operation = "narrow or relabel a token"
	RotateToken   Operation = "rotate a token"
	SuspendToken  Operation = "suspend a token"
	ResumeToken   Operation = "resume a token"
	RevokeToken   Operation = "revoke a token"
	RevokeTokens  Operation = "revoke all tokens of an account"
	RevokeOfAll   Operation = "revoke tokens of all accounts"
	SeeAccount    Operation = "see an account"
	MakeAccount   Operation = "make an account"
	GrantAccount  Operation = "change an account's grants"
	ChangeAccount Operation = "change an account's owner, self-service, name or mail"
	StopAccount   Operation = "suspend or resume an account"
	EraseAccount  Operation = "erase an account"
	InvitePerson  Operation = "invite a person to set a password"
	SeeSessions   Operation = "see an account's sessions"
	EndSessions   Operation = "end an account's sessions"
	SeePolicy     Operation = "see the policy"
	SetPolicy     Operation = "set the policy"
	SeeNodes      Operation = "see nodes"
	SeeReceipts   Operation = "see receipts"
)

// relation is what a caller may be to what an operation is about.
type relation string

// The relations, each as the table's column.
const (
	bySuperuser    relation = "superuser"
	byAdmin        relation = "admin"         // has admin on every resource that the token is confined to
	byAccountAdmin relation = "account-admin" // is that, and admin of the account: see [Ledger.reaches]
	byOwner        relation = "owner"         // owns the service account
	byAccount      relation = "account"       // is the account
	byWhole        relation = "whole"         // is the account's person, or a token that has all of it
	byToken        relation = "itself"        // is the token
	byAuditor      relation = "audit"         // has audit
	byAnyone       relation = "anyone"
)

// relations in the order of the table's columns.
var relations = []relation{
	bySuperuser, byAdmin, byAccountAdmin, byOwner, byAccount, byWhole, byToken, byAuditor, byAnyone,
}

// rule says who may do an operation, and on what condition.
type rule struct {
	op Operation
	by []relation
	// grows: what comes of it can do more than before. A person has to have
	// proved who they are a short time ago, a token needs mint, and self-service
	// may be off. Nothing that comes of it can do more than the caller.
	grows bool
	// proof: a person has to have proved who they are a short time ago.
	proof bool
}

// authority is the whole of who may do what. authority.md is made from it.
var authority = []rule{
	{op: MakeToken, by: []relation{bySuperuser, byAccountAdmin, byOwner, byAccount}, grows: true},
	{op: SeeToken, by: []relation{bySuperuser, byAdmin, byOwner, byAccount, byToken, byAuditor}},
	{op: WidenToken, by: []relation{bySuperuser, byAccountAdmin, byOwner, byAccount}, grows: true},
	{op: ChangeToken, by: []relation{bySuperuser, byAdmin, byOwner, byAccount}},
	{op: RotateToken, by: []relation{bySuperuser, byAccountAdmin, byOwner, byAccount}, grows: true},
	{op: SuspendToken, by: []relation{bySuperuser, byAdmin, byOwner, byAccount}},
	{op: ResumeToken, by: []relation{bySuperuser, byAdmin, byOwner, byAccount}, grows: true},
	{op: RevokeToken, by: []relation{bySuperuser, byAdmin, byOwner, byAccount, byToken}},
	{op: RevokeTokens, by: []relation{bySuperuser, byOwner, byAccount}, proof: true},
	{op: RevokeOfAll, by: []relation{bySuperuser}, proof: true},
	{op: SeeAccount, by: []relation{bySuperuser, byOwner, byAccount, byToken, byAuditor}},
	{op: MakeAccount, by: []relation{bySuperuser}, proof: true},
	{op: GrantAccount, by: []relation{bySuperuser}, proof: true},
	{op: ChangeAccount, by: []relation{bySuperuser}, proof: true},
	{op: StopAccount, by: []relation{bySuperuser}},
	{op: EraseAccount, by: []relation{bySuperuser}, proof: true},
	{op: InvitePerson, by: []relation{bySuperuser}, proof: true},
	{op: SeeSessions, by: []relation{bySuperuser, byWhole}},
	{op: EndSessions, by: []relation{bySuperuser, byWhole}},
	{op: SeePolicy, by: []relation{byAnyone}},
	{op: SetPolicy, by: []relation{bySuperuser}, proof: true},
	{op: SeeNodes, by: []relation{bySuperuser, byAuditor}},
	{op: SeeReceipts, by: []relation{bySuperuser, byAuditor}},
}

func ruleFor(op Operation) rule {
	i := slices.IndexFunc(authority, func(r rule) bool { return r.op == op })
	if i < 0 {
		panic("no rule for: " + string(op))
	}
	return authority[i]
}

// target is what an operation is about. The zero one is about no account.
type target struct {
	account *events.Account
	token   events.TokenID // empty for none, or for one that is to be made
	// scopes are the token's own, or all of its account's where it inherits.
	scopes  []events.Scope
	inherit bool
}

func tokenTarget(t *events.Token, a *events.Account) target {
	on := target{account: a, token: t.ID, scopes: t.Scopes, inherit: t.Inherit}
	if t.Inherit {
		on.scopes = a.Grants
	}
	return on
}

// is reports whether the caller is something to what it asks about.
func (l *Ledger) is(c Caller, by relation, on target) bool {
	m := l.cfg.Model
	switch by {
	case bySuperuser:
		return m.AnyCovers(c.Scopes, events.Superuser)
	case byAuditor:
		return m.AnyCovers(c.Scopes, events.Audit)
	case byAnyone:
		return c.Account != ""
	case byToken:
		if on.token == "" {
			return on.account != nil && on.account.ID == c.Account // a token may know whose it is
		}
		return c.Token == on.token
	case byAccount:
		return on.account != nil && on.account.ID == c.Account && l.manages(c)
	case byOwner:
		return on.account != nil && on.account.Owner != "" && on.account.Owner == c.Account && l.manages(c)
	case byAdmin:
		return l.confined(on.scopes, c)
	case byAccountAdmin:
		return l.confined(on.scopes, c) && on.account != nil && l.reaches(c, on.account)
	case byWhole:
		return on.account != nil && on.account.ID == c.Account && c.Inherit
	}
	return false
}

// reaches reports whether an account is within the resources that the caller has
// admin on: all of its grants are on those, but for mint, which gives no access.
// A token of such an account is nobody that the caller has no say over. The policy
// may let admins reach every account.
func (l *Ledger) reaches(c Caller, a *events.Account) bool {
	if !l.administers(c) {
		return false
	}
	if p, err := l.policy(); err == nil && p.SiteAdminsAnyAccount { // not known is not widened
		return true
	}
	return l.confined(slices.DeleteFunc(slices.Clone(a.Grants), func(s events.Scope) bool { return s == events.Mint }), c)
}

// knows reports whether the caller may know an account's person, its owner and
// all of its grants. A token that has a part of what its account has sees no more
// of it than that part.
func (l *Ledger) knows(c Caller, a *events.Account) bool {
	on := target{account: a}
	return l.seesAll(c) || l.is(c, byOwner, on) || l.is(c, byWhole, on)
}

// names reports whether the caller may learn that a login is that account's.
func (l *Ledger) names(c Caller, a *events.Account) bool {
	return l.knows(c, a) || l.is(c, byAccount, target{account: a}) || l.reaches(c, a)
}

// manages reports whether the caller may manage tokens at all: a person may, and
// a token that was given the permission. One that shows in a page must not end
// its siblings.
func (l *Ledger) manages(c Caller) bool {
	return c.Token == "" && c.Session != "" || l.cfg.Model.AnyCovers(c.Scopes, events.Mint)
}

// confined reports whether scopes are on resources alone that the caller has
// admin on.
func (l *Ledger) confined(scopes []events.Scope, c Caller) bool {
	admin := l.cfg.Model.Admin()
	for _, s := range scopes {
		if admin == "" || s.Type == "" || !l.cfg.Model.AnyCovers(c.Scopes, events.Scope{Permission: admin, Type: s.Type, ID: s.ID}) {
			return false
		}
	}
	return len(scopes) > 0
}

// may returns nil where the caller may do op on something. The error is
// [ErrForbidden] with what is missing, or [ErrProof].
func (l *Ledger) may(c Caller, op Operation, on target) error {
	r := ruleFor(op)
	as := slices.DeleteFunc(slices.Clone(r.by), func(by relation) bool { return !l.is(c, by, on) })
	if len(as) == 0 {
		return refusal(r, l.sees(c, on))
	}
	if r.grows {
		if err := l.mayGrow(c, r, as, on); err != nil {
			return err
		}
	}
	if r.grows || r.proof {
		return l.recent(c, op)
	}
	return nil
}

// recent returns [ErrProof] where a session's person has not proved who they are
// a short time ago, and [ErrForbidden] where a token opened it: that has no person
// who could.
func (l *Ledger) recent(c Caller, op Operation) error {
	if c.Session != "" && c.Proved.IsZero() {
		return fmt.Errorf("%w: to %s takes a person who signed in with a password, and a token opened this session", ErrForbidden, op)
	}
	if c.Session != "" && !Recent(c.Proved, l.cfg.Now()) {
		return &ProofError{What: string(op), MaxAge: RecentProof}
	}
	return nil
}

// clocksDiffer is the most by which the clocks of two ledgers that have leases
// differ, but for what drifts within a lease.
const clocksDiffer = 2*events.ClockLimit + time.Second

// Recent reports whether a proof at a time is recent enough for what changes who a
// person is. One that lies in the future by more than clocks differ is not: the
// clock that it is of was wrong.
func Recent(proved, now time.Time) bool {
	age := now.Sub(proved)
	return age <= RecentProof && age >= -clocksDiffer
}

// FromWrongClock reports whether a time that lies in the past lies in the future
// by more than the clocks of two ledgers differ.
func FromWrongClock(past, now time.Time) bool { return past.Sub(now) > clocksDiffer }

// mayGrow reports what keeps a caller from an operation by which something can
// do more than before.
func (l *Ledger) mayGrow(c Caller, r rule, as []relation, on target) error {
	policy, err := l.policy()
	if err != nil {
		return err
	}
	self, err := l.selfService(on)
	if err != nil {
		return err
	}
	fits := func(by relation) bool {
		switch policy.Makers {
		case events.MakersSuperusers:
			return by == bySuperuser
		case events.MakersSiteAdmins:
			return by == bySuperuser || by == byAdmin || by == byAccountAdmin
		}
		return by == bySuperuser || by == byAdmin || by == byAccountAdmin || self
	}
	switch {
	case !slices.ContainsFunc(as, fits) && makersNeed[policy.Makers] != "":
		return fmt.Errorf("%w: to %s, the policy asks for %s", ErrForbidden, r.op, makersNeed[policy.Makers])
	case !slices.ContainsFunc(as, fits):
		return fmt.Errorf("%w: to %s, the self-service of the account, and of its owner, would have to be on; it is off, so ask a superuser", ErrForbidden, r.op)
	case c.Session == "" && !l.manages(c):
		return fmt.Errorf("%w: to %s, a token needs the permission %s", ErrForbidden, r.op, events.Mint)
	}
	return l.ceiling(c, on)
}

// makersNeed says what a policy asks of those who make tokens.
var makersNeed = map[events.Makers]string{
	events.MakersSiteAdmins: "admin on all that the token is confined to, or superuser",
	events.MakersSuperusers: "superuser",
}

// selfService reports whether an account manages its own tokens, and its owner
// those of it. What an owner may not do, the tokens of what it owns may not.
func (l *Ledger) selfService(on target) (bool, error) {
	if on.account == nil || !on.account.SelfService {
		return false, nil
	}
	if on.account.Owner == "" {
		return true, nil
	}
	owner, err := l.cfg.View.Account(on.account.Owner)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return false, nil
	case err != nil:
		return false, unavailable(err)
	}
	return owner.SelfService, nil
}

// ceiling reports what a token could do that its maker cannot. An account's own
// person, and a token that has all of the account's, are as much as any token of
// the account can be.
func (l *Ledger) ceiling(c Caller, on target) error {
	if c.Inherit && on.account.ID == c.Account || l.is(c, bySuperuser, on) {
		return nil
	}
	if on.inherit {
		return fmt.Errorf("%w: the token would have all that its account has, now and later; that takes the account's own person, a token that has as much, or %s", ErrForbidden, events.Superuser)
	}
	if missing := l.cfg.Model.Missing(c.Scopes, on.scopes); len(missing) > 0 {
		return fmt.Errorf("%w: the token would have %s, which you do not have yourself", ErrForbidden, strings.Join(events.ScopeStrings(missing), ", "))
	}
	return nil
}

// sees reports whether the caller may know of what it asks about.
func (l *Ledger) sees(c Caller, on target) bool {
	r := ruleFor(SeeAccount)
	if on.token != "" {
		r = ruleFor(SeeToken)
	}
	return slices.ContainsFunc(r.by, func(by relation) bool { return l.is(c, by, on) })
}

// seesAll reports whether the caller may know of everything.
func (l *Ledger) seesAll(c Caller) bool {
	return l.is(c, bySuperuser, target{}) || l.is(c, byAuditor, target{})
}

// refusal says who may do an operation. To those who may not know of what they
// asked about, it is the same whether that exists or not.
func refusal(r rule, seen bool) error {
	var who []string
	for _, by := range r.by {
		who = append(who, relationNeeds[by])
	}
	perhaps := "; or there is no such thing"
	if seen || !slices.ContainsFunc(r.by, func(by relation) bool { return by != bySuperuser && by != byAuditor }) {
		perhaps = ""
	}
	return fmt.Errorf("%w: to %s needs %s%s", ErrForbidden, r.op, orList(who), perhaps)
}

// relationNeeds says what makes a caller something to a target.
var relationNeeds = map[relation]string{
	bySuperuser:    "the permission superuser",
	byAdmin:        "admin on all that the token is confined to",
	byAccountAdmin: "admin on all that the token is confined to and all that its account has",
	byWhole:        "to be the account's person, or a token that inherits all of the account",
	byOwner:        "to own the account (a token also mint)",
	byAccount:      "to be of the account (a token also mint)",
	byToken:        "to be the token itself",
	byAuditor:      "the permission audit",
	byAnyone:       "a token or a session",
}

func orList(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
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
	return fmt.Sprintf("%s: to %s, enter password or second factor again; it is good for %s", ErrProof, e.What, humanDuration(e.MaxAge))
}

// Unwrap makes the error [ErrProof].
func (e *ProofError) Unwrap() error { return ErrProof }
