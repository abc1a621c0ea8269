package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// Index is the state that an [Authorizer] reads. A missing record is
// [events.ErrNotFound].
type Index interface {
	Token(id events.TokenID) (*events.Token, error)
	Account(id events.AccountID) (*events.Account, error)
	Policy() (events.PolicyState, error)
	SessionEnded(id events.SessionID) (bool, error)
}

// Authorizer evaluates the rules against an index. All fields are required.
type Authorizer struct {
	Model *events.Model
	Index Index
	Now   func() time.Time
}

// Reading returns an authorizer that reads another index.
func (a Authorizer) Reading(index Index) Authorizer {
	a.Index = index
	return a
}

// Policy returns the policy in force. The error is [errdefs.ErrUnavailable] if
// the index does not answer: an empty policy would allow everything.
func (a Authorizer) Policy() (events.PolicyState, error) {
	p, err := a.Index.Policy()
	if err != nil {
		return p, fmt.Errorf("read the policy: %w", errdefs.Unavailable(err))
	}
	return p, nil
}

// Target is the object of an operation. The zero Target is no account.
type Target struct {
	Account *events.Account
	Token   events.TokenID // empty for none, or for a token that does not exist yet
	// Scopes are the token's own scopes, or all grants of the account if it
	// inherits.
	Scopes  []events.Scope
	Inherit bool
}

// TokenTarget returns a token as a target.
func TokenTarget(t *events.Token, account *events.Account) Target {
	target := Target{Account: account, Token: t.ID, Scopes: t.Scopes, Inherit: t.Inherit}
	if t.Inherit {
		target.Scopes = account.Grants
	}
	return target
}

// Authorize returns nil if the principal may do the operation. The error is
// [errdefs.ErrForbidden] with what is missing, [errdefs.ErrReauthRequired] or
// [errdefs.ErrUnavailable].
func (a Authorizer) Authorize(p Principal, op Operation, target Target) error {
	r := ruleFor(op)
	held := slices.DeleteFunc(slices.Clone(r.any), func(rel relation) bool { return !a.hasRelation(p, rel, target) })
	if len(held) == 0 {
		return denied(r, a.CanSee(p, target))
	}
	if r.escalates {
		if err := a.authorizeEscalation(p, r.op, held, target); err != nil {
			return err
		}
	}
	if r.escalates || r.reauth {
		return a.CheckReauth(p, op)
	}
	return nil
}

// hasRelation reports whether the principal has a relation to the target.
func (a Authorizer) hasRelation(p Principal, rel relation, target Target) bool {
	account := target.Account
	switch rel {
	case relSuperuser:
		return a.Model.AnyCovers(p.Scopes, events.Superuser)
	case relAuditor:
		return a.Model.AnyCovers(p.Scopes, events.Audit)
	case relAnyone:
		return p.Account != ""
	case relToken:
		if target.Token == "" {
			return account != nil && account.ID == p.Account // a token may see its own account
		}
		return p.Token == target.Token
	case relAccount:
		return account != nil && account.ID == p.Account && a.CanManage(p)
	case relOwner:
		return account != nil && account.Owner != "" && account.Owner == p.Account && a.CanManage(p)
	case relSiteAdmin:
		return a.withinAdminScope(target.Scopes, p)
	case relAccountAdmin:
		return a.withinAdminScope(target.Scopes, p) && account != nil && a.reaches(p, account)
	case relWhole:
		return account != nil && account.ID == p.Account && p.Inherit
	}
	return false
}

// reaches reports whether the principal has admin on every resource in the
// account's grants. The permission manage_tokens is ignored, since it gives no
// access by itself. The policy may let admins reach every account.
func (a Authorizer) reaches(p Principal, account *events.Account) bool {
	if !a.IsSiteAdmin(p) {
		return false
	}
	// If the policy cannot be read, the rule without its exception applies.
	if policy, err := a.Policy(); err == nil && policy.SiteAdminsAnyAccount {
		return true
	}
	isManage := func(s events.Scope) bool { return s == events.ManageTokens }
	grants := slices.DeleteFunc(slices.Clone(account.Grants), isManage)
	return a.withinAdminScope(grants, p)
}

// CanManage reports whether the principal may manage tokens at all: a person
// may, and a token with the permission manage_tokens. A token that is visible
// in a web page must not be able to revoke other tokens of its account.
func (a Authorizer) CanManage(p Principal) bool {
	return p.Token == "" && p.Session != "" || a.Model.AnyCovers(p.Scopes, events.ManageTokens)
}

// IsSuperuser reports whether the principal has the permission superuser.
func (a Authorizer) IsSuperuser(p Principal) bool { return a.hasRelation(p, relSuperuser, Target{}) }

// IsSiteAdmin reports whether the principal has admin on at least one resource.
func (a Authorizer) IsSiteAdmin(p Principal) bool {
	admin := a.Model.Admin()
	return admin != "" && slices.ContainsFunc(p.Scopes, func(s events.Scope) bool {
		return s.Type != "" && a.Model.Covers(s, events.Scope{Permission: admin, Type: s.Type, ID: s.ID})
	})
}

// withinAdminScope reports whether every scope is on a resource that the
// principal has admin on. No scopes are not within.
func (a Authorizer) withinAdminScope(scopes []events.Scope, p Principal) bool {
	admin := a.Model.Admin()
	need := make([]events.Scope, len(scopes))
	for i, s := range scopes {
		if admin == "" || s.Type == "" {
			return false
		}
		need[i] = events.Scope{Permission: admin, Type: s.Type, ID: s.ID}
	}
	return len(scopes) > 0 && len(a.Model.Missing(p.Scopes, need)) == 0
}

// CanSee reports whether the principal may know that the target exists.
func (a Authorizer) CanSee(p Principal, target Target) bool {
	r := ruleFor(SeeAccount)
	if target.Token != "" {
		r = ruleFor(SeeToken)
	}
	return slices.ContainsFunc(r.any, func(rel relation) bool { return a.hasRelation(p, rel, target) })
}

// CanSeeAll reports whether the principal may see every account and token.
func (a Authorizer) CanSeeAll(p Principal) bool {
	return a.IsSuperuser(p) || a.hasRelation(p, relAuditor, Target{})
}

// CanSeeDetails reports whether the principal may see an account's person, its
// owner and all of its grants. A token with some of the account's rights sees
// only that part of the account.
func (a Authorizer) CanSeeDetails(p Principal, account *events.Account) bool {
	target := Target{Account: account}
	return a.CanSeeAll(p) || a.hasRelation(p, relOwner, target) || a.hasRelation(p, relWhole, target)
}

// CanLookUp reports whether the principal may learn which account has a login.
func (a Authorizer) CanLookUp(p Principal, account *events.Account) bool {
	return a.CanSeeDetails(p, account) || a.hasRelation(p, relAccount, Target{Account: account}) ||
		a.reaches(p, account)
}

// authorizeEscalation returns why the principal may not do an operation that
// escalates, nil if it may. held are the relations that it has to the target.
func (a Authorizer) authorizeEscalation(p Principal, op Operation, held []relation, target Target) error {
	policy, err := a.Policy()
	if err != nil {
		return err
	}
	selfService, err := a.selfService(target)
	if err != nil {
		return err
	}
	admits := func(rel relation) bool {
		switch policy.Issuers {
		case events.IssuersSuperusers:
			return rel == relSuperuser
		case events.IssuersSiteAdmins:
			return rel == relSuperuser || rel == relSiteAdmin || rel == relAccountAdmin
		}
		return rel == relSuperuser || rel == relSiteAdmin || rel == relAccountAdmin || selfService
	}
	if !slices.ContainsFunc(held, admits) {
		if need := issuersNeed[policy.Issuers]; need != "" {
			return fmt.Errorf("%w: the policy requires %s to %s", errdefs.ErrForbidden, need, op)
		}
		return fmt.Errorf(
			"%w: self-service is off for the account or for its owner; ask a superuser to %s",
			errdefs.ErrForbidden,
			op,
		)
	}
	if p.Session == "" && !a.CanManage(p) {
		return fmt.Errorf("%w: a token needs the permission %s to %s", errdefs.ErrForbidden, events.ManageTokens, op)
	}
	return a.CheckCeiling(p, target)
}

// issuersNeed describes, for errors, the rights that the policy requires to create
// tokens.
var issuersNeed = map[events.IssuerPolicy]string{
	events.IssuersSiteAdmins: "admin on every resource in the token's scopes, or superuser,",
	events.IssuersSuperusers: "superuser",
}

// selfService reports whether the account may manage its own tokens, and its
// owner the tokens of the account. If self-service is off for the owner, it is
// off for the accounts that it owns.
func (a Authorizer) selfService(target Target) (bool, error) {
	if target.Account == nil || !target.Account.SelfService {
		return false, nil
	}
	if target.Account.Owner == "" {
		return true, nil
	}
	owner, err := a.Index.Account(target.Account.Owner)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return false, nil
	case err != nil:
		return false, errdefs.Unavailable(err)
	}
	return owner.SelfService, nil
}

// CheckCeiling returns [errdefs.ErrForbidden] if the target would have more
// rights than the principal. The account's person, and a token that inherits all
// of the account's grants, have at least the rights of any token of the account.
func (a Authorizer) CheckCeiling(p Principal, target Target) error {
	if p.Inherit && target.Account.ID == p.Account || a.IsSuperuser(p) {
		return nil
	}
	if target.Inherit {
		return fmt.Errorf("%w: the token would inherit all grants of its account, now and later; "+
			"that needs the account's person, a token that inherits them too, or %s", errdefs.ErrForbidden, events.Superuser)
	}
	if missing := a.Model.Missing(p.Scopes, target.Scopes); len(missing) > 0 {
		return fmt.Errorf(
			"%w: the token would have %s, which you do not have",
			errdefs.ErrForbidden,
			events.ListScopes(missing),
		)
	}
	return nil
}

// Denied returns the [errdefs.ErrForbidden] of an operation for a principal who
// may not know whether the target exists. [Authorizer.Authorize] returns the same
// error for a target that exists.
func Denied(op Operation) error { return denied(ruleFor(op), false) }

func denied(r rule, visible bool) error {
	needs := make([]string, len(r.any))
	for i, rel := range r.any {
		needs[i] = relationNeeds[rel]
	}
	need := needs[0]
	if len(needs) > 1 {
		need = "one of: " + strings.Join(needs, "; ")
	}
	hidden := ""
	if !visible &&
		slices.ContainsFunc(r.any, func(rel relation) bool { return rel != relSuperuser && rel != relAuditor }) {
		hidden = ". If it does not exist, you see the same message"
	}
	return fmt.Errorf("%w: to %s you need %s%s", errdefs.ErrForbidden, r.op, need, hidden)
}
