package signin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

const changed = "plinth otter quaver"

// endedCase is an operation of a caller that ends.
type endedCase struct {
	name string
	do   func(n *node, c authz.Principal, code func() string) error
	// commits means that an event commits the operation.
	commits bool
}

// endedCases are the operations of a signed-in person that change something.
// The account anna is a superuser, with a second factor and another that is not
// confirmed.
func endedCases(k *ledgers, ben signin.Opened, pending string) []endedCase {
	ctx := context.Background()
	return []endedCase{
		{"invite", func(n *node, c authz.Principal, _ func() string) error {
			_, err := n.Invite(ctx, c, "ben", true)
			return err
		}, true},
		{"end a session", func(n *node, c authz.Principal, _ func() string) error { return n.End(ctx, c, ben.Session.ID) }, true},
		{"end all sessions", func(n *node, c authz.Principal, _ func() string) error { return n.EndAll(ctx, c, "ben") }, true},
		{"end own sessions", func(n *node, c authz.Principal, _ func() string) error { return n.EndAll(ctx, c, "") }, true},
		{"sign out", func(n *node, c authz.Principal, _ func() string) error { return n.End(ctx, c, "") }, true},
		{"password", func(n *node, c authz.Principal, _ func() string) error {
			return n.ChangePassword(ctx, c, []byte(good), []byte(changed))
		}, true},
		{"confirm a factor", func(n *node, c authz.Principal, _ func() string) error {
			_, err := n.Confirm(ctx, c, k.code(pending))
			return err
		}, true},
		{"remove the factor", func(n *node, c authz.Principal, code func() string) error {
			return n.RemoveSecondFactor(ctx, c, code())
		}, true},
		{"recovery codes", func(n *node, c authz.Principal, code func() string) error {
			_, err := n.RenewRecovery(ctx, c, code())
			return err
		}, true},
		{"add a factor", func(n *node, c authz.Principal, code func() string) error {
			_, err := n.AddSecondFactor(ctx, c, code())
			return err
		}, false},
		{"prove", func(n *node, c authz.Principal, code func() string) error {
			_, err := n.Reauthenticate(ctx, c, signin.Reauthentication{Code: code()})
			return err
		}, false},
	}
}

// endings are ways to end anna's session.
var endings = map[string]func(k *ledgers, id events.AccountID, o signin.Opened){
	"session": func(k *ledgers, id events.AccountID, o signin.Opened) {
		k.append(string(id), &events.AccountSessionEnded{Session: o.Session.ID})
	},
	"all sessions": func(k *ledgers, id events.AccountID, _ signin.Opened) {
		k.append(string(id), &events.AccountCredentialChanged{Credential: events.CredentialSessionsEnded, EndsSessions: true})
	},
	"all tokens": func(k *ledgers, id events.AccountID, _ signin.Opened) {
		k.append(string(id), &events.AccountTokensRevoked{NotBefore: k.now.Now().UTC().Round(0)})
	},
	"suspended": func(k *ledgers, id events.AccountID, _ signin.Opened) {
		k.append(string(id), &events.AccountSuspended{})
	},
	"erased": func(k *ledgers, id events.AccountID, _ signin.Opened) { k.append(string(id), &events.AccountErased{}) },
}

// TestEndedBeforeChange ends a session after it was authenticated: before the
// operation begins, or right before the event that commits it. Neither the
// credentials nor the log change.
func TestEndedBeforeChange(t *testing.T) {
	for name, end := range endings {
		t.Run(name, func(t *testing.T) {
			k := start(t, 1)
			n := k.node[0]
			ben := k.person("ben", good)
			other, _ := n.must("ben", good, "")
			for i := range endedCases(k, other, "") {
				for _, late := range []bool{false, true} {
					commits := endedCases(k, other, "")[i].commits
					if late != commits && name != "session" || late && !commits {
						continue // one way to end is enough to be early
					}
					login := fmt.Sprintf("anna%d%t", i, late)
					id := k.person(login, good, "superuser")
					o, c := n.must(login, good, "")
					secret, _ := k.factor(n, c)
					made, err := n.AddSecondFactor(t.Context(), c, k.code(secret))
					if err != nil {
						t.Fatal(err)
					}
					k.now.Advance(30 * time.Second)
					op := endedCases(k, other, made.Secret)[i]
					before := []map[string]any{k.stored(id), k.stored(ben)}
					invitations := strings.Count(k.everything("DIRECTORY"), "invitation.")
					events := 0
					kill := func() error {
						if events == 0 {
							end(k, id, o)
							events = len(k.changing())
						}
						return nil
					}
					if late {
						n.trail.before = kill
					} else {
						_ = kill()
					}
					err = op.do(n, c, func() string { return k.code(secret) })
					n.trail.before = nil
					if !errors.Is(err, ledger.ErrCallerEnded) && !errors.Is(err, ledger.ErrForbidden) && !errors.Is(err, ledger.ErrEnded) {
						t.Errorf("%s (late %t): %v, want ErrCallerEnded", op.name, late, err)
					}
					if events == 0 {
						t.Errorf("%s: the caller did not end in between", op.name)
					}
					if got := k.changing(); len(got) != events {
						t.Errorf("%s (late %t): the log has %v", op.name, late, got[events:])
					}
					if got := []map[string]any{k.stored(id), k.stored(ben)}; !reflect.DeepEqual(got, before) {
						t.Errorf("%s (late %t): the credentials are %v, want %v", op.name, late, got, before)
					}
					if got := strings.Count(k.everything("DIRECTORY"), "invitation."); got != invitations {
						t.Errorf("%s (late %t): %d invitations, want %d", op.name, late, got, invitations)
					}
					k.refused(o)
				}
			}
			k.accepted(other)
		})
	}
}

// changing lists the kinds of the events that change something.
func (k *ledgers) changing() []events.Kind {
	var out []events.Kind
	for _, e := range k.log.Events() {
		if !e.Change.Kind().Keeps() {
			out = append(out, e.Change.Kind())
		}
	}
	return out
}

// TestDemotedInviter removes a superuser's grants right before the event of an
// invitation. The invitation has no effect.
func TestDemotedInviter(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	boss := k.person("boss", good, "superuser")
	ben := k.person("ben", good)
	_, c := n.must("boss", good, "")
	before := k.stored(ben)
	n.trail.before = func() error {
		k.append(string(boss), &events.AccountGranted{Grants: []events.Scope{events.MustScope("view:site/1")}})
		return nil
	}
	if _, err := n.Invite(t.Context(), c, "ben", true); !errors.Is(err, ledger.ErrForbidden) {
		t.Errorf("Invite = %v, want ErrForbidden", err)
	}
	if got := k.stored(ben); !reflect.DeepEqual(got, before) {
		t.Errorf("the credential is %v, want %v", got, before)
	}
	if strings.Contains(k.everything("DIRECTORY"), "invitation.") {
		t.Error("the invitation is left")
	}
}

// TestUnderWay crashes between the record of a new password and its event. The
// old password is refused while the outcome is unknown. Then the event decides:
// a caller that ended meanwhile changes nothing.
func TestUnderWay(t *testing.T) {
	for _, ended := range []bool{false, true} {
		k := start(t, 2)
		a, b := k.node[0], k.node[1]
		id := k.person("anna", good)
		o, c := a.must("anna", good, "")
		gone := errors.New("the log is gone")
		lost := func() error { return gone }
		a.trail.before, b.trail.before = lost, lost
		if err := a.ChangePassword(t.Context(), c, []byte(good), []byte(changed)); !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("ChangePassword = %v, want ErrUnavailable", err)
		}
		for _, password := range []string{good, changed} {
			if _, err := b.enter("anna", password, "", home); !errors.Is(err, ledger.ErrUnavailable) {
				t.Errorf("while it is unknown which password counts: %v, want ErrUnavailable", err)
			}
		}
		counts, not := changed, good
		if ended {
			k.append(string(id), &events.AccountSessionEnded{Session: o.Session.ID})
			counts, not = good, changed
		}
		a.trail.before, b.trail.before = nil, nil
		b.must("anna", counts, "")
		_, err := a.enter("anna", not, "", home)
		same(t, "the password that does not count", err)
		if ended {
			k.refused(o)
		} else {
			k.accepted(o)
		}
		// A late append of the same event does not complete an abandoned
		// change.
		record := k.stored(id)
		if record["next"] != nil || record["commit"] != nil {
			t.Errorf("the change is still under way: %v", record)
		}
	}
}

// TestAbandoned abandons a change on one ledger before another appends its
// event: it never takes effect. In the other order it has taken effect.
func TestAbandoned(t *testing.T) {
	k := start(t, 2)
	a, b := k.node[0].ledger, k.node[1].ledger
	id := k.account("anna", "user")
	c := authz.Principal{Account: id}
	p := ledger.CredentialChange{Key: "one", Account: id, Credential: events.CredentialPassword, EndsSessions: true}
	if at, err := a.AbandonCredentialChange(t.Context(), c, p); err != nil || at != 0 {
		t.Fatalf("AbandonCredentialChange = %d, %v", at, err)
	}
	if _, err := b.RecordCredentialChange(t.Context(), c, p); !errors.Is(err, ledger.ErrCallerEnded) {
		t.Errorf("a change that was given up: %v, want ErrCallerEnded", err)
	}
	p.Key = "two"
	at, err := b.RecordCredentialChange(t.Context(), c, p)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.AbandonCredentialChange(t.Context(), c, p); err != nil || got != at {
		t.Errorf("AbandonCredentialChange = %d, %v, want %d: the event is in the log", got, err, at)
	}
	if got := k.credentialChanges(id); got != "password" {
		t.Errorf("the trail says %q", got)
	}
}

// TestRecordComesBack restores the records of ended sessions, as a diverged
// server could. The sessions stay refused.
func TestRecordComesBack(t *testing.T) {
	k := start(t, 2)
	n := k.node[0]
	id := k.person("anna", good)
	ctx := t.Context()
	kv := k.bucket("SESSIONS")
	for what, end := range map[string]func(o signin.Opened, c authz.Principal) error{
		"ended":        func(o signin.Opened, c authz.Principal) error { return n.End(ctx, c, "") },
		"by superuser": func(o signin.Opened, c authz.Principal) error { return n.End(ctx, k.root, o.Session.ID) },
		"all ended":    func(o signin.Opened, c authz.Principal) error { return n.EndAll(ctx, k.root, string(id)) },
		"password set": func(o signin.Opened, c authz.Principal) error { k.password(id, good); return nil },
	} {
		o, c := n.must("anna", good, "")
		d := o.Secret.Digest()
		text, _ := d.MarshalText()
		keys, err := kv.Keys(ctx)
		if err != nil {
			t.Fatal(err)
		}
		key := ""
		for _, candidate := range keys {
			if strings.HasPrefix(candidate, string(text)) {
				key = candidate
			}
		}
		e, err := kv.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		k.accepted(o)
		if err := end(o, c); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := kv.Get(ctx, key); err == nil {
			t.Errorf("%s: the record is left", what)
		}
		if _, err := kv.Put(ctx, key, e.Value()); err != nil {
			t.Fatal(err)
		}
		back, err := kv.Get(ctx, key)
		if err != nil || !bytes.Equal(back.Value(), e.Value()) {
			t.Fatalf("%s: the record did not come back: %v", what, err)
		}
		k.refused(o)
	}
}

// TestTokenSessions opens many sessions with a token. Their number is limited,
// they end no session of a person, and they end with the secret that opened
// them.
func TestTokenSessions(t *testing.T) {
	k := start(t, 2)
	n := k.node[0]
	ctx := t.Context()
	id := k.person("anna", good, "view:site/1")
	k.policy(func(p *events.Policy) { p.TokenSignIn = true })
	person, _ := n.must("anna", good, "")
	made, err := n.ledger.Create(ctx, k.root, "", ledger.CreateToken{Account: string(id), Inherit: true})
	if err != nil {
		t.Fatal(err)
	}
	sent := made.Secret
	n.cfg.Token = func(context.Context, string, string) (authz.Principal, error) {
		return authz.Principal{Account: id, Token: made.Token.ID, Secret: sent.Digest(), Address: home}, nil
	}
	n.reopen()
	var opened []signin.Opened
	for range 11 {
		o, err := n.SignInToken(ctx, sent.Reveal(), home)
		if err != nil {
			t.Fatal(err)
		}
		opened = append(opened, o)
		k.now.Advance(time.Millisecond) // ids are in order of time
	}
	k.refused(opened[0])
	k.accepted(opened[1])
	k.accepted(opened[10])
	k.accepted(person)
	c := n.caller(opened[10])
	if c.Secret != sent.Digest() || c.Opened == 0 || c.Began.IsZero() {
		t.Errorf("the caller is %+v", c)
	}
	none := time.Duration(0)
	if _, err := n.ledger.Rotate(ctx, k.root, "", made.Token.ID, 0, ledger.RotateToken{Grace: &none}); err != nil {
		t.Fatal(err)
	}
	k.refused(opened[10])
	k.accepted(person)
	if err := n.End(ctx, c, ""); !errors.Is(err, ledger.ErrCallerEnded) {
		t.Errorf("the session of a secret that was replaced ends itself: %v, want ErrCallerEnded", err)
	}
}
