// Package errdefs defines the errors of commands and queries, for the packages
// that carry them out. Package ledger exports them under the same names.
//
// Every refusal changes nothing. [ErrUnavailable] means that nothing was stored,
// that the outcome is unknown, or that the change is stored but not visible yet;
// the text says which.
package errdefs

import (
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// The errors that a caller decides on.
var (
	// ErrInvalid reports a request that can never succeed.
	ErrInvalid = errors.New("invalid request")
	// ErrForbidden reports that the caller may not do the operation, or that a
	// token would have more rights than its account.
	ErrForbidden = errors.New("not allowed")
	// ErrNotFound reports a token or account that does not exist.
	ErrNotFound = events.ErrNotFound
	// ErrEnded reports a token that is revoked, or an account that is suspended
	// or erased.
	ErrEnded = errors.New("ended")
	// ErrExists reports a login or a secret that is taken.
	ErrExists = errors.New("already exists")
	// ErrInGrace reports a rotation that would end an earlier secret before the time
	// that was promised for it.
	ErrInGrace = errors.New("an earlier secret is still valid")
	// ErrConflict reports that the record changed after the caller read it.
	ErrConflict = errors.New("changed since it was read")
	// ErrKeyReused reports an idempotency key that was used for another request.
	ErrKeyReused = errors.New("idempotency key was used for another request")
	// ErrUnavailable reports that the log, the index or the directory did not
	// answer in time, or that there is no room for the change.
	ErrUnavailable = errors.New("log is unavailable")
	// ErrReauthRequired reports a session whose person must re-authenticate. The
	// error is a [*ReauthError].
	ErrReauthRequired = errors.New("re-authentication required")
	// ErrCallerEnded reports a caller whose token, session or account ended after
	// its request was authenticated.
	ErrCallerEnded = errors.New("the caller's token or session has ended")
)

// FieldError is an [ErrInvalid] about one field of the request.
type FieldError struct {
	Field   string // name in the API
	Problem string // as in "is required"
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// Unwrap makes the error [ErrInvalid].
func (e *FieldError) Unwrap() error { return ErrInvalid }

// Invalid returns a [*FieldError].
func Invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// notFoundError is an [ErrNotFound] with a text of its own.
type notFoundError struct{ text string }

func (e *notFoundError) Error() string { return e.text }

// Unwrap makes the error [ErrNotFound].
func (e *notFoundError) Unwrap() error { return ErrNotFound }

// NotFound returns an [ErrNotFound] with a text, as in `no account with login
// "bob"`.
func NotFound(format string, args ...any) error {
	return &notFoundError{text: fmt.Sprintf(format, args...)}
}

// ReauthError is an [ErrReauthRequired] with the maximum age of an authentication.
type ReauthError struct {
	Operation string        // as in "create a token"
	MaxAge    time.Duration // in whole minutes
}

func (e *ReauthError) Error() string {
	return fmt.Sprintf("%s: to %s, enter your password or a two-factor code (valid for %d minutes)",
		ErrReauthRequired, e.Operation, int(e.MaxAge.Minutes()))
}

// Unwrap makes the error [ErrReauthRequired].
func (e *ReauthError) Unwrap() error { return ErrReauthRequired }

// Unavailable makes err an [ErrUnavailable].
func Unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

// ViewError describes an error of the index: [ErrNotFound] if the record does
// not exist, [ErrUnavailable] for everything else. The format names the record.
func ViewError(err error, format string, args ...any) error {
	record := fmt.Sprintf(format, args...)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%s: %w", record, ErrNotFound)
	}
	return fmt.Errorf("%s: %w", record, Unavailable(err))
}
