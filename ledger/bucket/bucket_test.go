package bucket_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// connect returns a server that has no bucket yet.
func connect(t *testing.T) jetstream.JetStream {
	t.Helper()
	conn := ledgertest.Start(t).Conn()
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

var config = bucket.Config{Name: "TEST"}

func open(t *testing.T) (*bucket.Bucket, jetstream.JetStream) {
	t.Helper()
	js := connect(t)
	var b *bucket.Bucket
	var err error
	for range 2 { // it is created, and then it exists
		if b, err = bucket.Create(t.Context(), js, config); err != nil {
			t.Fatal(err)
		}
	}
	return b, js
}

// stored returns the revisions that the server has.
func stored(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	stream, err := js.Stream(t.Context(), "KV_TEST")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// TestPut writes only over the revision that was read.
func TestPut(t *testing.T) {
	b, js := open(t)
	ctx := t.Context()
	if _, err := b.Get(ctx, "a"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("Get of nothing = %v", err)
	}
	first, err := b.Put(ctx, "a", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "a", []byte("x"), 0); !errors.Is(err, bucket.ErrChanged) {
		t.Errorf("Put over what was not read = %v, want ErrChanged", err)
	}
	if _, err := b.Put(ctx, "b", []byte("x"), first); !errors.Is(err, bucket.ErrChanged) {
		t.Errorf("Put over another's revision = %v, want ErrChanged", err)
	}
	second, err := b.Put(ctx, "a", []byte("2"), first)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := b.Get(ctx, "a"); err != nil || string(e.Value) != "2" || e.Revision != second || e.Key != "a" {
		t.Errorf("Get = %+v, %v", e, err)
	}
	if n := stored(t, js); n != 1 {
		t.Errorf("the server has %d revisions, want the newest alone", n)
	}
	// A Put based on a removed revision does not restore the record.
	if err := b.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "a", []byte("3"), second); !errors.Is(err, bucket.ErrChanged) {
		t.Errorf("Put over what was removed = %v, want ErrChanged", err)
	}
	if _, err := b.Get(ctx, "a"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("Get of what was removed = %v, want ErrNotFound", err)
	}
	if n := stored(t, js); n != 0 {
		t.Errorf("the server has %d revisions of what was removed, want none", n)
	}
	if err := b.Remove(ctx, "a"); err != nil {
		t.Errorf("Remove of what was removed = %v", err)
	}
	if _, err := b.Put(ctx, "a", []byte("4"), 0); err != nil {
		t.Errorf("Put of a record that was removed once = %v", err)
	}
}

// TestMatches finds, lists and removes records by a part of the key.
func TestMatches(t *testing.T) {
	b, js := open(t)
	ctx := t.Context()
	for _, key := range []string{"d1.ann.s1", "d2.ann.s2", "d3.ben.s3"} {
		if _, err := b.Put(ctx, key, []byte(key), 0); err != nil {
			t.Fatal(err)
		}
	}
	list := func(keys string) []string {
		t.Helper()
		got, err := b.Keys(ctx, keys)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		return got
	}
	if e, err := b.Get(ctx, "*.*.s1"); err != nil || e.Key != "d1.ann.s1" {
		t.Errorf("Get by the end of a key = %+v, %v", e, err)
	}
	if got := list("*.ann.*"); !slices.Equal(got, []string{"d1.ann.s1", "d2.ann.s2"}) {
		t.Errorf("ann has %q", got)
	}
	if err := b.Remove(ctx, "*.ann.*"); err != nil {
		t.Fatal(err)
	}
	if got := list("*.*.*"); !slices.Equal(got, []string{"d3.ben.s3"}) {
		t.Errorf("%q are left", got)
	}
	// A deletion by another client is one here, too.
	kv, err := js.KeyValue(ctx, "TEST")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(ctx, "d3.ben.s3"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, "d3.*.*"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("Get of what another client deleted = %v, want ErrNotFound", err)
	}
	if rev, err := b.Put(ctx, "d3.ben.s3", nil, 0); err != nil || rev == 0 {
		t.Errorf("Put of what another client deleted = %d, %v", rev, err)
	}
}

// TestLost loads a bucket that does not exist, one that does, and one that was
// deleted. Nothing is created in its place.
func TestLost(t *testing.T) {
	js := connect(t)
	ctx := t.Context()
	lost := func() {
		t.Helper()
		if _, err := bucket.Load(ctx, js, config); !errors.Is(err, bucket.ErrLost) {
			t.Errorf("Load = %v, want ErrLost", err)
		}
		if _, err := js.Stream(ctx, "KV_TEST"); !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("Load left a stream: %v", err)
		}
	}
	lost()
	b, err := bucket.Create(ctx, js, config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "a", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if b, err = bucket.Load(ctx, js, config); err != nil {
		t.Fatal(err)
	}
	if e, err := b.Get(ctx, "a"); err != nil || string(e.Value) != "1" {
		t.Errorf("Get = %+v, %v", e, err)
	}
	if err := js.DeleteStream(ctx, "KV_TEST"); err != nil {
		t.Fatal(err)
	}
	lost()
}

// TestOtherSettings refuses a bucket whose settings let the server remove
// records.
func TestOtherSettings(t *testing.T) {
	js := connect(t)
	ctx := t.Context()
	if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "TEST"}); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*bucket.Bucket, error){
		"Create": func() (*bucket.Bucket, error) { return bucket.Create(ctx, js, config) },
		"Load":   func() (*bucket.Bucket, error) { return bucket.Load(ctx, js, config) },
	} {
		if _, err := open(); !errors.Is(err, bucket.ErrOtherSettings) {
			t.Errorf("%s = %v, want ErrOtherSettings", name, err)
		}
	}
}
