package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// TestCutOff loses each request in turn, or its answer, and all later ones. A
// record then has its old or its new value. The next start erases what was
// left, and a retry completes the operation.
func TestCutOff(t *testing.T) {
	put := func(b *bucket.Bucket, t *testing.T) error {
		e, err := b.Get(t.Context(), "a")
		if err != nil {
			return err
		}
		_, err = b.Put(t.Context(), "a", []byte("new"), e.Revision)
		return err
	}
	remove := func(b *bucket.Bucket, t *testing.T) error { return b.Remove(t.Context(), "a") }
	for _, c := range []struct {
		what  string
		do    func(*bucket.Bucket, *testing.T) error
		steps int // at which it is cut off
		after string
	}{{"Put", put, 3, "new"}, {"Remove", remove, 8, ""}} {
		for step := range c.steps {
			for _, answer := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, step %d, answer %t", c.what, step, answer), func(t *testing.T) {
					t.Parallel()
					testCutOff(t, c.do, step, answer, c.after)
				})
			}
		}
	}
}

func testCutOff(t *testing.T, do func(*bucket.Bucket, *testing.T) error, step int, answer bool, after string) {
	log := ledgertest.Start(t)
	other := log.Conn()
	t.Cleanup(other.Close)
	otherJS, err := jetstream.New(other)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bucket.Create(t.Context(), otherJS, config)
	if err != nil {
		t.Fatal(err)
	}
	first, err := b.Put(t.Context(), "a", []byte("first"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "a", []byte("old"), first); err != nil {
		t.Fatal(err)
	}
	// On a slow machine other requests may time out too, which is another lost
	// answer.
	const short = 300 * time.Millisecond
	link, conn := log.Link()
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(short))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = bucket.Load(t.Context(), js, bucket.Config{Name: "TEST", Timeout: short}); err != nil {
		t.Fatal(err)
	}
	seen, cut := 0, false
	link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		if m.Subject == "" || !strings.Contains(m.Subject, "KV") {
			return ledgertest.Pass
		}
		if m.Answer == answer {
			cut = cut || seen == step
			seen++
		}
		if cut {
			return ledgertest.Lose
		}
		return ledgertest.Pass
	})
	err = do(b, t)
	link.Rule(nil)
	if err == nil && link.Lost() == 0 {
		t.Fatalf("it takes %d requests, so this shows nothing", seen)
	}
	// Another process starts and finds at most one revision, which counts.
	var err2 error
	if b, err2 = bucket.Load(t.Context(), otherJS, config); err2 != nil {
		t.Fatal(err2)
	}
	e, err2 := b.Get(t.Context(), "a")
	switch {
	case errors.Is(err2, bucket.ErrNotFound) && after == "":
	case err2 != nil:
		t.Errorf("Get = %v", err2)
	case err == nil && string(e.Value) != after, string(e.Value) != "old" && string(e.Value) != after:
		t.Errorf("Get = %q after %v", e.Value, err)
	}
	if n := stored(t, otherJS); n > 1 || n == 1 && errors.Is(err2, bucket.ErrNotFound) {
		t.Errorf("the server has %d revisions after the next start, and Get = %v", n, err2)
	}
	if err := do(b, t); err != nil {
		t.Fatalf("once more: %v", err)
	}
	switch e, err := b.Get(t.Context(), "a"); {
	case errors.Is(err, bucket.ErrNotFound) && after == "":
	case err != nil, string(e.Value) != after:
		t.Errorf("once more, Get = %q, %v", e.Value, err)
	}
}

// TestOpenAfterLostRequest loses each request of Open in turn, once. Each
// request has its own timeout and is sent again.
func TestOpenAfterLostRequest(t *testing.T) {
	log := ledgertest.Start(t)
	admin, err := jetstream.New(log.Conn())
	if err != nil {
		t.Fatal(err)
	}
	b, err := bucket.Create(t.Context(), admin, config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "a", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	for step := 0; ; step++ {
		link, conn := log.Link()
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		requests := 0
		link.Rule(func(m ledgertest.Message) ledgertest.Fate {
			if m.Answer || !strings.HasPrefix(m.Subject, "$JS.API.") {
				return ledgertest.Pass
			}
			if requests++; requests == step+1 {
				return ledgertest.Lose
			}
			return ledgertest.Pass
		})
		// The total limit is far above a request's timeout, so that waiting for
		// the lost answer would fail the test.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := bucket.FindStream(ctx, js, "KV_TEST", 100*time.Millisecond); err != nil {
			t.Fatalf("step %d: FindStream = %v", step, err)
		}
		b, err := bucket.Load(ctx, js, bucket.Config{Name: "TEST", Timeout: time.Second})
		cancel()
		if err != nil {
			t.Fatalf("step %d: Load = %v", step, err)
		}
		lost := link.Lost()
		link.Rule(nil) // the request of Get is not one that opens the bucket
		wait.Until(t, "the bucket has its record", func() bool {
			e, err := b.Get(t.Context(), "a")
			return err == nil && string(e.Value) == "value"
		})
		if lost == 0 {
			if step < 4 {
				t.Errorf("opening took %d requests, want to have lost 4 of them", step)
			}
			return
		}
	}
}
