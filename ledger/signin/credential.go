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
	"github.com/tokenledger/tokenledger/ledger/bucket"
)

// credential is what an account's person proves to be who they are by.
type credential struct {
	Password string `json:"password,omitempty"` // PHC string
	// Generation rises when all sessions end: those of another one are over.
	Generation   uint64        `json:"generation,omitempty"`
	SecondFactor *secondFactor `json:"second_factor,omitempty"` // confirmed
	Pending      string        `json:"pending,omitempty"`       // secret of one that is not
	Recovery     []string      `json:"recovery,omitempty"`      // digests of the codes that are left
	Known        []string      `json:"known,omitempty"`         // digests of addresses that signed in, newest first
	Invitation   *invited      `json:"invitation,omitempty"`
	// Due are the events of changes that are made and not in the log yet.
	Due []due `json:"due,omitempty"`
}

// invited is an invitation to set a password.
type invited struct {
	Digest  events.Digest `json:"digest"`
	Expires time.Time     `json:"expires"`
	// Reset takes the second factor away with it.
	Reset bool `json:"reset,omitempty"`
}

// due is an event that has to follow.
type due struct {
	ID      string           `json:"id"` // of the command, so that it is appended once
	Proof   events.Proof     `json:"proof"`
	Account events.AccountID `json:"account"` // who did it, as the rest
	Token   events.TokenID   `json:"token,omitempty"`
	Session events.SessionID `json:"session,omitempty"`
	Address string           `json:"address,omitempty"`
}

func newDue(by ledger.Caller, what events.Proof) due {
	return due{ID: "proof-" + rand.Text(), Proof: what, Account: by.Account, Token: by.Token, Session: by.Session, Address: by.Address}
}

func (d due) caller() ledger.Caller {
	return ledger.Caller{Account: d.Account, Token: d.Token, Session: d.Session, Address: d.Address}
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

// credential reads an account's credential, empty where it has none.
func (s *SignIn) credential(ctx context.Context, id events.AccountID) (c credential, revision uint64, err error) {
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

// errAsItIs is returned by an edit that leaves the credential as it is.
var errAsItIs = errors.New("nothing to change")

// edit changes an account's credential. It calls change again where another
// change came between, and stores nothing where change fails.
func (s *SignIn) edit(ctx context.Context, id events.AccountID, change func(*credential) error) (credential, error) {
	ctx, cancel := lasting(ctx)
	defer cancel()
	for {
		c, revision, err := s.credential(ctx, id)
		if err != nil {
			return c, err
		}
		if err := change(&c); errors.Is(err, errAsItIs) {
			return c, nil
		} else if err != nil {
			return c, err
		}
		b, err := json.Marshal(c)
		if err != nil {
			return c, err
		}
		_, err = s.directory.Put(ctx, credentialKey(id), b, revision)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, bucket.ErrChanged) || ctx.Err() != nil {
			return c, unavailable(err)
		}
	}
}

// alter is edit for what the trail has to say.
func (s *SignIn) alter(ctx context.Context, id events.AccountID, by ledger.Caller, what events.Proof, change func(*credential) error) (credential, error) {
	c, err := s.edit(ctx, id, func(c *credential) error {
		if err := change(c); err != nil {
			return err
		}
		c.Due = append(c.Due, newDue(by, what))
		return nil
	})
	if err != nil {
		return c, err
	}
	return c, s.record(ctx, id, c)
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
		if _, err := s.cfg.Trail.RecordProof(ctx, d.caller(), d.ID, id, d.Proof); err != nil {
			return fmt.Errorf("the change is made, and counts once the log has it: %w", err)
		}
	}
	_, err := s.edit(ctx, id, func(now *credential) error {
		rest := slices.DeleteFunc(slices.Clone(now.Due), func(d due) bool { return slices.Contains(c.Due, d) })
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
