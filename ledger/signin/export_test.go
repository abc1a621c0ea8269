package signin

import (
	"errors"

	"github.com/tokenledger/tokenledger/ledger"
)

// MaxWaiting is the number of sign-ins that may wait for a hash.
func (s *SignIn) MaxWaiting() int { return maxWaitingHashes }

// HoldHashes blocks all hashes until release is called. Step lets one waiting
// hash begin.
func (s *SignIn) HoldHashes() (release, step func()) {
	q := s.hashes.queue
	set := func(slots int) (was int) {
		q.mu.Lock()
		defer q.mu.Unlock()
		was, q.slots = q.slots, slots
		q.startNext()
		return was
	}
	slots := set(0)
	step = func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.slots = q.running + 1
		q.startNext()
		q.slots = 0
	}
	return func() { set(slots) }, step
}

// ParsePHC checks a hash's record.
func ParsePHC(s string) error {
	_, _, _, err := parsePHC(s)
	return err
}

// CheckPassword returns what is wrong with a new password.
func CheckPassword(password []byte, login string) (field, why string) {
	_, err := prepareNew("password", password, login)
	var f *ledger.FieldError
	if errors.As(err, &f) {
		return f.Field, f.Problem
	}
	return "", ""
}

// CommonPieces is their number.
func CommonPieces() int { return len(pieces()) }

// Waiting is the number of sign-ins that wait for a hash.
func (s *SignIn) Waiting() int {
	s.hashes.queue.mu.Lock()
	defer s.hashes.queue.mu.Unlock()
	return len(s.hashes.queue.waiting)
}

// The failures that are told apart.
var (
	ErrLogin             = errLogin
	ErrPassword          = errPassword
	ErrCode              = errCode
	ErrCodeUsed          = errCodeUsed
	ErrInvitation        = errInvitation
	ErrInvitationExpired = errInvitationExpired
)

// Failures are all texts that an [ErrFailed] has.
var Failures = []error{
	errLogin, errPassword, errCode, errCodeUsed, errInvitation, errInvitationExpired, errToken, errChanged,
}
