package verifier_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// workers is the number of goroutines that check while another applies events.
const workers = 2

// whileApplied calls check repeatedly from the workers while f runs.
func whileApplied(f func(), check func(worker int)) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for worker := range workers {
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

// TestNoCheckMixesPrefixes gives admin alternately to a token and its account.
// They never have it at the same time, so an allowed check has mixed two
// positions of the log.
func TestNoCheckMixesPrefixes(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("view:site/1")
	id, secret := l.Token(account, "view:site/1")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	view, admin := eventstest.Scopes("view:site/1"), eventstest.Scopes("admin:site/1")
	for range 400 {
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

// TestAccountOfThePosition suspends and resumes an account during checks, and
// finally revokes its tokens. Each decision matches the state at its position.
func TestAccountOfThePosition(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	_, secret := l.Token(account, "superuser")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	begin := n.Index.Position()
	for range 400 {
		l.Change(string(account), &events.AccountSuspended{})
		l.Change(string(account), &events.AccountResumed{})
	}
	end := l.Change(string(account), &events.AccountTokensRevoked{NotBefore: n.Clock.Now().AddDate(1, 0, 0)})
	var seen [workers]map[verifier.Reason]int
	for i := range seen {
		seen[i] = map[verifier.Reason]int{}
	}
	whileApplied(func() {
		for messages := l.Messages[begin:]; len(messages) > 0; messages = messages[1:] {
			n.Apply(messages[:1])
		}
	}, func(worker int) {
		d := n.Verifier.Check(secret.Reveal(), verifier.Request{})
		want := verifier.Allowed
		switch {
		case d.Position >= end:
			want = verifier.Revoked
		case (d.Position-begin)%2 == 1:
			want = verifier.AccountSuspended
		}
		if seen[worker][d.Reason]++; d.Reason != want {
			t.Errorf("%s at position %d, want %s", d.Reason, d.Position, want)
		}
	})
	t.Log(seen)
	if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Revoked || d.Position != end {
		t.Errorf("%s at position %d in the end, want revoked at %d", d.Reason, d.Position, end)
	}
}

// TestRevokedIsRevokedForAll revokes tokens one by one during checks of all. No
// check allows a token at or after the position of its revocation.
func TestRevokedIsRevokedForAll(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	const tokens = 300
	var ids []events.TokenID
	var secrets []string
	for range tokens {
		id, secret := l.Token(account, "superuser")
		ids, secrets = append(ids, id), append(secrets, secret.Reveal())
	}
	n := verifiertest.Start(t, l, verifiertest.Options{})
	ends := make([]events.Position, tokens)
	for i := range ends {
		ends[i] = l.Revoke(ids[i])
		l.Account() // others' events in between
	}
	rest := l.Messages[n.Index.Position():]
	var late, early [workers]int
	rngs := [workers]*rand.Rand{}
	for i := range rngs {
		rngs[i] = rand.New(rand.NewPCG(uint64(i), 1))
	}
	whileApplied(func() {
		for batch := 1; len(rest) > 0; batch = batch%7 + 1 {
			batch = min(batch, len(rest))
			n.Apply(rest[:batch])
			rest = rest[batch:]
		}
	}, func(worker int) {
		// Errors are most likely near the next token to be revoked.
		before := n.Verifier.Position()
		i := (int(before) - tokens) / 2
		i = min(max(i+rngs[worker].IntN(9)-4, 0), tokens-1)
		d := n.Verifier.Check(secrets[i], verifier.Request{})
		switch {
		case d.Position < before:
			t.Errorf("decided at %d, after %d was applied", d.Position, before)
		case d.OK() != (d.Position < ends[i]):
			t.Errorf("token revoked at %d: %s at position %d", ends[i], d.Reason, d.Position)
		case d.OK():
			early[worker]++
		default:
			late[worker]++
		}
	})
	t.Log("checks that allowed", early, "and that refused", late)
	for i, secret := range secrets {
		if d := n.Verifier.Check(secret, verifier.Request{}); d.Reason != verifier.Revoked {
			t.Errorf("token %d in the end: %s", i, d.Reason)
		}
	}
}

// TestChecksWhileApplying applies a random history during checks, and compares
// each decision with the reference at its position.
func TestChecksWhileApplying(t *testing.T) {
	type asked struct {
		secret  events.Secret
		request verifier.Request
		got     verifier.Decision
	}
	const most = 400 // that each worker keeps, for the reference is slow
	for seed := range uint64(2) {
		run := eventstest.History(100+seed, 1500)
		n := verifiertest.Start(t, eventstest.NewLog(seed), verifiertest.Options{}) // at the start of all, when little has expired
		now := n.Clock.Now()
		whole := eventstest.Fold(run.Messages)
		recent := recently(run, whole)
		var kept [workers][]asked
		var seen [workers]int
		rngs := [workers]*rand.Rand{}
		for i := range rngs {
			rngs[i] = rand.New(rand.NewPCG(seed, uint64(i)))
		}
		whileApplied(func() {
			for rest := run.Messages; len(rest) > 0; {
				batch := min(1+len(rest)%5, len(rest))
				n.Apply(rest[:batch])
				rest = rest[batch:]
			}
		}, func(worker int) {
			rng := rngs[worker]
			a := asked{secret: recent(rng, n.Verifier.Position()), request: request(rng)}
			a.got = n.Verifier.Check(a.secret.Reveal(), a.request)
			// An even sample of the run.
			if seen[worker]++; len(kept[worker]) < most {
				kept[worker] = append(kept[worker], a)
			} else if i := rng.IntN(seen[worker]); i < most {
				kept[worker][i] = a
			}
		})
		outcomes := map[verifier.Reason]int{}
		for _, a := range slices.Concat(kept[:]...) {
			outcomes[a.got.Reason]++
			if diff := differs(whole.Until(a.got.Position), a.secret.Digest(), a.request, now, a.got); diff != "" {
				t.Errorf("%s, at position %d, request %+v: %s", run, a.got.Position, a.request, diff)
			}
		}
		t.Log(seen, "checks;", outcomes)
	}
}
