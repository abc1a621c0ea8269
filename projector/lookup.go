package projector

import (
	"errors"
	"fmt"
	"io"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// Lookup returns the record of a secret from Badger, or [ErrNotFound].
// [ErrCorrupt] also stops the projector, because other records may be wrong
// too.
//
// Unless the secret has ended, Lookup verifies that the record is its newest
// version (see rangeChecksums). For that it reads the other records in the
// secret's bucket.
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
	case r.State.ended(): // no newer version can be valid
		return r, nil
	}
	if _, sum := p.bucketSum(bucketOf(&d)); sum == check { // the only record in its bucket
		return r, nil
	}
	return p.lookupVerified(d)
}

// Facts holds the facts that a check needs about a secret, as of one position.
// Its Account and Policy are never nil.
type Facts resident.Found

// Is reports whether the secret is in state s.
func (f *Facts) Is(s RecordState) bool { return RecordState(f.State) == s }

// Inherit reports whether the token has all grants of its account.
func (f *Facts) Inherit() bool { return f.Flags&flagInherit != 0 }

// IssuedBy returns the account that issued the secret, empty for none. It does
// not allocate.
func (f *Facts) IssuedBy() events.AccountID {
	if f.Issuer != nil {
		return *f.Issuer
	}
	return f.Account.ID
}

// Plain reports whether the secret has neither prefix nor checksum.
func (f *Facts) Plain() bool { return f.Flags&flagPlain != 0 }

// Record returns the record that [Projector.Lookup] would return.
func (f *Facts) Record() Record {
	return Record{
		Token: events.TokenIDFrom(f.Token), Account: f.Account.ID, App: f.App, IssuedBy: f.IssuedBy(),
		State: RecordState(f.State), Inherit: f.Inherit(), Plain: f.Plain(),
		Created: TimeOf(f.Created), Expires: TimeOf(f.Expires), Until: TimeOf(f.Until),
		Scopes: f.Scopes.List(), Constraints: f.Constraints, CreatedIn: f.CreatedIn, Version: f.Version,
	}
}

// factsOf returns the Facts of a record, its account and the policy.
func factsOf(r *Record, a *events.Account, p *events.PolicyState, pos events.Position) Facts {
	f := Facts{
		Details: resident.Details{Token: r.Token.Bytes(), Version: r.Version, App: r.App},
		Created: nanos(r.Created), Expires: nanos(r.Expires), Until: nanos(r.Until),
		CreatedIn: r.CreatedIn, State: uint8(r.State),
		Scopes: events.NewScopeSet(r.Scopes), Constraints: r.Constraints,
		Account: resident.NewAccount(a), Policy: resident.NewPolicy(p), Position: pos,
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

// Find returns the facts that a check needs about a secret, with all details.
// They are all as of one position: with a token as of one position and its
// account as of another, a check could allow what no state of the log allows.
// With [ErrNotFound], Position is that at which the secret did not exist. Find
// returns other errors if the index is corrupt or has stopped.
func (p *Projector) Find(d events.Digest) (Facts, error) {
	if f, known, err := p.FindResident(d); known {
		return f, err
	}
	return p.findStored(d)
}

// FindResident is Find without disk access. It returns false if only
// Badger knows whether the secret exists. It takes no lock and does not allocate.
// It may be called after Close, and then returns an error.
func (p *Projector) FindResident(d events.Digest) (f Facts, known bool, err error) {
	if p.table == nil {
		return f, false, nil
	}
	known, err = p.judge(p.table.Find(&d, (*resident.Found)(&f)), &f)
	return f, known, err
}

// judge says what an answer of the table means. It returns false if only Badger
// knows whether the secret exists.
func (p *Projector) judge(a resident.Answer, f *Facts) (known bool, err error) {
	switch {
	case a == resident.OnDisk:
		*f = Facts{}
		return false, nil
	case p.stopped.Load():
		*f = Facts{}
		return true, fmt.Errorf("the index has stopped: %w", p.Err())
	case a == resident.Absent:
		*f = Facts{Position: f.Position}
		return true, ErrNotFound
	case f.Account.Account == nil:
		id := events.TokenIDFrom(f.Token)
		*f = Facts{}
		return true, p.errMissingAccount(id)
	}
	return true, nil
}

// WaveSize is the number of secrets that a [Wave] looks up together.
const WaveSize = resident.WaveSize

// Wave looks up several secrets as of one position, unless they are read from
// Badger. It takes less time than one lookup after another, because the processor
// waits for their memory at once.
type Wave struct {
	N       int // secrets, at most WaveSize
	Digests [WaveSize]events.Digest
	Found   [WaveSize]Facts // as Find returns it
	Errs    [WaveSize]error
}

// FindWave looks up the secrets of a wave.
func (p *Projector) FindWave(w *Wave) {
	onDisk := p.FindWaveResident(w)
	for i := range w.N {
		if onDisk&(1<<i) != 0 {
			w.Found[i], w.Errs[i] = p.findStored(w.Digests[i])
		}
	}
}

// FindWaveResident is FindWave without disk access. It returns a bit for each
// secret of which only Badger knows whether it exists.
func (p *Projector) FindWaveResident(w *Wave) (onDisk uint64) {
	if p.table == nil {
		return 1<<w.N - 1
	}
	var found [WaveSize]*resident.Found
	for i := range w.N {
		found[i] = (*resident.Found)(&w.Found[i])
	}
	answers := p.table.FindWave(w.Digests[:w.N], &found)
	for i := range w.N {
		known, err := p.judge(answers[i], &w.Found[i])
		if w.Errs[i] = err; !known {
			onDisk |= 1 << i
		}
	}
	return onDisk
}

// findStored is Find from Badger.
func (p *Projector) findStored(d events.Digest) (Facts, error) {
	for {
		before := p.Position()
		r, err := p.Lookup(d)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Facts{}, err
		}
		p.mu.RLock()
		account, policy, pos := p.state.accounts[r.Account], p.state.policy, p.state.cursor.position
		failed, advanced := p.failed, p.advanced
		p.mu.RUnlock()
		switch {
		case failed != nil:
			return Facts{}, fmt.Errorf("the index has stopped: %w", failed)
		case pos != before: // retry: the record may be older than the account
		case r.Version > pos:
			// The record is newer than the account. Its commit is in Badger and
			// will be in memory next.
			<-advanced
		case err != nil:
			return Facts{Position: pos}, err
		case account == nil:
			return Facts{}, p.errMissingAccount(r.Token)
		default:
			return factsOf(&r, account, &policy, pos), nil
		}
	}
}

// errMissingAccount stops the projector because a token has no account, and
// returns the error.
func (p *Projector) errMissingAccount(id events.TokenID) error {
	err := fmt.Errorf("%w: the account of token %s is missing", ErrCorrupt, id)
	p.fail(err)
	return err
}

// Account returns an account. The caller must not change it.
func (p *Projector) Account(id events.AccountID) (*events.Account, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	a, ok := p.state.accounts[id]
	if !ok {
		return nil, ErrNotFound
	}
	return a, nil
}

// Policy returns the current policy. The error is always nil; other
// implementations of this method may not have an index.
func (p *Projector) Policy() (events.PolicyState, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.policy, nil
}

// Epoch returns the epoch of the log, empty before its first event.
func (p *Projector) Epoch() string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.cursor.epoch
}

// Dump writes all keys and values in order, to compare two indexes byte for
// byte.
func (p *Projector) Dump(w io.Writer) error {
	return p.view(func(tx *badger.Txn) error {
		return each(tx, nil, nil, func(key, value []byte) error {
			_, err := fmt.Fprintf(w, "%q %q\n", key, value)
			return err
		})
	})
}

// view reads the index. If that finds the index corrupt, it stops the
// projector.
func (p *Projector) view(read func(*badger.Txn) error) error {
	err := p.db.View(read)
	if isCorrupt(err) {
		p.fail(err)
	}
	return err
}
