package verifier

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/tokenledger/tokenledger/events"
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
// others then. The answers may rest on different positions, all of them on
// [MinPositionHeader] at least. What Handler says in headers about one token
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
		refuse(w, http.StatusBadRequest, "malformed_request", "The request cannot be read", "the body is not one JSON object with a list checks, each an object of the fields "+checkFields)
		return
	}
	if n := len(req.Checks); n < 1 || n > MaxBatch {
		refuse(w, http.StatusUnprocessableEntity, "invalid_request", "The request cannot be carried out as it stands", fmt.Sprintf("checks: %d of them; send 1 to %d", n, MaxBatch))
		return
	}
	checks, explain := make([]Request, len(req.Checks)), false
	room := make([]events.Scope, len(req.Checks)) // for one that is needed by each
	for i := range req.Checks {
		var err error
		if checks[i], err = v.read(&req.Checks[i], room[i:i:i+1]); err != nil {
			refuse(w, http.StatusUnprocessableEntity, "invalid_request", "The request cannot be carried out as it stands", fmt.Sprintf("checks[%d]: %s", i, err))
			return
		}
		explain = explain || req.Checks[i].Explain
	}
	if !v.await(r.Context(), least) {
		v.behind(w, least)
		return
	}
	if explain && !v.mayExplain(w, r) {
		return
	}
	var at events.Position
	asked := false
	x.out = append(x.out, `{"answers":[`...)
	for i := range checks {
		d := v.Check(req.Checks[i].Token, checks[i])
		switch {
		case d.Reason == Unavailable:
			v.unavailable(w)
			return
		case d.Reason == Malformed: // no index was asked
		case d.Position < least:
			v.behind(w, least)
			return
		case !asked || d.Position < at:
			at, asked = d.Position, true
		}
		if i > 0 {
			x.out = append(x.out, ',')
		}
		x.out = d.appendAnswer(x.out, req.Checks[i].Explain)
	}
	if !asked {
		at = v.Position()
	}
	x.out = append(x.out, `],"position":`...)
	x.out = append(strconv.AppendUint(x.out, uint64(at), 10), '}')
	x.send(w, at)
}
