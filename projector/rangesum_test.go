package projector_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// TestOldVersions restores old versions of a token, its secret and the cursor,
// alone and together. Damage to a table's index block has this effect, and the
// records look intact to Badger. Each query must return the current version or
// ErrCorrupt, and no event may change an old version.
func TestOldVersions(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(11)
	account := log.Account("admin:site/*")
	var ids []events.TokenID
	var secrets []events.Secret
	for range 1000 { // do not fit into the smaller limit
		id, secret := log.Token(account, "view:site/1", "write:site/1")
		ids, secrets = append(ids, id), append(secrets, secret)
	}
	saved := savedIndex(t, log.Messages)
	for what, change := range map[string]func(*eventstest.Log, events.TokenID){
		"revoked": func(l *eventstest.Log, id events.TokenID) { l.Revoke(id) },
		"narrowed": func(l *eventstest.Log, id events.TokenID) {
			l.Change(string(id), &events.TokenScoped{Scopes: eventstest.Scopes("view:site/1")})
		},
		"rotated twice": func(l *eventstest.Log, id events.TokenID) { l.Rotate(id, l.Now()); l.Rotate(id, l.Now()) },
	} {
		for _, limit := range limits {
			for _, n := range []int{0, len(ids) - 1} { // with the smaller limit, only one is in memory
				v := oldVersions{account: account, id: ids[n], digest: secrets[n].Digest(), limit: limit, log: *log}
				v.log.Messages = slices.Clip(log.Messages)
				v.check(t, fmt.Sprintf("token %d %s, %d bytes resident", n, what, limit), saved, change)
			}
		}
	}
}

// oldVersions tests queries after old records of a token were restored.
type oldVersions struct {
	account events.AccountID
	id      events.TokenID
	digest  events.Digest
	limit   int64
	log     eventstest.Log
}

// check changes the token, and restores its records from before the change.
func (v *oldVersions) check(t *testing.T, what string, saved snapshot, change func(*eventstest.Log, events.TokenID)) {
	t.Helper()
	p := openConfig(t, projector.Config{Dir: saved.restore(t), Resident: v.limit})
	secret, token, cursor := projector.DigestKey(v.digest), projector.TokenKey(v.id), projector.CursorKey
	old := storedValues(t, p, secret, token, cursor)
	change(&v.log, v.id)
	projectortest.Apply(t, p, v.log.Messages[p.Position():])
	changed, err := p.Token(v.id)
	if err != nil {
		t.Fatal(err)
	}
	current := slices.ContainsFunc(changed.Secrets, func(s events.SecretSlot) bool { return s.Digest == v.digest })
	projectortest.Close(t, p)
	now := save(t, p.Dir())
	for restored, keys := range map[string][][]byte{
		"secret": {secret}, "token": {token}, "secret and token": {secret, token},
		"secret, token and cursor": {secret, token, cursor},
	} {
		for name, query := range v.queries(t) {
			if name == "Apply" && restored == "secret" && !current {
				continue // a change of the token does not read this secret
			}
			p := openConfig(t, projector.Config{Dir: now.restore(t), Resident: v.limit})
			restoreValues(t, p, old, keys...)
			version, err := query(p)
			if !errors.Is(err, projector.ErrCorrupt) && (err != nil || version != v.log.End()) {
				t.Errorf("%s, old %s: %s = version %d, %v; want %d or ErrCorrupt", what, restored, name, version, err, v.log.End())
			}
			projectortest.Close(t, p)
		}
	}
}

// queries are queries that read the token. They return the version that they
// read.
func (v *oldVersions) queries(t *testing.T) map[string]func(*projector.Projector) (events.Position, error) {
	return map[string]func(*projector.Projector) (events.Position, error){
		"Lookup": func(p *projector.Projector) (events.Position, error) {
			r, err := p.Lookup(v.digest)
			return r.Version, err
		},
		"Find": func(p *projector.Projector) (events.Position, error) {
			f, err := p.Find(v.digest)
			return f.Version, err
		},
		"Token": func(p *projector.Projector) (events.Position, error) {
			token, err := p.Token(v.id)
			if err != nil {
				return 0, err
			}
			return token.Version, nil
		},
		"Tokens": func(p *projector.Projector) (events.Position, error) {
			keep := func(token *events.Token) bool { return token.ID == v.id }
			if v.limit == limits[len(limits)-1] { // with all secrets resident, Tokens also verifies skipped tokens
				keep = func(token *events.Token) bool { return token.Version == v.log.End() }
			}
			list, more, err := p.Tokens(v.account, keep, "", 1)
			if err != nil || more || len(list) != 1 || list[0].ID != v.id {
				return 0, err
			}
			return list[0].Version, nil
		},
		"Apply": func(p *projector.Projector) (events.Position, error) {
			next := v.log
			next.Messages = slices.Clip(v.log.Messages)
			next.Change(string(v.id), &events.TokenEdited{App: new("again")})
			return 0, p.Apply(t.Context(), next.Messages[p.Position():])
		},
	}
}

// crowdedLog is a log with many secrets in few buckets, at both ends of them
// and beside each other.
type crowdedLog struct {
	*eventstest.Log
	digests []events.Digest
	ids     map[events.Digest]events.TokenID
	revoked map[events.TokenID]bool
}

func newCrowdedLog(seed uint64, rng *rand.Rand) *crowdedLog {
	log := &crowdedLog{
		Log: eventstest.NewLog(seed), ids: map[events.Digest]events.TokenID{}, revoked: map[events.TokenID]bool{},
	}
	account := log.Account("admin:site/*")
	for range 300 {
		var d events.Digest // the first 22 bits are the bucket
		d[1], d[2] = byte(rng.IntN(2)), byte(rng.IntN(4)<<6|rng.IntN(2)*0x3f)
		for i := 3; i < len(d); i++ {
			d[i] = [...]byte{0, 0xff, byte(rng.Uint32())}[rng.IntN(3)]
		}
		if log.ids[d] != "" {
			continue
		}
		id := log.TokenID()
		log.Change(string(id), &events.TokenCreated{
			Account: account, Scopes: eventstest.Scopes("view:site/1"), Secret: eventstest.SecretRecord(d),
		})
		log.ids[d], log.digests = id, append(log.digests, d)
	}
	for range 400 {
		id := log.ids[log.digests[rng.IntN(len(log.digests))]]
		switch n := rng.IntN(4); {
		case log.revoked[id]:
		case n == 0:
			log.Revoke(id)
			log.revoked[id] = true
		default:
			log.Change(string(id), &events.TokenEdited{App: new("x")})
		}
	}
	return log
}

// neighbours returns two live secrets in one bucket.
func (l *crowdedLog) neighbours(t *testing.T) (a, b events.Digest) {
	live := slices.DeleteFunc(slices.Clone(l.digests), func(d events.Digest) bool { return l.revoked[l.ids[d]] })
	slices.SortFunc(live, func(a, b events.Digest) int { return bytes.Compare(a[:], b[:]) })
	for i, b := range live[1:] {
		if a := live[i]; a[1] == b[1] && a[2]>>2 == b[2]>>2 {
			return a, b
		}
	}
	t.Fatal("no two live secrets are in one bucket")
	return a, b
}

// TestNeighbours looks up secrets in crowded buckets. An old version of a
// record makes the lookup of another one in its bucket fail.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	log := newCrowdedLog(seed.NewRand(t))
	p := openConfig(t, projector.Config{Dir: t.TempDir(), Batch: 16})
	defer projectortest.Close(t, p)
	projectortest.Apply(t, p, log.Messages)
	state := eventstest.Fold(log.Messages)
	for _, d := range log.digests {
		f, err := p.Find(d)
		if err := projectortest.CompareFacts(state, d, f, err); err != nil {
			t.Errorf("%x: %v", d, err)
		}
	}
	neighbour, d := log.neighbours(t)
	key := projector.DigestKey(d)
	old := storedValues(t, p, key)
	log.Revoke(log.ids[d])
	projectortest.Apply(t, p, log.Messages[p.Position():])
	if _, err := p.Lookup(neighbour); err != nil {
		t.Errorf("Lookup of a neighbour = %v", err)
	}
	restoreValues(t, p, old, key)
	if r, err := p.Lookup(neighbour); !errors.Is(err, projector.ErrCorrupt) {
		t.Errorf("Lookup beside an old version = %+v, %v; want ErrCorrupt", r, err)
	}
}

// TestLookupDuringChanges looks up a secret in Badger while events change it.
func TestLookupDuringChanges(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(13)
	id, secret := log.Token(log.Account("admin:site/*"), "view:site/1")
	p := openConfig(t, projector.Config{Dir: t.TempDir()})
	defer projectortest.Close(t, p)
	projectortest.Apply(t, p, log.Messages)
	for range 1000 {
		log.Change(string(id), &events.TokenSuspended{})
		log.Change(string(id), &events.TokenResumed{})
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for pos := p.Position(); err == nil && pos < log.End(); pos++ {
			err = p.Apply(t.Context(), log.Messages[pos:pos+1])
		}
		done <- err
	}()
	lookups := 0
	for last := events.Position(0); last < log.End(); lookups++ {
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
	t.Logf("%d lookups", lookups)
}

// storedValues returns the stored values of keys.
func storedValues(t *testing.T, p *projector.Projector, keys ...[]byte) map[string][]byte {
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

// restoreValues replaces the stored values of keys by old ones.
func restoreValues(t *testing.T, p *projector.Projector, old map[string][]byte, keys ...[]byte) {
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

// secretlessTokens are ways to create a token without a secret, from the secret
// of another token.
var secretlessTokens = map[string]func(*eventstest.Log, events.AccountID, events.SecretRecord) events.TokenID{
	"created": func(l *eventstest.Log, account events.AccountID, taken events.SecretRecord) events.TokenID {
		id := l.TokenID()
		l.Change(string(id), &events.TokenCreated{
			Account: account, Scopes: eventstest.Scopes("view:site/1"), Secret: taken,
		})
		return id
	},
	"rotated": func(l *eventstest.Log, account events.AccountID, taken events.SecretRecord) events.TokenID {
		id, _ := l.Token(account, "view:site/1")
		for range 2 { // after the first rotation, the old secret is still valid
			l.Change(string(id), &events.TokenRotated{Secret: taken, Until: l.Now().Add(time.Hour)})
		}
		return id
	},
}

// TestOldTokensWithoutSecret restores an old version of a token, from when it
// had no secret.
func TestOldTokensWithoutSecret(t *testing.T) {
	t.Parallel()
	queries := map[string]func(*projector.Projector, events.TokenID, *eventstest.Log) error{
		"Token": func(p *projector.Projector, id events.TokenID, _ *eventstest.Log) error {
			_, err := p.Token(id)
			return err
		},
		"Apply": func(p *projector.Projector, id events.TokenID, l *eventstest.Log) error {
			l.Revoke(id)
			return p.Apply(t.Context(), l.Messages[p.Position():])
		},
	}
	for how, secretless := range secretlessTokens {
		for name, query := range queries {
			for _, reopen := range []bool{false, true} {
				log := eventstest.NewLog(12)
				account := log.Account("admin:site/*")
				_, taken := log.Token(account, "view:site/1")
				id := secretless(log, account, eventstest.SecretRecord(taken.Digest()))
				p := restoreSecretless(t, log, id, reopen)
				if err := query(p, id, log); !errors.Is(err, projector.ErrCorrupt) {
					t.Errorf("%s without a secret, reopened %t: %s = %v, want ErrCorrupt", how, reopen, name, err)
				}
				projectortest.Close(t, p)
			}
		}
	}
}

// restoreSecretless returns an index in which a token was rotated, and its
// version without a secret restored.
func restoreSecretless(t *testing.T, log *eventstest.Log, id events.TokenID, reopen bool) *projector.Projector {
	t.Helper()
	dir := t.TempDir()
	p := open(t, dir)
	projectortest.Apply(t, p, log.Messages)
	if reopen {
		projectortest.Close(t, p)
		p = open(t, dir)
	}
	if token, err := p.Token(id); err != nil || len(token.Secrets) != 0 {
		t.Fatalf("Token = %+v, %v; want a token without a secret", token, err)
	}
	key := projector.TokenKey(id)
	old := storedValues(t, p, key)
	secret := log.Rotate(id, log.Now())
	projectortest.Apply(t, p, log.Messages[p.Position():])
	if r, err := p.Lookup(secret.Digest()); err != nil || r.State != projector.SecretLive {
		t.Fatalf("Lookup = %+v, %v; want a live secret", r, err)
	}
	checkDigest(t, p)
	if reopen {
		projectortest.Close(t, p)
		p = open(t, dir)
	}
	restoreValues(t, p, old, key)
	return p
}
