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

// Headers of positions.
const (
	positionHeader    = "Ledger-Position"     // of an answer: what it rests on
	minPositionHeader = "Ledger-Min-Position" // of a request: what its answer has to rest on
)

// behind is how requests wait for a position that this node has not applied yet.
type behind struct {
	ledger *ledger.Ledger
	// Callers that are known wait apart from strangers, who cost nothing to be.
	callers, strangers *clientLimit
}

// Bounds of that wait, and of those who wait at once.
const (
	longestBehind       = 2 * time.Second
	mostBehindEach      = 256  // callers of one address
	mostBehind          = 1024 // callers
	mostStrangersEach   = 16   // strangers of one address
	mostStrangersBehind = 256
)

func newBehind(l *ledger.Ledger) behind {
	return behind{
		ledger: l, callers: newClientLimit(mostBehindEach, mostBehind),
		strangers: newClientLimit(mostStrangersEach, mostStrangersBehind),
	}
}

// lags reports whether a request names a position that this node has not applied.
func (b *behind) lags(r *http.Request) bool {
	at, ok, p := minPosition(r)
	return p == nil && ok && b.ledger.Position() < at
}

// minPosition returns the position that a request names, and false if it names
// none.
func minPosition(r *http.Request) (at events.Position, ok bool, p *Problem) {
	values := r.Header.Values(minPositionHeader)
	if len(values) == 0 {
		return 0, false, nil
	}
	at, good := parsePosition(values[0])
	if !good || len(values) > 1 {
		return 0, false, problem("malformed_request", "the header "+minPositionHeader+" is one number, as "+positionHeader+" has it")
	}
	return at, true, nil
}

// wait waits until this node has applied the position that a request names. It
// returns nil if it names none.
func (b *behind) wait(ctx context.Context, r *http.Request, known bool) *Problem {
	at, ok, p := minPosition(r)
	if !ok || b.ledger.Position() >= at {
		return p
	}
	waiting := b.strangers
	if known {
		waiting = b.callers
	}
	if leave, ok := waiting.enter(strangerAt(addressFrom(ctx))); ok {
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, longestBehind)
		defer cancel()
		if b.ledger.WaitApplied(ctx, at) == nil {
			return nil
		}
	}
	return problem("unavailable", fmt.Sprintf("this node has applied the log up to position %d, and the request wants %d; ask again, or another node", b.ledger.Position(), at))
}

// describePositions adds what every request may carry.
func describePositions(d *huma.OpenAPI) {
	first := 1.0
	for _, item := range d.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch} {
			if op == nil {
				continue
			}
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: minPositionHeader, In: "header", Description: "answer only once this node has applied the log up to here; after two seconds 503",
				Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &first},
			})
		}
	}
}

// position prints a position for the header.
func position(at events.Position) string { return fmt.Sprint(uint64(at)) }
