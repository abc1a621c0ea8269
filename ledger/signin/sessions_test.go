package signin_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/directory"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// TestSessionEnds ends sessions in every way. Every ledger refuses the next
// request.
func TestSessionEnds(t *testing.T) {
	k := start(t, 2)
	a, b := k.node[0], k.node[1]
	id := k.person("anna", good, "view:site/1")
	k.person("ben", good)
	ctx := t.Context()
	for what, end := range map[string]func(o signin.Opened, c authz.Principal) error{
		"by itself": func(_ signin.Opened, c authz.Principal) error { return b.End(ctx, c, "") },
		"by its id": func(o signin.Opened, _ authz.Principal) error {
			_, c := b.must("anna", good, "")
			return b.End(ctx, c, o.Session.ID)
		},
		"by a superuser":   func(o signin.Opened, _ authz.Principal) error { return b.End(ctx, k.root, o.Session.ID) },
		"all":              func(_ signin.Opened, c authz.Principal) error { return b.EndAll(ctx, c, "") },
		"all by login":     func(_ signin.Opened, c authz.Principal) error { return b.EndAll(ctx, c, "ANNA") },
		"all by superuser": func(signin.Opened, authz.Principal) error { return b.EndAll(ctx, k.root, "anna") },
		"password changed": func(signin.Opened, authz.Principal) error {
			_, c := b.must("anna", good, "")
			return b.ChangePassword(ctx, c, []byte(good), []byte(good))
		},
		"password reset": func(signin.Opened, authz.Principal) error { k.password(id, good); return nil },
		"idle":           func(signin.Opened, authz.Principal) error { k.now.Advance(30 * time.Minute); return nil },
		"account suspended": func(signin.Opened, authz.Principal) error {
			k.append(string(id), &events.AccountSuspended{})
			return nil
		},
	} {
		o, c := a.must("anna", good, "")
		other, _ := a.must("ben", good, "")
		k.accepted(o)
		if err := end(o, c); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		k.refused(o)
		if what != "idle" {
			k.accepted(other)
		}
		if what == "account suspended" {
			k.append(string(id), &events.AccountResumed{})
		}
	}
	// Bulk revocations of tokens end sessions too.
	o, _ := a.must("anna", good, "")
	other, _ := a.must("ben", good, "")
	k.append(string(id), &events.AccountTokensRevoked{NotBefore: k.now.Now().Add(time.Second).UTC().Round(0)})
	k.refused(o)
	k.accepted(other)
	k.append(events.PolicyName, &events.PolicyTokensRevoked{NotBefore: k.now.Now().Add(time.Second).UTC().Round(0)})
	k.refused(other)
	k.now.Advance(2 * time.Second)
	o, _ = a.must("anna", good, "")
	k.accepted(o)
	k.append(string(id), &events.AccountErased{})
	k.refused(o)
	if got := strings.Count(k.credentialChanges(id), "sessions_ended"); got != 3 {
		t.Errorf("the trail tells %d times that all sessions were ended, want 3: %s", got, k.credentialChanges(id))
	}
	single := 0
	for _, e := range k.log.Events() {
		if _, ok := e.Change.(*events.AccountSessionEnded); ok && e.About == string(id) {
			single++
		}
	}
	if single != 3 {
		t.Errorf("the trail tells of %d sessions that were ended one by one, want 3", single)
	}
}

// TestPasswordChange ends all sessions except the one that changed the
// password.
func TestPasswordChange(t *testing.T) {
	k := start(t, 2)
	a, b := k.node[0], k.node[1]
	id := k.person("anna", good)
	mine, c := a.must("anna", good, "")
	other, _ := b.must("anna", good, "")
	ctx := t.Context()
	const next = "plinth otter quaver"
	same(t, "a bad old password", a.ChangePassword(ctx, c, []byte(next), []byte(next)))
	field(t, "a short one", a.ChangePassword(ctx, c, []byte(good), []byte("short1234")), "new", "short1234")
	field(t, "the login", a.ChangePassword(ctx, c, []byte(good), []byte("it is anna and nobody else")), "new", "it is anna")
	k.accepted(other)
	k.now.Advance(6 * time.Minute) // no recent proof is needed: the old password is one
	c = a.caller(mine)
	if err := a.ChangePassword(ctx, c, []byte(good), []byte(next)); err != nil {
		t.Fatal(err)
	}
	k.accepted(mine)
	k.refused(other)
	_, err := a.enter("anna", good, "", home)
	same(t, "the old password", err)
	b.must("anna", next, "")
	if now := b.caller(mine); !now.Authenticated.After(c.Authenticated) {
		t.Error("the change is no recent proof")
	}
	if got := k.credentialChanges(id); got != "invited password password" {
		t.Errorf("the trail says %q", got)
	}
}

// TestSessionTimes checks the policy's idle time and lifetime.
func TestSessionTimes(t *testing.T) {
	k := start(t, 2)
	n := k.node[0]
	k.person("anna", good)
	o, _ := n.must("anna", good, "")
	if got := o.Session.Idle.Sub(o.Session.Seen); got != 30*time.Minute {
		t.Errorf("it may rest for %s", got)
	}
	if got := o.Session.Expires.Sub(o.Session.Created); got != 12*time.Hour {
		t.Errorf("it may last for %s", got)
	}
	// Use on either ledger keeps it open, up to its lifetime.
	for passed := time.Duration(0); passed < 12*time.Hour-20*time.Minute; passed += 20 * time.Minute {
		k.now.Advance(20 * time.Minute)
		if _, err := k.node[int(passed/time.Minute)/20%2].Authenticate(t.Context(), o.Secret.Reveal(), home); err != nil {
			t.Fatalf("after %s: %v", passed, err)
		}
	}
	k.now.Advance(19 * time.Minute)
	k.accepted(o)
	k.now.Advance(time.Minute)
	k.refused(o)

	k.policy(func(p *events.Policy) { p.SessionIdle, p.SessionLifetime = 10, 60 })
	o, _ = n.must("anna", good, "")
	for range 5 {
		k.now.Advance(9 * time.Second)
		k.accepted(o) // a use is written down soon enough
	}
	k.now.Advance(11 * time.Second)
	k.refused(o)
	o, _ = n.must("anna", good, "")
	k.accepted(o)
	k.policy(func(p *events.Policy) { p.SessionIdle, p.SessionLifetime = 1, 1 }) // acts on those that there are
	k.now.Advance(2 * time.Second)
	k.refused(o)
}

// TestSeen records the use of a session at most once a minute.
func TestSeen(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	o, _ := n.must("anna", good, "")
	revision := func() uint64 {
		t.Helper()
		kv := k.bucket("SESSIONS")
		if st, err := kv.Status(t.Context()); err != nil || st.Values() != 1 {
			t.Fatalf("the bucket has %v values (%v), want the newest revision alone", st, err)
		}
		keys, err := kv.Keys(t.Context())
		if err != nil || len(keys) != 1 {
			t.Fatalf("keys %q, %v", keys, err)
		}
		d := o.Secret.Digest()
		digest, _ := d.MarshalText()
		if !strings.HasPrefix(keys[0], string(digest)+".") {
			t.Error("the key is not the secret's digest")
		}
		e, err := kv.Get(t.Context(), keys[0])
		if err != nil || strings.Contains(string(e.Value()), o.Secret.Reveal()) {
			t.Fatalf("%v; or the record holds the secret", err)
		}
		return e.Revision()
	}
	authenticate := func() {
		t.Helper()
		if _, err := n.Authenticate(t.Context(), o.Secret.Reveal(), home); err != nil {
			t.Fatal(err)
		}
	}
	first := revision()
	for range 10 {
		authenticate()
	}
	if revision() != first {
		t.Error("reading wrote the session back")
	}
	k.now.Advance(time.Minute)
	authenticate()
	if revision() == first {
		t.Error("after a minute it is not written down that the session is used")
	}
	k.now.Advance(time.Minute)
	// Concurrent requests do not conflict.
	errs := make([]error, 20)
	atOnce(len(errs), func(i int) { _, errs[i] = n.Authenticate(context.Background(), o.Secret.Reveal(), home) })
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// TestExpired checks that a sign-in erases the records of expired sessions.
func TestExpired(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	k.person("ben", good)
	n.must("anna", good, "")
	k.now.Advance(2 * time.Hour)
	young, _ := n.must("anna", good, "")
	k.now.Advance(events.MaxSessionLifetime - time.Hour)
	last, _ := n.must("ben", good, "")
	keys, err := k.bucket("SESSIONS").Keys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d records are left (%v), want those of %s and %s", len(keys), err, young.Session.ID, last.Session.ID)
	}
	for _, key := range keys {
		if !strings.HasSuffix(key, string(young.Session.ID)) && !strings.HasSuffix(key, string(last.Session.ID)) {
			t.Errorf("record %s is left", key)
		}
	}
}

// TestBucketLost refuses to open sign-in when one of its buckets is lost, and
// creates none in its place.
func TestBucketLost(t *testing.T) {
	for _, name := range []string{directory.BucketName, signin.SessionsBucket} {
		t.Run(name, func(t *testing.T) {
			k := start(t, 1)
			k.person("anna", good)
			js, err := jetstream.New(k.node[0].cfg.Conn)
			if err != nil {
				t.Fatal(err)
			}
			if err := js.DeleteStream(t.Context(), "KV_"+name); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := signin.Open(t.Context(), k.node[0].cfg); !errors.Is(err, bucket.ErrLost) {
					t.Fatalf("Open = %v, want ErrLost", err)
				}
			}
		})
	}
}

func TestList(t *testing.T) {
	k := start(t, 2)
	n := k.node[0]
	anna := k.person("anna", good)
	ben := k.person("ben", good)
	var made []events.SessionID
	var c authz.Principal
	for range 5 {
		var o signin.Opened
		o, c = k.node[1].must("anna", good, "")
		made = append(made, o.Session.ID)
		k.now.Advance(time.Millisecond) // ids are in order of time
	}
	k.node[1].must("ben", good, "")
	count := func(c authz.Principal, account string, everybody bool) int {
		t.Helper()
		list, more, err := n.List(t.Context(), c, signin.ListSessions{Account: account, All: everybody, Limit: 100})
		if err != nil || more {
			t.Fatalf("List = %v, %t", err, more)
		}
		return len(list)
	}
	for _, account := range []string{"", string(anna), "Anna"} {
		if got := count(c, account, false); got != 5 {
			t.Errorf("anna has %d sessions by %q", got, account)
		}
	}
	if own, others, all := count(k.root, "", false), count(k.root, "ben", false), count(k.root, "", true); own != 0 || others != 1 || all != 6 {
		t.Errorf("a superuser's token sees %d of its own, %d of ben and %d in all", own, others, all)
	}
	var seen []events.SessionID
	for after := events.SessionID(""); ; {
		list, more, err := n.List(t.Context(), c, signin.ListSessions{After: after, Limit: 2})
		if err != nil || len(list) > 2 {
			t.Fatal(err)
		}
		for _, s := range list {
			seen = append(seen, s.ID)
		}
		if !more {
			break
		}
		after = seen[len(seen)-1]
	}
	if len(seen) != len(made) {
		t.Fatalf("pages have %q, want %q", seen, made)
	}
	for i, id := range made {
		if seen[i] != id {
			t.Errorf("pages have %q, want %q", seen, made)
		}
	}
	// Sessions of other accounts can be neither seen nor ended.
	_, bc := n.must("ben", good, "")
	for _, err := range []error{
		second(n.List(t.Context(), bc, signin.ListSessions{Account: "anna", Limit: 1})), second(n.List(t.Context(), bc, signin.ListSessions{Account: string(anna), Limit: 1})),
		second(n.List(t.Context(), bc, signin.ListSessions{Account: "nobody", Limit: 1})), second(n.List(t.Context(), bc, signin.ListSessions{All: true, Limit: 1})),
		n.EndAll(t.Context(), bc, "anna"), n.EndAll(t.Context(), bc, "nobody"),
	} {
		if !errors.Is(err, ledger.ErrForbidden) || !strings.Contains(err.Error(), "superuser") {
			t.Errorf("ben: %v, want ErrForbidden that names the permission", err)
		}
	}
	for _, id := range []events.SessionID{made[0], events.NewSessionID(k.now.Now())} {
		if err := n.End(t.Context(), bc, id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("ben ends another's session: %v, want ErrNotFound", err)
		}
	}
	if err := n.End(t.Context(), k.root, ""); !errors.Is(err, ledger.ErrForbidden) {
		t.Errorf("a token ends its own session: %v", err)
	}
	// Ended sessions are not listed.
	if err := n.EndAll(t.Context(), k.root, string(ben)); err != nil {
		t.Fatal(err)
	}
	if got := count(k.root, "", true); got != 5 {
		t.Errorf("%d sessions are left, want 5", got)
	}
	k.now.Advance(31 * time.Minute)
	if got := count(k.root, "", true); got != 0 {
		t.Errorf("%d sessions are left after they rested, want none", got)
	}
}

// TestManySessions checks that one session too many ends the account's oldest.
func TestManySessions(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	var first, second, last signin.Opened
	for i := range 101 {
		o, _ := n.must("anna", good, "")
		k.now.Advance(time.Millisecond)
		switch i {
		case 0:
			first = o
		case 1:
			second = o
		}
		last = o
	}
	k.refused(first)
	k.accepted(second)
	k.accepted(last)
}

func second[A, B any](_ A, _ B, err error) error { return err }

// withTokens lets people sign in to n with tokens. The function creates a token for
// an account, under a secret that the test chooses.
func (k *ledgers) withTokens(n *node) (
	secrets map[string]events.TokenID, create func(secret string, account events.AccountID, r ledger.CreateToken) events.TokenID,
) {
	secrets = map[string]events.TokenID{}
	n.cfg.Token = func(_ context.Context, secret, address string) (authz.Principal, error) {
		id, known := secrets[secret]
		if !known {
			return authz.Principal{}, errors.New("not accepted")
		}
		tok, err := n.view.Token(id)
		if err != nil {
			return authz.Principal{}, err
		}
		return authz.Principal{Account: tok.Account, Token: tok.ID, Address: address}, nil
	}
	n.reopen()
	create = func(secret string, account events.AccountID, r ledger.CreateToken) events.TokenID {
		k.t.Helper()
		r.Account = string(account)
		got, err := n.ledger.Create(k.t.Context(), k.root, "", r)
		if err != nil {
			k.t.Fatal(err)
		}
		secrets[secret] = got.Token.ID
		return got.Token.ID
	}
	return secrets, create
}

// TestTokenSignIn opens sessions with tokens, if the policy allows it.
func TestTokenSignIn(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	ctx := t.Context()
	id := k.account("anna", "user", "admin:site/1", "view:site/2")
	robot := k.account("robot", "service", "view:site/1")
	secrets, create := k.withTokens(n)
	tok := create("one", id, ledger.CreateToken{Scopes: []string{"view:site/1"}})
	create("all", id, ledger.CreateToken{Inherit: true})
	create("robot", robot, ledger.CreateToken{Scopes: []string{"view:site/1"}})
	create("post", id, ledger.CreateToken{Scopes: []string{"view:site/1"}, Constraints: &events.Constraints{Methods: []string{"POST"}}})
	create("home", id, ledger.CreateToken{Scopes: []string{"view:site/1"}, Constraints: &events.Constraints{CIDRs: []netip.Prefix{netip.MustParsePrefix(home + "/32")}}})

	for secret := range secrets {
		if _, err := n.SignInToken(ctx, secret, home); !errors.Is(err, ledger.ErrForbidden) || !strings.Contains(err.Error(), "token_sign_in") {
			t.Errorf("%s: %v, want a refusal that names the policy", secret, err)
		}
	}
	k.policy(func(p *events.Policy) { p.TokenSignIn = true })
	for _, secret := range []string{"unknown", "robot", "post"} {
		_, err := n.SignInToken(ctx, secret, home)
		same(t, secret, err)
	}
	_, err := n.SignInToken(ctx, "home", abroad)
	same(t, "a token from elsewhere", err)

	one, err := n.SignInToken(ctx, "one", home)
	if err != nil {
		t.Fatal(err)
	}
	c := n.caller(one)
	if c.Account != id || c.Inherit || !c.Authenticated.IsZero() || len(c.Scopes) != 1 || c.Scopes[0].String() != "view:site/1" || one.Session.Token != tok {
		t.Errorf("the caller is %+v", c)
	}
	_, err = n.Reauthenticate(ctx, c, signin.Reauthentication{Password: []byte(good)})
	for what, err := range map[string]error{
		"prove":    err,
		"password": n.ChangePassword(ctx, c, []byte(good), []byte(good)),
		"factor":   n.RemoveSecondFactor(ctx, c, "1"),
	} {
		if !errors.Is(err, ledger.ErrForbidden) {
			t.Errorf("%s in a token's session: %v, want ErrForbidden", what, err)
		}
	}
	all, err := n.SignInToken(ctx, "all", home)
	if err != nil {
		t.Fatal(err)
	}
	if c := n.caller(all); !c.Inherit || len(c.Scopes) != 2 {
		t.Errorf("the caller is %+v", c)
	}
	near, err := n.SignInToken(ctx, "home", home)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Authenticate(ctx, near.Secret.Reveal(), abroad); !errors.Is(err, signin.ErrNoSession) {
		t.Errorf("from outside of the token's networks: %v", err)
	}
	k.accepted(near)
	// The session follows changes of its token and account.
	k.append(string(id), &events.AccountGranted{Grants: []events.Scope{events.MustScope("view:site/2")}})
	if c := n.caller(one); len(c.Scopes) != 0 {
		t.Errorf("after the account lost it the session has %v", c.Scopes)
	}
	k.append(string(tok), &events.TokenSuspended{})
	k.refused(one)
	k.append(string(tok), &events.TokenResumed{})
	k.accepted(one)
	k.append(string(tok), &events.TokenRevoked{})
	k.refused(one)
	k.accepted(all)
	k.policy(func(p *events.Policy) { p.TokenSignIn = false })
	k.refused(all)
	// A token's secret opens no session's requests, nor a session's secret a
	// token's.
	if _, err := n.Authenticate(ctx, events.DefaultFormat.NewSecret(events.UserAccount).Reveal(), home); !errors.Is(err, signin.ErrNoSession) {
		t.Errorf("a token in the place of a session: %v", err)
	}
	if _, err := n.Authenticate(ctx, events.NewSessionSecret().Reveal(), home); !errors.Is(err, signin.ErrNoSession) {
		t.Errorf("a session that nobody opened: %v", err)
	}
}

// TestChangeMeanwhile changes the password while a sign-in with the old one waits
// for its hash on another ledger.
func TestChangeMeanwhile(t *testing.T) {
	k := start(t, 2)
	a, b := k.node[0], k.node[1]
	k.person("anna", good)
	_, c := b.must("anna", good, "")
	release, _ := a.HoldHashes()
	late := make(chan error, 1)
	go func() {
		_, err := a.SignIn.SignIn(context.Background(), signin.Attempt{Login: "anna", Password: []byte(good), Address: home})
		late <- err
	}()
	for end := time.Now().Add(patience); a.Waiting() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sign-in does not come to its hash")
		}
	}
	err := b.ChangePassword(t.Context(), c, []byte(good), []byte("plinth otter quaver"))
	release()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the password that was changed meanwhile", <-late)
}
