package signin

import (
	"errors"

	"github.com/tokenledger/tokenledger/ledger"
)

// MostAtOnce is how many sign-ins may have or wait for a hash at once.
func (s *SignIn) MostAtOnce() int { return mostWaiting + cap(s.hashes.running) }

// HoldHashes lets no hash begin until the function that it returns is called.
func (s *SignIn) HoldHashes() (release func()) {
	for range cap(s.hashes.running) {
		s.hashes.running <- struct{}{}
	}
	return func() {
		for range cap(s.hashes.running) {
			<-s.hashes.running
		}
	}
}

// ParsePHC checks a hash's record.
func ParsePHC(s string) error {
	_, _, _, err := parsePHC(s)
	return err
}

// CheckPassword returns what is wrong with a new password.
func CheckPassword(password []byte, login string) (field, why string) {
	_, err := choose("password", password, login)
	var f *ledger.FieldError
	if errors.As(err, &f) {
		return f.Field, f.Problem
	}
	return "", ""
}

// CommonPieces is how many there are.
func CommonPieces() int { return len(pieces()) }

// Waiting is how many sign-ins have or wait for a hash now.
func (s *SignIn) Waiting() int { return int(s.hashes.waiting.Load()) }
