package projector

import (
	"errors"
	"fmt"
	"io"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// Lookup returns the record of a secret. A digest that was never seen is
// [ErrNotFound]. An error that is [ErrCorrupt] also stops the projector: where
// one record is wrong, others may be.
//
// The record of a secret that has not ended is the newest there is (see sums),
// which takes reading its neighbours too, where it has some.
func (p *Projector) Lookup(d events.Digest) (Record, error) {
	var r Record
	var check uint64
	found := false
	err := p.view(func(tx *badger.Txn) (err error) {
		check, found, err = read(tx, digestKey(d), func(b []byte) (err error) {
			r, err = parseRecord(b)
			return damaged(err)
		})
		return err
	})
	switch {
	case err != nil:
		return r, err
	case !found:
		return r, ErrNotFound
	case r.State.ended(): // it is good for nothing, and for ever
		return r, nil
	}
	if _, sum := p.sumOf(rangeOf(&d)); sum == check { // it is alone
		return r, nil
	}
	return p.lookupVerified(d)
}

// Found is what a check needs to know of a secret, all of it as of one position.
// Its account and its policy are always there.
type Found resident.Found

// Is reports whether the secret is in a state.
func (f *Found) Is(s RecordState) bool { return RecordState(f.State) == s }

// Inherit reports whether the token has all that its account has.
func (f *Found) Inherit() bool { return f.Flags&flagInherit != 0 }

// IssuedBy returns the account that made the secret, empty for none. It
// allocates nothing.
func (f *Found) IssuedBy() events.AccountID {
	if f.Issuer != nil {
		return *f.Issuer
	}
	return f.Account.ID
}

// Plain reports whether the secret has neither prefix nor checksum.
func (f *Found) Plain() bool { return f.Flags&flagPlain != 0 }

// Record returns what was found as [Projector.Lookup] does.
func (f *Found) Record() Record {
	return Record{
		Token: events.TokenIDFrom(f.Token), Account: f.Account.ID, App: f.App, IssuedBy: f.IssuedBy(),
		State: RecordState(f.State), Inherit: f.Inherit(), Plain: f.Plain(),
		Created: fromNanos(f.Created), Expires: fromNanos(f.Expires), Until: fromNanos(f.Until),
		Scopes: f.Scopes.List(), Constraints: f.Constraints, CreatedIn: f.CreatedIn, Version: f.Version,
	}
}

// foundOf is the reverse of Record.
func foundOf(r *Record, a *events.Account, p *events.PolicyState, at events.Position) Found {
	f := Found{
		Token: r.Token.Bytes(), Created: nanos(r.Created), Expires: nanos(r.Expires), Until: nanos(r.Until),
		CreatedIn: r.CreatedIn, Version: r.Version, State: uint8(r.State),
		App: r.App, Scopes: events.NewScopeSet(r.Scopes), Constraints: r.Constraints,
		Account: resident.NewAccount(a), Policy: resident.NewPolicy(p), Position: at,
	}
	if r.IssuedBy != r.Account {
		f.Issuer, f.Flags = new(r.IssuedBy), f.Flags|flagIssuer
	}
	if r.Inherit {
		f.Flags |= flagInherit
	}
	if r.Plain {
		f.Flags |= flagPlain
	}
	return f
}

// Find returns what a check needs to know of a secret. A check that took the
// token from one place in the log and its account from another could say yes
// where no state of the log ever did. With [ErrNotFound] comes the position at
// which there was no such secret. Any other error means that the index does not
// answer, as does one that has stopped.
func (p *Projector) Find(d events.Digest) (Found, error) {
	if f, known, err := p.FindResident(d); known {
		return f, err
	}
	return p.findStored(d)
}

// FindResident is Find from memory alone. Where that does not know the secret,
// and does not know that there is none, it returns false. It takes no lock and
// allocates nothing, and may be called when the index is closed, which is then
// the error.
func (p *Projector) FindResident(d events.Digest) (f Found, known bool, err error) {
	if p.table == nil {
		return f, false, nil
	}
	answer := p.table.Find(&d, (*resident.Found)(&f))
	switch {
	case answer == resident.OnDisk:
		return Found{}, false, nil
	case p.stopped.Load():
		return Found{}, true, fmt.Errorf("the index has stopped: %w", p.Err())
	case answer == resident.Absent:
		return Found{Position: f.Position}, true, ErrNotFound
	case f.Account.Account == nil:
		return Found{}, true, p.errMissingAccount(events.TokenIDFrom(f.Token))
	}
	return f, true, nil
}

// findStored is Find from Badger.
func (p *Projector) findStored(d events.Digest) (Found, error) {
	for {
		before := p.Position()
		r, err := p.Lookup(d)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Found{}, err
		}
		p.mu.RLock()
		account, policy, at := p.mem.accounts[r.Account], p.mem.policy, p.mem.cursor.position
		failed, advanced := p.failed, p.advanced
		p.mu.RUnlock()
		switch {
		case failed != nil:
			return Found{}, fmt.Errorf("the index has stopped: %w", failed)
		case at != before: // the record may be older than the rest
		case r.Version > at:
			// The record is newer than the rest: its commit is in Badger and
			// will be in memory next.
			<-advanced
		case err != nil:
			return Found{Position: at}, err
		case account == nil:
			return Found{}, p.errMissingAccount(r.Token)
		default:
			return foundOf(&r, account, &policy, at), nil
		}
	}
}

// orphan stops the projector over a token without an account.
func (p *Projector) errMissingAccount(id events.TokenID) error {
	err := fmt.Errorf("%w: the account of token %s is missing", ErrCorrupt, id)
	p.fail(err)
	return err
}

// Account returns an account. The caller must not change it.
func (p *Projector) Account(id events.AccountID) (*events.Account, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	a, ok := p.mem.accounts[id]
	if !ok {
		return nil, ErrNotFound
	}
	return a, nil
}

// Policy returns the policy in force. It has an error for those who read
// through something that may not have an index; a projector has none.
func (p *Projector) Policy() (events.PolicyState, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.policy, nil
}

// Epoch returns the epoch of the log, empty before its first event.
func (p *Projector) Epoch() string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.cursor.epoch
}

// Dump writes every key and value in order, for comparing indexes byte for
// byte.
func (p *Projector) Dump(w io.Writer) error {
	return p.view(func(tx *badger.Txn) error {
		return each(tx, nil, nil, func(key, value []byte) error {
			_, err := fmt.Fprintf(w, "%q %q\n", key, value)
			return err
		})
	})
}

// view reads the index and stops the projector where it turns out corrupt.
func (p *Projector) view(read func(*badger.Txn) error) error {
	err := p.db.View(read)
	if isCorrupt(err) {
		p.fail(err)
	}
	return err
}
