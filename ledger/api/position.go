package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Headers with positions.
const (
	positionHeader    = "Ledger-Position"     // of an answer: the position that it reflects
	minPositionHeader = "Ledger-Min-Position" // of a request: the least position that its answer may reflect
)

// minPositionWaiter makes requests wait until this node has applied the position
// that they name.
type minPositionWaiter struct {
	ledger *ledger.Ledger
	// Known callers wait apart from anonymous ones, of which a client can send
	// any number.
	callers, anonymous *clientLimit
}

// Limits on that wait, and on the requests that wait at the same time.
const (
	maxPositionWait = 2 * time.Second

	maxCallersPerAddress   = 256
	maxCallers             = 1024
	maxAnonymousPerAddress = 16
	maxAnonymous           = 256
)

func newMinPositionWaiter(l *ledger.Ledger) minPositionWaiter {
	return minPositionWaiter{
		ledger: l, callers: newClientLimit(maxCallersPerAddress, maxCallers),
		anonymous: newClientLimit(maxAnonymousPerAddress, maxAnonymous),
	}
}

// mustWait reports whether a request names a position that this node has not
// applied.
func (w *minPositionWaiter) mustWait(r *http.Request) bool {
	at, ok, p := minPosition(r)
	return p == nil && ok && w.ledger.Position() < at
}

// minPosition returns the position that a request names, and false if it names
// none.
func minPosition(r *http.Request) (at events.Position, ok bool, p *Problem) {
	values := r.Header.Values(minPositionHeader)
	if len(values) == 0 {
		return 0, false, nil
	}
	at, valid := parsePosition(values[0])
	if !valid || len(values) > 1 {
		return 0, false, problem("malformed_request",
			"the header "+minPositionHeader+" is not one number; send the "+positionHeader+" of an earlier answer")
	}
	return at, true, nil
}

// wait waits until this node has applied the position that a request names. It
// returns nil if the request names none. Known says whether the caller is known.
func (w *minPositionWaiter) wait(ctx context.Context, r *http.Request, known bool) *Problem {
	at, ok, p := minPosition(r)
	if !ok || w.ledger.Position() >= at {
		return p
	}
	limit := w.anonymous
	if known {
		limit = w.callers
	}
	if release, ok := limit.acquire(addressClient(addressFrom(ctx))); ok {
		defer release()
		ctx, cancel := context.WithTimeout(ctx, maxPositionWait)
		defer cancel()
		if w.ledger.WaitApplied(ctx, at) == nil {
			return nil
		}
	}
	return problem("unavailable", fmt.Sprintf("this node has applied the log up to position %d, and %s asks for %d; "+
		"retry, or ask another node", w.ledger.Position(), minPositionHeader, at))
}

// describePositions adds the header that every request may have.
func describePositions(d *huma.OpenAPI) {
	first := 1.0
	for _, item := range d.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch} {
			if op == nil {
				continue
			}
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: minPositionHeader, In: "header",
				Description: "wait until this node has applied the log up to this position; 503 after two seconds",
				Schema:      &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &first},
			})
		}
	}
}

// formatPosition formats a position for a header.
func formatPosition(at events.Position) string { return fmt.Sprint(uint64(at)) }
