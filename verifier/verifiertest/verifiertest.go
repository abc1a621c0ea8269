// Package verifiertest runs a verifier with a real index, which a test feeds
// from its own log.
package verifiertest

import (
	"crypto/sha256"
	"flag"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/lease"
)

// Options configure a [Node].
type Options struct {
	Dir    string        // of the index; empty means a temporary folder
	Lease  time.Duration // zero means the default
	Stale  map[string]time.Duration
	Model  *events.Model // nil means the default
	Logger *slog.Logger  // nil discards
	// MinWait limits how long the node waits for a position. Zero means the
	// default.
	MinWait time.Duration
	// Resident is the size in bytes of the index's table in memory, or negative
	// for no table. Zero means the value that [Main] sets, or one mebibyte.
	Resident int64
	// Salts are those of Matomo installations.
	Salts []events.MatomoSalt
	// Boottime replaces the node's clock of leases.
	Boottime func() time.Duration
}

// resident is the default of Options.Resident.
var resident int64 = 1 << 20

// Main runs a package's tests twice: with a table that holds all secrets in
// memory, and without a table. Benchmarks, fuzz tests and -list run once.
func Main(m *testing.M) {
	code := m.Run()
	set := func(name string) bool {
		f := flag.Lookup(name)
		return f != nil && f.Value.String() != ""
	}
	if !set("test.bench") && !set("test.fuzz") && !set("test.list") {
		resident = -1
		code = max(code, m.Run())
	}
	os.Exit(code)
}

// Node is a verifier with its index and its log.
type Node struct {
	Log      *eventstest.Log
	Index    *projector.Projector
	Verifier *verifier.Verifier
	Lease    *Lease
	Clock    *Clock

	t testing.TB
}

// Lease is a lease that the test controls.
type Lease struct {
	For      time.Duration // duration of a renewed lease
	boottime func() time.Duration

	mu    sync.Mutex
	held  bool            // guarded by mu
	until time.Duration   // guarded by mu
	least events.Position // guarded by mu
}

// Renew renews the lease. sent is the boot time of the renewal, and least the
// lowest position that the index must have. An older renewal does not shorten
// the lease.
func (l *Lease) Renew(sent time.Duration, least events.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || sent+l.For > l.until {
		l.held, l.until = true, sent+l.For
	}
	l.least = max(l.least, least)
}

// Release ends the lease, as if there had never been one.
func (l *Lease) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
}

// Remaining returns the time left of the lease.
func (l *Lease) Remaining() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held {
		return lease.Never
	}
	return l.until - l.boottime()
}

// Valid reports whether the lease is valid. It returns no wall clock time.
func (l *Lease) Valid() (int64, bool) { return 0, l.Remaining() > 0 }

// MinPosition returns the lowest position that the index must have.
func (l *Lease) MinPosition() events.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.least
}

// Start returns a node that has applied the log and has a lease. Its clock
// shows the log's time.
func Start(t testing.TB, log *eventstest.Log, o Options) *Node {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Resident == 0 {
		o.Resident = resident
	}
	p, err := projector.Open(projector.Config{Dir: o.Dir, Resident: max(0, o.Resident), Logger: o.Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &Node{Log: log, Index: p, Clock: new(Clock), t: t}
	n.Clock.Set(log.Now())
	if o.Boottime == nil {
		o.Boottime = n.Clock.Boottime
	}
	if o.Lease == 0 {
		o.Lease = verifier.DefaultLease
	}
	n.Lease = &Lease{For: o.Lease, boottime: o.Boottime}
	n.Verifier, err = verifier.New(verifier.Config{
		Index: p, Lease: n.Lease, Stale: o.Stale, Model: o.Model, MinWait: o.MinWait, Salts: o.Salts,
		Logger: o.Logger, Now: n.Clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Follow()
	return n
}

// Follow applies the new messages of the log, and renews the lease.
func (n *Node) Follow() {
	n.t.Helper()
	n.Apply(n.Log.Messages[n.Index.Position():])
	n.Lease.Renew(n.Clock.Boottime(), n.Log.End())
}

// Apply applies messages.
func (n *Node) Apply(messages []events.Message) {
	n.t.Helper()
	if err := n.Index.Apply(n.t.Context(), messages); err != nil {
		n.t.Fatal(err)
	}
}

// Clock is a clock that only the test moves.
type Clock struct {
	now  atomic.Pointer[time.Time]
	boot atomic.Int64
}

// Now returns the wall clock time, by which tokens expire.
func (c *Clock) Now() time.Time { return *c.now.Load() }

// Set sets the wall clock time.
func (c *Clock) Set(now time.Time) { c.now.Store(&now) }

// Boottime returns the boot time, by which leases end.
func (c *Clock) Boottime() time.Duration { return time.Duration(c.boot.Load()) }

// Pass adds d to the boot time.
func (c *Clock) Pass(d time.Duration) { c.boot.Add(int64(d)) }

// BadSecrets returns strings that resemble a valid secret and are not valid.
// The key says what is wrong with each.
func BadSecrets(good string) map[string]string {
	digest := events.Digest(sha256.Sum256([]byte(good)))
	hexed, _ := digest.MarshalText() // cannot fail
	swapped := []byte(good)
	for i := 4; i < len(swapped)-1; i++ {
		if swapped[i] != swapped[i+1] {
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
			break
		}
	}
	zeros := events.DefaultFormat.User + strings.Repeat("0", 32)
	foreign, err := events.NewFormat("other")
	if err != nil {
		panic(err)
	}
	return map[string]string{
		"empty":                     "",
		"prefix alone":              good[:4],
		"wrong prefix":              "ghp_" + good[4:],
		"the other kind's prefix":   "tls_" + good[4:],
		"no checksum":               good[:len(good)-6],
		"bad checksum":              good[:len(good)-1] + flip(good[len(good)-1]),
		"a character changed":       good[:10] + flip(good[10]) + good[11:],
		"characters swapped":        string(swapped),
		"upper case":                strings.ToUpper(good),
		"lower case":                strings.ToLower(good),
		"one less":                  good[:len(good)-1],
		"one more":                  good + "0",
		"long":                      strings.Repeat(good, 25000),
		"zero byte":                 good[:20] + "\x00" + good[21:],
		"zero byte behind":          good + "\x00",
		"line break":                good[:20] + "\n" + good[21:],
		"line break behind":         good + "\r\n",
		"space before":              " " + good,
		"space behind":              good + " ",
		"tab behind":                good + "\t",
		"another script's letter":   "tIu_" + good[4:],
		"full width":                "ｔｌｕ＿" + good[4:],
		"not UTF-8":                 good[:20] + "\xff" + good[21:],
		"overlong":                  "\xc1\xb4" + good[1:],
		"byte order mark":           "\ufeff" + good,
		"percent":                   "%74" + good[1:],
		"quotes":                    `"` + good + `"`,
		"two":                       good + "," + good,
		"a token's id":              "tok_01jd3qk8z5n0v7m2x4c6b8a9ef",
		"digest":                    string(hexed),
		"half a digest":             string(hexed[:32]),
		"no entropy":                zeros + eventstest.Checksum(zeros),
		"another ledger's":          foreign.NewSecret(events.UserAccount).Reveal(),
		"well formed and not known": events.DefaultFormat.NewSecret(events.UserAccount).Reveal(),
		"old form and not known":    events.NewHexSecret().Reveal(),
		"old form in capitals":      strings.Repeat("A", 32),
	}
}

// flip returns another character of a secret's alphabet.
func flip(c byte) string {
	if c == 'a' {
		return "b"
	}
	return "a"
}

// Between is a lease that calls Do once, after its first use: after the decision
// and before the answer.
type Between struct {
	*Lease
	Do func()
}

// Valid is that of the lease.
func (b *Between) Valid() (int64, bool) {
	now, yes := b.Lease.Valid()
	if do := b.Do; do != nil {
		b.Do = nil
		do()
	}
	return now, yes
}
