package projector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// Token returns a token, or [ErrNotFound]. It returns [ErrCorrupt] if Badger
// has only an old version of the token, which it can tell from the record of
// its secret.
func (p *Projector) Token(id events.TokenID) (*events.Token, error) {
	for newestPos := events.Position(0); ; {
		t := new(events.Token)
		if err := p.record(tokenKey(id), func(b []byte) error { return parseToken(b, t) }); err != nil {
			return nil, err
		}
		if t.State == events.Revoked {
			return t, nil
		}
		// The commit is in Badger and will be in memory next.
		if err := p.WaitApplied(context.Background(), t.Version); err != nil {
			return nil, err
		}
		pos, err := p.versionOf(t)
		switch {
		case err != nil:
			return nil, err
		case pos < t.Version || t.Version < newestPos:
			err = errVersionSkew(id)
			p.fail(err)
			return nil, err
		case pos == t.Version:
			return t, nil
		}
		newestPos = pos // retry: the token has changed since it was read
	}
}

// versionOf returns the newest version of a token, according to the record of
// its first secret. It returns 0 if that record does not exist.
func (p *Projector) versionOf(t *events.Token) (events.Position, error) {
	if pos, known := p.residentVersion(t); known {
		return pos, nil
	}
	r, err := p.Lookup(t.Secrets[0].Digest)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return r.Version, err
}

// residentVersion is versionOf without disk access. It returns false if only
// Badger knows.
func (p *Projector) residentVersion(t *events.Token) (pos events.Position, known bool) {
	if len(t.Secrets) == 0 {
		p.mu.RLock()
		defer p.mu.RUnlock()
		return p.state.secretless[t.ID], true
	}
	if p.table == nil {
		return 0, false
	}
	var f resident.Found
	answer := p.table.Find(&t.Secrets[0].Digest, &f)
	return f.Version, answer != resident.OnDisk
}

// Command returns the result of a command, or [ErrNotFound] if no event with
// its key is applied. When it returns, all readers see the effects of the
// command.
func (p *Projector) Command(key events.CommandKey) (events.Done, error) {
	var d events.Done
	err := p.record(commandKey(key), func(b []byte) error { return parseDone(b, &d) })
	if err == nil {
		// The commit is in Badger and will be in memory next.
		err = p.WaitApplied(context.Background(), d.Position)
	}
	return d, err
}

// Receipt returns the receipt that covers a position, or [ErrNotFound]. If
// several receipts do, it returns the one that covers the fewest positions.
func (p *Projector) Receipt(pos events.Position) (*events.Receipt, error) {
	r := new(events.Receipt)
	err := p.view(func(tx *badger.Txn) error {
		return each(tx, []byte(prefixReceipt), receiptKey(pos), func(_, value []byte) error {
			if err := json.Unmarshal(value, r); err != nil {
				return damaged(err)
			}
			return errStop
		})
	})
	switch {
	case errors.Is(err, errStop):
		return r, nil
	case err == nil:
		err = ErrNotFound
	}
	return nil, err
}

// DigestTaken reports whether a token has, or ever had, a secret with digest d.
func (p *Projector) DigestTaken(d events.Digest) (taken bool, err error) {
	err = p.view(func(tx *badger.Txn) error {
		taken, err = get(tx, digestKey(d), func([]byte) error { return nil })
		return err
	})
	return taken, err
}

// TokenWith returns the token that has, or had first, a secret with digest d, or
// [ErrNotFound].
func (p *Projector) TokenWith(d events.Digest) (events.TokenID, error) {
	r, err := p.Lookup(d)
	return r.Token, err
}

// MatomoSince returns the position at which the first token with the digest scheme
// of Matomo was created, 0 for none. The error is always nil, as in Accounts.
func (p *Projector) MatomoSince() (events.Position, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.matomo, nil
}

// LastPosition returns the position of a shard's last event, 0 for none. A
// command must read it before the records on which it decides. An append that
// expects this position then fails if those records have changed.
func (p *Projector) LastPosition(shard string) events.Position {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.shards[shard]
}

// Tokens returns up to limit tokens of an account, or of all accounts if
// account is empty, in order of ID, and whether there are more. It begins
// behind the ID after, and skips tokens for which keep returns false, unless
// keep is nil.
//
// Each returned token is the newest version, as in [Projector.Token]. A skipped
// token may be an old version; Tokens notices that only if its secret is
// resident.
func (p *Projector) Tokens(
	account events.AccountID,
	keep func(*events.Token) bool,
	after events.TokenID,
	limit int,
) (list []*events.Token, more bool, err error) {
	err = p.view(func(tx *badger.Txn) error {
		visit := func(t *events.Token) (err error) {
			wanted := keep == nil || keep(t)
			if pos, known := p.residentVersion(t); t.State != events.Revoked &&
				(known && pos != t.Version || !known && wanted) {
				if t, err = p.Token(t.ID); err != nil {
					return err
				}
				wanted = keep == nil || keep(t)
			}
			switch {
			case !wanted:
				return nil
			case len(list) == limit:
				more = true
				return errStop
			}
			list = append(list, t)
			return nil
		}
		if account != "" {
			return ownedTokens(tx, account, after, visit)
		}
		return allTokens(tx, after, visit)
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return list, more, err
}

// errStop ends a visit early.
var errStop = errors.New("stop")

func allTokens(tx *badger.Txn, after events.TokenID, visit func(*events.Token) error) error {
	var start []byte
	if after != "" {
		start = append(tokenKey(after), 0)
	}
	return each(tx, []byte(prefixToken), start, func(_, value []byte) error {
		t := new(events.Token)
		if err := parseToken(value, t); err != nil {
			return damaged(err)
		}
		return visit(t)
	})
}

func ownedTokens(
	tx *badger.Txn,
	account events.AccountID,
	after events.TokenID,
	visit func(*events.Token) error,
) error {
	var start []byte
	if after != "" {
		start = append(ownedKey(account, after), 0)
	}
	prefix := ownedPrefix(account)
	return each(tx, prefix, start, func(key, _ []byte) error {
		t := new(events.Token)
		id := events.TokenIDFrom([16]byte(key[len(prefix):]))
		found, err := get(tx, tokenKey(id), func(b []byte) error { return parseToken(b, t) })
		switch {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("%w: an account lists a token that does not exist", ErrCorrupt)
		}
		return visit(t)
	})
}

// Accounts returns up to limit accounts in order of ID, beginning behind the ID
// after, and whether there are more. The caller must not change them. The error
// is always nil; other implementations of this method may not have an index.
func (p *Projector) Accounts(after events.AccountID, limit int) ([]*events.Account, bool, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	ids := make([]events.AccountID, 0, len(p.state.accounts))
	for id := range p.state.accounts {
		if id > after {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	more := len(ids) > limit
	list := make([]*events.Account, 0, min(limit, len(ids)))
	for _, id := range ids[:min(limit, len(ids))] {
		list = append(list, p.state.accounts[id])
	}
	return list, more, nil
}

// record parses the value of key. It returns ErrNotFound if there is no such
// key.
func (p *Projector) record(key []byte, parse func([]byte) error) error {
	found := false
	err := p.view(func(tx *badger.Txn) (err error) {
		found, err = get(tx, key, parse)
		return err
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	return err
}

func isCorrupt(err error) bool { return errors.Is(err, ErrCorrupt) }
