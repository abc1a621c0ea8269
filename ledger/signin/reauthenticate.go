package signin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/bucket"
)

// Reauthentication is a request of a signed-in person to re-authenticate: password,
// code or both. If both are sent, both must be correct.
type Reauthentication struct {
	Password []byte // cleared after the check
	Code     string
}

// Reauthenticate checks a password or code, and marks the caller's session as
// recently authenticated. It returns [ErrFailed] if one of them is wrong.
func (s *SignIn) Reauthenticate(ctx context.Context, c authz.Principal, p Reauthentication) (Session, error) {
	defer clear(p.Password)
	if err := s.requirePerson(c); err != nil {
		return Session{}, err
	}
	if len(p.Password) == 0 && p.Code == "" {
		return Session{}, &ledger.FieldError{Field: "password", Problem: "send password or code"}
	}
	cred, try, err := s.beginAttempt(ctx, c)
	if err != nil {
		return Session{}, err
	}
	methods, err := s.verifyReauthentication(ctx, c, cred, p)
	if !errors.Is(err, ErrFailed) {
		try.refund()
	}
	if err != nil {
		return Session{}, err
	}
	return s.updateSession(ctx, c, func(r *session) {
		r.Authenticated = s.now()
		for _, m := range methods {
			if !slices.Contains(r.Methods, m) {
				r.Methods = append(r.Methods, m)
			}
		}
	})
}

func (s *SignIn) verifyReauthentication(
	ctx context.Context,
	c authz.Principal,
	cred credential,
	p Reauthentication,
) (methods []string, err error) {
	if len(p.Password) > 0 {
		if err := s.checkPassword(ctx, c, cred, "password", p.Password); err != nil {
			return nil, err
		}
		methods = append(methods, amrPassword)
	}
	if p.Code != "" {
		if err := s.useCode(ctx, c, cred.Password, p.Code); err != nil {
			return nil, err
		}
		methods = append(methods, amrCode)
	}
	if len(methods) > 1 {
		methods = append(methods, amrBoth)
	}
	return methods, nil
}

// checkPassword returns [ErrFailed] if the password is not the credential's.
func (s *SignIn) checkPassword(
	ctx context.Context,
	c authz.Principal,
	cred credential,
	field string,
	password []byte,
) error {
	p, err := normalize(field, password)
	if err != nil {
		return err
	}
	defer clear(p)
	ok, _, err := s.hashes.check(ctx, payer{string(c.Account), c.Address}, cred.Password, p)
	if err == nil && !ok {
		err = errPassword
	}
	return err
}

// useCode uses up a code, or returns [ErrFailed]. Password is the stored hash from
// the start of the re-authentication; if it has changed, the code does not count.
func (s *SignIn) useCode(ctx context.Context, c authz.Principal, password, code string) error {
	_, err := s.editCredential(ctx, c.Account, func(cred *credential) error {
		if cred.Password != password {
			return errChanged
		}
		kind := cred.useCode(code, s.now())
		if kind == recoveryCode {
			cred.Due = append(cred.Due, newPendingEvent(c, events.CredentialRecoveryCodeUsed))
		}
		return kind.error()
	})
	return err
}

// requirePerson refuses tokens, and sessions that a token opened.
func (s *SignIn) requirePerson(c authz.Principal) error {
	if c.Session == "" || c.Authenticated.IsZero() {
		return fmt.Errorf(
			"%w: only a person who signed in with a password can do this, not a token",
			ledger.ErrForbidden,
		)
	}
	return nil
}

// requireRecent refuses callers that have not authenticated recently.
func (s *SignIn) requireRecent(c authz.Principal, what string) error {
	if err := s.requirePerson(c); err != nil {
		return err
	}
	if !authz.Recent(c.Authenticated, s.now()) {
		return &ledger.ReauthError{Operation: what, MaxAge: authz.MaxAuthAge}
	}
	return nil
}

// beginAttempt reads the caller's credential and counts an attempt at it. Some of the
// changes that follow have no event, so it asks the quorum whether the caller's
// session has ended.
func (s *SignIn) beginAttempt(ctx context.Context, c authz.Principal) (credential, *attempt, error) {
	if _, err := s.cfg.Directory.Confirmed(ctx, c); err != nil {
		return credential{}, nil, err
	}
	cred, _, err := s.credential(ctx, c.Account)
	if err != nil {
		return cred, nil, err
	}
	try, err := s.attempts.begin(string(c.Account), c.Address, cred.knowsAddress(c.Account, c.Address))
	return cred, try, err
}

// updateSession changes the record of the caller's session.
func (s *SignIn) updateSession(ctx context.Context, c authz.Principal, change func(*session)) (Session, error) {
	for {
		r, e, err := s.readOwn(ctx, c)
		if err != nil {
			return Session{}, err
		}
		change(&r)
		switch err := s.write(ctx, e, r); {
		case err == nil:
			return s.show(r)
		case !errors.Is(err, bucket.ErrChanged) || ctx.Err() != nil:
			return Session{}, unavailable(err)
		}
	}
}
