package resident

import "github.com/tokenledger/tokenledger/events"

// WaveSize is the most digests that FindWave looks up together. Sixteen reads of
// memory are about as many as a processor has under way at once.
const WaveSize = 16

// wave is the state of the search for each digest.
type wave [WaveSize]struct {
	key key
	at  int
	hot *hot
}

// FindWave is Find for up to WaveSize digests, all as of one position. It
// first touches the home slots of all digests, then the accounts of all that it
// found. So the processor waits for the memory of all of them at once, while
// Find waits for one after another.
func (t *Table) FindWave(d []events.Digest, f *[WaveSize]*Found) (answers [WaveSize]Answer) {
	var w wave
	for i := range d {
		w[i].key = keyOf(&d[i])
	}
	for range maxTries {
		seq := t.seq.Load()
		if seq&1 != 0 {
			continue
		}
		t.readWave(&w, len(d), f, &answers)
		if t.seq.Load() == seq { // as in find
			return answers
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.readWave(&w, len(d), f, &answers)
	return answers
}

// readWave is read for a wave.
func (t *Table) readWave(w *wave, n int, f *[WaveSize]*Found, answers *[WaveSize]Answer) {
	n = min(n, WaveSize)
	var touched uint64
	for i := range n {
		c := &w[i]
		if home, b := t.directory.home(&c.key); b != nil {
			touched += b.hot[home%blockSlots].load(wordDigest)
		}
	}
	for i := range n {
		c := &w[i]
		if c.at, c.hot = t.search(&c.key); c.hot == nil {
			continue
		}
		if a := t.accounts.at(uint32(c.hot.load(wordRefs))); a != nil {
			touched += a.until.Load()
		}
	}
	position, policy := events.Position(t.position.Load()), t.policy.Load()
	for i := range n {
		c, found := &w[i], f[i]
		found.Position, found.Policy = position, policy
		if c.hot == nil {
			answers[i] = t.absent(&c.key)
			continue
		}
		t.readHot(c.hot, found)
		t.readCold(t.shards[c.key.shard()].slots.Load(), c.at, found)
		answers[i] = InMemory
	}
	keep(touched)
}

// keep keeps the compiler from leaving out the reads of its argument.
//
//go:noinline
func keep(uint64) {}
