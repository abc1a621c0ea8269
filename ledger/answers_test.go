package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

func TestAnswersBound(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	a := newAnswers(func() time.Time { return now })
	id := func(i int) events.EventID { return events.EventID(fmt.Sprintf("evt_%d", i)) }
	secrets := make([]events.Secret, answersMost+5)
	for i := range secrets {
		secrets[i] = events.NewHexSecret()
		a.keep(id(i), secrets[i])
		now = now.Add(time.Millisecond)
	}
	if len(a.made) != answersMost || len(a.order) != answersMost {
		t.Errorf("%d secrets in order of %d, want %d", len(a.made), len(a.order), answersMost)
	}
	for i, want := range map[int]bool{0: false, 4: false, 5: true, answersMost + 4: true} {
		if s, ok := a.find(id(i)); ok != want || ok && s != secrets[i] {
			t.Errorf("find(%d) = %t, want %t", i, ok, want)
		}
	}
	if len(a.made) != answersMost {
		t.Errorf("looking forgot some: %d are left", len(a.made))
	}

	// A command that is decided again replaces its secret and nothing else.
	again := events.NewHexSecret()
	a.keep(id(9), again)
	if s, _ := a.find(id(9)); s != again || len(a.made) != answersMost || len(a.order) != answersMost {
		t.Errorf("kept again: %d secrets in order of %d", len(a.made), len(a.order))
	}

	now = now.Add(answersKept)
	if _, ok := a.find(id(answersMost + 4)); ok || len(a.made) != 0 || len(a.order) != 0 {
		t.Errorf("after %s: %d secrets in order of %d, want none", answersKept, len(a.made), len(a.order))
	}
}
