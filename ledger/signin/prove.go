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

// Proof is what a person who is signed in sends to prove it again: one of the
// two, or both, which then both have to be good.
type Proof struct {
	Password []byte // cleared when it has been looked at
	Code     string
}

// Prove renews the recent proof of the caller's session.
func (s *SignIn) Prove(ctx context.Context, c authz.Principal, p Proof) (Session, error) {
	defer clear(p.Password)
	if err := s.personal(c); err != nil {
		return Session{}, err
	}
	if len(p.Password) == 0 && p.Code == "" {
		return Session{}, &ledger.FieldError{Field: "password", Problem: "or code is required"}
	}
	cred, try, err := s.begin(ctx, c)
	if err != nil {
		return Session{}, err
	}
	methods, err := s.proveAgain(ctx, c, cred, p)
	if !errors.Is(err, ErrFailed) {
		try.forgive()
	}
	if err != nil {
		return Session{}, err
	}
	return s.renew(ctx, c, func(r *session) {
		r.Proved = s.now()
		for _, m := range methods {
			if !slices.Contains(r.Methods, m) {
				r.Methods = append(r.Methods, m)
			}
		}
	})
}

func (s *SignIn) proveAgain(ctx context.Context, c authz.Principal, cred credential, p Proof) (methods []string, err error) {
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

// checkPassword returns [ErrFailed] where the password is not the credential's.
func (s *SignIn) checkPassword(ctx context.Context, c authz.Principal, cred credential, field string, password []byte) error {
	p, err := prepare(field, password)
	if err != nil {
		return err
	}
	defer clear(p)
	ok, _, err := s.hashes.check(ctx, payer{string(c.Account), c.Address}, cred.Password, p)
	if err == nil && !ok {
		err = ErrFailed
	}
	return err
}

// useCode uses a code up, or returns [ErrFailed]. The password is the one that
// was stored when the proof began.
func (s *SignIn) useCode(ctx context.Context, c authz.Principal, password, code string) error {
	_, err := s.edit(ctx, c.Account, func(cred *credential) error {
		if cred.Password != password {
			return ErrFailed
		}
		switch cred.use(code, s.now()) {
		case byNothing:
			return ErrFailed
		case byRecovery:
			cred.Due = append(cred.Due, newDue(c, events.ProofRecoveryCodeUsed))
		}
		return nil
	})
	return err
}

// personal refuses callers that are no person: tokens, and sessions that a token
// opened.
func (s *SignIn) personal(c authz.Principal) error {
	if c.Session == "" || c.Proved.IsZero() {
		return fmt.Errorf("%w: this is for a person who signed in with a password, and a token is none", ledger.ErrForbidden)
	}
	return nil
}

// recent refuses callers whose person has not proved to be who they are for some
// time.
func (s *SignIn) recent(c authz.Principal, what string) error {
	if err := s.personal(c); err != nil {
		return err
	}
	if !authz.Recent(c.Proved, s.now()) {
		return &ledger.ReauthError{Operation: what, MaxAge: authz.MaxAuthAge}
	}
	return nil
}

// begin reads the caller's credential and counts an attempt on it. Some changes
// that follow have no event, so it asks the quorum whether the caller has ended.
func (s *SignIn) begin(ctx context.Context, c authz.Principal) (credential, *attempt, error) {
	if _, err := s.cfg.Directory.Confirmed(ctx, c); err != nil {
		return credential{}, nil, err
	}
	cred, _, err := s.credential(ctx, c.Account)
	if err != nil {
		return cred, nil, err
	}
	try, err := s.attempts.begin(string(c.Account), c.Address, cred.knows(c.Account, c.Address))
	return cred, try, err
}

// renew changes the caller's session.
func (s *SignIn) renew(ctx context.Context, c authz.Principal, change func(*session)) (Session, error) {
	for {
		r, e, err := s.own(ctx, c)
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
