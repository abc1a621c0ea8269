package projector_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// issuerLog is a log that creates and rotates tokens of alice in different
// ways.
type issuerLog struct {
	*eventstest.Log
	alice, admin events.AccountID
	wants        []issuerWant
}

type issuerWant struct {
	name   string
	secret events.Secret
	issuer events.AccountID
}

func (l *issuerLog) want(name string, secret events.Secret, issuer events.AccountID) {
	l.wants = append(l.wants, issuerWant{name, secret, issuer})
}

// inSession is an actor with a session.
func inSession(a events.AccountID) events.Actor {
	return events.Actor{Account: a, Session: "ses_01k5y8z3v0actactactactacta"}
}

// withToken is an actor of alice with a token.
func (l *issuerLog) withToken(id events.TokenID) events.Actor {
	return events.Actor{Account: l.alice, Token: id}
}

func (l *issuerLog) create(by events.Actor) (events.TokenID, events.Secret) {
	id, secret := l.TokenID(), l.Secret()
	l.Add(events.Event{About: string(id), Actor: by, Change: &events.TokenCreated{
		Account: l.alice, App: "cron", Secret: eventstest.SecretRecord(secret.Digest()),
	}})
	return id, secret
}

func (l *issuerLog) rotate(id events.TokenID, by events.Actor) events.Secret {
	secret := l.Secret()
	l.Add(events.Event{About: string(id), Actor: by, Change: &events.TokenRotated{
		Secret: eventstest.SecretRecord(secret.Digest()), Until: l.Now().AddDate(1, 0, 0),
	}})
	return secret
}

func newIssuerLog() *issuerLog {
	l := &issuerLog{Log: eventstest.NewLog(1)}
	l.alice, l.admin = l.Account("admin:site/*"), l.Account("admin:site/1")
	_, secret := l.create(events.Actor{})
	l.want("the first token of a ledger", secret, "")
	own, ownSecret := l.create(inSession(l.alice))
	l.want("created by the account", ownSecret, l.alice)
	foreign, secret := l.create(inSession(l.admin))
	l.want("created by an admin", secret, l.admin)
	_, secret = l.create(l.withToken(own))
	l.want("created by a token that the account issued", secret, l.alice)
	_, secret = l.create(l.withToken(foreign))
	l.want("created by a token that an admin issued", secret, l.admin)

	actor := l.withToken(foreign)
	actor.Session = inSession(l.alice).Session
	opened, secret := l.create(actor)
	l.want("created in a session that such a token opened", secret, l.admin)
	_, secret = l.create(l.withToken(opened))
	l.want("created by the token from that session", secret, l.admin)

	l.want("rotated by itself, issued by an admin", l.rotate(foreign, l.withToken(foreign)), l.admin)
	taken, _ := l.create(inSession(l.admin))
	l.want("rotated by the account, issued by an admin", l.rotate(taken, inSession(l.alice)), l.alice)
	_, secret = l.create(l.withToken(taken))
	l.want("created by that token, while the admin's secret is valid", secret, l.admin)
	l.rotate(taken, inSession(l.alice))
	_, secret = l.create(l.withToken(taken))
	l.want("created by that token, when the admin's secret has ended", secret, l.alice)
	l.want("rotated by an admin, issued by the account", l.rotate(own, inSession(l.admin)), l.admin)
	l.want("the secret before that rotation", ownSecret, l.alice)
	return l
}

// TestIssuer checks the issuer of each secret. An account must not be able to
// hide that it issued a secret for another one, by the use of a token, a
// session or a rotation.
func TestIssuer(t *testing.T) {
	t.Parallel()
	log := newIssuerLog()
	for name, resident := range map[string]int64{"resident": 1 << 20, "in Badger": 0} {
		p := openConfig(t, projector.Config{Dir: t.TempDir(), Resident: resident})
		projectortest.Apply(t, p, log.Messages)
		for _, want := range log.wants {
			if f, err := p.Find(want.secret.Digest()); err != nil || f.IssuedBy() != want.issuer {
				t.Errorf("%s: the issuer of the secret %s is %q, %v; want %q", name, want.name, f.IssuedBy(), err, want.issuer)
			}
		}
		projectortest.Close(t, p)
	}
}
