package clustertest

import (
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// version returns the version of a record: the position of its last event.
func (l *scenario) version(about string) (at events.Position) {
	for _, m := range l.Messages {
		if e, err := events.DecodeMessage(m); err == nil && e.About == about {
			at = m.Position
		}
	}
	return at
}

// as adds the creation of a token by the actor, decided on the current records,
// and its command.
func (l *scenario) as(began, ended int, outcome Outcome) {
	key, id, secret := l.key(), l.TokenID(), l.Secret()
	c := between(events.KindTokenCreated, began, ended)
	c.Key, c.By, c.Outcome, c.About = key, l.token, outcome, string(id)
	c.Position = l.Add(events.Event{
		About: string(id), Key: events.NewCommandKey(l.account, key),
		Actor: events.Actor{Account: l.account, Token: events.TokenID(l.token.ID)},
		Rests: events.Rests{
			{About: string(l.account), Version: l.version(string(l.account))},
			{About: l.token.ID, Version: l.version(l.token.ID)},
		},
		Change: &events.TokenCreated{
			Account: l.account, Scopes: eventstest.Scopes("view:site/1"), Secret: eventstest.SecretRecord(secret.Digest()),
		},
	})
	l.Changes = append(l.Changes, c)
}

// TestEndings runs the checker on logs in which an actor acts before its end or
// after it (I14). The test states whether an event after the end took effect,
// so it does not depend on the reference.
func TestEndings(t *testing.T) {
	account := func(l *scenario) string { return string(l.account) }
	token := func(l *scenario) string { return l.token.ID }
	ends := map[string]struct {
		about  func(l *scenario) string
		change func(l *scenario) events.Change
		inLog  bool // the log alone shows that the actor has ended
	}{
		"revoked":           {token, func(*scenario) events.Change { return &events.TokenRevoked{} }, true},
		"suspended":         {token, func(*scenario) events.Change { return &events.TokenSuspended{} }, true},
		"account suspended": {account, func(*scenario) events.Change { return &events.AccountSuspended{} }, true},
		"account erased":    {account, func(*scenario) events.Change { return &events.AccountErased{} }, true},
		"all tokens revoked": {account, func(l *scenario) events.Change {
			return &events.AccountTokensRevoked{NotBefore: l.Now().Add(time.Hour)}
		}, true},
		"demoted": {account, func(*scenario) events.Change { return &events.AccountGranted{Grants: []events.Scope{}} }, false},
		"rotated": {token, func(l *scenario) events.Change {
			return &events.TokenRotated{Secret: eventstest.SecretRecord(l.Secret().Digest()), Until: l.Now()}
		}, false},
	}
	for how, end := range ends {
		for _, tt := range []struct {
			name    string
			behind  bool
			began   int
			outcome Outcome
			took    bool
			known   bool // an ending shows it; else the log alone must
			says    string
		}{
			{"nothing", false, 0, "", false, true, ""},
			{"before", false, 50, Done, true, true, ""},
			{"behind, and took effect", true, 50, Unknown, true, true, "took effect"},
			{"behind, and took effect, by the log alone", true, 50, Unknown, true, false, "took effect, though"},
			{"behind, without effect", true, 50, Unknown, false, true, ""},
			{"behind, without effect, and acknowledged", true, 50, Done, false, true, "had no effect"},
			{"begun after the end, and acknowledged", true, 150, Done, true, true, "before it began, its actor was"},
		} {
			t.Run(how+": "+tt.name, func(t *testing.T) {
				if !tt.known && !end.inLog {
					return // only the ending shows that a demotion ended the work
				}
				l := newScenario()
				if tt.outcome != "" && !tt.behind {
					l.as(tt.began, 120, tt.outcome)
				}
				c := l.command(end.about(l), end.change(l), 100, 110)
				if tt.known {
					l.Endings = append(l.Endings, Ending{How: how, Actor: l.token, Change: c})
				}
				j := newReference(l.Messages)
				if tt.behind {
					l.as(tt.began, 160, tt.outcome)
					j = newReference(l.Messages)
					j.took[l.End()], j.voids[l.End()] = tt.took, !tt.took
				}
				var found violations
				l.checkActors(&found, j, l.root)
				said := tt.says == ""
				for _, v := range found {
					said = said || strings.Contains(v.Text, tt.says)
				}
				if !said || tt.says == "" && len(found) > 0 {
					t.Errorf("found %v, want %q", found, tt.says)
				}
			})
		}
	}
}
