package eventstest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

func ExampleFold() {
	log := eventstest.NewLog(1)
	token, first := log.Token(log.Account("write:site/3"), "admin:site/*")
	second := log.Rotate(token, log.Now().Add(time.Hour))

	state := eventstest.Fold(log.Messages)
	use, ok := state.Use(first.Digest(), log.Now())
	fmt.Println(ok, use.Covers(events.Matomo, events.MustScope("view:site/3")), use.Covers(events.Matomo, events.MustScope("admin:site/3")))
	_, ok = state.Use(first.Digest(), log.Now().Add(time.Hour))
	fmt.Println(ok)

	log.Revoke(token)
	_, ok = eventstest.Fold(log.Messages).Use(second.Digest(), log.Now())
	fmt.Println(ok)
	_, ok = eventstest.Fold(log.Messages).Until(3).Use(second.Digest(), log.Now())
	fmt.Println(ok)
	// Output:
	// true true false
	// false
	// false
	// true
}

func TestFoldReportsWhatItCannotRead(t *testing.T) {
	log := eventstest.NewLog(2)
	log.Account()
	if err := eventstest.Fold(log.Messages).Err(); err != nil {
		t.Errorf("Err() = %v", err)
	}
	log.Messages[0].Data = []byte("{")
	if err := eventstest.Fold(log.Messages).Err(); err == nil {
		t.Error("Err() = nil, want an error about the message")
	}
}

func TestLogsShareNothing(t *testing.T) {
	a, b := eventstest.NewLog(1), eventstest.NewLog(2)
	same, again := eventstest.NewLog(1), eventstest.NewLog(1)
	if a.Epoch() == b.Epoch() || a.TokenID() == b.TokenID() || a.Secret().Reveal() == b.Secret().Reveal() {
		t.Error("logs of two seeds share something")
	}
	if same.Epoch() != again.Epoch() || same.TokenID() != again.TokenID() || same.Secret().Reveal() != again.Secret().Reveal() {
		t.Error("logs of one seed differ")
	}
}

func TestUntil(t *testing.T) {
	run := eventstest.History(3, 50)
	state := eventstest.Fold(run.Messages)
	for at := range events.Position(52) {
		if got, want := state.Until(at).Position(), min(at, 50); got != want {
			t.Errorf("Until(%d).Position() = %d, want %d", at, got, want)
		}
	}
}
