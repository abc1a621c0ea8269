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

// InvitationLifetime is how long an invitation is valid.
const InvitationLifetime = 72 * time.Hour

// Invitation lets a person set a password once. The secret is shown once.
type Invitation struct {
	Secret  events.Secret
	Account events.AccountID
	Expires time.Time
}

func invitationKey(d events.Digest) string { return "invitation." + hex.EncodeToString(d[:]) }

// Invite creates an invitation for a user's account, named by id or login, and revokes
// the previous one. Only superusers can invite, and a person must have authenticated
// recently, because the invitation gives access to the account. With reset, redeeming
// it also removes the second factor, for a person who has lost it.
func (s *SignIn) Invite(ctx context.Context, c authz.Principal, account string, reset bool) (Invitation, error) {
	if account == "" {
		return Invitation{}, &ledger.FieldError{Field: "account", Problem: "is required; send an id or a login"}
	}
	a, err := s.cfg.Directory.Allow(ctx, c, authz.InvitePerson, account)
	if err != nil {
		return Invitation{}, err
	}
	id := a.ID
	switch {
	case a.Kind != events.UserAccount:
		return Invitation{}, fmt.Errorf(
			"%w: account %s is a service account; only users have a password and sign in",
			ledger.ErrInvalid,
			id,
		)
	case a.Erased:
		return Invitation{}, fmt.Errorf("%w: account %s is erased", ledger.ErrEnded, id)
	}
	secret := events.NewInvitation()
	made := Invitation{Secret: secret, Account: id, Expires: s.now().Add(InvitationLifetime)}
	// A crash after this leaves a pointer to an account without this invitation.
	if _, err := s.directory.Put(ctx, invitationKey(secret.Digest()), []byte(id), 0); err != nil {
		return Invitation{}, unavailable(err)
	}
	var before *storedInvitation
	_, err = s.changeCredential(ctx, id, newPendingEvent(c, events.CredentialInvited), func(cred *credential) error {
		before = cred.Invitation
		cred.Invitation = &storedInvitation{Digest: secret.Digest(), Expires: made.Expires, Reset: reset}
		return nil
	})
	if err != nil {
		if isRefusal(err) {
			s.dropPointer(ctx, &storedInvitation{Digest: secret.Digest()})
		}
		return Invitation{}, err
	}
	s.dropPointer(ctx, before)
	s.log.InfoContext(ctx, "invited", "account_id", id, "by", c.Account)
	return made, nil
}

// dropPointer removes the record that leads from an invitation to its account.
func (s *SignIn) dropPointer(ctx context.Context, i *storedInvitation) {
	if i == nil {
		return
	}
	if err := s.directory.Remove(ctx, invitationKey(i.Digest)); err != nil {
		s.log.WarnContext(ctx, "cannot remove the record of a used invitation", "err", err)
	}
}

// Redeem sets the password of an account by an invitation, and ends all sessions of
// the account. It opens no session. If the invitation is not valid it returns
// [ErrFailed]. The invitation stays valid if the password is refused.
func (s *SignIn) Redeem(
	ctx context.Context,
	invitation string,
	password []byte,
	address string,
) (events.AccountID, error) {
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
		try.refund()
	}
	return id, err
}

func (s *SignIn) redeem(
	ctx context.Context,
	invitation string,
	password []byte,
	address string,
) (events.AccountID, error) {
	secret, err := events.ParseInvitation(invitation)
	if err != nil {
		return "", errInvitation
	}
	pointer, err := s.directory.Get(ctx, invitationKey(secret.Digest()))
	if errors.Is(err, bucket.ErrNotFound) {
		return "", errInvitation
	}
	if err != nil {
		return "", unavailable(err)
	}
	id := events.AccountID(pointer.Value)
	if _, err := s.person(id); errors.Is(err, errNotAPerson) {
		return "", errInvitation
	} else if err != nil {
		return "", err
	}
	c, _, err := s.credential(ctx, id)
	if err != nil {
		return "", err
	}
	valid := func(c *credential) bool {
		i, d := c.Invitation, secret.Digest()
		return i != nil && subtle.ConstantTimeCompare(i.Digest[:], d[:]) == 1 && s.now().Before(i.Expires)
	}
	if !valid(&c) {
		if i, d := c.Invitation, secret.Digest(); i != nil && subtle.ConstantTimeCompare(i.Digest[:], d[:]) == 1 {
			return "", errInvitationExpired
		}
		return "", errInvitation
	}
	phc, err := s.newPassword(ctx, payer{string(id), address}, "password", password)
	if err != nil {
		return "", err
	}
	by := authz.Principal{Account: id, Address: address}
	changed, err := s.changeCredential(
		ctx,
		id,
		newSessionsEnd(by, events.CredentialPassword, ""),
		func(c *credential) error {
			if !valid(c) {
				return errInvitation // used or replaced in the meantime
			}
			if c.Invitation.Reset && c.SecondFactor != nil {
				c.SecondFactor, c.Recovery = nil, nil
				c.Due = append(c.Due, newPendingEvent(by, events.CredentialSecondFactorRemoved))
			}
			c.Password, c.Pending, c.Invitation = phc, "", nil
			return nil
		},
	)
	if err != nil {
		return "", err
	}
	s.dropPointer(ctx, &storedInvitation{Digest: secret.Digest()})
	s.removeEnded(ctx, id, changed.From, "")
	s.log.InfoContext(ctx, "password set", "account_id", id, "address", address)
	return id, nil
}
