package projector_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

func TestGapsStop(t *testing.T) {
	t.Parallel()
	run := eventstest.History(21, 60)
	all := run.Messages
	swap := func(i, j int) []events.Message {
		out := slices.Clone(all)
		out[i], out[j] = out[j], out[i]
		return out
	}
	_, rng := seed.NewRand(t)
	shuffled := slices.Clone(all)
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	if shuffled[0].Position == 1 {
		shuffled[0], shuffled[1] = shuffled[1], shuffled[0]
	}
	for what, messages := range map[string][]events.Message{
		"shuffled":             shuffled,
		"first two swapped":    swap(0, 1),
		"two swapped":          swap(30, 31),
		"two far ones swapped": swap(10, 50),
		"first left out":       all[1:],
		"one left out":         slices.Delete(slices.Clone(all), 30, 31),
		"one repeated":         slices.Insert(slices.Clone(all), 30, all[29]),
		"an old one repeated":  slices.Insert(slices.Clone(all), 30, all[3]),
		"position 0":           slices.Insert(slices.Clone(all), 30, events.Message{Subject: all[30].Subject, Data: all[30].Data}),
	} {
		t.Run(what, func(t *testing.T) {
			for _, batch := range []int{7, 512} {
				dir := t.TempDir()
				p := openRandomLimit(t, projector.Config{Dir: dir, Batch: batch})
				p.Fresh(time.Second, 0)
				if _, ok := p.FreshAsOf(); !ok {
					t.Fatal("not fresh before the gap")
				}
				if err := p.Apply(t.Context(), messages); !errors.Is(err, projector.ErrGap) {
					t.Fatalf("Apply = %v, want ErrGap", err)
				}
				pos := p.Position()
				if batch == 512 && pos != 0 {
					t.Errorf("position %d after an error in the only transaction, want 0", pos)
				}
				for i := range pos { // it skipped no message
					if messages[i].Position != i+1 {
						t.Errorf("at position %d it has applied message %d", pos, messages[i].Position)
					}
				}
				checkIndex(t, p, all[:pos])
				checkStopped(t, p, projector.ErrGap, all[pos:])
				projectortest.Close(t, p)

				p = open(t, dir)
				projectortest.Apply(t, p, all[pos:])
				checkIndex(t, p, all)
				projectortest.Close(t, p)
			}
		})
	}
}

// beginning returns a log with an account, an erased account, a token and a
// revoked token.
func beginning() (log *eventstest.Log, account, erased events.AccountID, token, revoked events.TokenID) {
	log = eventstest.NewLog(22)
	account, erased = log.Account("admin:site/*"), log.Account()
	token, _ = log.Token(account, "view:site/1")
	revoked, _ = log.Token(account, "view:site/1")
	log.Revoke(revoked)
	log.Change(string(erased), &events.AccountErased{})
	return log, account, erased, token, revoked
}

func TestInvalidEventsStop(t *testing.T) {
	t.Parallel()
	log, account, erased, token, revoked := beginning()
	otherLog := eventstest.NewLog(23)
	unknown, unknownToken := otherLog.Account(), otherLog.TokenID()
	created := func(of events.AccountID) events.Change {
		return &events.TokenCreated{Account: of, Secret: eventstest.SecretRecord(otherLog.Secret().Digest())}
	}
	rotated := &events.TokenRotated{Secret: eventstest.SecretRecord(otherLog.Secret().Digest()), Until: eventstest.Start}
	type invalid struct {
		what, about string
		change      events.Change
	}
	tests := []invalid{
		{"token created twice", string(token), created(account)},
		{"revoked token created again", string(revoked), created(account)},
		{"token of no account", string(unknownToken), created(unknown)},
		{"account created twice", string(account), &events.AccountCreated{Type: events.UserAccount}},
		{"erased account created again", string(erased), &events.AccountCreated{Type: events.UserAccount}},
	}
	for _, c := range []events.Change{
		&events.TokenScoped{}, &events.TokenEdited{}, rotated, &events.TokenSuspended{}, &events.TokenResumed{}, &events.TokenRevoked{},
	} {
		tests = append(tests, invalid{"of an unknown token", string(unknownToken), c}, invalid{"of a revoked token", string(revoked), c})
	}
	for _, c := range []events.Change{
		&events.AccountGranted{}, &events.AccountEdited{}, &events.AccountSuspended{}, &events.AccountResumed{},
		&events.AccountTokensRevoked{NotBefore: eventstest.Start}, &events.AccountErased{},
	} {
		tests = append(tests, invalid{"of an unknown account", string(unknown), c}, invalid{"of an erased account", string(erased), c})
	}
	before := len(log.Messages)
	saved := savedIndex(t, log.Messages)
	log.Account()
	next := log.Messages[before:]
	for _, tt := range tests {
		log.Messages = slices.Clip(log.Messages[:before])
		log.Change(tt.about, tt.change)
		p := open(t, saved.restore(t))
		name := fmt.Sprintf("%s %s", tt.change.Kind(), tt.what)
		err := p.Apply(t.Context(), log.Messages[before:])
		if !errors.Is(err, projector.ErrInvalidHistory) {
			t.Errorf("%s: Apply = %v, want ErrInvalidHistory", name, err)
		} else if !strings.Contains(err.Error(), fmt.Sprint("position ", before+1)) {
			t.Errorf("%s: Apply = %v, want the position", name, err)
		}
		if int(p.Position()) != before {
			t.Errorf("%s: position %d, want %d", name, p.Position(), before)
		}
		checkStopped(t, p, projector.ErrInvalidHistory, next)
		checkIndex(t, p, log.Messages[:before])
		projectortest.Close(t, p)
	}
}

// savedIndex returns the files of a closed index that has applied messages.
func savedIndex(t *testing.T, messages []events.Message) snapshot {
	t.Helper()
	dir := t.TempDir()
	p := open(t, dir)
	projectortest.Apply(t, p, messages)
	projectortest.Close(t, p)
	return save(t, dir)
}

func TestUnreadableEventsStop(t *testing.T) {
	t.Parallel()
	log, account, _, token, _ := beginning()
	before := len(log.Messages)
	saved := savedIndex(t, log.Messages)
	log.Change(string(token), &events.TokenSuspended{Reason: "reason"})
	good := log.Messages[before]
	edit := func(old, new string) events.Message {
		m := good
		text := strings.Replace(string(m.Data), old, new, 1)
		if text == string(m.Data) {
			t.Fatalf("%s is not in the event", old)
		}
		m.Data = []byte(text)
		return m
	}
	_, shard, _ := strings.Cut(good.Subject, "ledger.token.")
	elsewhere := func(subject string) events.Message {
		m := good
		m.Subject = subject
		return m
	}
	for _, tt := range []struct {
		what string
		m    events.Message
		want error
	}{
		{"no bytes", events.Message{Position: good.Position, Subject: good.Subject}, events.ErrMalformed},
		{"garbage", events.Message{Position: good.Position, Subject: good.Subject, Data: []byte("\x00\xff")}, events.ErrMalformed},
		{"a truncated event", events.Message{Position: good.Position, Subject: good.Subject, Data: good.Data[:40]}, events.ErrMalformed},
		{"an unknown kind", edit("token.suspended.v1", "token.suspended.v2"), events.ErrUnknown},
		{"an unknown critical field", edit(`"change"`, `"crit":["until"],"change"`), events.ErrUnknown},
		{"another version of CloudEvents", edit(`"1.0"`, `"1.1"`), events.ErrUnknown},
		{"a bad label", edit("reason\":\"", "reason\":\"\\n"), events.ErrMalformed},
		{"another verb's subject", elsewhere("ledger.token." + shard[:2] + ".resumed"), events.ErrMalformed},
		{"an account's subject", elsewhere("ledger.account." + shard), events.ErrMalformed},
		{"the tail's subject", elsewhere("tail." + good.Subject), events.ErrMalformed},
		{"about another token", edit(string(token), string(log.TokenID())), nil}, // in another shard, or unknown
		{"about an account", edit(string(token), string(account)), events.ErrMalformed},
		{"of another epoch", edit(log.Epoch(), eventstest.NewLog(24).Epoch()), projector.ErrInvalidHistory},
		{"of no epoch", edit(log.Epoch(), ""), events.ErrMalformed},
	} {
		p := open(t, saved.restore(t))
		p.Fresh(time.Second, 1)
		err := p.Apply(t.Context(), []events.Message{tt.m})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: Apply = %v, want %v", tt.what, err, tt.want)
		}
		if int(p.Position()) != before {
			t.Errorf("%s: position %d, want %d", tt.what, p.Position(), before)
		}
		checkStopped(t, p, tt.want, []events.Message{good})
		checkIndex(t, p, log.Messages[:before])
		projectortest.Close(t, p)
	}
}

// TestTransactionsAreAtomic checks that Apply applies no event of a transaction
// with an invalid one, and all events of the transactions before it.
func TestTransactionsAreAtomic(t *testing.T) {
	t.Parallel()
	run := eventstest.History(25, 40)
	bad := slices.Clone(run.Messages)
	bad[29].Data = []byte("{")
	for _, tt := range []struct{ batch, want int }{{1, 29}, {2, 28}, {10, 20}, {29, 29}, {30, 0}, {512, 0}} {
		p := openRandomLimit(t, projector.Config{Dir: t.TempDir(), Batch: tt.batch})
		if err := p.Apply(t.Context(), bad); !errors.Is(err, events.ErrMalformed) {
			t.Errorf("batches of %d: Apply = %v, want ErrMalformed", tt.batch, err)
		}
		if int(p.Position()) != tt.want {
			t.Errorf("batches of %d: position %d, want %d", tt.batch, p.Position(), tt.want)
		}
		checkIndex(t, p, run.Messages[:tt.want])
		checkStopped(t, p, events.ErrMalformed, run.Messages[tt.want:])
		projectortest.Close(t, p)
	}
}
