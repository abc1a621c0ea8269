package signin

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/bucket"
)

// InvitationLife is how long an invitation is good.
const InvitationLife = 72 * time.Hour

// Invitation lets a person set a password, once. The secret is shown once.
type Invitation struct {
	Secret  events.Secret
	Account events.AccountID
	Expires time.Time
}

func invitationKey(d events.Digest) string { return "invitation." + hex.EncodeToString(d[:]) }

// Invite makes an invitation for a user's account, by id or login, and ends the
// one before. It is for superusers, and for a session needs a recent proof: who
// has an invitation can be that person. With reset the second factor goes when
// the invitation is taken up, for a person who has lost it with all recovery
// codes.
func (s *SignIn) Invite(ctx context.Context, c authz.Principal, account string, reset bool) (Invitation, error) {
	if account == "" {
		return Invitation{}, &ledger.FieldError{Field: "account", Problem: "is required: an id or a login"}
	}
	a, err := s.cfg.Directory.Allow(ctx, c, authz.InvitePerson, account)
	if err != nil {
		return Invitation{}, err
	}
	id := a.ID
	switch {
	case a.Kind != events.UserAccount:
		return Invitation{}, fmt.Errorf("%w: account %s is a service account, which has no password and never signs in", ledger.ErrInvalid, id)
	case a.Erased:
		return Invitation{}, fmt.Errorf("%w: account %s is erased", ledger.ErrEnded, id)
	}
	secret := events.NewInvitation()
	made := Invitation{Secret: secret, Account: id, Expires: s.now().Add(InvitationLife)}
	// A crash after this leaves a pointer to an account that does not know it.
	if _, err := s.directory.Put(ctx, invitationKey(secret.Digest()), []byte(id), 0); err != nil {
		return Invitation{}, unavailable(err)
	}
	var before *invited
	_, err = s.alter(ctx, id, newDue(c, events.ProofInvited), func(cred *credential) error {
		before = cred.Invitation
		cred.Invitation = &invited{Digest: secret.Digest(), Expires: made.Expires, Reset: reset}
		return nil
	})
	if err != nil {
		if isRefusal(err) {
			s.dropPointer(ctx, &invited{Digest: secret.Digest()})
		}
		return Invitation{}, err
	}
	s.dropPointer(ctx, before)
	s.log.InfoContext(ctx, "invited", "account_id", id, "by", c.Account)
	return made, nil
}

// dropPointer removes the way from an invitation to its account.
func (s *SignIn) dropPointer(ctx context.Context, i *invited) {
	if i == nil {
		return
	}
	if err := s.directory.Remove(ctx, invitationKey(i.Digest)); err != nil {
		s.log.WarnContext(ctx, "the record of an invitation that is over is left", "err", err)
	}
}

// Redeem takes an invitation up: it sets the password and ends all sessions of
// the account. It opens none. An invitation that is not good is [ErrFailed]; it
// is still good after a password that was refused.
func (s *SignIn) Redeem(ctx context.Context, invitation string, password []byte, address string) (events.AccountID, error) {
	defer clear(password)
	if err := s.ready(); err != nil {
		return "", err
	}
	try, err := s.attempts.begin("", address, false)
	if err != nil {
		return "", err
	}
	id, err := s.redeem(ctx, invitation, password, address)
	if !errors.Is(err, ErrFailed) {
		try.forgive()
	}
	return id, err
}

func (s *SignIn) redeem(ctx context.Context, invitation string, password []byte, address string) (events.AccountID, error) {
	secret, err := events.ParseInvitation(invitation)
	if err != nil {
		return "", ErrFailed
	}
	pointer, err := s.directory.Get(ctx, invitationKey(secret.Digest()))
	if errors.Is(err, bucket.ErrNotFound) {
		return "", ErrFailed
	}
	if err != nil {
		return "", unavailable(err)
	}
	id := events.AccountID(pointer.Value)
	if _, err := s.person(id); errors.Is(err, errNotAPerson) {
		return "", ErrFailed
	} else if err != nil {
		return "", err
	}
	c, _, err := s.credential(ctx, id)
	if err != nil {
		return "", err
	}
	good := func(c *credential) bool {
		i, d := c.Invitation, secret.Digest()
		return i != nil && subtle.ConstantTimeCompare(i.Digest[:], d[:]) == 1 && s.now().Before(i.Expires)
	}
	if !good(&c) {
		return "", ErrFailed
	}
	phc, err := s.newPassword(ctx, payer{string(id), address}, "password", password)
	if err != nil {
		return "", err
	}
	by := authz.Principal{Account: id, Address: address}
	changed, err := s.alter(ctx, id, newSessionsEnd(by, events.ProofPassword, ""), func(c *credential) error {
		if !good(c) {
			return ErrFailed // taken up, or replaced, meanwhile
		}
		if c.Invitation.Reset && c.SecondFactor != nil {
			c.SecondFactor, c.Recovery = nil, nil
			c.Due = append(c.Due, newDue(by, events.ProofSecondFactorRemoved))
		}
		c.Password, c.Pending, c.Invitation = phc, "", nil
		return nil
	})
	if err != nil {
		return "", err
	}
	s.dropPointer(ctx, &invited{Digest: secret.Digest()})
	s.sweep(ctx, id, changed.From, "")
	s.log.InfoContext(ctx, "password set", "account_id", id, "address", address)
	return id, nil
}

// newPassword checks and hashes a password that the payer's account is to have.
func (s *SignIn) newPassword(ctx context.Context, by payer, field string, password []byte) (string, error) {
	login, err := s.cfg.Directory.LoginOf(ctx, events.AccountID(by.account))
	if err != nil {
		return "", err
	}
	p, err := choose(field, password, login)
	if err != nil {
		return "", err
	}
	defer clear(p)
	return s.hashes.hash(ctx, by, p)
}

// ChangePassword replaces the password of the caller, who sends the old one. It
// ends every other session of the account; to the caller's it is a proof.
func (s *SignIn) ChangePassword(ctx context.Context, c authz.Principal, old, password []byte) error {
	defer clear(old)
	defer clear(password)
	if err := s.personal(c); err != nil {
		return err
	}
	cred, try, err := s.begin(ctx, c)
	if err != nil {
		return err
	}
	err = s.checkPassword(ctx, c, cred, "old", old)
	if !errors.Is(err, ErrFailed) {
		try.forgive()
	}
	if err != nil {
		return err
	}
	phc, err := s.newPassword(ctx, payer{string(c.Account), c.Address}, "new", password)
	if err != nil {
		return err
	}
	changed, err := s.alter(ctx, c.Account, newSessionsEnd(c, events.ProofPassword, c.Session), func(now *credential) error {
		if now.Password != cred.Password {
			return ErrFailed // changed meanwhile
		}
		now.Password, now.Invitation = phc, nil
		return nil
	})
	if err != nil {
		return err
	}
	s.dropPointer(ctx, cred.Invitation)
	s.sweep(ctx, c.Account, changed.From, c.Session)
	s.log.InfoContext(ctx, "password changed", "account_id", c.Account, "session_id", c.Session)
	_, err = s.renew(ctx, c, func(r *session) { r.Proved = s.now() })
	return err
}

// Enrolment is what an app for second factors needs. It is shown once.
type Enrolment struct {
	Secret string // base32
	URI    string // otpauth://totp/…
}

// AddSecondFactor makes a second factor, which counts from [SignIn.Confirm] on.
// One that is there counts until then, and replacing it needs a code of it or a
// recovery code; without one the error is a [*ledger.FieldError]. It needs a
// recent proof.
func (s *SignIn) AddSecondFactor(ctx context.Context, c authz.Principal, code string) (Enrolment, error) {
	if err := s.recent(c, "add a second factor"); err != nil {
		return Enrolment{}, err
	}
	login, err := s.cfg.Directory.LoginOf(ctx, c.Account)
	if err != nil {
		return Enrolment{}, err
	}
	secret, uri, err := newCodeKey(login)
	if err != nil {
		return Enrolment{}, err
	}
	err = s.guarded(ctx, c, code, func(guard func(*credential) error) error {
		_, err := s.edit(ctx, c.Account, func(cred *credential) error {
			if cred.SecondFactor != nil {
				if err := guard(cred); err != nil {
					return err
				}
			}
			cred.Pending = secret
			return nil
		})
		return err
	})
	if err != nil {
		return Enrolment{}, err
	}
	return Enrolment{Secret: secret, URI: uri}, nil
}

// guarded carries out a change that takes a code where there is a second factor.
// The change calls guard on the credential: it uses the code up, or fails. A bad
// code counts as a failed attempt; one that is missing does not.
func (s *SignIn) guarded(
	ctx context.Context, c authz.Principal, code string, change func(guard func(*credential) error) error,
) error {
	_, try, err := s.begin(ctx, c)
	if err != nil {
		return err
	}
	err = change(func(cred *credential) error {
		if code == "" {
			return &ledger.FieldError{Field: "code", Problem: "is required: one of the second factor that is there, or a recovery code"}
		}
		switch cred.use(code, s.now()) {
		case byNothing:
			return ErrFailed
		case byRecovery:
			cred.Due = append(cred.Due, newDue(c, events.ProofRecoveryCodeUsed))
		}
		return nil
	})
	if !errors.Is(err, ErrFailed) {
		try.forgive()
	}
	return err
}

// Confirm makes the second factor count that was added, by a code of it, and
// returns recovery codes, which are shown once. It needs a recent proof.
func (s *SignIn) Confirm(ctx context.Context, c authz.Principal, code string) ([]string, error) {
	if err := s.recent(c, "add a second factor"); err != nil {
		return nil, err
	}
	// A caller that has ended does not learn whether the code is good.
	if _, err := s.cfg.Directory.Confirmed(ctx, c); err != nil {
		return nil, err
	}
	codes, digests := newRecoveryCodes()
	_, err := s.alter(ctx, c.Account, newDue(c, events.ProofSecondFactor), func(cred *credential) error {
		if cred.Pending == "" {
			return fmt.Errorf("%w: there is no second factor to confirm; add one first", ledger.ErrInvalid)
		}
		f := secondFactor{Secret: cred.Pending}
		step, ok := f.step(plainCode(code), s.now())
		if !ok {
			return &ledger.FieldError{Field: "code", Problem: "is not the code that the app shows now; look at the clocks of both"}
		}
		f.LastStep = step
		cred.SecondFactor, cred.Pending, cred.Recovery = &f, "", digests
		return nil
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// RemoveSecondFactor takes the second factor and its recovery codes away. It needs
// a recent proof and a code of either kind.
func (s *SignIn) RemoveSecondFactor(ctx context.Context, c authz.Principal, code string) error {
	if err := s.recent(c, "remove the second factor"); err != nil {
		return err
	}
	return s.guarded(ctx, c, code, func(guard func(*credential) error) error {
		_, err := s.alter(ctx, c.Account, newDue(c, events.ProofSecondFactorRemoved), func(cred *credential) error {
			if cred.SecondFactor == nil {
				return fmt.Errorf("%w: there is no second factor", ledger.ErrInvalid)
			}
			if err := guard(cred); err != nil {
				return err
			}
			cred.SecondFactor, cred.Recovery, cred.Pending = nil, nil, ""
			return nil
		})
		return err
	})
}

// RenewRecovery replaces the recovery codes and returns the new ones, which are
// shown once. It needs a recent proof and a code of either kind.
func (s *SignIn) RenewRecovery(ctx context.Context, c authz.Principal, code string) ([]string, error) {
	if err := s.recent(c, "make recovery codes"); err != nil {
		return nil, err
	}
	codes, digests := newRecoveryCodes()
	err := s.guarded(ctx, c, code, func(guard func(*credential) error) error {
		_, err := s.alter(ctx, c.Account, newDue(c, events.ProofRecoveryCodes), func(cred *credential) error {
			if cred.SecondFactor == nil {
				return fmt.Errorf("%w: there is no second factor to recover; add one first", ledger.ErrInvalid)
			}
			if err := guard(cred); err != nil {
				return err
			}
			cred.Recovery = digests
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// Erase removes all that is kept of an account's person: the credential, the
// invitation and all sessions. Their bytes are overwritten in the server's files
// when it returns. Call it when the account is erased in the log, so that nobody
// signs in again meanwhile.
func (s *SignIn) Erase(ctx context.Context, id events.AccountID) error {
	c, _, err := s.stored(ctx, id) // a change that is under way goes with it
	if err != nil {
		return err
	}
	for _, of := range []*credential{&c, c.Next} {
		if of == nil || of.Invitation == nil {
			continue
		}
		if err := s.directory.Remove(ctx, invitationKey(of.Invitation.Digest)); err != nil {
			return unavailable(err)
		}
	}
	// The credential goes last: it is the way to the rest.
	if err := s.sessions.Remove(ctx, accountSessions(id)); err != nil {
		return unavailable(err)
	}
	if err := s.directory.Remove(ctx, credentialKey(id)); err != nil {
		return unavailable(err)
	}
	return nil
}
