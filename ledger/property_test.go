package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/verifier"
)

// endless is a lease that never ends.
type endless struct{}

func (endless) Valid() (int64, bool)         { return 0, true }
func (endless) Remaining() time.Duration     { return time.Hour }
func (endless) MinPosition() events.Position { return 0 }

// verifier is a verifier on the fixture's index.
func (k *fixture) verifier() *verifier.Verifier {
	k.t.Helper()
	v, err := verifier.New(verifier.Config{Index: k.view, Lease: endless{}, Now: k.now.Now})
	if err != nil {
		k.t.Fatal(err)
	}
	return v
}

// everyScope lists the scopes that checks need.
var everyScope = []string{
	"superuser", "audit", "manage_tokens", "read:site/3", "view:site/3", "write:site/3", "admin:site/3", "track:site/3",
	"view:site/4", "write:site/4", "admin:site/4", "view:site/5", "view:site/*", "admin:site/*",
}

// chaos is a ledger on which random callers run random commands.
type chaos struct {
	*fixture
	rng      *rand.Rand
	verify   *verifier.Verifier
	logins   []string
	accounts map[string]events.AccountID
	secrets  []events.Secret
	tokens   []events.TokenID
	carried  int // commands that were not refused
	checks   int
	grew     int // events by which a token could do more than before
}

// TestNeverMore runs random commands as random callers. After each step no
// secret is accepted for scopes that its account lacks, and no caller has
// created or widened a token beyond its own rights.
func TestNeverMore(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed.New(t), 2))
	c := &chaos{fixture: newFixture(t), rng: rng, accounts: map[string]events.AccountID{}}
	c.verify = c.verifier()
	c.large = true // it is compared here
	c.add("root", c.root.Account, c.root.Token, c.secret)
	for login, grants := range map[string][]string{
		"chief": {"superuser"}, "sitead": {"admin:site/3", "manage_tokens"}, "alice": {"manage_tokens", "view:site/4", "write:site/3"},
		"svc": {"admin:site/3", "manage_tokens", "view:site/4"}, "carol": {"view:site/3"}, "aud": {"audit", "manage_tokens"},
	} {
		r := ledger.CreateAccount{Login: login, Kind: "user", Grants: grants}
		if login == "svc" {
			r.Kind = "service"
		}
		a, err := c.CreateAccount(t.Context(), c.root, "", r)
		if err != nil {
			t.Fatal(err)
		}
		c.accounts[login] = a.Account.ID
		c.logins = append(c.logins, login)
	}
	slices.Sort(c.logins) // a map's order is no seed's
	if _, err := c.EditAccount(t.Context(), c.root, "", "svc", 0, ledger.EditAccount{Owner: ptr("alice")}); err != nil {
		t.Fatal(err)
	}
	// Between a third and nearly all commands are refused, depending on the
	// rights that are left. Those that succeeded are counted.
	carry := 150
	if testing.Short() || racing {
		carry = 25
	}
	tries := 0
	for ; c.carried < carry && tries < 100*carry; tries++ {
		before := c.log.End()
		did := c.step()
		if c.log.End() == before {
			continue // it is as it was checked last
		}
		c.held(before, did)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d of %d commands were carried out, %d made or widened, %d checks", c.carried, tries, c.grew, c.checks)
	if c.carried < carry || c.grew == 0 {
		t.Error("that shows little")
	}
}

func (c *chaos) add(login string, account events.AccountID, id events.TokenID, s events.Secret) {
	if login != "" {
		c.accounts[login], c.logins = account, append(c.logins, login)
	}
	if id != "" {
		c.tokens = append(c.tokens, id)
	}
	if s != (events.Secret{}) {
		c.secrets = append(c.secrets, s)
	}
}

// anybody returns a person, or a token that the verifier accepts.
func (c *chaos) anybody() authz.Principal {
	if c.rng.IntN(2) == 0 {
		id := c.accounts[pick(c.rng, c.logins)]
		if a, err := c.view.Account(id); err == nil && !a.Suspended && !a.Erased {
			return authz.Principal{Account: id, Session: someSession, Authenticated: c.now.Now(), Scopes: a.Grants, Inherit: true}
		}
	}
	for {
		s := pick(c.rng, c.secrets)
		if c.rng.IntN(10) == 0 {
			s = c.secret // root's own token may have been narrowed, or ended
		}
		if d := c.verify.Check(s.Reveal(), verifier.Request{}); d.OK() {
			return authz.Principal{Account: d.Account(), Token: d.Token(), Scopes: d.Scopes(), Inherit: d.Inherit}
		}
		c.refill()
	}
}

// refill creates a token if few valid ones are left.
func (c *chaos) refill() {
	c.t.Helper()
	a := c.accounts["chief"]
	boss := authz.Principal{Account: a, Session: someSession, Authenticated: c.now.Now(), Scopes: []events.Scope{events.Superuser}, Inherit: true}
	login := pick(c.rng, c.logins)
	if r, err := c.Create(c.t.Context(), boss, "", ledger.CreateToken{Account: login, Inherit: true}); err == nil {
		c.add("", "", r.Token.ID, r.Secret)
	}
}

// some picks scopes.
func (c *chaos) some() []string {
	var out []string
	for range 1 + c.rng.IntN(3) {
		out = append(out, pick(c.rng, everyScope))
	}
	if c.rng.IntN(2) == 0 {
		out = append(out, "manage_tokens")
	}
	return out
}

// step runs one command as a random caller.
func (c *chaos) step() string {
	ctx, as := c.t.Context(), c.anybody()
	id, login := pick(c.rng, c.tokens), pick(c.rng, c.logins)
	var err error
	did := ""
	switch n := c.rng.IntN(100); {
	case n < 30:
		r := ledger.CreateToken{Account: login, Scopes: c.some()}
		if c.rng.IntN(2) == 0 {
			r.Account = ""
		}
		if c.rng.IntN(4) == 0 {
			r.Scopes, r.Inherit = nil, true
		}
		did = fmt.Sprintf("make %+v", r)
		var got ledger.TokenResult
		if got, err = c.Create(ctx, as, "", r); err == nil {
			c.add("", "", got.Token.ID, got.Secret)
		}
	case n < 50:
		list := c.some()
		r := ledger.EditToken{Scopes: &list}
		if c.rng.IntN(4) == 0 {
			r = ledger.EditToken{Inherit: ptr(true)}
		}
		did = fmt.Sprint("scope ", id, list)
		_, err = c.Edit(ctx, as, "", id, 0, r)
	case n < 62:
		did = fmt.Sprint("rotate ", id)
		var got ledger.TokenResult
		if got, err = c.Rotate(ctx, as, "", id, 0, ledger.RotateToken{EndEarlier: true}); err == nil {
			c.add("", "", "", got.Secret)
		}
	case n < 68:
		did = fmt.Sprint("suspend ", id)
		_, err = c.Suspend(ctx, as, "", id, 0, "")
	case n < 76:
		did = fmt.Sprint("resume ", id)
		_, err = c.Resume(ctx, as, "", id, 0)
	case n < 79:
		did = fmt.Sprint("revoke ", id)
		_, err = c.Revoke(ctx, as, "", id, 0, "")
	case n < 90:
		list := c.some()
		did = fmt.Sprint("grant ", login, list)
		if login != "chief" {
			_, err = c.Grant(ctx, as, "", login, 0, list)
		}
	case n < 93:
		did = fmt.Sprint("suspend ", login)
		if login != "chief" {
			_, err = c.SuspendAccount(ctx, as, "", login, 0, "")
		}
	case n < 98:
		did = fmt.Sprint("resume ", login)
		_, err = c.ResumeAccount(ctx, as, "", login, 0)
	default:
		did = fmt.Sprint("revoke all of ", login)
		_, err = c.RevokeMany(ctx, as, "", ledger.RevokeMany{Account: login, IncludeSelf: true})
	}
	if err == nil {
		c.carried++
	}
	return fmt.Sprintf("%s by %s %s %v (inherits %t): %v", did, as.Account, as.Token, events.ScopeStrings(as.Scopes), as.Inherit, err)
}

// held checks the invariants after a step.
func (c *chaos) held(before events.Position, did string) {
	c.t.Helper()
	messages := c.log.Messages()
	state := eventstest.Fold(messages)
	now := c.now.Now()
	for _, s := range c.secrets {
		use, good := state.Use(s.Digest(), now)
		for _, scope := range everyScope {
			c.checks++
			d := c.verify.Check(s.Reveal(), verifier.Request{Need: eventstest.Scopes(scope)})
			if want := good && has(events.ScopeStrings(use.Account.Grants), scope) && (use.Token.Inherit || has(events.ScopeStrings(use.Token.Scopes), scope)); d.OK() != want {
				c.t.Errorf("after %s: %s of %s for %s: %s, want allowed: %t", did, use.Token.ID, use.Account.ID, scope, d.Reason, want)
			}
		}
	}
	for at := before + 1; at <= events.Position(len(messages)); at++ {
		e, err := events.DecodeMessage(messages[at-1])
		if err != nil {
			c.t.Fatal(err)
		}
		c.notMore(state.Until(at-1), state.Until(at), e, did)
	}
}

// notMore fails if an event gives a token a scope that its actor did not have
// before.
func (c *chaos) notMore(was, is eventstest.State, e *events.Event, did string) {
	c.t.Helper()
	id := events.TokenID(e.About)
	switch e.Change.(type) {
	case *events.TokenCreated, *events.TokenScoped, *events.TokenEdited, *events.TokenRotated, *events.TokenResumed:
	default:
		return
	}
	c.grew++
	actor, _ := was.Account(e.Actor.Account)
	can := func(scope string) bool { return has(events.ScopeStrings(actor.Grants), scope) }
	if e.Actor.Token != "" {
		own, _ := was.Token(e.Actor.Token)
		account := can
		can = func(scope string) bool {
			return account(scope) && (own.Inherit || has(events.ScopeStrings(own.Scopes), scope))
		}
		if _, rotated := e.Change.(*events.TokenRotated); !can("manage_tokens") && (rotated || e.Change.Kind() == events.KindTokenCreated || e.Change.Kind() == events.KindTokenResumed) {
			c.t.Errorf("after %s: a token without manage_tokens did %s", did, e.Change.Kind())
		}
	}
	// A scope that the token had before, and that its account still has, was
	// not given now.
	power := func(s eventstest.State, scope string) bool {
		t, ok := s.Token(id)
		a, _ := s.Account(t.Account)
		return ok && t.State == events.Active && has(events.ScopeStrings(a.Grants), scope) && (t.Inherit || has(events.ScopeStrings(t.Scopes), scope))
	}
	_, rotated := e.Change.(*events.TokenRotated)
	for _, scope := range everyScope {
		if power(is, scope) && (rotated || !power(was, scope)) && !can(scope) {
			c.t.Errorf("after %s: the token may %s, which its actor could not", did, scope)
		}
	}
	// A token that does not inherit gets no later grants of its account.
	t, _ := is.Token(id)
	before, ok := was.Token(id)
	if _, narrow := e.Change.(*events.TokenEdited); t.Inherit && !(ok && before.Inherit && !rotated) && !narrow && !can("superuser") && e.Actor.Account != t.Account {
		c.t.Errorf("after %s: %s let a token of another account inherit", did, e.Actor.Account)
	}
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }
