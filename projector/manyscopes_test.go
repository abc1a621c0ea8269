package projector_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// TestMostScopes follows an account and tokens with as many scopes as there may
// be, each as long as it may be: they are found again after each event, and after
// a restart. One event may write four records of that size.
func TestMostScopes(t *testing.T) {
	t.Parallel()
	word := "w" + strings.Repeat("_", 63)
	most := make([]string, events.MaxScopes)
	for i := range most {
		most[i] = word + ":" + word + "/" + strings.Repeat("Z", 60) + fmt.Sprintf("%04d", i)
	}
	l := eventstest.NewLog(1)
	account := l.Account(most...)
	id, _ := l.Token(account, most...)
	l.Rotate(id, l.Now().AddDate(1, 0, 0))
	l.Rotate(id, l.Now().AddDate(1, 0, 0)) // ends the first, and leaves two
	slices.Reverse(most)
	l.Change(string(id), &events.TokenScoped{Scopes: eventstest.Scopes(most[:events.MaxScopes-1]...)})
	for _, n := range []int{127, 128, 129, 255, 256, 257} { // where a number takes another byte
		l.Token(account, most[:n]...)
	}
	p := opened(t, nil)
	for i := range l.Messages {
		applied(t, p, l.Messages[i:i+1])
	}
	same(t, p, l.Messages)
	again := opened(t, l.Messages) // in one batch
	same(t, again, l.Messages)
}
