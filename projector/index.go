package projector

import (
	"errors"
	"fmt"
	"io"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// Lookup returns the record of a secret. A digest that was never seen is
// [ErrNotFound]. An error that is [ErrCorrupt] also stops the projector: where
// one record is wrong, others may be.
//
// Where a byte of a table turns over while Badger has it open, the newest
// version of a record can become one that cannot be found, and an older one
// come to light that is whole: a revoked token alive. So a record counts only
// together with its token's, which was written in the same transaction.
func (p *Projector) Lookup(d events.Digest) (Record, error) {
	var r Record
	key := digestKey(d)
	found := false
	err := p.view(func(tx *badger.Txn) (err error) {
		secret, ok, err := read(tx, key, func(b []byte) (err error) {
			if r, err = parseRecord(b); err != nil {
				err = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			return err
		})
		if found = ok; err != nil || !ok || r.State == SecretSuperseded || r.State == SecretRevoked {
			return err // these are good for nothing, and for ever
		}
		token, ok, err := written(tx, tokenKey(r.Token))
		if err == nil && (!ok || token != secret.txn) {
			err = apart(r.Token)
		}
		return err
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	return r, err
}

// Found is what a check needs to know of a secret, all of it as of one position.
type Found struct {
	Record   Record
	Account  *events.Account // the token's; not to be changed
	Policy   events.PolicyState
	Position events.Position
}

// Find returns what a check needs to know of a secret. A check that took the
// token from one place in the log and its account from another could say yes
// where no state of the log ever did. With [ErrNotFound] comes the position at
// which there was no such secret.
func (p *Projector) Find(d events.Digest) (Found, error) {
	for {
		before := p.Position()
		r, err := p.Lookup(d)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Found{}, err
		}
		p.mu.RLock()
		f := Found{Record: r, Account: p.mem.accounts[r.Account], Policy: p.mem.policy, Position: p.mem.cursor.position}
		failed, advanced := p.failed, p.advanced
		p.mu.RUnlock()
		switch {
		case f.Position != before: // the record may be older than the rest
		case r.Version > f.Position:
			// The record is newer than the rest: its commit is in Badger and
			// will be in memory next.
			if failed != nil {
				return Found{}, fmt.Errorf("the index has stopped: %w", failed)
			}
			<-advanced
		case err != nil:
			return Found{Position: f.Position}, err
		case f.Account == nil:
			err := fmt.Errorf("%w: the account of token %s is missing", ErrCorrupt, r.Token)
			p.fail(err)
			return Found{}, err
		default:
			return f, nil
		}
	}
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

// Policy returns the policy in force.
func (p *Projector) Policy() events.PolicyState {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.policy
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
