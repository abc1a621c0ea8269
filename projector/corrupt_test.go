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
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// openDamaged opens an index after damage. Open must refuse it as corrupt, or
// it must equal the index of a prefix of the log, and give the dump whole after
// the rest of the log.
func openDamaged(t *testing.T, what string, dir string, run *eventstest.Run, whole []byte) (refused bool) {
	t.Helper()
	p, err := projector.Open(projector.Config{Dir: dir})
	if err != nil {
		if !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: Open = %v, want ErrCorrupt", what, err)
		}
		return true
	}
	defer projectortest.Close(t, p)
	pos := p.Position()
	if int(pos) > len(run.Messages) {
		t.Errorf("%s: position %d is beyond the end of the log", what, pos)
		return false
	}
	if err := projectortest.Compare(eventstest.Fold(run.Messages[:pos]), p); err != nil {
		t.Errorf("%s: the index at %d differs from the reference: %v", what, pos, err)
		return false
	}
	projectortest.Apply(t, p, run.Messages[pos:])
	if !bytes.Equal(projectortest.Dump(t, p), whole) {
		t.Errorf("%s: the dump differs after the rest of the log", what)
	}
	return false
}

// TestDamagedTables flips bits in each table. No flip may kill the process, as
// Badger alone would.
func TestDamagedTables(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	run := eventstest.History(rng.Uint64(), 240)
	dir := dirOfTables(t, run)
	whole := projectortest.Dump(t, newIndex(t, run.Messages))
	saved := save(t, dir)
	tables := 0
	for _, name := range saved.tableNames() {
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
			if !openDamaged(t, name, saved.flipped(name, at, bit).restore(t), run, whole) {
				t.Errorf("seed %d: Open did not detect a flip of bit %d of byte %d of %d in %s", seed, bit, at, size, name)
			}
		}
		cut := maps.Clone(saved)
		cut[name] = savedFile{saved[name].data[:size/2], int64(size / 2)}
		if !openDamaged(t, name+" truncated", cut.restore(t), run, whole) {
			t.Errorf("Open did not detect that half of %s is missing", name)
		}
		delete(cut, name)
		if !openDamaged(t, name+" missing", cut.restore(t), run, whole) {
			t.Errorf("Open did not detect that %s is missing", name)
		}
	}
	if tables < 3 {
		t.Errorf("%d tables, want 3", tables)
	}
	if openDamaged(t, "no damage", saved.restore(t), run, whole) {
		t.Error("Open refused an undamaged index")
	}
}

// crashed returns the files of a process killed at the end of a history: a
// table with the first half, and the log of a memtable with the rest.
func crashed(t *testing.T, run *eventstest.Run, batch int) (saved snapshot, log string) {
	t.Helper()
	dir := t.TempDir()
	p := openRandomLimit(t, projector.Config{Dir: dir, Batch: batch})
	projectortest.Apply(t, p, run.Messages[:len(run.Messages)/2])
	projectortest.Close(t, p)
	p = openRandomLimit(t, projector.Config{Dir: dir, Batch: batch})
	defer projectortest.Close(t, p)
	projectortest.Apply(t, p, run.Messages[len(run.Messages)/2:])
	saved = save(t, dir)
	for name := range saved {
		if strings.HasSuffix(name, ".mem") {
			log = name
		}
	}
	if log == "" || len(saved[log].data) < 1000 {
		t.Fatalf("%q is not the log of a memtable", log)
	}
	return saved, log
}

// TestDamagedAfterCrash flips bits in the files other than tables.
func TestDamagedAfterCrash(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	run := eventstest.History(rng.Uint64(), 150)
	whole := projectortest.Dump(t, newIndex(t, run.Messages))
	saved, log := crashed(t, run, 7)
	if openDamaged(t, "no damage", saved.restore(t), run, whole) {
		t.Fatal("Open refused an undamaged index")
	}
	for name, n := range map[string]int{log: 15, "MANIFEST": 12, "KEYREGISTRY": 4} {
		refused := 0
		for range n {
			at, bit := rng.IntN(len(saved[name].data)), uint(rng.IntN(8))
			if openDamaged(t, name, saved.flipped(name, at, bit).restore(t), run, whole) {
				refused++
			}
			if t.Failed() {
				t.Fatalf("seed %d, %s: bit %d of byte %d of %s", seed, run, bit, at, name)
			}
		}
		t.Logf("%s: Open refused %d of %d flips", name, refused, n)
	}
	for name := range saved {
		gone := maps.Clone(saved)
		delete(gone, name)
		openDamaged(t, name+" missing", gone.restore(t), run, whole)
	}
	for range 5 {
		cut := maps.Clone(saved)
		n := rng.IntN(len(saved[log].data))
		cut[log] = savedFile{saved[log].data[:n], saved[log].size}
		openDamaged(t, log+" truncated", cut.restore(t), run, whole)
	}
}

// TestGapBetweenLogs damages the older of two logs of memtables, or of a log
// and the table that it became. Badger would drop its end and keep the newer
// file, and the index would lack events before its position.
func TestGapBetweenLogs(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	run := eventstest.History(rng.Uint64(), 200)
	whole := projectortest.Dump(t, newIndex(t, run.Messages))

	dir := t.TempDir()
	p := openRandomLimit(t, projector.Config{Dir: dir, Batch: 7})
	projectortest.Apply(t, p, run.Messages[:100])
	first := save(t, dir) // no table, and a log
	projectortest.Close(t, p)
	p = openRandomLimit(t, projector.Config{Dir: dir, Batch: 7})
	projectortest.Apply(t, p, run.Messages[100:])
	second := save(t, dir) // a table, and a log of later events
	projectortest.Close(t, p)

	const older, newer = "00001.mem", "00002.mem"
	if len(first[older].data) == 0 || len(second[older].data) == 0 {
		t.Fatalf("the files are %v, want a log %s", slices.Collect(maps.Keys(first)), older)
	}
	both := maps.Clone(first)
	both[newer] = second[older]
	if openDamaged(t, "two undamaged logs", both.restore(t), run, whole) {
		t.Error("Open refused two undamaged logs")
	}
	unflushed := maps.Clone(second)
	unflushed["MANIFEST"] = first["MANIFEST"]
	if !openDamaged(t, "table missing in the manifest", unflushed.restore(t), run, whole) {
		t.Error("Open did not detect that the manifest lacks a table")
	}
	gone := maps.Clone(both)
	delete(gone, older)
	if !openDamaged(t, "older log missing", gone.restore(t), run, whole) {
		t.Error("Open did not detect that the older log is missing")
	}
	// As after a crash before Badger deletes the log of a table.
	twice := maps.Clone(second)
	twice[newer], twice[older] = second[older], first[older]
	if openDamaged(t, "a log beside its table", twice.restore(t), run, whole) {
		t.Error("Open refused a log beside its table")
	}
	for range 20 {
		at, bit := 20+rng.IntN(len(both[older].data)-20), uint(rng.IntN(8))
		if !openDamaged(t, "older log", both.flipped(older, at, bit).restore(t), run, whole) {
			t.Errorf("seed %d: Open did not detect a flip of bit %d of byte %d of the older log", seed, bit, at)
		}
		cut := maps.Clone(both)
		cut[older] = savedFile{both[older].data[:at], both[older].size}
		if !openDamaged(t, "older log truncated", cut.restore(t), run, whole) {
			t.Errorf("seed %d: Open did not detect that the older log is truncated at byte %d", seed, at)
		}
		if t.Failed() {
			return
		}
	}
}

// damage changes a stored value in a way that Badger's own checksums do not
// cover.
type damage struct {
	name   string
	key    []byte
	change func(stored []byte) []byte
	read   func(*projector.Projector) error // finds the damage; nil if Open always does
}

// sealed returns a change to a value with a correct check value.
func sealed(key []byte, change func(value []byte) []byte) func([]byte) []byte {
	return func(stored []byte) []byte { return projector.Seal(key, change(stored[:len(stored)-8])) }
}

func flipBit(b []byte) []byte { b[len(b)/2] ^= 1; return b }

// secretDamage is damage to the record of a revoked secret. stranger is the
// stored record of another secret.
func secretDamage(d events.Digest, stranger []byte) []damage {
	key := projector.DigestKey(d)
	revive := func(b []byte) []byte { b[1] = byte(projector.SecretLive); return b }
	list := []damage{
		{name: "bit of a record", change: flipBit},
		{name: "state of a record", change: revive},
		{name: "check value of a record", change: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		{name: "truncated record", change: func(b []byte) []byte { return b[:len(b)-9] }},
		{name: "empty record", change: func([]byte) []byte { return nil }},
		{name: "record of another secret", change: func([]byte) []byte { return stranger }},
		{name: "record of a later version", change: sealed(key, func(b []byte) []byte { b[0]++; return b })},
		{name: "sealed empty value", change: sealed(key, func([]byte) []byte { return nil })},
		{name: "record of a revoked secret that is live again", change: sealed(key, revive)},
	}
	for i := range list {
		list[i].key = key
		list[i].read = func(p *projector.Projector) error { _, err := p.Lookup(d); return err }
	}
	return list
}

// tokenDamage is damage to the record of a token.
func tokenDamage(t *testing.T, log *eventstest.Log, account events.AccountID, id events.TokenID) []damage {
	key := projector.TokenKey(id)
	read := func(p *projector.Projector) error { _, err := p.Token(id); return err }
	list := func(account events.AccountID) func(*projector.Projector) error {
		return func(p *projector.Projector) error { _, _, err := p.Tokens(account, nil, "", 10); return err }
	}
	revoke := func(p *projector.Projector) error {
		next := *log
		next.Messages = slices.Clip(log.Messages)
		next.Revoke(id)
		return p.Apply(t.Context(), next.Messages[len(log.Messages):])
	}
	return []damage{
		{"bit of a token", key, flipBit, read},
		{"token that is not in the stored form", key, sealed(key, func([]byte) []byte { return []byte("{") }), read},
		{"bit of a token in a list", key, flipBit, list("")},
		{"bit of a token in its account's list", key, flipBit, list(account)},
		{"bit of a token that changes", key, flipBit, revoke},
	}
}

// stateDamage is damage to records that Open reads.
func stateDamage(account events.AccountID, shard string) []damage {
	cursor, a := projector.CursorKey, projector.AccountKey(account)
	return []damage{
		{"bit of the cursor", cursor, flipBit, nil},
		{"truncated cursor", cursor, sealed(cursor, func(b []byte) []byte { return b[:40] }), nil},
		{"empty cursor", cursor, sealed(cursor, func([]byte) []byte { return nil }), nil},
		{"bit of the policy", projector.PolicyKey, flipBit, nil},
		{"bit of an account", a, flipBit, nil},
		{"bit of a shard", projector.ShardKey(shard), flipBit, nil},
		{"account that is not JSON", a, sealed(a, func([]byte) []byte { return []byte("[") }), nil},
	}
}

// TestDamagedValues damages stored values, and reads them.
func TestDamagedValues(t *testing.T) {
	t.Parallel()
	log := eventstest.NewLog(42)
	account := log.Account("admin:site/*")
	token, secret := log.Token(account, "view:site/1")
	revoked, revokedSecret := log.Token(account, "view:site/1")
	log.Revoke(revoked)
	log.Change(events.PolicyName, &events.PolicySet{Policy: events.DefaultPolicy})
	saved := savedIndex(t, log.Messages)
	shard, err := events.ShardOf(log.Messages[1].Subject)
	if err != nil {
		t.Fatal(err)
	}
	ofSecret := secretDamage(revokedSecret.Digest(), rawValue(t, saved, projector.DigestKey(secret.Digest())))
	for _, d := range slices.Concat(ofSecret, stateDamage(account, shard)) { // Open reads these records
		dir := saved.restore(t)
		rewrite(t, dir, d.key, d.change)
		p, err := projector.Open(projector.Config{Dir: dir})
		if !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: Open = %v, want ErrCorrupt", d.name, err)
		}
		if err == nil {
			projectortest.Close(t, p)
		}
	}
	for _, d := range slices.Concat(ofSecret, tokenDamage(t, log, account, token)) {
		p := open(t, saved.restore(t))
		rewriteIn(t, p.Raw(), d.key, d.change)
		p.Fresh(time.Second, 1)
		if err := d.read(p); !errors.Is(err, projector.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", d.name, err)
		}
		checkStopped(t, p, projector.ErrCorrupt, nextEvent(log))
		projectortest.Close(t, p)
	}
}

// nextEvent returns an event that can follow the log.
func nextEvent(log *eventstest.Log) []events.Message {
	next := *log
	next.Messages = slices.Clip(log.Messages)
	next.Account()
	return next.Messages[len(log.Messages):]
}

// rewrite changes a stored value of a closed index, with its check value.
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

// rewriteIn is rewrite for an open index.
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
