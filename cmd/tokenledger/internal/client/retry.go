package client

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

// Retry says how requests are retried.
type Retry struct {
	// Pause comes before the second try. It doubles up to MaxPause.
	Pause, MaxPause time.Duration
	// Patience limits the retries of a request that changes nothing or that
	// nobody received. A change that may have reached the log is retried until
	// the timeout, because its outcome is wanted.
	Patience time.Duration
}

// DefaultRetry is how commands retry.
var DefaultRetry = Retry{Pause: 100 * time.Millisecond, MaxPause: 2 * time.Second, Patience: 3 * time.Second}

// try is the outcome of one try of a request.
type try struct {
	answer      *Answer
	failure     *exit.Failure
	again       bool          // a retry may succeed
	lost        bool          // there was no answer
	unknownHost bool          // the server's name does not exist
	reached     bool          // the server may have acted on the request
	after       time.Duration // that the server asked to wait first
}

// retryAfter returns the pause that a server asks for, 0 if none.
func retryAfter(h http.Header) time.Duration {
	const most = 60
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 || seconds > most {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// jitter returns a random pause of half of pause to all of it, but not less than
// atLeast. Clients that failed together then do not come back together.
func jitter(pause, atLeast time.Duration) time.Duration {
	return max(pause/2+rand.N(pause/2+1), atLeast)
}
