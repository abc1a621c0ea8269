package eventstest

import (
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Lives returns a log in which n tokens of one account are created, scoped,
// rotated and revoked. It does each step for a thousand tokens at a time, so
// the four events of one token are far apart.
func Lives(n int) *Log {
	const apart = 1000
	l := NewLog(1)
	account := l.Account("admin:site/*")
	for done := 0; done < n; done += apart {
		ids := make([]events.TokenID, min(apart, n-done))
		for i := range ids {
			ids[i], _ = l.Token(account, "view:site/1", "track:site/2")
		}
		for _, id := range ids {
			l.Change(string(id), &events.TokenScoped{Scopes: Scopes("view:site/1")})
		}
		for _, id := range ids {
			l.Rotate(id, l.Now().Add(time.Hour))
		}
		for _, id := range ids {
			l.Revoke(id)
		}
	}
	return l
}
