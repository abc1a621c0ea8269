package clustertest

import (
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// TestEndings shows the checker logs in which an actor ends, and does something
// behind its end, or not (I14).
func TestEndings(t *testing.T) {
	// as adds the creation of a token by the actor, and the command for it.
	as := func(l *tale, began, ended int, outcome Outcome) {
		key, id, secret := l.key(), l.TokenID(), l.Secret()
		c := between(events.KindTokenCreated, began, ended)
		c.Key, c.By, c.Outcome, c.About = key, l.token, outcome, string(id)
		c.Position = l.Add(events.Event{
			About: string(id), Key: events.NewCommandKey(l.account, key),
			Actor: events.Actor{Account: l.account, Token: events.TokenID(l.token.ID)},
			Change: &events.TokenCreated{
				Account: l.account, Scopes: eventstest.Scopes("view:site/1"), Secret: eventstest.SecretRecord(secret.Digest()),
			},
		})
		l.Changes = append(l.Changes, c)
	}
	// end adds a command that ends the actor.
	end := func(l *tale, about string, change events.Change) {
		c := l.command(about, change, 100, 110)
		l.Endings = append(l.Endings, Ending{How: change.Kind().Verb(), Actor: l.token, Change: c})
	}
	ends := map[string]func(l *tale) (string, events.Change){
		"revoked":           func(l *tale) (string, events.Change) { return l.token.ID, &events.TokenRevoked{} },
		"suspended":         func(l *tale) (string, events.Change) { return l.token.ID, &events.TokenSuspended{} },
		"account suspended": func(l *tale) (string, events.Change) { return string(l.account), &events.AccountSuspended{} },
		"account erased":    func(l *tale) (string, events.Change) { return string(l.account), &events.AccountErased{} },
		"all tokens revoked": func(l *tale) (string, events.Change) {
			return string(l.account), &events.AccountTokensRevoked{Before: l.Now().Add(time.Hour)}
		},
		"demoted": func(l *tale) (string, events.Change) {
			return string(l.account), &events.AccountGranted{Grants: []events.Scope{}}
		},
		"rotated": func(l *tale) (string, events.Change) {
			return l.token.ID, &events.TokenRotated{Secret: eventstest.SecretRecord(l.Secret().Digest()), Until: l.Now()}
		},
	}
	for how, change := range ends {
		t.Run(how, func(t *testing.T) {
			for _, tt := range []struct {
				name string
				tell func(l *tale)
				says string
			}{
				{"before", func(l *tale) { as(l, 50, 120, Done) }, ""},
				{"nothing", func(*tale) {}, ""},
				{"behind", func(l *tale) { as(l, 50, 120, Unknown) }, "took effect"},
				{"behind, begun after", func(l *tale) { as(l, 150, 160, Done) }, ""},
			} {
				t.Run(tt.name, func(t *testing.T) {
					l := newTale()
					if tt.name == "before" {
						tt.tell(l)
					}
					about, c := change(l)
					end(l, about, c)
					if tt.name != "before" {
						tt.tell(l)
					}
					var found violations
					l.checkActors(&found, newJudge(l.Messages), l.root)
					late := tt.name == "behind" || tt.name == "behind, begun after"
					switch {
					case late && len(found) == 0:
						t.Error("an event of an ended actor took effect, and was not found")
					case !late && len(found) > 0:
						t.Errorf("found %v", found)
					}
				})
			}
		})
	}
}
