package api

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
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
// They do so before it is known who asks: a token that was made, or revoked, at
// that position has to be known as such.
type behind struct {
	ledger  *ledger.Ledger
	waiting atomic.Int64
}

// Bounds of that wait, and of those who wait at once.
const (
	longestBehind = 2 * time.Second
	mostBehind    = 1024
)

// wait waits until this node has applied the position that a request names. It
// returns nil where it names none.
func (b *behind) wait(ctx context.Context, r *http.Request) *Problem {
	values := r.Header.Values(minPositionHeader)
	if len(values) == 0 {
		return nil
	}
	at, ok := parsePosition(values[0])
	if !ok || len(values) > 1 {
		return problem("malformed_request", "the header "+minPositionHeader+" is one number, as "+positionHeader+" has it")
	}
	if b.ledger.Position() >= at {
		return nil
	}
	defer b.waiting.Add(-1)
	if b.waiting.Add(1) <= mostBehind {
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
