package verifier

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

var rateStart = time.Date(2026, time.January, 2, 3, 4, 5, 678, time.UTC)

// numbered returns the id of the n-th token.
func numbered(n int) (b [16]byte) {
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	return b
}

// handClock is a clock that the test sets.
type handClock struct{ since atomic.Int64 }

func (c *handClock) now() time.Time          { return rateStart.Add(time.Duration(c.since.Load())) }
func (c *handClock) set(since time.Duration) { c.since.Store(int64(since)) }

// TestRateInstants has a token with three requests per second. It tests each
// boundary, and the instants beside it.
func TestRateInstants(t *testing.T) {
	const each = 333_333_334 // nanoseconds, rounded up
	var r rates
	var clock handClock
	for _, tt := range []struct {
		name string
		at   time.Duration
		wait time.Duration // zero if it is accepted
	}{
		{"the first", 0, 0},
		{"a second at once", 0, 0},
		{"a third at once", 0, 0},
		{"a fourth at once", 0, each},
		{"the fourth was not counted", 0, each},
		{"a nanosecond before a share is over", each - 1, 1},
		{"when it is", each, 0},
		{"and no other one then", each, each},
		{"a nanosecond before the next share is over", 2*each - 1, 1},
		{"when two are: one", 3 * each, 0},
		{"when two are: another", 3 * each, 0},
		{"when two are: and no third", 3 * each, each},
		{"after a rest: one", time.Hour, 0},
		{"after a rest: two", time.Hour, 0},
		{"after a rest: three", time.Hour, 0},
		{"after a rest: no more than a second's worth", time.Hour, each},
		{"half a share later half the wait is left", time.Hour + each/2, each / 2},
	} {
		clock.set(tt.at)
		if wait, ok := r.take(numbered(1), 3, clock.now); wait != tt.wait || ok != (tt.wait == 0) {
			t.Errorf("%s: %t, wait %d ns; want %d ns", tt.name, ok, wait, tt.wait)
		}
	}
}

// TestRateBurst accepts exactly one second's requests at once, for all rates.
func TestRateBurst(t *testing.T) {
	var clock handClock
	for _, rate := range []int{1, 2, 3, 7, 10, 60, 999, 1000, 1001, 70_000, 99_999, events.MaxRate} {
		var r rates
		let := 0
		for {
			if _, ok := r.take(numbered(1), rate, clock.now); !ok {
				break
			}
			let++
		}
		if let != rate {
			t.Errorf("%d a second: %d at once", rate, let)
		}
	}
}

// TestRateTokensApart exhausts the rate of one token. Another token that shares
// the lock is not affected.
func TestRateTokensApart(t *testing.T) {
	var r rates
	var clock handClock
	for range 2 {
		if _, ok := r.take(numbered(1), 2, clock.now); !ok {
			t.Fatal("the first token is refused at once")
		}
	}
	if _, ok := r.take(numbered(1), 2, clock.now); ok {
		t.Error("the first token has a third")
	}
	for range 2 {
		if _, ok := r.take(numbered(65), 2, clock.now); !ok {
			t.Error("the second token pays for the first")
		}
	}
}

// TestRateChanges lowers and raises a token's rate between requests. Earlier
// requests still count.
func TestRateChanges(t *testing.T) {
	var r rates
	var clock handClock
	for range 3 { // whose second is two nanoseconds too long
		r.take(numbered(1), 3, clock.now)
	}
	for _, rate := range []int{1, 2, 3, 1000} {
		if _, ok := r.take(numbered(1), rate, clock.now); ok {
			t.Errorf("used up at 3 a second, and let through at %d", rate)
		}
	}
	clock.set(100*time.Millisecond + 2)
	let := 0
	for range 1000 {
		if _, ok := r.take(numbered(1), 1000, clock.now); ok {
			let++
		}
	}
	if let != 100 {
		t.Errorf("a tenth of a second later, at 1000 a second: %d, want 100", let)
	}
}

// TestRateClockGoesBack sets the clock back. The token is not locked out, and
// gains nothing from a clock that jitters.
func TestRateClockGoesBack(t *testing.T) {
	var r rates
	var clock handClock
	clock.set(time.Hour)
	use := func() (let int) {
		for range 20 {
			if _, ok := r.take(numbered(1), 10, clock.now); ok {
				let++
			}
		}
		return let
	}
	if let := use(); let != 10 {
		t.Fatalf("at first %d, want 10", let)
	}
	for _, back := range []time.Duration{1, time.Millisecond, time.Second} {
		clock.set(time.Hour - back)
		if let := use(); let != 0 {
			t.Errorf("%s back: %d, want none", back, let)
		}
	}
	clock.set(0)
	if let := use(); let != 10 {
		t.Errorf("an hour back: %d, want 10", let)
	}
	clock.set(100 * time.Millisecond)
	if let := use(); let != 1 {
		t.Errorf("and a tenth of a second later: %d, want 1", let)
	}
	clock.set(100 * time.Hour)
	if let := use(); let != 10 {
		t.Errorf("days on: %d, want 10", let)
	}
}

// TestRateEqualsBucket compares with a token bucket of nanoseconds, for rates
// that divide a second: both are exact then.
func TestRateEqualsBucket(t *testing.T) {
	rng := seed.Rand(t)
	type bucket struct{ level, filled time.Duration } // of at most a second; when it was
	for range 50 {
		rate := []int{1, 2, 4, 5, 8, 10, 25, 100, 1000, 100_000}[rng.IntN(10)]
		each := time.Second / time.Duration(rate)
		var r rates
		var clock handClock
		buckets := map[[16]byte]*bucket{}
		now := time.Duration(0)
		for range 2000 {
			switch rng.IntN(4) {
			case 0:
				now += time.Duration(rng.Int64N(int64(2 * each)))
			case 1:
				now += each
			case 2:
				if rng.IntN(50) == 0 {
					now += time.Duration(rng.Int64N(int64(3 * time.Second)))
				}
			}
			token := numbered(rng.IntN(3))
			b := buckets[token]
			if b == nil {
				b = &bucket{level: time.Second}
				buckets[token] = b
			}
			b.level, b.filled = min(time.Second, b.level+now-b.filled), now
			want := max(0, each-b.level)
			if want == 0 {
				b.level -= each
			}
			clock.set(now)
			if wait, ok := r.take(token, rate, clock.now); wait != want || ok != (want == 0) {
				t.Fatalf("%d a second, %x at %s: %t, wait %s; want %s", rate, token, now, ok, wait, want)
			}
		}
	}
}

// TestRateIsNeverExceeded counts the accepted requests between any two, for
// random rates.
func TestRateIsNeverExceeded(t *testing.T) {
	rng := seed.Rand(t)
	for range 60 {
		rate := 1 + rng.IntN(300)
		var r rates
		var clock handClock
		var let []time.Duration
		now := time.Duration(0)
		for range 1500 {
			now += time.Duration(rng.Int64N(int64(time.Second) / int64(rate)))
			clock.set(now)
			wait, ok := r.take(numbered(1), rate, clock.now)
			if ok {
				let = append(let, now)
				continue
			}
			if rng.IntN(10) == 0 { // who waits as told is let through, and not before
				clock.set(now + wait - 1)
				if _, ok := r.take(numbered(1), rate, clock.now); ok {
					t.Fatalf("%d a second: let through 1 ns before its time", rate)
				}
				now += wait
				clock.set(now)
				if _, ok := r.take(numbered(1), rate, clock.now); !ok {
					t.Fatalf("%d a second: refused at its time", rate)
				}
				let = append(let, now)
			}
		}
		for i := range let {
			for j := i; j < len(let); j++ {
				most := int64(rate) + int64(rate)*int64(let[j]-let[i])/int64(time.Second)
				if n := int64(j - i + 1); n > most {
					t.Fatalf("%d a second: %d from %s to %s, want %d at the most", rate, n, let[i], let[j], most)
				}
			}
		}
	}
}

// TestRateTogether exhausts a rate from several goroutines. They get as many
// requests together as one alone.
func TestRateTogether(t *testing.T) {
	const rate, steps, goroutines = 1000, 50, 16
	var r rates
	var clock handClock
	let := 0
	for step := range steps {
		clock.set(time.Duration(step) * 10 * time.Millisecond)
		var now atomic.Int64
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for {
					if _, ok := r.take(numbered(1), rate, clock.now); !ok {
						return
					}
					now.Add(1)
				}
			})
		}
		wg.Wait()
		let += int(now.Load())
		if want := rate + step*rate/100; let != want {
			t.Fatalf("after %d ms: %d, want %d", step*10, let, want)
		}
	}
}

// TestRateRealClock is TestRateTogether with the machine's clock.
func TestRateRealClock(t *testing.T) {
	const rate, goroutines, asks = 500, 8, 20_000
	var r rates
	var let atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range goroutines {
		wg.Go(func() {
			for range asks {
				if _, ok := r.take(numbered(1), rate, time.Now); ok {
					let.Add(1)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if most := rate + int64(took)*rate/int64(time.Second); let.Load() > most || let.Load() < rate {
		t.Errorf("%d requests in %s; want %d to %d", let.Load(), took, rate, most)
	}
}

// TestRateForgets bounds the number of entries, and the number of sweeps.
func TestRateForgets(t *testing.T) {
	var r rates
	var clock handClock
	const each, tokens = time.Millisecond, 200_000
	const live = int(time.Second / each)
	for n := range tokens { // each of them over after a second
		clock.set(time.Duration(n) * each)
		if _, ok := r.take(numbered(n), 1, clock.now); !ok {
			t.Fatal("a token's first request is refused")
		}
	}
	kept, used := 0, 0
	for i := range r.shards {
		kept += len(r.shards[i].busy)
		if len(r.shards[i].busy) > 0 {
			used++
		}
	}
	if most := len(r.shards)*minSwept + 2*live; kept > most {
		t.Errorf("%d entries of %d tokens, of which %d say something; want %d at the most", kept, tokens, live, most)
	}
	if used != len(r.shards) {
		t.Errorf("%d of %d shards are used", used, len(r.shards))
	}

	// If few entries have expired, the next sweep comes at twice the number of
	// entries, and removes those that have expired by then.
	var s rateShard
	s.busy = map[[16]byte]time.Time{}
	over, soon := numbered(1<<32), clock.now().Add(time.Second)
	for n := range 1000 {
		s.busy[numbered(n)] = soon
	}
	s.sweep(clock.now())
	s.busy[over] = clock.now()
	for n := 1000; n < 1999; n++ {
		s.sweep(clock.now())
		s.busy[numbered(n)] = soon
	}
	if _, kept := s.busy[over]; !kept || len(s.busy) != 2000 {
		t.Errorf("%d entries, expired ones among them: %t; want 2000, and no second sweep yet", len(s.busy), kept)
	}
	s.sweep(clock.now())
	if _, kept := s.busy[over]; kept || len(s.busy) != 1999 {
		t.Errorf("%d entries, expired ones among them: %t; want 1999 after a second sweep", len(s.busy), kept)
	}
}

// TestRateReadsTheClockAlone reads the clock under the lock, so that no other
// request can overtake.
func TestRateReadsTheClockAlone(t *testing.T) {
	var r rates
	read := false
	r.take(numbered(1), 1, func() time.Time {
		read = true
		for i := range r.shards {
			if !r.shards[i].mu.TryLock() {
				return rateStart
			}
			r.shards[i].mu.Unlock()
		}
		t.Error("the clock is read without a lock")
		return rateStart
	})
	if !read {
		t.Error("the clock is not read")
	}
}

// TestRateAllocates allocates nothing for a known token.
func TestRateAllocates(t *testing.T) {
	var r rates
	token := numbered(1)
	if n := testing.AllocsPerRun(1000, func() { r.take(token, events.MaxRate, time.Now) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkRate(b *testing.B) {
	tokens := make([][16]byte, 1024)
	for i := range tokens {
		tokens[i] = numbered(i)
	}
	b.Run("OneToken", func(b *testing.B) {
		var r rates
		b.ReportAllocs()
		for b.Loop() {
			r.take(tokens[0], events.MaxRate, time.Now)
		}
	})
	b.Run("ManyInParallel", func(b *testing.B) {
		var r rates
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				r.take(tokens[i%len(tokens)], events.MaxRate, time.Now)
			}
		})
	})
}
