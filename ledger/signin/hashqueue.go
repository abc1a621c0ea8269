package signin

import (
	"context"
	"sync"
)

// payer identifies the requester of a hash: the account whose credential it checks,
// and the client's address. For a login that does not exist, a digest of the
// login stands in for the account.
type payer struct{ account, address string }

// keys returns the keys for counting a payer's hashes.
func (p payer) keys() [2]string {
	return [2]string{"account " + p.account, "address " + addressPrefix(p.address)}
}

// hashQueue is a fair queue for hashes, by account and by address. A few hashes run
// at once, and some more wait. It counts every hash, of correct and of wrong
// passwords: the payer with the fewest goes next. If the queue is full, a payer with
// fewer hashes replaces a waiting hash of the payer with the most. So one account or
// one address can slow down only its own sign-ins.
type hashQueue struct {
	slots      int // hashes that may run at once
	maxWaiting int

	mu      sync.Mutex
	running int            // guarded by mu, as is the rest
	waiting []*queuedHash  // in order of arrival
	recent  map[string]int // key -> recent hashes
	queued  map[string]int // key -> waiting hashes
	sum     int            // hashes since the recent counts were halved
}

// queuedHash is a hash that waits. Ready is closed when it may run, or was replaced.
type queuedHash struct {
	by      payer
	ready   chan struct{}
	granted bool
}

// halfLife is the number of hashes after which earlier ones count half. It limits
// the memory of the counts, and how long a payer with many hashes can be passed by
// payers with none.
const halfLife = 64

func newHashQueue(slots, maxWaiting int) *hashQueue {
	return &hashQueue{slots: slots, maxWaiting: maxWaiting, recent: map[string]int{}, queued: map[string]int{}}
}

// acquire waits for a slot, which the caller returns with [hashQueue.release]. It
// returns [ErrBusy] if the queue is full of payers with no more hashes.
func (q *hashQueue) acquire(ctx context.Context, by payer) error {
	q.mu.Lock()
	if q.running < q.slots {
		q.start(by)
		q.mu.Unlock()
		return nil
	}
	if len(q.waiting) >= q.maxWaiting && !q.replace(by) {
		q.mu.Unlock()
		return ErrBusy
	}
	h := &queuedHash{by: by, ready: make(chan struct{})}
	q.waiting = append(q.waiting, h)
	q.count(by, 1)
	q.mu.Unlock()

	select {
	case <-h.ready:
	case <-ctx.Done():
		q.mu.Lock()
		defer q.mu.Unlock()
		if h.granted {
			q.running--
			q.startNext()
		} else {
			q.remove(h)
		}
		return unavailable(ctx.Err())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !h.granted {
		return ErrBusy
	}
	return nil
}

// release returns a slot.
func (q *hashQueue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.startNext()
}

// startNext starts waiting hashes while there are free slots. The payer with the
// fewest hashes goes first; then the one whose account has fewer; then the first
// that came.
func (q *hashQueue) startNext() {
	for q.running < q.slots && len(q.waiting) > 0 {
		best := q.waiting[0]
		for _, h := range q.waiting[1:] {
			if q.precedes(h.by, best.by) {
				best = h
			}
		}
		q.remove(best)
		best.granted = true
		q.start(best.by)
		close(best.ready)
	}
	if q.running == 0 && len(q.waiting) == 0 {
		clear(q.recent) // no other payer is waiting
		q.sum = 0
	}
}

// start counts a hash that starts.
func (q *hashQueue) start(by payer) {
	q.running++
	for _, key := range by.keys() {
		q.recent[key]++
	}
	if q.sum++; q.sum < halfLife {
		return
	}
	q.sum = 0
	for key, n := range q.recent {
		if n /= 2; n == 0 {
			delete(q.recent, key)
		} else {
			q.recent[key] = n
		}
	}
}

// replace makes room for a payer: it drops the last waiting hash of the payer with
// the most hashes, recent and waiting. It returns false if no payer has more than
// this one.
func (q *hashQueue) replace(by payer) bool {
	var worst *queuedHash
	load := q.load(by)
	for _, h := range q.waiting {
		// The payer's new hash would wait beside those that it has in the queue.
		if l := q.load(h.by) - 2; l > load || worst != nil && l == load {
			worst, load = h, l
		}
	}
	if worst == nil {
		return false
	}
	q.remove(worst)
	close(worst.ready)
	return true
}

// precedes reports whether a payer goes before another. If both have as many hashes,
// the account decides: a person can share an address with a flood.
func (q *hashQueue) precedes(a, b payer) bool {
	if recentA, recentB := q.recentOf(a), q.recentOf(b); recentA != recentB {
		return recentA < recentB
	}
	return q.recent[a.keys()[0]] < q.recent[b.keys()[0]]
}

// recentOf returns the number of a payer's recent hashes.
func (q *hashQueue) recentOf(by payer) (n int) {
	for _, key := range by.keys() {
		n += q.recent[key]
	}
	return n
}

// load returns the number of a payer's recent and waiting hashes.
func (q *hashQueue) load(by payer) int {
	n := q.recentOf(by)
	for _, key := range by.keys() {
		n += q.queued[key]
	}
	return n
}

func (q *hashQueue) count(by payer, n int) {
	for _, key := range by.keys() {
		if q.queued[key] += n; q.queued[key] == 0 {
			delete(q.queued, key)
		}
	}
}

// remove takes a hash out of the queue. It does nothing if the hash was replaced.
func (q *hashQueue) remove(h *queuedHash) {
	for i, other := range q.waiting {
		if other == h {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			q.count(h.by, -1)
			return
		}
	}
}
