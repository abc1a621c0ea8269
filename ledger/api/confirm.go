package api

import (
	"context"
	"maps"
	"net/http"
)

// confirmingWriter writes the answer to a query only if the caller's token is
// still accepted then. A query may wait for a long time, and the process may be
// suspended in between. An answer that leaves after the token was revoked would
// show the log's content to a caller that may not see it any more.
//
// A command needs no such check. It took effect before the token was revoked, or
// the append refused it.
type confirmingWriter struct {
	http.ResponseWriter
	check func() *Problem // why the caller may not see the answer
	id    string          // of the request

	initial http.Header // before the operation ran
	decided bool
	refused bool
}

// confirming returns the writer of a request's answer: w itself if the answer
// needs no second check of the caller.
func (g *gate) confirming(
	ctx context.Context,
	w http.ResponseWriter,
	r *http.Request,
	c *Credential,
) http.ResponseWriter {
	if g.confirm == nil || c == nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return w
	}
	return &confirmingWriter{
		ResponseWriter: w, id: requestID(ctx), initial: w.Header().Clone(),
		check: func() *Problem { return callerProblem(g.confirm(ctx, *c)) },
	}
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *confirmingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader checks the caller once, and writes a problem instead of the answer
// if the caller may not see it.
func (w *confirmingWriter) WriteHeader(status int) {
	if !w.decided {
		w.decided = true
		if p := w.check(); p != nil {
			w.refused = true
			h := w.Header()
			clear(h)
			maps.Copy(h, w.initial)
			p.write(w.ResponseWriter, w.id)
		}
	}
	if !w.refused {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write writes the answer's body, or drops it.
func (w *confirmingWriter) Write(b []byte) (int, error) {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	if w.refused {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}
