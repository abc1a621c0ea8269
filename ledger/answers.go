package ledger

import (
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// How long, and how many, secrets are remembered for retries.
const (
	answersKept = 10 * time.Minute
	answersMost = 10_000
)

// answers remembers the secrets that commands with idempotency keys made, by
// the events that give them to tokens, so that a retry after a lost reply gets
// the same answer. They are in memory alone, and go after ten minutes or with
// the process.
type answers struct {
	now func() time.Time

	mu    sync.Mutex
	made  map[events.EventID]answer // guarded by mu
	order []events.EventID          // guarded by mu; the keys of made, oldest first
}

type answer struct {
	secret events.Secret
	until  time.Time
}

func newAnswers(now func() time.Time) *answers {
	return &answers{now: now, made: map[events.EventID]answer{}}
}

// keep remembers the secret of an event that is about to be appended. A command
// that is decided again makes another secret for the same event.
func (a *answers) keep(id events.EventID, s events.Secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropLocked()
	if again, ok := a.made[id]; ok {
		a.made[id] = answer{secret: s, until: again.until}
		return
	}
	if len(a.order) == answersMost {
		delete(a.made, a.order[0])
		a.order = a.order[1:]
	}
	a.made[id] = answer{secret: s, until: a.now().Add(answersKept)}
	a.order = append(a.order, id)
}

// find returns the secret of an event, where it is still remembered.
func (a *answers) find(id events.EventID) (events.Secret, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropLocked()
	got, ok := a.made[id]
	return got.secret, ok
}

// dropLocked forgets what is too old.
func (a *answers) dropLocked() {
	now := a.now()
	for len(a.order) > 0 && !now.Before(a.made[a.order[0]].until) {
		delete(a.made, a.order[0])
		a.order = a.order[1:]
	}
}
