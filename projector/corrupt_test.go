package projector_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// damaged opens what is left of an index after damage. Either it is refused as
// corrupt, or it is the index of some prefix of the log, and follows the rest
// of it to the same end.
func damaged(t *testing.T, what string, dir string, run *eventstest.Run, whole []byte) (refused bool) {
	t.Helper()
	p, err := projector.Open(projector.Config{Dir: dir})
	if err != nil {
		if !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: Open = %v, want ErrCorrupt", what, err)
		}
		return true
	}
	defer closed(t, p)
	at := p.Position()
	if int(at) > len(run.Messages) {
		t.Errorf("%s: position %d, past the end", what, at)
		return false
	}
	if err := projectortest.Compare(eventstest.Fold(run.Messages[:at]), p); err != nil {
		t.Errorf("%s: the index at %d is not what follows from the log: %v", what, at, err)
		return false
	}
	applied(t, p, run.Messages[at:])
	if !bytes.Equal(dump(t, p), whole) {
		t.Errorf("%s: the rest of the log leads elsewhere", what)
	}
	return false
}

// TestDamagedTables turns over bits in every table. None of it may end the
// process, which is what Badger does over some.
func TestDamagedTables(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	run := eventstest.History(rng.Uint64(), 240)
	dir := inTables(t, run)
	whole := dump(t, opened(t, run.Messages))
	saved := save(t, dir)
	tables := 0
	for _, name := range slices.Sorted(maps.Keys(saved)) {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		tables++
		size := len(saved[name].data)
		var places []int
		for i := range 40 {
			places = append(places, size-1-i) // the lengths and checksums at the end
		}
		for range 60 {
			places = append(places, rng.IntN(size))
		}
		for _, at := range places {
			bit := uint(rng.IntN(8))
			if !damaged(t, name, saved.flipped(name, at, bit).restore(t), run, whole) {
				t.Errorf("seed %d: bit %d of byte %d of %d in %s went unnoticed", seed, bit, at, size, name)
			}
		}
		cut := maps.Clone(saved)
		cut[name] = savedFile{saved[name].data[:size/2], int64(size / 2)}
		if !damaged(t, name+" cut short", cut.restore(t), run, whole) {
			t.Errorf("half of %s went unnoticed", name)
		}
		delete(cut, name)
		if !damaged(t, name+" gone", cut.restore(t), run, whole) {
			t.Errorf("the loss of %s went unnoticed", name)
		}
	}
	if tables < 3 {
		t.Errorf("%d tables, want 3", tables)
	}
	if damaged(t, "nothing", saved.restore(t), run, whole) {
		t.Error("a sound index was refused")
	}
}

// crashed returns what a process leaves that is killed at the end of a history:
// tables, and the log of a memtable that is in none yet.
func crashed(t *testing.T, run *eventstest.Run, batch int) (saved snapshot, log string) {
	t.Helper()
	dir := t.TempDir()
	p := openWith(t, projector.Config{Dir: dir, Batch: batch})
	applied(t, p, run.Messages[:len(run.Messages)/2])
	closed(t, p)
	p = openWith(t, projector.Config{Dir: dir, Batch: batch})
	defer closed(t, p)
	applied(t, p, run.Messages[len(run.Messages)/2:])
	saved = save(t, dir)
	for name := range saved {
		if strings.HasSuffix(name, ".mem") {
			log = name
		}
	}
	if log == "" || len(saved[log].data) < 1000 {
		t.Fatalf("%q is no log of a memtable", log)
	}
	return saved, log
}

// TestDamagedAfterCrash turns over bits in the files that are not tables.
func TestDamagedAfterCrash(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	run := eventstest.History(rng.Uint64(), 150)
	whole := dump(t, opened(t, run.Messages))
	saved, log := crashed(t, run, 7)
	if damaged(t, "nothing", saved.restore(t), run, whole) {
		t.Fatal("a sound index was refused")
	}
	for name, n := range map[string]int{log: 15, "MANIFEST": 12, "KEYREGISTRY": 4} {
		refused := 0
		for range n {
			at, bit := rng.IntN(len(saved[name].data)), uint(rng.IntN(8))
			if damaged(t, name, saved.flipped(name, at, bit).restore(t), run, whole) {
				refused++
			}
			if t.Failed() {
				t.Fatalf("seed %d, %s: bit %d of byte %d of %s", seed, run, bit, at, name)
			}
		}
		t.Logf("%s: %d of %d refused, the others lost nothing or their end", name, refused, n)
	}
	for name := range saved {
		gone := maps.Clone(saved)
		delete(gone, name)
		damaged(t, name+" gone", gone.restore(t), run, whole)
	}
	for range 5 {
		cut := maps.Clone(saved)
		n := rng.IntN(len(saved[log].data))
		cut[log] = savedFile{saved[log].data[:n], saved[log].size}
		damaged(t, log+" cut short", cut.restore(t), run, whole)
	}
}

// TestHoleBetweenLogs: a crash can leave two logs of memtables, or one behind a
// table. Where the earlier one has lost its end, to a bit or to a power cut that
// kept the later one, the position would be past a hole.
func TestHoleBetweenLogs(t *testing.T) {
	t.Parallel()
	seed, rng := seeded(t)
	run := eventstest.History(rng.Uint64(), 200)
	whole := dump(t, opened(t, run.Messages))

	dir := t.TempDir()
	p := openWith(t, projector.Config{Dir: dir, Batch: 7})
	applied(t, p, run.Messages[:100])
	first := save(t, dir) // manifest without a table, and a log
	closed(t, p)
	p = openWith(t, projector.Config{Dir: dir, Batch: 7})
	applied(t, p, run.Messages[100:])
	second := save(t, dir) // manifest with a table, and a log of what came after
	closed(t, p)

	const older, newer = "00001.mem", "00002.mem"
	if len(first[older].data) == 0 || len(second[older].data) == 0 {
		t.Fatalf("the logs are not named %s, but %v", older, slices.Collect(maps.Keys(first)))
	}
	both := maps.Clone(first)
	both[newer] = second[older]
	if damaged(t, "two sound logs", both.restore(t), run, whole) {
		t.Error("two sound logs were refused")
	}
	unflushed := maps.Clone(second)
	unflushed["MANIFEST"] = first["MANIFEST"]
	if !damaged(t, "a manifest that lost a table", unflushed.restore(t), run, whole) {
		t.Error("a log behind a lost table went unnoticed")
	}
	gone := maps.Clone(both)
	delete(gone, older)
	if !damaged(t, "older log gone", gone.restore(t), run, whole) {
		t.Error("the loss of the older log went unnoticed")
	}
	// The log and the table that it became, as in a crash between the two.
	twice := maps.Clone(second)
	twice[newer], twice[older] = second[older], first[older]
	if damaged(t, "a log beside its table", twice.restore(t), run, whole) {
		t.Error("a log beside its table was refused")
	}
	for range 20 {
		at, bit := 20+rng.IntN(len(both[older].data)-20), uint(rng.IntN(8))
		if !damaged(t, "older log", both.flipped(older, at, bit).restore(t), run, whole) {
			t.Errorf("seed %d: bit %d of byte %d of the older log went unnoticed", seed, bit, at)
		}
		cut := maps.Clone(both)
		cut[older] = savedFile{both[older].data[:at], both[older].size}
		if !damaged(t, "older log cut short", cut.restore(t), run, whole) {
			t.Errorf("seed %d: the loss of the older log from byte %d went unnoticed", seed, at)
		}
		if t.Failed() {
			return
		}
	}
}

// TestDamagedValues changes values below their check values, which no checksum
// of Badger's would find.
func TestDamagedValues(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(42)
	account := log.Account("admin:site/*")
	token, secret := log.Token(account, "view:site/1")
	other, otherSecret := log.Token(account, "view:site/1")
	log.Revoke(other)
	log.Change(events.PolicyName, &events.PolicySet{Policy: events.DefaultPolicy})
	saved := followed(t, log.Messages)
	line, err := events.Line(log.Messages[1].Subject)
	if err != nil {
		t.Fatal(err)
	}
	key := projector.DigestKey(otherSecret.Digest())
	bit := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	lookup := func(p *projector.Projector) error { _, err := p.Lookup(otherSecret.Digest()); return err }
	for what, tt := range map[string]struct {
		key    []byte
		change func(stored []byte) []byte
		read   func(*projector.Projector) error // nil where Open always notices
	}{
		"bit of a record":          {key, bit, lookup},
		"state of a record":        {key, func(b []byte) []byte { b[1] = byte(projector.SecretLive); return b }, lookup},
		"check value of a record":  {key, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, lookup},
		"record cut short":         {key, func(b []byte) []byte { return b[:len(b)-9] }, lookup},
		"empty record":             {key, func([]byte) []byte { return nil }, lookup},
		"record of another secret": {key, func([]byte) []byte { return rawValue(t, saved, projector.DigestKey(secret.Digest())) }, lookup},
		"record of a later version": {key, func(b []byte) []byte {
			b[0]++
			return projector.Seal(key, b[:len(b)-8])
		}, lookup},
		"sealed nothing": {key, func([]byte) []byte { return projector.Seal(key, nil) }, lookup},
		"record of a secret that lives again": {key, func(b []byte) []byte {
			b[1] = byte(projector.SecretLive)
			return projector.Seal(key, b[:len(b)-8])
		}, lookup},
		"bit of a token": {projector.TokenKey(token), bit, func(p *projector.Projector) error { _, err := p.Token(token); return err }},
		"token that is not JSON": {projector.TokenKey(token), func([]byte) []byte {
			return projector.Seal(projector.TokenKey(token), []byte("{"))
		}, func(p *projector.Projector) error { _, err := p.Token(token); return err }},
		"bit of a token in a list": {projector.TokenKey(token), bit, func(p *projector.Projector) error {
			_, _, err := p.Tokens("", nil, "", 10)
			return err
		}},
		"bit of a token in its account's list": {projector.TokenKey(token), bit, func(p *projector.Projector) error {
			_, _, err := p.Tokens(account, nil, "", 10)
			return err
		}},
		"bit of a token that changes": {projector.TokenKey(token), bit, func(p *projector.Projector) error {
			next := *log
			next.Messages = slices.Clip(log.Messages)
			next.Revoke(token)
			return p.Apply(t.Context(), next.Messages[len(log.Messages):])
		}},
		"bit of the cursor": {projector.CursorKey, bit, nil},
		"cursor cut short":  {projector.CursorKey, func(b []byte) []byte { return projector.Seal(projector.CursorKey, b[:40]) }, nil},
		"empty cursor":      {projector.CursorKey, func([]byte) []byte { return projector.Seal(projector.CursorKey, nil) }, nil},
		"bit of the policy": {projector.PolicyKey, bit, nil},
		"bit of an account": {projector.AccountKey(account), bit, nil},
		"bit of a line":     {projector.LineKey(line), bit, nil},
		"account that is no JSON": {projector.AccountKey(account), func([]byte) []byte {
			return projector.Seal(projector.AccountKey(account), []byte("["))
		}, nil},
	} {
		if tt.read == nil || bytes.HasPrefix(tt.key, key[:2]) {
			dir := saved.restore(t)
			rewrite(t, dir, tt.key, tt.change)
			p, err := projector.Open(projector.Config{Dir: dir})
			if !errors.Is(err, projector.ErrCorrupt) {
				t.Errorf("%s: Open = %v, want ErrCorrupt", what, err)
			}
			if err == nil {
				closed(t, p)
			}
		}
		if tt.read == nil {
			continue
		}
		p := open(t, saved.restore(t))
		rewriteIn(t, p.Raw(), tt.key, tt.change)
		p.Fresh(time.Second, 1)
		if err := tt.read(p); !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
		stopped(t, p, projector.ErrCorrupt, nextOf(log))
		closed(t, p)
	}
}

// nextOf returns an event that could come next.
func nextOf(log *eventstest.Log) []events.Message {
	next := *log
	next.Messages = slices.Clip(log.Messages)
	next.Account()
	return next.Messages[len(log.Messages):]
}

// rewrite changes a stored value of a closed index, check value and all.
func rewrite(t *testing.T, dir string, key []byte, change func([]byte) []byte) {
	t.Helper()
	db, err := projector.OpenRaw(dir)
	if err != nil {
		t.Fatal(err)
	}
	rewriteIn(t, db, key, change)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// rewriteIn does so under an index that is open.
func rewriteIn(t *testing.T, db *badger.DB, key []byte, change func([]byte) []byte) {
	t.Helper()
	if err := db.Update(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		return tx.Set(key, change(value))
	}); err != nil {
		t.Fatal(err)
	}
}

// rawValue returns a stored value with its check value.
func rawValue(t *testing.T, saved snapshot, key []byte) (value []byte) {
	t.Helper()
	db, err := projector.OpenRaw(saved.restore(t))
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if err == nil {
			value, err = item.ValueCopy(nil)
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return value
}
