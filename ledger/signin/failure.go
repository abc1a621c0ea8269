package signin

// failure is an [ErrFailed] with its cause. The cause is named only where it tells an
// attacker nothing: a wrong login and a wrong password read the same, and so does an
// account that cannot sign in. That a password is correct is known without a code,
// from [ErrSecondFactor], so a code's own failure may be named.
type failure struct{ text string }

func (f *failure) Error() string { return f.text }

// Unwrap makes the error [ErrFailed].
func (f *failure) Unwrap() error { return ErrFailed }

var (
	errLogin    error = &failure{"login or password is not accepted, or the account cannot sign in"}
	errPassword error = &failure{"the password is not accepted"}
	errCode     error = &failure{"the code is not accepted: it is neither the current code of the authenticator app " +
		"nor an unused recovery code; check the clock of the app's device"}
	errCodeUsed error = &failure{"the code was used before, and each code works once: wait for the next one, " +
		"30 seconds at most"}
	errInvitation error = &failure{"the invitation is not accepted: it is not complete, was used, or a newer one " +
		"replaced it; ask a superuser for another one"}
	errInvitationExpired error = &failure{"the invitation has expired; ask a superuser for another one"}
	errToken             error = &failure{"the token is not accepted, or cannot open a session"}
	errChanged           error = &failure{"the credentials were changed in the meantime; try again"}
)

// error returns why a code is refused, nil if it is not.
func (k codeKind) error() error {
	switch k {
	case wrongCode:
		return errCode
	case usedCode:
		return errCodeUsed
	}
	return nil
}
