package verifier

import (
	"sync"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector"
)

// Question is one check of [Verifier.CheckBatch].
type Question struct {
	Secret string
	Request
}

// CheckBatch decides each question as [Verifier.Check] would, and sets the decision
// with the same index; decisions must be as long as questions. A check in a batch
// takes less time than one alone, because the processor waits for the memory of
// several at once. CheckBatch allocates nothing if Check would not.
//
// All decisions are based on one position, apart from malformed secrets, which need
// no index. If the index keeps advancing while secrets are read from disk, all
// others are Unavailable.
func (v *Verifier) CheckBatch(questions []Question, decisions []Decision) {
	clear(decisions)
	v.checkWaves(questions, decisions)
	for tries := 0; !v.atOnePosition(questions, decisions); tries++ {
		if tries == MaxRechecks {
			refuseAll(decisions)
			break
		}
	}
	for i := range questions {
		v.count(&decisions[i])
	}
}

// atOnePosition decides again what is based on a lower position than another
// decision is. It returns true if there is nothing of that kind.
func (v *Verifier) atOnePosition(questions []Question, decisions []Decision) bool {
	highest := events.Position(0)
	for i := range decisions {
		if d := &decisions[i]; d.Reason != Unavailable {
			highest = max(highest, d.Position)
		}
	}
	same := true
	for i := range decisions {
		if d := &decisions[i]; d.Reason != Malformed && d.Reason != Unavailable && d.Position != highest {
			same = false
			v.check(questions[i].Secret, &questions[i].Request, d)
		}
	}
	return same
}

func refuseAll(decisions []Decision) {
	for i := range decisions {
		if d := &decisions[i]; d.Reason != Malformed {
			*d = Decision{Reason: Unavailable, Position: d.Position, charged: d.charged}
		}
	}
}

// waves are reused, because a wave is too large for the stack of a request.
var waves = sync.Pool{New: func() any { return new(waveBuffer) }}

// waveBuffer is a wave with the place of each secret in the batch.
type waveBuffer struct {
	projector.Wave
	at [projector.WaveSize]int
}

// checkWaves decides questions in waves: it hashes a group, looks all of it up, and
// then decides each. It does not count the decisions, which must be zero.
func (v *Verifier) checkWaves(questions []Question, decisions []Decision) {
	w := waves.Get().(*waveBuffer)
	for i := range questions {
		d := &decisions[i]
		digest, ok := v.cfg.Format.DigestOf(questions[i].Secret)
		if !ok {
			d.Reason = Malformed
			continue
		}
		d.digest, w.Digests[w.N], w.at[w.N] = digest, digest, i
		if w.N++; w.N == projector.WaveSize {
			v.decideWave(w, questions, decisions)
		}
	}
	v.decideWave(w, questions, decisions)
	*w = waveBuffer{} // it keeps nothing alive, and no digests
	waves.Put(w)
}

// decideWave looks up and decides the secrets of a wave, and empties it.
func (v *Verifier) decideWave(w *waveBuffer, questions []Question, decisions []Decision) {
	if w.N == 0 {
		return
	}
	v.cfg.Index.FindWave(&w.Wave)
	// As in decide: the lease is read after the index, once for the whole wave.
	now, valid := v.cfg.Lease.Valid()
	for n := range w.N {
		q, d := &questions[w.at[n]], &decisions[w.at[n]]
		legacy := len(q.Secret) == legacyLength
		if legacy && w.Errs[n] != nil && isNotFound(w.Errs[n]) {
			v.decide(q.Secret, &q.Request, d) // it may be imported; see find
			v.chargeIfLimited(d)
			continue
		}
		v.conclude(&w.Found[n], w.Errs[n], seen{now, valid, legacy}, &q.Request, d)
		if !v.leased(valid, 1, &q.Request, d) {
			*d = Decision{digest: d.digest}
			v.decide(q.Secret, &q.Request, d)
		}
		v.chargeIfLimited(d)
	}
	w.N = 0
}

// chargeIfLimited charges an allowed check that no earlier one was charged for.
func (v *Verifier) chargeIfLimited(d *Decision) {
	if d.OK() && d.Constraints != nil {
		v.charge(d, false, 0)
	}
}
