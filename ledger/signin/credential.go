package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/bucket"
)

// credential is the stored credential of an account's person.
type credential struct {
	Password     string            `json:"password,omitempty"`      // PHC string
	SecondFactor *secondFactor     `json:"second_factor,omitempty"` // confirmed
	Pending      string            `json:"pending,omitempty"`       // secret of one that is not confirmed
	Recovery     []string          `json:"recovery,omitempty"`      // digests of the unused codes
	Known        []string          `json:"known,omitempty"`         // digests of addresses that signed in, newest first
	Invitation   *storedInvitation `json:"invitation,omitempty"`
	// Due are events that report a change which is already in force.
	Due []pendingEvent `json:"due,omitempty"`
	// From is the position of the last event that changed the credential or ended
	// all sessions. A ledger applies it before it lets the person sign in.
	From events.Position `json:"from,omitempty"`
	// Next replaces this credential if the event of Commit takes effect. Both are
	// absent if no change is pending.
	Next   *credential   `json:"next,omitempty"`
	Commit *pendingEvent `json:"commit,omitempty"`
}

// storedInvitation is an open invitation to set a password.
type storedInvitation struct {
	Digest  events.Digest `json:"digest"`
	Expires time.Time     `json:"expires"`
	// Reset means that redeeming the invitation also removes the second factor.
	Reset bool `json:"reset,omitempty"`
}

// pendingEvent is an event that has to be appended, with the caller that caused it.
type pendingEvent struct {
	ID           string                  `json:"id"` // idempotency key of the command
	Credential   events.CredentialChange `json:"credential"`
	EndsSessions bool                    `json:"ends_sessions,omitempty"`
	Kept         events.SessionID        `json:"kept,omitempty"`

	Account       events.AccountID `json:"account"` // of the caller, as are the rest
	Token         events.TokenID   `json:"token,omitempty"`
	Secret        events.Digest    `json:"secret,omitzero"`
	Session       events.SessionID `json:"session,omitempty"`
	Opened        events.Position  `json:"opened,omitempty"`
	Began         time.Time        `json:"began,omitzero"`
	Authenticated time.Time        `json:"authenticated_at,omitzero"`
	Address       string           `json:"address,omitempty"`
	Scopes        []events.Scope   `json:"scopes,omitempty"`
	Inherit       bool             `json:"inherit,omitempty"`
}

func newPendingEvent(by authz.Principal, what events.CredentialChange) pendingEvent {
	return pendingEvent{
		ID: "credential-" + rand.Text(), Credential: what,
		Account: by.Account, Token: by.Token, Secret: by.Secret,
		Session: by.Session, Opened: by.Opened, Began: by.Began, Authenticated: by.Authenticated,
		Address: by.Address, Scopes: by.Scopes, Inherit: by.Inherit,
	}
}

// newSessionsEnd is newPendingEvent for a change that ends all sessions of the account
// except kept.
func newSessionsEnd(by authz.Principal, what events.CredentialChange, kept events.SessionID) pendingEvent {
	d := newPendingEvent(by, what)
	d.EndsSessions, d.Kept = true, kept
	return d
}

func (d *pendingEvent) caller() authz.Principal {
	return authz.Principal{
		Account: d.Account, Token: d.Token, Secret: d.Secret, Session: d.Session, Opened: d.Opened, Began: d.Began,
		Authenticated: d.Authenticated, Address: d.Address, Scopes: d.Scopes, Inherit: d.Inherit,
	}
}

// change returns the content of the event.
func (d *pendingEvent) change(id events.AccountID) ledger.CredentialChange {
	return ledger.CredentialChange{
		Key: d.ID, Account: id, Credential: d.Credential, EndsSessions: d.EndsSessions, Kept: d.Kept,
	}
}

// maxKnown is how many addresses an account remembers.
const maxKnown = 8

// knowsAddress reports whether an earlier sign-in came from an address.
func (c *credential) knowsAddress(id events.AccountID, address string) bool {
	return slices.Contains(c.Known, addressDigest(id, address))
}

// rememberAddress moves an address to the front of the known addresses.
func (c *credential) rememberAddress(id events.AccountID, address string) {
	d := addressDigest(id, address)
	known := slices.DeleteFunc(slices.Clone(c.Known), func(k string) bool { return k == d })
	known = slices.Insert(known, 0, d)
	c.Known = known[:min(len(known), maxKnown)]
}

func addressDigest(id events.AccountID, address string) string {
	sum := sha256.Sum256([]byte(string(id) + " " + addressPrefix(address)))
	return hex.EncodeToString(sum[:16])
}

// unknownAccount is read if the account does not exist, so that both cases take the
// same time.
const unknownAccount = events.AccountID("acc_00000000000000000000000000")

func credentialKey(id events.AccountID) string { return "credential." + string(id) }

// readStored reads an account's credential from the bucket, empty if it has none.
func (s *SignIn) readStored(ctx context.Context, id events.AccountID) (c credential, revision uint64, err error) {
	e, err := s.directory.Get(ctx, credentialKey(id))
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		return c, 0, nil
	case err != nil:
		return c, 0, unavailable(err)
	}
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return c, 0, fmt.Errorf("read the credential of %s: %w", id, err)
	}
	return c, e.Revision, nil
}

// credential reads an account's credential. If a change is pending it completes the
// change first. While its outcome is unknown, neither the old nor the new credential
// is accepted, and the error is [ledger.ErrUnavailable].
func (s *SignIn) credential(ctx context.Context, id events.AccountID) (c credential, revision uint64, err error) {
	for {
		c, revision, err := s.readStored(ctx, id)
		if err != nil || c.Next == nil {
			return c, revision, err
		}
		ctx, cancel := detached(ctx)
		_, _, err = s.completeChange(ctx, id, c, revision)
		cancel()
		if err != nil {
			return c, revision, err
		}
	}
}

// completeChange completes a pending change: it takes effect if and only if the log
// has its event. It returns the resulting credential, and why the change was refused,
// nil if it took effect.
func (s *SignIn) completeChange(
	ctx context.Context,
	id events.AccountID,
	c credential,
	revision uint64,
) (now credential, refused, err error) {
	change := c.Commit.change(id)
	at, err := s.cfg.Trail.RecordCredentialChange(ctx, c.Commit.caller(), change)
	if err != nil {
		if !isRefusal(err) {
			return c, nil, fmt.Errorf(
				"the change is pending, and takes effect if the log has its event: %w",
				unavailable(err),
			)
		}
		// Another ledger may still append the event.
		refused = err
		if at, err = s.cfg.Trail.AbandonCredentialChange(ctx, c.Commit.caller(), change); err != nil {
			return c, nil, fmt.Errorf("the change is pending, and may take effect: %w", unavailable(err))
		}
	}
	now = c
	if at != 0 {
		now, refused = *c.Next, nil
		now.From = at
	}
	now.Next, now.Commit = nil, nil
	b, err := json.Marshal(now)
	if err != nil {
		return c, refused, err
	}
	_, err = s.directory.Put(ctx, credentialKey(id), b, revision)
	if err != nil && !errors.Is(err, bucket.ErrChanged) { // another request has completed it
		return now, refused, unavailable(err)
	}
	return now, refused, nil
}

// isRefusal reports whether an error means that a change was not made.
func isRefusal(err error) bool {
	if errors.Is(err, ledger.ErrUnavailable) {
		return false
	}
	for _, refusal := range []error{
		ledger.ErrCallerEnded, ledger.ErrForbidden, ledger.ErrEnded, ledger.ErrNotFound,
		ledger.ErrReauthRequired, ledger.ErrConflict, ledger.ErrInvalid,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// errUnchanged is returned by a change function that changes nothing.
var errUnchanged = errors.New("nothing to change")

// editCredential changes an account's credential. It calls change again after a
// concurrent change, and stores nothing if change fails. If change adds events to Due,
// the last one commits the change: the credential changes only if that event takes
// effect. The others are appended after it.
func (s *SignIn) editCredential(
	ctx context.Context,
	id events.AccountID,
	change func(*credential) error,
) (credential, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	for {
		old, revision, err := s.credential(ctx, id)
		if err != nil {
			return old, err
		}
		c, err := old.clone()
		if err != nil {
			return c, err
		}
		if err := change(&c); errors.Is(err, errUnchanged) {
			return old, nil
		} else if err != nil {
			return c, err
		}
		write, commits := c, len(c.Due) > len(old.Due)
		if commits {
			last := len(c.Due) - 1
			write = old
			write.Commit = &c.Due[last]
			c.Due = c.Due[:last:last]
			write.Next = &c
		}
		b, err := json.Marshal(write)
		if err != nil {
			return c, err
		}
		revision, err = s.directory.Put(ctx, credentialKey(id), b, revision)
		if err != nil {
			if !errors.Is(err, bucket.ErrChanged) || ctx.Err() != nil {
				return c, unavailable(err)
			}
			continue
		}
		if !commits {
			return c, nil
		}
		return s.commitChange(ctx, id, write, revision)
	}
}

// commitChange completes a change that editCredential has stored.
func (s *SignIn) commitChange(
	ctx context.Context,
	id events.AccountID,
	c credential,
	revision uint64,
) (credential, error) {
	now, refused, err := s.completeChange(ctx, id, c, revision)
	switch {
	case refused != nil:
		return now, refused
	case err != nil && now.Commit != nil: // the outcome is unknown
		return now, err
	case err != nil:
		// The next reader completes it.
		s.log.WarnContext(
			ctx,
			"credential change is in the log but still stored as pending",
			"account_id",
			id,
			"err",
			err,
		)
	}
	s.tryRecordPending(ctx, id, now)
	return now, nil
}

// clone returns a credential that shares nothing with c.
func (c *credential) clone() (out credential, err error) {
	b, err := json.Marshal(c)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(b, &out)
}

// changeCredential is editCredential for a change that an event commits.
func (s *SignIn) changeCredential(
	ctx context.Context,
	id events.AccountID,
	d pendingEvent,
	change func(*credential) error,
) (credential, error) {
	return s.editCredential(ctx, id, func(c *credential) error {
		if err := change(c); err != nil {
			return err
		}
		c.Due = append(c.Due, d)
		return nil
	})
}

// tryRecordPending appends the events that are due after a change. If this fails, the
// change is still in force.
func (s *SignIn) tryRecordPending(ctx context.Context, id events.AccountID, c credential) {
	if err := s.recordPending(ctx, id, c); err != nil {
		s.log.WarnContext(
			ctx,
			"cannot append an event of a credential change yet",
			"account_id",
			id,
			"err",
			err,
		) // the next sign-in retries
	}
}

// recordPending appends the events that are due. Several ledgers may do so at once:
// the id makes sure that each event is appended once.
func (s *SignIn) recordPending(ctx context.Context, id events.AccountID, c credential) error {
	if len(c.Due) == 0 {
		return nil
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	for _, d := range c.Due {
		_, err := s.cfg.Trail.RecordCredentialChange(ctx, d.caller(), d.change(id))
		if isRefusal(err) {
			// The change is in force and its caller has ended since, so the ledger
			// itself reports it.
			_, err = s.cfg.Trail.RecordCredentialChange(ctx, authz.Principal{}, d.change(id))
		}
		if err != nil && !isRefusal(err) {
			return fmt.Errorf("append the event of the last credential change: %w", err)
		}
	}
	_, err := s.editCredential(ctx, id, func(now *credential) error {
		recorded := func(d pendingEvent) bool {
			return slices.ContainsFunc(c.Due, func(t pendingEvent) bool { return t.ID == d.ID })
		}
		rest := slices.DeleteFunc(slices.Clone(now.Due), recorded)
		if len(rest) == len(now.Due) {
			return errUnchanged
		}
		now.Due = rest
		return nil
	})
	if err != nil {
		s.log.WarnContext(
			ctx,
			"event of a credential change is in the log but still stored as due",
			"account_id",
			id,
			"err",
			err,
		) // the next sign-in retries
	}
	return nil
}

// detached returns a context for work that must complete after it has started, even
// if the client disconnects.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	const limit = 20 * time.Second // includes the election of a new leader
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err) }

// Erase removes the credential, invitation and sessions of an account. Their
// bytes are overwritten in the server's files when it returns. Call it after
// the account is erased in the log, so that no sign-in can succeed.
func (s *SignIn) Erase(ctx context.Context, id events.AccountID) error {
	c, _, err := s.readStored(ctx, id) // a pending change is removed with it
	if err != nil {
		return err
	}
	for _, version := range []*credential{&c, c.Next} {
		if version == nil || version.Invitation == nil {
			continue
		}
		if err := s.directory.Remove(ctx, invitationKey(version.Invitation.Digest)); err != nil {
			return unavailable(err)
		}
	}
	// Remove the credential last: a repeated call needs it to find the rest.
	if err := s.sessions.Remove(ctx, accountSessions(id)); err != nil {
		return unavailable(err)
	}
	if err := s.directory.Remove(ctx, credentialKey(id)); err != nil {
		return unavailable(err)
	}
	return nil
}
