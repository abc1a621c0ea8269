package projector_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
)

// TestIssuer follows who made each secret of a token: also through a token, a
// session of one, and a rotation, by which another account could hide that it
// made a secret for this one.
func TestIssuer(t *testing.T) {
	t.Parallel()
	l := eventstest.NewLog(1)
	alice, admin := l.Account("admin:site/*"), l.Account("admin:site/1")
	person := func(a events.AccountID) events.Actor {
		return events.Actor{Account: a, Session: "ses_01k5y8z3v0actactactactacta"}
	}
	by := func(a events.AccountID, id events.TokenID) events.Actor { return events.Actor{Account: a, Token: id} }
	create := func(account events.AccountID, by events.Actor) (events.TokenID, events.Secret) {
		id, secret := l.TokenID(), l.Secret()
		l.Add(events.Event{About: string(id), Actor: by, Change: &events.TokenCreated{Account: account, App: "cron", Secret: eventstest.SecretRecord(secret.Digest())}})
		return id, secret
	}
	rotate := func(id events.TokenID, by events.Actor) events.Secret {
		secret := l.Secret()
		l.Add(events.Event{About: string(id), Actor: by, Change: &events.TokenRotated{Secret: eventstest.SecretRecord(secret.Digest()), Until: l.Now().AddDate(1, 0, 0)}})
		return secret
	}
	want := map[string]struct {
		secret events.Secret
		by     events.AccountID
	}{}
	expect := func(what string, secret events.Secret, by events.AccountID) {
		want[what] = struct {
			secret events.Secret
			by     events.AccountID
		}{secret, by}
	}

	_, first := create(alice, events.Actor{})
	expect("the first token of a ledger", first, "")
	own, ownSecret := create(alice, person(alice))
	expect("by the account itself", ownSecret, alice)
	foreign, foreignSecret := create(alice, person(admin))
	expect("by an admin", foreignSecret, admin)
	_, child := create(alice, by(alice, own))
	expect("by a token of the account's own", child, alice)
	_, child = create(alice, by(alice, foreign))
	expect("by a token that an admin made", child, admin)
	signedIn := by(alice, foreign)
	signedIn.Session = "ses_01k5y8z3v0actactactactacta"
	inSession, child := create(alice, signedIn)
	expect("in a session that such a token opened", child, admin)
	_, child = create(alice, by(alice, inSession))
	expect("by a token that was made in that session", child, admin)
	expect("an admin's token that rotates itself", rotate(foreign, by(alice, foreign)), admin)
	taken, _ := create(alice, person(admin))
	expect("an admin's token that its account rotates", rotate(taken, person(alice)), alice)
	_, child = create(alice, by(alice, taken))
	expect("by that one, while the admin's secret is good", child, admin)
	rotate(taken, person(alice))
	_, child = create(alice, by(alice, taken))
	expect("by that one, once the admin's secret is not", child, alice)
	expect("the account's own token that an admin rotates", rotate(own, person(admin)), admin)
	expect("the secret before that", ownSecret, alice)

	for name, resident := range map[string]int64{"resident": 1 << 20, "stored": 0} {
		p := openWith(t, projector.Config{Dir: t.TempDir(), Resident: resident})
		applied(t, p, l.Messages)
		for what, w := range want {
			if f, err := p.Find(w.secret.Digest()); err != nil || f.IssuedBy() != w.by {
				t.Errorf("%s: %s is issued by %q, %v; want %q", name, what, f.IssuedBy(), err, w.by)
			}
		}
		closed(t, p)
	}
}
