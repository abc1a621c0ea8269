package projector_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestMaxScopes applies events of an account and of tokens with the maximum
// number of scopes, each of the maximum length. One event may write four
// records of that size.
func TestMaxScopes(t *testing.T) {
	t.Parallel()
	word := "w" + strings.Repeat("_", 63)
	scopes := make([]string, events.MaxScopes)
	for i := range scopes {
		scopes[i] = word + ":" + word + "/" + strings.Repeat("Z", 60) + fmt.Sprintf("%04d", i)
	}
	l := eventstest.NewLog(1)
	account := l.Account(scopes...)
	id, _ := l.Token(account, scopes...)
	l.Rotate(id, l.Now().AddDate(1, 0, 0))
	l.Rotate(id, l.Now().AddDate(1, 0, 0)) // ends the first secret; two remain
	slices.Reverse(scopes)
	l.Change(string(id), &events.TokenScoped{Scopes: eventstest.Scopes(scopes[:events.MaxScopes-1]...)})
	for _, n := range []int{127, 128, 129, 255, 256, 257} { // around the limits of one byte
		l.Token(account, scopes[:n]...)
	}
	p := newIndex(t, nil)
	for i := range l.Messages {
		projectortest.Apply(t, p, l.Messages[i:i+1])
	}
	checkIndex(t, p, l.Messages)
	checkIndex(t, newIndex(t, l.Messages), l.Messages) // in one batch
}
