package bucket_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

func open(t *testing.T) *bucket.Bucket {
	t.Helper()
	conn := ledgertest.Start(t).Conn()
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	var b *bucket.Bucket
	for range 2 { // it is made, and then it is there
		if b, err = bucket.Open(t.Context(), js, bucket.Config{Name: "TEST"}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// TestPut writes only over what was read.
func TestPut(t *testing.T) {
	b := open(t)
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
	// What was removed does not come back by a Put that rests on it.
	if err := b.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "a", []byte("3"), second); !errors.Is(err, bucket.ErrChanged) {
		t.Errorf("Put over what was removed = %v, want ErrChanged", err)
	}
	if _, err := b.Get(ctx, "a"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("Get of what was removed = %v, want ErrNotFound", err)
	}
}

// TestMatches finds, lists and removes by a part of the key.
func TestMatches(t *testing.T) {
	b := open(t)
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
	if err := b.KV.Delete(ctx, "d3.ben.s3"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, "d3.*.*"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("Get of what another client deleted = %v, want ErrNotFound", err)
	}
}
