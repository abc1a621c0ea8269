package manifest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/ledger/api"
)

// The phases of a plan, in their order: what takes rights away comes before what
// gives rights, and what something rests on comes before it.
const (
	phaseRevoke = iota
	phaseSuspend
	phaseNarrowToken
	phaseNarrowGrants
	phaseCreateUser
	phaseCreateService
	phaseEditAccount
	phaseGrants
	phaseToken
	phaseCreateToken
	phaseResume
	phaseSuspendNew
)

// Options say what a plan may do.
type Options struct {
	Prune       bool // revoke tokens that the file does not list
	IncludeSelf bool // also the caller's own
	Now         time.Time
}

// A Plan is a list of changes, in the order in which they are made.
type Plan struct {
	Steps []Step
	// Spared is true if the caller's own token would have been revoked.
	Spared bool
}

// A Step is one change, and the request that makes it.
type Step struct {
	Sign   string  `json:"sign"`   // + makes something, - ends it, ~ changes it
	Action string  `json:"action"` // "create", "edit", "set grants", "set exact expiry", and so on
	Kind   string  `json:"kind"`   // "account" or "token"
	Name   string  `json:"name"`
	ID     string  `json:"id,omitempty"` // empty for what the plan creates
	Fields []Field `json:"fields,omitempty"`

	Method string         `json:"-"`
	Verb   string         `json:"-"` // the last part of the path, behind the ID
	Body   map[string]any `json:"-"`
	// Version is the thing's version before the plan, 0 for a thing that the plan creates.
	Version uint64 `json:"-"`
	// Matched requests take effect only if the thing has the version.
	Matched bool `json:"-"`
	// Narrows says that the step only takes rights away, so its receipt is awaited.
	Narrows bool `json:"-"`
	// Secret says that the step makes a token with a secret.
	Secret bool `json:"-"`
	// Inherits and Adds are what a token can do after the step and could not before.
	Inherits bool     `json:"-"`
	Adds     []string `json:"-"`
	// Account is the login of a token's account, and Login of an account. App and
	// Device are a token's labels.
	Account, App, Device string `json:"-"`
	AccountKind          string `json:"-"`

	phase  int
	unique string // tells the key of a creation from those of earlier ones
	// newAccount says that an earlier step of the plan creates the token's account.
	newAccount bool
}

// A Field is a difference in one field.
type Field struct {
	Name string `json:"name"`
	Old  any    `json:"old,omitempty"`
	New  any    `json:"new,omitempty"`
}

// planner makes a plan.
type planner struct {
	file  *File
	state *State
	opt   Options
	plan  Plan
	wrong Mistakes
}

// Make plans the changes after which the ledger has what the file declares. Its
// error is [Mistakes].
func Make(f *File, s *State, opt Options) (*Plan, error) {
	p := &planner{file: f, state: s, opt: opt}
	for i := range f.Accounts {
		p.account(&f.Accounts[i])
	}
	if len(p.wrong) > 0 {
		return nil, p.wrong.sorted()
	}
	slices.SortStableFunc(p.plan.Steps, func(a, b Step) int { return a.phase - b.phase })
	return &p.plan, nil
}

func (p *planner) mistake(line int, format string, args ...any) {
	p.wrong = append(p.wrong, Mistake{line, fmt.Sprintf(format, args...)})
}

func (p *planner) add(s Step) { p.plan.Steps = append(p.plan.Steps, s) }

// owner checks that an account's owner is a user, in the file or in the ledger. An
// owner whom the caller does not see can stay.
func (p *planner) owner(a *Account, got *api.Account) {
	if a.Owner == nil || *a.Owner == "" || got != nil && got.Owner == *a.Owner {
		return
	}
	for i := range p.file.Accounts {
		if o := &p.file.Accounts[i]; sameLogin(o.Login, *a.Owner) {
			if o.Kind != "user" {
				p.mistake(a.Line, "the owner of %s, %s, is not a user", a.Login, *a.Owner)
			}
			return
		}
	}
	switch o := p.state.account(*a.Owner); {
	case o == nil:
		p.mistake(a.Line, "the owner of %s, %s, is neither in the file nor in the ledger", a.Login, *a.Owner)
	case o.Kind != "user":
		p.mistake(a.Line, "the owner of %s, %s, is not a user", a.Login, *a.Owner)
	}
}

func (p *planner) account(a *Account) {
	got := p.state.account(a.Login)
	p.owner(a, got)
	if got == nil {
		if p.state.partial() {
			p.mistake(a.Line, "your token cannot see all of the account %s, or it does not exist; sign in, or use a token that "+
				"inherits", a.Login)
			return
		}
		p.createAccount(a)
		got = &api.Account{Login: a.Login}
	} else {
		if got.Kind != a.Kind {
			p.mistake(a.Line, "the account %s is a %s account in the ledger; its kind cannot change", a.Login, got.Kind)
		}
		p.editAccount(a, got)
	}
	tokens := p.state.Tokens[got.ID]
	listed := map[string]bool{}
	for i := range a.Tokens {
		p.token(a, got, &a.Tokens[i], listed)
	}
	if a.Listed && p.opt.Prune && got.ID != "" {
		for i := range tokens {
			if t := &tokens[i]; !listed[t.ID] && !Ended(t) {
				p.prune(a, t)
			}
		}
	}
}

func (p *planner) createAccount(a *Account) {
	s := Step{
		Sign: "+", Action: "create", Kind: "account", Name: a.Login, Account: a.Login,
		Method: http.MethodPost, Body: map[string]any{"login": a.Login, "kind": a.Kind}, phase: phaseCreateService,
	}
	if a.Kind == "user" {
		s.phase = phaseCreateUser
	}
	s.Fields = []Field{{"kind", nil, a.Kind}}
	for _, f := range []struct {
		name  string
		value *string
	}{{"owner", a.Owner}, {"name", a.Name}, {"mail", a.Mail}} {
		if f.value != nil && *f.value != "" {
			s.Body[f.name] = *f.value
			s.Fields = append(s.Fields, Field{f.name, nil, *f.value})
		}
	}
	if a.Grants != nil && len(*a.Grants) > 0 {
		s.Body["grants"] = *a.Grants
		s.Fields = append(s.Fields, Field{"grants", nil, *a.Grants})
	}
	p.add(s)
	if a.State == Suspended {
		p.accountState(a, &api.Account{Login: a.Login, State: Active})
	}
}

func (p *planner) editAccount(a *Account, got *api.Account) {
	s := Step{
		Sign: "~", Action: "edit", Kind: "account", Name: a.Login, ID: got.ID, Account: a.Login,
		Method: http.MethodPatch, Body: map[string]any{}, Version: got.Version, Matched: true, phase: phaseEditAccount,
	}
	owner := p.state.login(got.Owner)
	if a.Owner != nil && *a.Owner != got.Owner && !sameLogin(*a.Owner, owner) {
		s.Body["owner"] = *a.Owner
		s.Fields = append(s.Fields, Field{"owner", orNil(owner), orNil(*a.Owner)})
	}
	for _, f := range []struct {
		name  string
		want  *string
		value string
	}{{"name", a.Name, got.Name}, {"mail", a.Mail, got.Mail}} {
		if f.want != nil && *f.want != f.value {
			s.Body[f.name] = *f.want
			s.Fields = append(s.Fields, Field{f.name, orNil(f.value), orNil(*f.want)})
		}
	}
	if len(s.Body) > 0 {
		p.add(s)
	}
	if a.Grants != nil && !sameSet(*a.Grants, got.Grants) {
		g := Step{
			Sign: "~", Action: "set grants", Kind: "account", Name: a.Login, ID: got.ID, Account: a.Login,
			Method: http.MethodPut, Verb: "grants", Body: map[string]any{"grants": *a.Grants},
			Version: got.Version, Matched: true, Narrows: !within(got.Grants, *a.Grants), phase: phaseGrants,
			Fields: []Field{{"grants", got.Grants, *a.Grants}},
		}
		if g.Narrows {
			g.phase = phaseNarrowGrants
		}
		p.add(g)
	}
	p.accountState(a, got)
}

// accountState suspends or resumes an account.
func (p *planner) accountState(a *Account, got *api.Account) {
	if a.State == "" || a.State == got.State {
		return
	}
	p.add(stateStep(Step{
		Kind: "account", Name: a.Login, ID: got.ID, Account: a.Login, Version: got.Version,
	}, got.State, a.State))
}

// stateStep returns the step that suspends or resumes a thing.
func stateStep(s Step, old, wanted string) Step {
	s.Sign, s.Method, s.Body = "~", http.MethodPost, map[string]any{}
	s.Fields = []Field{{"state", old, wanted}}
	s.Action, s.Verb, s.phase = "resume", "resume", phaseResume
	if wanted == Suspended {
		s.Action, s.Verb, s.phase, s.Narrows = "suspend", "suspend", phaseSuspend, true
		if s.ID == "" {
			s.phase = phaseSuspendNew
		}
	}
	return s
}

func (p *planner) token(a *Account, account *api.Account, t *Token, listed map[string]bool) {
	all := p.state.Tokens[account.ID]
	found, ended := t.named(all, false), t.named(all, true)
	// An entry with an ID claims its token even if another one has the labels too.
	if t.ID == "" {
		found = slices.DeleteFunc(found, func(got *api.Token) bool {
			return slices.ContainsFunc(a.Tokens, func(o Token) bool { return o.ID == got.ID })
		})
	}
	past := t.ExpiresAt != nil && !t.ExpiresAt.After(p.opt.Now)
	switch {
	case len(found) > 1:
		p.mistake(t.Line, "%d tokens are named %s; tell them apart with id, as export does", len(found), t.name(a.Login))
		for _, got := range found {
			listed[got.ID] = true
		}
	case len(found) == 1:
		listed[found[0].ID] = true
		if past && !t.ExpiresAt.Equal(timeOf(found[0].ExpiresAt)) {
			p.mistake(t.Line, "expires_at of %s is in the past; to end the token, take it out and use --prune",
				t.name(a.Login))
			return
		}
		p.editToken(a, t, found[0])
	case past: // it has ended, as declared
	case t.ID != "" && len(ended) == 1:
		p.mistake(t.Line, "the token %s is %s; take it out, or leave out its id to create a new one", t.ID, ended[0].State)
	case t.ID != "":
		p.mistake(t.Line, "the account %s has no token %s", a.Login, t.ID)
	default:
		p.createToken(a, account, t)
	}
}

func (p *planner) createToken(a *Account, account *api.Account, t *Token) {
	s := Step{
		Sign: "+", Action: "create", Kind: "token", Name: t.name(a.Login), Account: a.Login,
		App: t.App, Device: t.Device, AccountKind: a.Kind, Method: http.MethodPost, Secret: true,
		Inherits: t.Inherit, Adds: t.Scopes,
		phase: phaseCreateToken, unique: account.ID,
		Body:       map[string]any{"account": account.ID, "app": t.App, "device": t.Device, "inherit": t.Inherit},
		newAccount: account.ID == "", // its ID is known once it is created
	}
	for _, e := range p.state.Tokens[account.ID] {
		s.unique += " " + e.ID
	}
	if t.Inherit {
		s.Fields = []Field{{"inherit", nil, true}}
	} else {
		s.Body["scopes"] = t.Scopes
		s.Fields = []Field{{"scopes", nil, t.Scopes}}
	}
	switch {
	case t.ExpiresIn != "":
		s.Body["expires_in"] = t.ExpiresIn
		s.Fields = append(s.Fields, Field{"expires_in", nil, t.lifetime})
	case t.ExpiresAt != nil:
		// The API takes a lifetime; the next step sets the exact time.
		s.Body["expires_in"] = max(t.ExpiresAt.Sub(p.opt.Now).Truncate(time.Second), time.Second).String()
		s.Fields = append(s.Fields, Field{"expires_at", nil, t.ExpiresAt.UTC()})
	}
	if !sameConstraints(t.Constraints, nil) {
		s.Body["constraints"] = t.Constraints
		s.Fields = append(s.Fields, Field{"constraints", nil, t.Constraints})
	}
	p.add(s)
	later := Step{Kind: "token", Name: s.Name, Account: a.Login, App: t.App, Device: t.Device}
	if t.ExpiresAt != nil {
		exact := later
		exact.Sign, exact.Action, exact.Method, exact.Matched = "~", "set exact expiry", http.MethodPatch, true
		exact.Body, exact.phase = map[string]any{"expires_at": t.ExpiresAt.UTC()}, phaseResume
		p.add(exact)
	}
	if t.State == Suspended {
		p.add(stateStep(later, Active, Suspended))
	}
}

func (p *planner) editToken(a *Account, t *Token, got *api.Token) {
	s := Step{
		Sign: "~", Action: "edit", Kind: "token", Name: name(a.Login, got.App, got.Device), ID: got.ID,
		Account: a.Login, Method: http.MethodPatch, Body: map[string]any{}, Version: got.Version, Matched: true,
		phase: phaseToken,
	}
	narrows, widens := false, false
	set := func(field string, old, wanted any, narrow, widen bool) {
		s.Body[field] = wanted
		s.Fields = append(s.Fields, Field{field, old, wanted})
		narrows, widens = narrows || narrow, widens || widen
	}
	if t.App != got.App {
		set("app", orNil(got.App), t.App, false, false)
	}
	if t.Device != got.Device {
		set("device", orNil(got.Device), t.Device, false, false)
	}
	switch {
	case t.Inherit && !got.Inherit:
		set("inherit", false, true, false, true)
		s.Inherits = true
	case !t.Inherit && got.Inherit:
		set("scopes", "all that its account has", t.Scopes, true, false)
		s.Adds = t.Scopes
	case !t.Inherit && !sameSet(t.Scopes, got.Scopes):
		set("scopes", got.Scopes, t.Scopes, !within(got.Scopes, t.Scopes), !within(t.Scopes, got.Scopes))
		had := func(scope string) bool { return slices.Contains(got.Scopes, scope) }
		s.Adds = slices.DeleteFunc(slices.Clone(t.Scopes), had)
	}
	if t.ExpiresAt != nil && !t.ExpiresAt.Equal(timeOf(got.ExpiresAt)) {
		later := got.ExpiresAt != nil && t.ExpiresAt.After(*got.ExpiresAt)
		var old any
		if got.ExpiresAt != nil {
			old = got.ExpiresAt.UTC()
		}
		set("expires_at", old, t.ExpiresAt.UTC(), !later, later)
	}
	if t.Constraints != nil && !sameConstraints(t.Constraints, got.Constraints) {
		var old any
		if got.Constraints != nil {
			old = got.Constraints
		}
		set("constraints", old, t.Constraints, true, true)
	}
	if s.Narrows = narrows; narrows && !widens {
		s.phase = phaseNarrowToken
	}
	if len(s.Body) > 0 {
		p.add(s)
	}
	if now := tokenState(got); t.State != "" && t.State != now {
		p.add(stateStep(Step{
			Kind: "token", Name: s.Name, ID: got.ID, Account: a.Login, Version: got.Version,
		}, now, t.State))
	}
}

// prune revokes a token that the file does not list.
func (p *planner) prune(a *Account, t *api.Token) {
	if t.ID == p.state.Self && !p.opt.IncludeSelf {
		p.plan.Spared = true
		return
	}
	s := Step{
		Sign: "-", Action: "revoke", Kind: "token", Name: name(a.Login, t.App, t.Device), ID: t.ID, Account: a.Login,
		Method: http.MethodPost, Verb: "revoke", Body: map[string]any{}, Version: t.Version, Narrows: true,
		phase: phaseRevoke, Fields: []Field{{"state", tokenState(t), "revoked"}},
	}
	if t.ID == p.state.Self {
		s.phase = phaseSuspendNew + 1 // what comes after it would be refused
	}
	p.add(s)
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// Pruned returns the steps that revoke a token, and Secrets those that make one.
func (p *Plan) Pruned() []Step {
	return slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return s.Action != "revoke" })
}

// Secrets returns the steps that make a token with a secret.
func (p *Plan) Secrets() []Step {
	return slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return !s.Secret })
}

// fieldText returns a field's value for people.
func fieldText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and lists
	}
	return string(b)
}
