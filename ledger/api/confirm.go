package api

import (
	"context"
	"maps"
	"net/http"
)

// confirming writes the answer to a query only if the caller's token still is
// accepted then. A query may wait for long, and the process may stand still in
// between: an answer that leaves after the token's end shows what the log holds
// to somebody who may not see it any more.
//
// A command needs no such look. What it did it did before the token's end, or it
// is refused where it is appended.
type confirming struct {
	http.ResponseWriter
	ask func() *Problem // why the caller may not see the answer
	id  string          // of the request

	before  http.Header // as it was before the operation
	decided bool
	refused bool
}

// confirming returns the writer of a request's answer: w itself where the answer
// needs no second look at the caller.
func (f *front) confirming(ctx context.Context, w http.ResponseWriter, r *http.Request, c *Credential) http.ResponseWriter {
	if f.confirm == nil || c == nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return w
	}
	return &confirming{
		ResponseWriter: w, id: requestID(ctx), before: w.Header().Clone(),
		ask: func() *Problem { return refusedCaller(f.confirm(ctx, *c)) },
	}
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *confirming) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader asks whether the answer may leave, once, and writes a problem in
// its place if not.
func (w *confirming) WriteHeader(status int) {
	if !w.decided {
		w.decided = true
		if p := w.ask(); p != nil {
			w.refused = true
			h := w.Header()
			clear(h)
			maps.Copy(h, w.before)
			p.write(w.ResponseWriter, w.id)
		}
	}
	if !w.refused {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write writes the answer's body, or drops it.
func (w *confirming) Write(b []byte) (int, error) {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	if w.refused {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}
