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

// credential is what an account's person proves to be who they are by.
type credential struct {
	Password     string        `json:"password,omitempty"`      // PHC string
	SecondFactor *secondFactor `json:"second_factor,omitempty"` // confirmed
	Pending      string        `json:"pending,omitempty"`       // secret of one that is not
	Recovery     []string      `json:"recovery,omitempty"`      // digests of the codes that are left
	Known        []string      `json:"known,omitempty"`         // digests of addresses that signed in, newest first
	Invitation   *invited      `json:"invitation,omitempty"`
	// Due are events that only tell of a change that counts already.
	Due []due `json:"due,omitempty"`
	// From is the position of the last event of a change, or of the end of all
	// sessions. Who signs in has seen it.
	From events.Position `json:"from,omitempty"`
	// Next replaces this credential if the event of Commit takes effect. Both
	// are absent while no change is under way.
	Next   *credential `json:"next,omitempty"`
	Commit *due        `json:"commit,omitempty"`
}

// invited is an invitation to set a password.
type invited struct {
	Digest  events.Digest `json:"digest"`
	Expires time.Time     `json:"expires"`
	// Reset takes the second factor away with it.
	Reset bool `json:"reset,omitempty"`
}

// due is an event that has to follow, and who asked for what it tells.
type due struct {
	ID           string           `json:"id"` // of the command, so that it is appended once
	Proof        events.Proof     `json:"proof"`
	EndsSessions bool             `json:"ends_sessions,omitempty"`
	Kept         events.SessionID `json:"kept,omitempty"`

	Account events.AccountID `json:"account"` // who did it, as the rest
	Token   events.TokenID   `json:"token,omitempty"`
	Secret  events.Digest    `json:"secret,omitzero"`
	Session events.SessionID `json:"session,omitempty"`
	Opened  events.Position  `json:"opened,omitempty"`
	Began   time.Time        `json:"began,omitzero"`
	Proved  time.Time        `json:"proved_at,omitzero"`
	Address string           `json:"address,omitempty"`
	Scopes  []events.Scope   `json:"scopes,omitempty"`
	Inherit bool             `json:"inherit,omitempty"`
}

func newDue(by authz.Principal, what events.Proof) due {
	return due{
		ID: "proof-" + rand.Text(), Proof: what,
		Account: by.Account, Token: by.Token, Secret: by.Secret, Session: by.Session, Opened: by.Opened, Began: by.Began,
		Proved: by.Proved, Address: by.Address, Scopes: by.Scopes, Inherit: by.Inherit,
	}
}

// newSessionsEnd is newDue for what ends all sessions of the account but one.
func newSessionsEnd(by authz.Principal, what events.Proof, kept events.SessionID) due {
	d := newDue(by, what)
	d.EndsSessions, d.Kept = true, kept
	return d
}

func (d *due) caller() authz.Principal {
	return authz.Principal{
		Account: d.Account, Token: d.Token, Secret: d.Secret, Session: d.Session, Opened: d.Opened, Began: d.Began,
		Proved: d.Proved, Address: d.Address, Scopes: d.Scopes, Inherit: d.Inherit,
	}
}

// change is what the event tells of an account.
func (d *due) change(id events.AccountID) ledger.ProofChange {
	return ledger.ProofChange{Key: d.ID, Account: id, Proof: d.Proof, EndsSessions: d.EndsSessions, Kept: d.Kept}
}

// mostKnown is how many addresses are remembered of an account.
const mostKnown = 8

// knows reports whether somebody has signed in from an address.
func (c *credential) knows(id events.AccountID, address string) bool {
	return slices.Contains(c.Known, addressDigest(id, address))
}

// meet remembers an address.
func (c *credential) meet(id events.AccountID, address string) {
	d := addressDigest(id, address)
	known := slices.DeleteFunc(slices.Clone(c.Known), func(k string) bool { return k == d })
	known = slices.Insert(known, 0, d)
	c.Known = known[:min(len(known), mostKnown)]
}

func addressDigest(id events.AccountID, address string) string {
	sum := sha256.Sum256([]byte(string(id) + " " + prefix(address)))
	return hex.EncodeToString(sum[:16])
}

// nobody is read in the place of an account that does not exist, which takes as
// long.
const nobody = events.AccountID("acc_00000000000000000000000000")

func credentialKey(id events.AccountID) string { return "credential." + string(id) }

// stored reads an account's credential as it is in the bucket, empty where it has
// none.
func (s *SignIn) stored(ctx context.Context, id events.AccountID) (c credential, revision uint64, err error) {
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

// credential reads an account's credential. It first finishes a change that is
// under way: while it is unknown whether that counts, neither the old credential
// nor the new one does, and the error is [ledger.ErrUnavailable].
func (s *SignIn) credential(ctx context.Context, id events.AccountID) (c credential, revision uint64, err error) {
	for {
		c, revision, err := s.stored(ctx, id)
		if err != nil || c.Next == nil {
			return c, revision, err
		}
		ctx, cancel := lasting(ctx)
		_, _, err = s.finish(ctx, id, c, revision)
		cancel()
		if err != nil {
			return c, revision, err
		}
	}
}

// finish carries a change that is under way to its end: it counts if and only if
// the log has its event. It returns the credential as it is then, and why the
// change was refused, nil if it counts.
func (s *SignIn) finish(ctx context.Context, id events.AccountID, c credential, revision uint64) (now credential, refused, err error) {
	change := c.Commit.change(id)
	at, err := s.cfg.Trail.RecordProof(ctx, c.Commit.caller(), change)
	if err != nil {
		if !isRefusal(err) {
			return c, nil, fmt.Errorf("the change is under way, and counts once the log has it: %w", unavailable(err))
		}
		// Another ledger may be about to append the event all the same.
		refused = err
		if at, err = s.cfg.Trail.AbandonProof(ctx, c.Commit.caller(), change); err != nil {
			return c, nil, fmt.Errorf("the change is under way, and may count: %w", unavailable(err))
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
	if err != nil && !errors.Is(err, bucket.ErrChanged) { // somebody else has finished it
		return now, refused, unavailable(err)
	}
	return now, refused, nil
}

// isRefusal reports whether an error says that a change was not made.
func isRefusal(err error) bool {
	if errors.Is(err, ledger.ErrUnavailable) {
		return false
	}
	for _, refusal := range []error{
		ledger.ErrCallerEnded, ledger.ErrForbidden, ledger.ErrEnded, ledger.ErrNotFound, ledger.ErrReauthRequired, ledger.ErrConflict, ledger.ErrInvalid,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// errAsItIs is returned by an edit that leaves the credential as it is.
var errAsItIs = errors.New("nothing to change")

// edit changes an account's credential. It calls change again where another
// change came between, and stores nothing where change fails. If change adds
// events that are due, the last of them commits the change: without its effect
// in the log the credential stays as it is. The ones before follow it.
func (s *SignIn) edit(ctx context.Context, id events.AccountID, change func(*credential) error) (credential, error) {
	ctx, cancel := lasting(ctx)
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
		if err := change(&c); errors.Is(err, errAsItIs) {
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
		return s.commit(ctx, id, write, revision)
	}
}

// commit ends a change that edit has begun.
func (s *SignIn) commit(ctx context.Context, id events.AccountID, c credential, revision uint64) (credential, error) {
	now, refused, err := s.finish(ctx, id, c, revision)
	switch {
	case refused != nil:
		return now, refused
	case err != nil && now.Commit != nil: // it is unknown whether it counts
		return now, err
	case err != nil:
		s.log.WarnContext(ctx, "what is in the log is still noted as under way", "account_id", id, "err", err) // the next reader ends it
	}
	s.tell(ctx, id, now)
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

// alter is edit for a change that an event commits.
func (s *SignIn) alter(ctx context.Context, id events.AccountID, d due, change func(*credential) error) (credential, error) {
	return s.edit(ctx, id, func(c *credential) error {
		if err := change(c); err != nil {
			return err
		}
		c.Due = append(c.Due, d)
		return nil
	})
}

// tell is record for after a change, which is made whatever comes of this.
func (s *SignIn) tell(ctx context.Context, id events.AccountID, c credential) {
	if err := s.record(ctx, id, c); err != nil {
		s.log.WarnContext(ctx, "the trail does not tell yet of a change that counts", "account_id", id, "err", err) // the next sign-in does it
	}
}

// record appends the events that are due. Several may do so at once: each event
// is appended once, by its id.
func (s *SignIn) record(ctx context.Context, id events.AccountID, c credential) error {
	if len(c.Due) == 0 {
		return nil
	}
	ctx, cancel := lasting(ctx)
	defer cancel()
	for _, d := range c.Due {
		_, err := s.cfg.Trail.RecordProof(ctx, d.caller(), d.change(id))
		if isRefusal(err) {
			// It has happened. Who did it has ended, so the ledger tells it.
			_, err = s.cfg.Trail.RecordProof(ctx, authz.Principal{}, d.change(id))
		}
		if err != nil && !isRefusal(err) {
			return fmt.Errorf("the trail has to tell of the last change first: %w", err)
		}
	}
	_, err := s.edit(ctx, id, func(now *credential) error {
		told := func(d due) bool { return slices.ContainsFunc(c.Due, func(t due) bool { return t.ID == d.ID }) }
		rest := slices.DeleteFunc(slices.Clone(now.Due), told)
		if len(rest) == len(now.Due) {
			return errAsItIs
		}
		now.Due = rest
		return nil
	})
	if err != nil {
		s.log.WarnContext(ctx, "what is in the log is still noted as due", "account_id", id, "err", err) // the next sign-in does it
	}
	return nil
}

// lasting is for what is finished once it was begun, though whoever asked hangs
// up.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	const most = 20 * time.Second // which covers the death of a leader
	return context.WithTimeout(context.WithoutCancel(ctx), most)
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err) }
