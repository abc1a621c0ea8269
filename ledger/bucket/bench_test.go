package bucket_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// BenchmarkPut overwrites a record, as the use of a session does. The server
// rewrites the block with the other records each time.
func BenchmarkPut(b *testing.B) {
	for _, others := range []int{0, 1000, 5000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			conn := ledgertest.Start(b).Conn()
			defer conn.Close()
			js, err := jetstream.New(conn)
			if err != nil {
				b.Fatal(err)
			}
			bk, err := bucket.Create(b.Context(), js, bucket.Config{Name: "TEST"})
			if err != nil {
				b.Fatal(err)
			}
			value := make([]byte, 400)
			for i := range others {
				if _, err := bk.Put(b.Context(), fmt.Sprintf("other.%d", i), value, 0); err != nil {
					b.Fatal(err)
				}
			}
			rev := uint64(0)
			for b.Loop() {
				if rev, err = bk.Put(b.Context(), "a", value, rev); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRemove removes a record that was written twice.
func BenchmarkRemove(b *testing.B) {
	conn := ledgertest.Start(b).Conn()
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	bk, err := bucket.Create(b.Context(), js, bucket.Config{Name: "TEST"})
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 400)
	for b.Loop() {
		if _, err := bk.Put(b.Context(), "a", value, 0); err != nil {
			b.Fatal(err)
		}
		if err := bk.Remove(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}
