package authz

import (
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// MaxAuthAge is the maximum age of a person's authentication for an operation that
// requires a recent one.
const MaxAuthAge = 5 * time.Minute

// maxClockDifference bounds the difference between the clocks of two ledgers
// that hold leases, apart from the drift within a lease.
const maxClockDifference = 2*events.ClockLimit + time.Second

// Recent reports whether an authentication is at most [MaxAuthAge] old. A time
// that is further in the future than two clocks differ is not recent: the clock
// that it was read from was wrong.
func Recent(authenticated, now time.Time) bool {
	age := now.Sub(authenticated)
	return age <= MaxAuthAge && age >= -maxClockDifference
}

// FromWrongClock reports whether the time of a past event lies further in the
// future than the clocks of two ledgers differ.
func FromWrongClock(past, now time.Time) bool { return past.Sub(now) > maxClockDifference }

// CheckReauth returns [errdefs.ErrReauthRequired] if the person of the session
// has not authenticated recently. It returns [errdefs.ErrForbidden] if a token
// opened the session: such a session has no person who could. A request that a
// token authenticated passes.
func (a Authorizer) CheckReauth(p Principal, op Operation) error {
	if p.Session != "" && p.Authenticated.IsZero() {
		return fmt.Errorf(
			"%w: a token opened this session; to %s you must sign in with a password",
			errdefs.ErrForbidden,
			op,
		)
	}
	if p.Session != "" && !Recent(p.Authenticated, a.Now()) {
		return &errdefs.ReauthError{Operation: string(op), MaxAge: MaxAuthAge}
	}
	return nil
}
