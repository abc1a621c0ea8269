package verifier

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/problem"
)

// Bounds of POST /v1/verify/batch.
const (
	// MaxBatch is the most checks that one request has.
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
	// Position is the smallest that an answer rests on. Those that no index was
	// asked for do not count, as their own position 0 does not.
	Position events.Position `json:"position"`
}

// BatchHandler answers POST /v1/verify/batch: each check as [Verifier.Handler]
// answers it alone, all of them or none. A check that cannot be read refuses the
// request, and so does one that cannot be answered now; nothing is told of the
// others then. All answers rest on what the index holds when they are written, and
// on [MinPositionHeader] at least. What Handler says in headers about one token
// (that it ends soon, or when it may come again) stands in its answer alone.
func (v *Verifier) BatchHandler() http.Handler { return http.HandlerFunc(v.serveBatch) }

func (v *Verifier) serveBatch(w http.ResponseWriter, r *http.Request) {
	x := newExchange()
	defer x.done()
	least, ok := x.receive(w, r, maxBatchBody)
	if !ok {
		return
	}
	var req BatchRequest
	if err := decodeBatch(x.in, &req); err != nil {
		refuse(w, problem.MalformedRequest, "the body is not one JSON object with a list checks, each an object of the fields "+checkFields)
		return
	}
	if n := len(req.Checks); n < 1 || n > MaxBatch {
		refuse(w, problem.InvalidRequest, fmt.Sprintf("checks: %d of them; send 1 to %d", n, MaxBatch))
		return
	}
	checks, explain := make([]Request, len(req.Checks)), false
	room := make([]events.Scope, len(req.Checks)) // for one that is needed by each
	for i := range req.Checks {
		var err error
		if checks[i], err = v.read(&req.Checks[i], room[i:i:i+1]); err != nil {
			refuse(w, problem.InvalidRequest, fmt.Sprintf("checks[%d]: %s", i, err))
			return
		}
		explain = explain || req.Checks[i].Explain
	}
	if !v.await(r.Context(), least) {
		v.behind(w, least)
		return
	}
	var auditor *auditor
	if explain {
		if auditor = v.auditor(w, r); auditor == nil {
			return
		}
	}
	decisions := make([]Decision, len(checks))
	for i := range checks {
		decisions[i] = v.Check(req.Checks[i].Token, checks[i])
	}
	for tries := 0; ; tries++ {
		all := together(decisions)
		switch {
		case all.Reason == Unavailable, tries > MaxRechecks:
			v.unavailable(w)
			return
		case all.Reason == Malformed: // no index was asked
			all.Position = v.Position()
		case all.Position < least:
			v.behind(w, least)
			return
		}
		x.out = append(x.out[:0], `{"answers":[`...)
		for i := range decisions {
			if i > 0 {
				x.out = append(x.out, ',')
			}
			x.out = decisions[i].appendAnswer(x.out, req.Checks[i].Explain)
		}
		x.out = append(x.out, `],"position":`...)
		x.out = append(strconv.AppendUint(x.out, uint64(all.Position), 10), '}')
		x.head(w, all.Position)
		if v.Confirm(&all) && auditor.confirmed(v) {
			break
		}
		if !auditor.again(v, w) {
			return
		}
		for i := range decisions {
			v.Recheck(&decisions[i], req.Checks[i].Token, checks[i])
		}
	}
	x.send(w)
}

// together returns what an answer rests on that says several decisions, for
// [Verifier.Confirm]: the lowest position and the shortest time past the lease.
// It is Unavailable if one of them is, and Malformed if all of them are.
func together(decisions []Decision) (all Decision) {
	all.Reason = Malformed
	for i := range decisions {
		switch d := &decisions[i]; {
		case d.Reason == Unavailable:
			return *d
		case d.Reason == Malformed:
		case all.Reason == Malformed:
			all = Decision{Reason: Allowed, Position: d.Position, Stale: d.Stale, past: d.past}
		default:
			all.Position = min(all.Position, d.Position)
			all.Stale = all.Stale && d.Stale // one of them needs the lease
			all.past = min(all.past, d.past)
		}
	}
	return all
}
