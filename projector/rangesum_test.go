package projector_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestOldVersionsTogether brings back old versions of a token, its secret and the
// cursor, each one whole and several at once, as damage to the part of a table does
// that says where records stand. Nothing in Badger tells them from the newest.
// Whoever asks is refused, or told what holds now, and nothing goes on from them.
func TestOldVersionsTogether(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(11)
	account := log.Account("admin:site/*")
	var ids []events.TokenID
	var secrets []events.Secret
	for range 2000 { // more than the smaller limit has room for
		id, secret := log.Token(account, "view:site/1", "write:site/1")
		ids, secrets = append(ids, id), append(secrets, secret)
	}
	saved := followed(t, log.Messages)
	for what, change := range map[string]func(*eventstest.Log, events.TokenID){
		"revoked": func(l *eventstest.Log, id events.TokenID) { l.Revoke(id) },
		"narrowed": func(l *eventstest.Log, id events.TokenID) {
			l.Change(string(id), &events.TokenScoped{Scopes: eventstest.Scopes("view:site/1")})
		},
		"rotated twice": func(l *eventstest.Log, id events.TokenID) { l.Rotate(id, l.Now()); l.Rotate(id, l.Now()) },
	} {
		for _, limit := range limits {
			for _, n := range []int{0, len(ids) - 1} { // with the smaller limit, one is in memory and the other is not
				c := comeback{account: account, id: ids[n], digest: secrets[n].Digest(), limit: limit, log: *log}
				c.log.Messages = slices.Clip(log.Messages)
				c.try(t, fmt.Sprintf("token %d %s, %d bytes resident", n, what, limit), saved, change)
			}
		}
	}
}

// comeback is a token that changes, and of which old records come back.
type comeback struct {
	account events.AccountID
	id      events.TokenID
	digest  events.Digest
	limit   int64
	log     eventstest.Log
}

func (c *comeback) try(t *testing.T, what string, saved snapshot, change func(*eventstest.Log, events.TokenID)) {
	t.Helper()
	p := openAs(t, projector.Config{Dir: saved.restore(t), Resident: c.limit})
	secret, token, cursor := projector.DigestKey(c.digest), projector.TokenKey(c.id), projector.CursorKey
	old := remember(t, p, secret, token, cursor)
	change(&c.log, c.id)
	applied(t, p, c.log.Messages[p.Position():])
	is, err := p.Token(c.id)
	if err != nil {
		t.Fatal(err)
	}
	owns := slices.ContainsFunc(is.Secrets, func(s events.SecretSlot) bool { return s.Digest == c.digest })
	closed(t, p)
	now := save(t, p.Dir())
	for back, keys := range map[string][][]byte{
		"the secret": {secret}, "the token": {token}, "both": {secret, token}, "both and the cursor": {secret, token, cursor},
	} {
		for asked, ask := range c.asks(t) {
			if asked == "Apply" && back == "the secret" && !owns {
				continue // a change of the token does not read it
			}
			p := openAs(t, projector.Config{Dir: now.restore(t), Resident: c.limit})
			bringBack(t, p, old, keys...)
			version, err := ask(p)
			if !errors.Is(err, projector.ErrCorrupt) && (err != nil || version != c.log.End()) {
				t.Errorf("%s, %s came back: %s = version %d, %v; want %d or ErrCorrupt", what, back, asked, version, err, c.log.End())
			}
			closed(t, p)
		}
	}
}

// asks are ways to come upon the token, and what version of it each found.
func (c *comeback) asks(t *testing.T) map[string]func(*projector.Projector) (events.Position, error) {
	return map[string]func(*projector.Projector) (events.Position, error){
		"Lookup": func(p *projector.Projector) (events.Position, error) {
			r, err := p.Lookup(c.digest)
			return r.Version, err
		},
		"Find": func(p *projector.Projector) (events.Position, error) {
			f, err := p.Find(c.digest)
			return f.Version, err
		},
		"Token": func(p *projector.Projector) (events.Position, error) {
			token, err := p.Token(c.id)
			if err != nil {
				return 0, err
			}
			return token.Version, nil
		},
		"Tokens": func(p *projector.Projector) (events.Position, error) {
			keep := func(token *events.Token) bool { return token.ID == c.id }
			if c.limit == limits[len(limits)-1] { // also of what an old version is not wanted of
				keep = func(token *events.Token) bool { return token.Version == c.log.End() }
			}
			list, more, err := p.Tokens(c.account, keep, "", 1)
			if err != nil || more || len(list) != 1 || list[0].ID != c.id {
				return 0, err
			}
			return list[0].Version, nil
		},
		"Apply": func(p *projector.Projector) (events.Position, error) {
			next := c.log
			next.Messages = slices.Clip(c.log.Messages)
			next.Change(string(c.id), &events.TokenEdited{App: new("again")})
			return 0, p.Apply(t.Context(), next.Messages[p.Position():])
		},
	}
}

// TestNeighbours puts many secrets into few ranges, next to each other and at both
// ends of them, and changes them: each is found as it is, and what comes back of
// one speaks against all of its range.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	log := eventstest.NewLog(seed)
	account := log.Account("admin:site/*")
	ids := map[events.Digest]events.TokenID{}
	var digests []events.Digest
	for range 300 {
		var d events.Digest // the first 22 bits are a range's
		d[1], d[2] = byte(rng.IntN(2)), byte(rng.IntN(4)<<6|rng.IntN(2)*0x3f)
		for i := 3; i < len(d); i++ {
			d[i] = [...]byte{0, 0xff, byte(rng.Uint32())}[rng.IntN(3)]
		}
		if ids[d] != "" {
			continue
		}
		id := log.TokenID()
		log.Change(string(id), &events.TokenCreated{
			Account: account, Scopes: eventstest.Scopes("view:site/1"), Secret: eventstest.SecretRecord(d),
		})
		ids[d], digests = id, append(digests, d)
	}
	revoked := map[events.TokenID]bool{}
	for range 400 {
		id := ids[digests[rng.IntN(len(digests))]]
		switch n := rng.IntN(4); {
		case revoked[id]:
		case n == 0:
			log.Revoke(id)
			revoked[id] = true
		default:
			log.Change(string(id), &events.TokenEdited{App: new("x")})
		}
	}
	p := openAs(t, projector.Config{Dir: t.TempDir(), Batch: 16})
	defer closed(t, p)
	applied(t, p, log.Messages)
	state := eventstest.Fold(log.Messages)
	for _, d := range digests {
		f, err := p.Find(d)
		if err := projectortest.CompareFound(state, d, f, err); err != nil {
			t.Errorf("%x: %v", d, err)
		}
	}
	live := slices.DeleteFunc(slices.Clone(digests), func(d events.Digest) bool { return revoked[ids[d]] })
	slices.SortFunc(live, func(a, b events.Digest) int { return bytes.Compare(a[:], b[:]) })
	for i, d := range live[1:] {
		neighbour := live[i]
		if d[1] != neighbour[1] || d[2]>>2 != neighbour[2]>>2 {
			continue
		}
		key := projector.DigestKey(d)
		old := remember(t, p, key)
		log.Revoke(ids[d])
		applied(t, p, log.Messages[p.Position():])
		if _, err := p.Lookup(neighbour); err != nil {
			t.Errorf("Lookup of a neighbour = %v", err)
		}
		bringBack(t, p, old, key)
		if r, err := p.Lookup(neighbour); !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("an old version came back: Lookup of a neighbour = %+v, %v; want ErrCorrupt", r, err)
		}
		return
	}
	t.Error("no two live secrets are in one range")
}

// TestConfirmedWhileItChanges looks a secret up, from Badger, while it changes
// all the time.
func TestConfirmedWhileItChanges(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(13)
	id, secret := log.Token(log.Account("admin:site/*"), "view:site/1")
	p := openAs(t, projector.Config{Dir: t.TempDir()})
	defer closed(t, p)
	applied(t, p, log.Messages)
	for range 1000 {
		log.Change(string(id), &events.TokenSuspended{})
		log.Change(string(id), &events.TokenResumed{})
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for at := p.Position(); err == nil && at < log.End(); at++ {
			err = p.Apply(t.Context(), log.Messages[at:at+1])
		}
		done <- err
	}()
	looked := 0
	for last := events.Position(0); last < log.End(); looked++ {
		r, err := p.Lookup(secret.Digest())
		if err != nil || r.Version < last {
			t.Fatalf("Lookup = version %d, %v, after version %d", r.Version, err, last)
		}
		token, err := p.Token(id)
		if err != nil || token.Version < r.Version {
			t.Fatalf("Token = %+v, %v, after version %d", token, err, r.Version)
		}
		last = token.Version
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("looked %d times", looked)
}

// remember returns what is stored under keys.
func remember(t *testing.T, p *projector.Projector, keys ...[]byte) map[string][]byte {
	t.Helper()
	values := map[string][]byte{}
	if err := p.Raw().View(func(tx *badger.Txn) error {
		for _, key := range keys {
			item, err := tx.Get(key)
			if err != nil {
				return err
			}
			if values[string(key)], err = item.ValueCopy(nil); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return values
}

// bringBack has what was remembered under keys be found again, in the place of
// what is newer.
func bringBack(t *testing.T, p *projector.Projector, old map[string][]byte, keys ...[]byte) {
	t.Helper()
	if err := p.Raw().Update(func(tx *badger.Txn) error {
		for _, key := range keys {
			if err := tx.Set(key, old[string(key)]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestOldTokensWithoutSecret brings back an old version of a token from when it
// had no secret, because what it was given were others' secrets.
func TestOldTokensWithoutSecret(t *testing.T) {
	t.Parallel()
	for what, bare := range map[string]func(l *eventstest.Log, account events.AccountID, taken events.SecretRecord) events.TokenID{
		"made so": func(l *eventstest.Log, account events.AccountID, taken events.SecretRecord) events.TokenID {
			id := l.TokenID()
			l.Change(string(id), &events.TokenCreated{Account: account, Scopes: eventstest.Scopes("view:site/1"), Secret: taken})
			return id
		},
		"rotated so": func(l *eventstest.Log, account events.AccountID, taken events.SecretRecord) events.TokenID {
			id, _ := l.Token(account, "view:site/1")
			for range 2 { // the first one leaves the old secret for a while
				l.Change(string(id), &events.TokenRotated{Secret: taken, Until: l.Now().Add(time.Hour)})
			}
			return id
		},
	} {
		for asked, ask := range map[string]func(*projector.Projector, events.TokenID, *eventstest.Log) error{
			"Token": func(p *projector.Projector, id events.TokenID, _ *eventstest.Log) error {
				_, err := p.Token(id)
				return err
			},
			"Apply": func(p *projector.Projector, id events.TokenID, l *eventstest.Log) error {
				l.Revoke(id)
				return p.Apply(t.Context(), l.Messages[p.Position():])
			},
		} {
			for _, reopened := range []bool{false, true} {
				log := eventstest.NewLog(12)
				account := log.Account("admin:site/*")
				_, taken := log.Token(account, "view:site/1")
				id := bare(log, account, eventstest.SecretRecord(taken.Digest()))
				dir := t.TempDir()
				p := open(t, dir)
				applied(t, p, log.Messages)
				reopen := func() {
					if reopened {
						closed(t, p)
						p = open(t, dir)
					}
				}
				reopen()
				if token, err := p.Token(id); err != nil || len(token.Secrets) != 0 {
					t.Fatalf("%s: %+v, %v; want a token without a secret", what, token, err)
				}
				key := projector.TokenKey(id)
				old := remember(t, p, key)
				secret := log.Rotate(id, log.Now())
				applied(t, p, log.Messages[p.Position():])
				if r, err := p.Lookup(secret.Digest()); err != nil || r.State != projector.SecretLive {
					t.Fatalf("%s: Lookup = %+v, %v; want a live secret", what, r, err)
				}
				counted(t, p)
				reopen()
				bringBack(t, p, old, key)
				if err := ask(p, id, log); !errors.Is(err, projector.ErrCorrupt) {
					t.Errorf("%s: %s = %v, want ErrCorrupt", what, asked, err)
				}
				closed(t, p)
			}
		}
	}
}
