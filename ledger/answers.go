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

// answers remembers the secrets that commands with idempotency keys made, so
// that a retry after a lost reply gets the same answer. They are in memory
// alone, and go after ten minutes or with the process.
type answers struct {
	now func() time.Time

	mu    sync.Mutex
	made  map[events.CommandKey]answer // guarded by mu
	order []events.CommandKey          // guarded by mu; oldest first
}

type answer struct {
	secret events.Secret
	until  time.Time
}

func newAnswers(now func() time.Time) *answers {
	return &answers{now: now, made: map[events.CommandKey]answer{}}
}

func (a *answers) keep(key events.CommandKey, s events.Secret) {
	if key == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropLocked()
	a.made[key] = answer{secret: s, until: a.now().Add(answersKept)}
	a.order = append(a.order, key)
}

// find returns the secret that a key made, where it is still remembered.
func (a *answers) find(key events.CommandKey) (events.Secret, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropLocked()
	got, ok := a.made[key]
	return got.secret, ok
}

// dropLocked forgets what is too old or too much.
func (a *answers) dropLocked() {
	now := a.now()
	for len(a.order) > 0 {
		key := a.order[0]
		if len(a.order) < answersMost && now.Before(a.made[key].until) {
			return
		}
		delete(a.made, key)
		a.order = a.order[1:]
	}
}
