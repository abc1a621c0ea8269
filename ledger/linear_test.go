package ledger_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// done is one command and its result.
type done struct {
	name       string // which its event carries, as the actor's address
	verb       string
	id         events.TokenID
	seen       events.Position // 0 for none
	began, end time.Time
	result     ledger.TokenResult
	err        error
}

// TestLinear changes a few tokens at random from many callers of two ledgers,
// while requests and answers are lost. It compares the answers with the log.
// Each answer's event is at its position. A command that was answered before
// another one began is before it in the log. A command with a precondition
// follows that version. Each conflict was true when it was reported.
func TestLinear(t *testing.T) {
	t.Parallel()
	rng := seed.Rand(t)
	k := newFixture(t, impatient)
	k.account("alice", "admin:site/*")
	var tokens []events.TokenID
	for range 4 {
		tokens = append(tokens, k.token("alice", "view:site/1").Token.ID)
	}
	tokens = append(tokens, k.neighbour("alice", tokens[0]))
	from := k.log.End()

	other := *k
	link, conn := k.log.Link()
	other.cfg.Conn = conn
	other.open()
	defer other.Close()
	for _, link := range []*ledgertest.Link{k.link, link} {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		link.Rule(func(m ledgertest.Message) ledgertest.Fate {
			if (ledgertest.Append(m) || ledgertest.Appended(m) || ledgertest.Read(m)) && rng.IntN(50) == 0 {
				return ledgertest.Lose
			}
			return ledgertest.Pass
		})
	}

	const callers, commands = 8, 60
	var mu sync.Mutex
	var all []done
	seeds := make([]uint64, callers)
	for i := range seeds {
		seeds[i] = rng.Uint64()
	}
	atOnce(callers, func(i int) {
		rng := rand.New(rand.NewPCG(seeds[i], 0))
		l := k
		if i%2 == 1 {
			l = &other
		}
		for n := range commands {
			d := l.random(rng, tokens, fmt.Sprintf("%d-%d", i, n))
			mu.Lock()
			all = append(all, d)
			mu.Unlock()
		}
	})

	made, conflicts := k.checkHistory(from, all)
	for _, a := range made {
		for _, b := range made {
			if a.end.Before(b.began) && a.result.Position > b.result.Position {
				t.Errorf("%s at %d was answered before %s at %d began", a.verb, a.result.Position, b.verb, b.result.Position)
			}
		}
	}
	t.Logf("%d commands: %d made an event, %d met a conflict", len(all), len(made), conflicts)
	if len(made) < 50 || conflicts == 0 {
		t.Errorf("%d made an event and %d met a conflict; that shows nothing", len(made), conflicts)
	}
}

// checkHistory compares the answer of each command with the log from a position
// on. It returns the commands that made an event, and the number of conflicts.
func (k *fixture) checkHistory(from events.Position, all []done) (made []done, conflicts int) {
	t := k.t
	t.Helper()
	log := k.log.Events()
	versions := map[string][]events.Position{} // token -> positions of its events
	maker := map[string]events.Position{}      // command -> position of its event
	confirmed := 0                             // events that stand before, or confirm a refusal
	for i, e := range log {
		at := events.Position(i + 1)
		keeps := e.Change.Kind().Keeps()
		if !keeps {
			versions[e.About] = append(versions[e.About], at)
		}
		if at <= from || e.About == events.LogName {
			confirmed++
			continue
		}
		if first, twice := maker[e.Actor.Address]; twice {
			t.Errorf("command %s stands at %d and %d", e.Actor.Address, first, at)
		}
		maker[e.Actor.Address] = at
	}
	for _, d := range all {
		at, stored := maker[d.name]
		var conflict *ledger.ConflictError
		switch {
		case stored:
			e := log[at-1]
			if d.err != nil || d.result.Position != at || e.Change.Kind().Verb() != d.verb && !(e.Change.Kind().Keeps() && idle[d.verb]) || e.About != string(d.result.Token.ID) {
				t.Errorf("%s of %s stands at %d as %s of %s, and was told position %d, %v", d.verb, d.id, at, e.Change.Kind(), e.About, d.result.Position, d.err)
				continue
			}
			if before := previous(versions[string(d.id)], at); d.seen != 0 && before != d.seen {
				t.Errorf("%s of %s on version %d stands at %d, after version %d", d.verb, d.id, d.seen, at, before)
			}
			made = append(made, d)
		case d.err == nil:
			t.Errorf("%s of %s is not in the log, and was told position %d", d.verb, d.id, d.result.Position)
		case errors.As(d.err, &conflict):
			conflicts++
			if e := log[conflict.Current-1]; e.About != string(d.id) || conflict.Current == d.seen {
				t.Errorf("%s of %s on version %d was told that it is %d, where %s stands", d.verb, d.id, d.seen, conflict.Current, e.About)
			}
		case errors.Is(d.err, ledger.ErrEnded):
			about := versions[string(d.id)]
			if last := log[about[len(about)-1]-1]; last.Change.Kind() != events.KindTokenRevoked {
				t.Errorf("%s of %s was told that it ended, and its last event is %s", d.verb, d.id, last.Change.Kind())
			}
		default:
			t.Errorf("%s of %s: %v", d.verb, d.id, d.err)
		}
	}
	if confirmed+len(made) != len(log) {
		t.Errorf("%d commands stand in the log, which has %d events, %d of them of before or of refusals", len(made), len(log), confirmed)
	}
	return made, conflicts
}

// idle are the commands that may find nothing to do.
var idle = map[string]bool{"suspended": true, "resumed": true, "revoked": true}

// previous returns the position in list before at.
func previous(list []events.Position, at events.Position) events.Position {
	var before events.Position
	for _, p := range list {
		if p >= at {
			break
		}
		before = p
	}
	return before
}

// random carries out one command at random.
func (k *fixture) random(rng *rand.Rand, tokens []events.TokenID, name string) done {
	d := done{name: name, id: tokens[rng.IntN(len(tokens))]}
	caller, key := k.root, ""
	caller.Address = name
	if rng.IntN(2) == 0 {
		key = name
	}
	if rng.IntN(2) == 0 {
		if got, err := k.GetToken(k.root, d.id); err == nil {
			d.seen = got.Version
		}
	}
	ctx := k.t.Context()
	d.began = time.Now()
	switch n := rng.IntN(100); {
	case n < 35:
		d.verb = "edited"
		d.result, d.err = k.Edit(ctx, caller, key, d.id, d.seen, ledger.EditToken{App: ptr(name)})
	case n < 60:
		d.verb = "scoped"
		d.result, d.err = k.Edit(ctx, caller, key, d.id, d.seen, ledger.EditToken{Scopes: &[]string{fmt.Sprintf("view:site/%d", 1+rng.IntN(9))}})
	case n < 75:
		d.verb = "rotated"
		d.result, d.err = k.Rotate(ctx, caller, key, d.id, d.seen, ledger.RotateToken{EndEarlier: true})
	case n < 83:
		d.verb, d.seen = "suspended", 0
		d.result, d.err = k.Suspend(ctx, caller, key, d.id, 0, "")
	case n < 91:
		d.verb, d.seen = "resumed", 0
		d.result, d.err = k.Resume(ctx, caller, key, d.id, 0)
	case n < 99:
		d.verb, d.seen = "created", 0
		d.result, d.err = k.Create(ctx, caller, key, ledger.CreateToken{Account: "alice", Scopes: []string{"view:site/1"}})
	default:
		d.verb, d.seen = "revoked", 0
		d.result, d.err = k.Revoke(ctx, caller, key, d.id, 0, "")
	}
	d.end = time.Now()
	return d
}
