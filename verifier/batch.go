package verifier

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/problem"
)

// Limits of POST /v1/verify/batch.
const (
	// MaxBatch is the largest number of checks in one request.
	MaxBatch     = 256
	maxBatchBody = 1 << 20
)

// BatchRequest is the body of POST /v1/verify/batch.
type BatchRequest struct {
	Checks []CheckRequest `json:"checks"` // 1 to 256
}

// BatchAnswer is the answer to POST /v1/verify/batch.
type BatchAnswer struct {
	Answers []CheckAnswer `json:"answers"` // in the order of the checks
	// Position is the lowest position that an answer is based on. Malformed
	// secrets, which need no index and have position 0, do not count.
	Position events.Position `json:"position"`
}

// BatchHandler answers POST /v1/verify/batch: each check as [Verifier.Handler]
// answers it alone, all of them or none. If one check cannot be decoded, or cannot
// be answered now, the whole request fails and nothing is told of the others. All
// answers are based on what the index holds when they are written, and on
// [MinPositionHeader] at least. What Handler tells in headers about one token (it
// expires soon, or when to retry) is in its answer only.
func (v *Verifier) BatchHandler() http.Handler { return http.HandlerFunc(v.serveBatch) }

func (v *Verifier) serveBatch(w http.ResponseWriter, r *http.Request) {
	b := newBuffer()
	defer b.release()
	minPos, ok := b.receive(w, r, maxBatchBody)
	if !ok {
		return
	}
	var req BatchRequest
	if err := decodeBatch(b.in, &req); err != nil {
		refuse(
			w,
			problem.MalformedRequest,
			"the body is not one JSON object with a list \"checks\" of objects with the fields "+checkFields,
		)
		return
	}
	if n := len(req.Checks); n < 1 || n > MaxBatch {
		refuse(w, problem.InvalidRequest, fmt.Sprintf("checks: %d checks; send 1 to %d", n, MaxBatch))
		return
	}
	var bad fieldErrors
	checks, explain := v.parseBatch(req.Checks, &bad)
	if bad.refuse(w) {
		return
	}
	if !v.await(r.Context(), minPos) {
		v.behind(w, minPos)
		return
	}
	var auditor *auditor
	if explain {
		if auditor = v.auditor(w, r); auditor == nil {
			return
		}
	}
	decisions := make([]Decision, len(checks))
	v.checkWaves(checks, decisions)
	for i := range decisions {
		v.count(&decisions[i])
	}
	for tries := 0; ; tries++ {
		all := combine(decisions)
		switch {
		case all.Reason == Unavailable, tries > MaxRechecks:
			v.unavailable(w, &all)
			return
		case all.Reason == Malformed: // no check needed the index
			all.Position = v.Position()
		case all.Position < minPos:
			v.behind(w, minPos)
			return
		}
		b.out = append(b.out[:0], `{"answers":[`...)
		for i := range decisions {
			if i > 0 {
				b.out = append(b.out, ',')
			}
			b.out = decisions[i].appendAnswer(b.out, req.Checks[i].Explain, false)
		}
		b.out = append(b.out, `],"position":`...)
		b.out = append(strconv.AppendUint(b.out, uint64(all.Position), 10), '}')
		b.setHeaders(w, all.Position)
		if v.Confirm(&all) && auditor.confirmed(v) {
			break
		}
		if !auditor.recheck(v, w) {
			return
		}
		for i := range decisions {
			v.Recheck(&decisions[i], checks[i].Secret, checks[i].Request)
		}
	}
	b.send(w)
}

// parseBatch checks the fields of each check, and reports whether one asks for the
// exact reason.
func (v *Verifier) parseBatch(list []CheckRequest, bad *fieldErrors) (checks []Question, explain bool) {
	checks = make([]Question, len(list))
	room := make([]events.Scope, len(list)) // for one needed scope of each check
	for i := range list {
		bad.at = "checks[" + strconv.Itoa(i) + "]."
		checks[i] = Question{list[i].Token, v.parse(&list[i], room[i:i:i+1], bad)}
		if list[i].AllScopes {
			bad.add("all_scopes", fmt.Sprintf("a batch lists at most %d scopes a check; ask for all in POST /v1/verify",
				MaxShownScopes))
		}
		explain = explain || list[i].Explain
	}
	return checks, explain
}

// combine returns a decision that stands for several in [Verifier.Confirm]: with
// the lowest position and the shortest stale budget. It is Unavailable if one of
// them is, and Malformed if all of them are.
func combine(decisions []Decision) (all Decision) {
	all.Reason = Malformed
	for i := range decisions {
		switch d := &decisions[i]; {
		case d.Reason == Unavailable:
			return *d
		case d.Reason == Malformed:
		case all.Reason == Malformed:
			all = Decision{Reason: Allowed, Position: d.Position, Stale: d.Stale, staleFor: d.staleFor}
		default:
			all.Position = min(all.Position, d.Position)
			all.Stale = all.Stale && d.Stale // one of them needs a valid lease
			all.staleFor = min(all.staleFor, d.staleFor)
		}
	}
	return all
}
