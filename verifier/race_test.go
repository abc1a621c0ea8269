package verifier_test

import (
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// whileApplied calls check from several goroutines, over and over, while f
// runs.
func whileApplied(f func(), check func(worker int)) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					check(worker)
				}
			}
		})
	}
	f()
	close(stop)
	wg.Wait()
}

// TestNoCheckMixesPrefixes lets a token and its account take turns at having
// admin: after no event do both have it, so that a check that says yes took the
// token from one place in the log and the account from another.
func TestNoCheckMixesPrefixes(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("view:site/1")
	id, secret := l.Token(account, "view:site/1")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	view, admin := eventstest.Scopes("view:site/1"), eventstest.Scopes("admin:site/1")
	for range 1500 {
		l.Change(string(account), &events.AccountGranted{Grants: admin})
		l.Change(string(account), &events.AccountGranted{Grants: view})
		l.Change(string(id), &events.TokenScoped{Scopes: admin})
		l.Change(string(id), &events.TokenScoped{Scopes: view})
	}
	whileApplied(func() {
		for messages := l.Messages[2:]; len(messages) > 0; messages = messages[1:] {
			n.Apply(messages[:1])
		}
	}, func(int) {
		if d := n.Verifier.Check(secret.Reveal(), verifier.Request{Need: admin}); d.OK() {
			t.Errorf("allowed at position %d; no prefix of the log allows it", d.Position)
		}
	})
}
