package signin

import (
	"context"
	"sync"
)

// payer says on whose account a hash is made: whose credential it is, and from
// where it was asked for. Of a login that does not exist, a digest stands in for
// the account.
type payer struct{ account, address string }

// keys are what hashes are counted by.
func (p payer) keys() [2]string {
	return [2]string{"account " + p.account, "address " + prefix(p.address)}
}

// turns is a fair queue for hashes, by account and by address. It lets a few run
// at once and a few more wait. It counts every hash that was begun, of a good
// password as of a bad one: the payer with the fewest goes next. When the queue is
// full, a payer with less makes the one with the most give up its place. So one
// account, and one address, can slow down sign-in for itself alone.
type turns struct {
	slots int // that may run at once
	most  int // that may wait

	mu      sync.Mutex
	running int            // guarded by mu, as is the rest
	waiting []*turn        // in order of arrival
	begun   map[string]int // key -> hashes lately
	queued  map[string]int // key -> those that wait
	sum     int            // hashes begun since the counts were halved
}

// turn is one hash that waits. Ready is closed when it may begin, or has lost its
// place.
type turn struct {
	by      payer
	ready   chan struct{}
	granted bool
}

// halfLife is after how many hashes those before them count half. It bounds the
// memory of the counts, and how long somebody with many hashes can be passed by
// others with none.
const halfLife = 64

func newTurns(slots, most int) *turns {
	return &turns{slots: slots, most: most, begun: map[string]int{}, queued: map[string]int{}}
}

// take waits for a turn, which the caller gives back with [turns.leave]. It
// returns [ErrBusy] when the queue is full of payers with no more hashes.
func (q *turns) take(ctx context.Context, by payer) error {
	q.mu.Lock()
	if q.running < q.slots {
		q.start(by)
		q.mu.Unlock()
		return nil
	}
	if len(q.waiting) >= q.most && !q.displace(by) {
		q.mu.Unlock()
		return ErrBusy
	}
	t := &turn{by: by, ready: make(chan struct{})}
	q.waiting = append(q.waiting, t)
	q.count(by, 1)
	q.mu.Unlock()

	select {
	case <-t.ready:
	case <-ctx.Done():
		q.mu.Lock()
		defer q.mu.Unlock()
		if t.granted {
			q.running--
			q.next()
		} else {
			q.remove(t)
		}
		return unavailable(ctx.Err())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !t.granted {
		return ErrBusy
	}
	return nil
}

// leave gives a turn back.
func (q *turns) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.next()
}

// next begins the hashes for which there is room: of those that wait, the one
// whose payer had the fewest, of several the one whose account had fewer, and of
// several the first that came.
func (q *turns) next() {
	for q.running < q.slots && len(q.waiting) > 0 {
		best := q.waiting[0]
		for _, t := range q.waiting[1:] {
			if q.before(t.by, best.by) {
				best = t
			}
		}
		q.remove(best)
		best.granted = true
		q.start(best.by)
		close(best.ready)
	}
	if q.running == 0 && len(q.waiting) == 0 {
		clear(q.begun) // no hash waits for another
		q.sum = 0
	}
}

// start counts a hash that begins.
func (q *turns) start(by payer) {
	q.running++
	for _, key := range by.keys() {
		q.begun[key]++
	}
	if q.sum++; q.sum < halfLife {
		return
	}
	q.sum = 0
	for key, n := range q.begun {
		if n /= 2; n == 0 {
			delete(q.begun, key)
		} else {
			q.begun[key] = n
		}
	}
}

// displace makes room for a payer: of those with the most hashes, begun and
// waiting, the last that came gives up its place. It reports false where none has
// more than the payer.
func (q *turns) displace(by payer) bool {
	var worst *turn
	load := q.load(by)
	for _, t := range q.waiting {
		// The payer's own waits beside those that it has in the queue already.
		if l := q.load(t.by) - 2; l > load || worst != nil && l == load {
			worst, load = t, l
		}
	}
	if worst == nil {
		return false
	}
	q.remove(worst)
	close(worst.ready)
	return true
}

// before reports whether a payer goes before another. If both had as many, the
// account decides: somebody who shares an address with a flood has made no hashes.
func (q *turns) before(a, b payer) bool {
	if hadA, hadB := q.had(a), q.had(b); hadA != hadB {
		return hadA < hadB
	}
	return q.begun[a.keys()[0]] < q.begun[b.keys()[0]]
}

// had is how many hashes a payer had lately.
func (q *turns) had(by payer) (n int) {
	for _, key := range by.keys() {
		n += q.begun[key]
	}
	return n
}

// load is how many a payer had and waits for.
func (q *turns) load(by payer) int {
	n := q.had(by)
	for _, key := range by.keys() {
		n += q.queued[key]
	}
	return n
}

func (q *turns) count(by payer, n int) {
	for _, key := range by.keys() {
		if q.queued[key] += n; q.queued[key] == 0 {
			delete(q.queued, key)
		}
	}
}

// remove takes a turn out of the queue. One that has lost its place is in it no
// more.
func (q *turns) remove(t *turn) {
	for i, other := range q.waiting {
		if other == t {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			q.count(t.by, -1)
			return
		}
	}
}
