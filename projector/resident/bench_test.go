package resident

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

var long = flag.Bool("long", false, "benchmarks with ten million secrets too")

// sizes returns the numbers of secrets for benchmarks.
func sizes() []uint64 {
	if *long {
		return []uint64{10_000, 1_000_000, 10_000_000}
	}
	return []uint64{10_000, 1_000_000}
}

// filled returns a table of n secrets, with the variety of scopes and labels of
// a large installation.
func filled(tb testing.TB, n uint64) *Table {
	tb.Helper()
	table := New(unlimited, forms)
	table.Update(func(w Writer) {
		for i := range byte(5) {
			w.SetAccount(account(i))
		}
		s := &Secret{State: 1}
		for i := range n {
			s.Digest = quick(i)
			binary.LittleEndian.PutUint64(s.Token[:], i)
			s.Account[15] = byte(i % 5)
			s.Created, s.Expires, s.Version = int64(i), int64(i)+1<<50, events.Position(i+1)
			s.App = fmt.Appendf(s.App[:0], "app %d", i%100)
			s.Scopes = fmt.Appendf(s.Scopes[:0], "view:site/%d", 1+i%1000)
			if err := w.Put(s); err != nil {
				tb.Fatal(err)
			}
		}
	})
	return table
}

// quick returns a pseudorandom digest. It is faster than SHA-256.
func quick(n uint64) (d events.Digest) {
	r := rand.NewPCG(n, 1)
	for i := 0; i < len(d); i += 8 {
		binary.LittleEndian.PutUint64(d[i:], r.Uint64())
	}
	return d
}

func BenchmarkFind(b *testing.B) {
	for _, n := range sizes() {
		table := filled(b, n)
		for _, c := range []struct {
			name string
			from uint64
			want Answer
		}{{"hit", 0, InMemory}, {"miss", n, Absent}} {
			digests := make([]events.Digest, 1<<16)
			for i := range digests {
				digests[i] = quick(c.from + uint64(i)*2654435761%n)
			}
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					var f Found
					if table.Find(&digests[i%len(digests)], &f) != c.want {
						b.Fatal("wrong answer")
					}
				}
			})
		}
	}
}

// BenchmarkPut fills a table, and reports its size.
func BenchmarkPut(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				table := filled(b, n)
				b.ReportMetric(float64(heap()-before)/float64(n), "heap-B/secret")
				b.ReportMetric(float64(table.Stats().Bytes)/float64(n), "B/secret")
				runtime.KeepAlive(table)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(uint64(b.N)*n), "ns/secret")
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkFindWhileCollecting calls Find while the garbage collector runs all
// the time, and reports percentiles.
func BenchmarkFindWhileCollecting(b *testing.B) {
	for _, n := range sizes() {
		table := filled(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			stop, stopped := make(chan struct{}), make(chan int)
			go func() {
				cycles := 0
				for {
					select {
					case <-stop:
						stopped <- cycles
						return
					default:
						runtime.GC()
						cycles++
					}
				}
			}()
			var took []time.Duration
			for i := uint64(0); b.Loop(); i++ {
				d := quick(i % n)
				var f Found
				began := time.Now()
				table.Find(&d, &f)
				took = append(took, time.Since(began))
			}
			close(stop)
			cycles := <-stopped
			slices.Sort(took)
			at := func(part float64) float64 { return float64(took[int(part*float64(len(took)-1))].Nanoseconds()) }
			b.ReportMetric(at(0.5), "p50-ns")
			b.ReportMetric(at(0.99), "p99-ns")
			b.ReportMetric(at(0.999), "p99.9-ns")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(max(1, cycles)), "us/cycle")
		})
	}
	debug.FreeOSMemory()
}
