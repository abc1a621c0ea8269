package projector

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/resident"
)

// Token returns a token, [ErrNotFound] where there is none. An old version of it,
// which its secret's record tells, is [ErrCorrupt].
func (p *Projector) Token(id events.TokenID) (*events.Token, error) {
	for newest := events.Position(0); ; {
		t := new(events.Token)
		if err := p.record(tokenKey(id), func(b []byte) error { return parseToken(b, t) }); err != nil {
			return nil, err
		}
		if t.State == events.Revoked {
			return t, nil
		}
		// What is in Badger will be in memory next.
		if err := p.WaitApplied(context.Background(), t.Version); err != nil {
			return nil, err
		}
		at, err := p.versionOf(t)
		switch {
		case err != nil:
			return nil, err
		case at < t.Version || t.Version < newest:
			err = errVersionSkew(id)
			p.fail(err)
			return nil, err
		case at == t.Version:
			return t, nil
		}
		newest = at // it has changed since it was read
	}
}

// versionOf returns the newest version of a token, whose secrets are as they were
// read; 0 where it has none that could be.
func (p *Projector) versionOf(t *events.Token) (events.Position, error) {
	if at, known := p.heldVersion(t); known {
		return at, nil
	}
	r, err := p.Lookup(t.Secrets[0].Digest)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return r.Version, err
}

// heldVersion is versionOf from memory alone, which may not know.
func (p *Projector) heldVersion(t *events.Token) (at events.Position, known bool) {
	if len(t.Secrets) == 0 {
		p.mu.RLock()
		defer p.mu.RUnlock()
		return p.mem.bare[t.ID], true
	}
	if p.table == nil {
		return 0, false
	}
	var f resident.Found
	answer := p.table.Find(&t.Secrets[0].Digest, &f)
	return f.Version, answer != resident.OnDisk
}

// Command returns what became of a command, [ErrNotFound] where none with the
// key was applied. What it did is seen everywhere then.
func (p *Projector) Command(key events.CommandKey) (events.Done, error) {
	var d events.Done
	err := p.record(commandKey(key), func(b []byte) error { return parseDone(b, &d) })
	if err == nil {
		// What is in Badger will be in memory next.
		err = p.WaitApplied(context.Background(), d.Position)
	}
	return d, err
}

// Receipt returns the receipt that covers a position: of several the one that
// covers least. It returns [ErrNotFound] where none does yet.
func (p *Projector) Receipt(at events.Position) (*events.Receipt, error) {
	r := new(events.Receipt)
	err := p.view(func(tx *badger.Txn) error {
		return each(tx, []byte(prefixReceipt), receiptKey(at), func(_, value []byte) error {
			if err := json.Unmarshal(value, r); err != nil {
				return errors.Join(ErrCorrupt, err)
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

// DigestTaken reports whether a token has, or ever had, a secret of a digest.
func (p *Projector) DigestTaken(d events.Digest) (taken bool, err error) {
	err = p.view(func(tx *badger.Txn) error {
		taken, err = get(tx, digestKey(d), func([]byte) error { return nil })
		return err
	})
	return taken, err
}

// LineEnd returns the last position of a line of subjects, 0 where it has no
// event yet. A command reads it before it reads what it decides on: then an
// append that expects it fails where that has changed since.
func (p *Projector) LineEnd(line string) events.Position {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.lines[line]
}

// Tokens returns up to limit tokens in order of id, from after the given id on,
// and whether there are more. An empty account stands for all; keep, unless it
// is nil, reports whether a token is wanted. What it returns is as [Projector.Token]
// says. A token that is not wanted may be so because an old version of it was read:
// that is noticed where its secret is in memory.
func (p *Projector) Tokens(
	account events.AccountID,
	keep func(*events.Token) bool,
	after events.TokenID,
	limit int,
) (list []*events.Token, more bool, err error) {
	err = p.view(func(tx *badger.Txn) error {
		visit := func(t *events.Token) (err error) {
			wanted := keep == nil || keep(t)
			if at, known := p.heldVersion(t); t.State != events.Revoked &&
				(known && at != t.Version || !known && wanted) {
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

// errStop ends a visit that has seen enough.
var errStop = errors.New("stop")

func allTokens(tx *badger.Txn, after events.TokenID, visit func(*events.Token) error) error {
	var start []byte
	if after != "" {
		start = append(tokenKey(after), 0)
	}
	return each(tx, []byte(prefixToken), start, func(_, value []byte) error {
		t := new(events.Token)
		if err := parseToken(value, t); err != nil {
			return errors.Join(ErrCorrupt, err)
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
		found, err := get(
			tx,
			tokenKey(events.TokenIDFrom([16]byte(key[len(prefix):]))),
			func(b []byte) error { return parseToken(b, t) },
		)
		switch {
		case err != nil:
			return err
		case !found:
			return errors.Join(ErrCorrupt, errors.New("an account lists a token that does not exist"))
		}
		return visit(t)
	})
}

// Accounts returns up to limit accounts in order of id, from after the given id
// on, and whether there are more. The caller must not change them. It has an
// error for those who read through something that may not have an index; a
// projector has none.
func (p *Projector) Accounts(after events.AccountID, limit int) ([]*events.Account, bool, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	ids := make([]events.AccountID, 0, len(p.mem.accounts))
	for id := range p.mem.accounts {
		if id > after {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	more := len(ids) > limit
	list := make([]*events.Account, 0, min(limit, len(ids)))
	for _, id := range ids[:min(limit, len(ids))] {
		list = append(list, p.mem.accounts[id])
	}
	return list, more, nil
}

// record reads one record.
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
