package verifier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// TestLease tests I3 and I11 for checks: no answer without a lease, regardless
// of the time of day.
func TestLease(t *testing.T) {
	const lease = 10 * time.Second
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("view:site/3"), "view:site/3")
	n := verifiertest.Start(t, l, verifiertest.Options{Lease: lease})
	check := func(what string, want verifier.Reason) {
		t.Helper()
		d := n.Verifier.Check(secret.Reveal(), verifier.Request{Need: eventstest.Scopes("view:site/3")})
		if d.Reason != want {
			t.Errorf("%s: %s, want %s", what, d.Reason, want)
		}
		if left := n.Verifier.Lease(); (left > 0) != (want == verifier.Allowed) {
			t.Errorf("%s: Lease() = %s", what, left)
		}
	}
	check("at the start", verifier.Allowed)
	n.Clock.Pass(lease - 1)
	check("in its last nanosecond", verifier.Allowed)
	n.Clock.Pass(1)
	check("at its end", verifier.Unavailable)
	n.Clock.Pass(time.Hour)
	check("long after", verifier.Unavailable)

	// A lease starts when the renewal is sent, not when it is acknowledged.
	sent := n.Clock.Boottime()
	n.Clock.Pass(lease - 1)
	n.Lease.Renew(sent, l.End())
	check("in the last nanosecond after a late answer", verifier.Allowed)
	n.Clock.Pass(1)
	check("at the end of the lease", verifier.Unavailable)

	// A lease needs a position of the index.
	l.Account()
	n.Lease.Renew(n.Clock.Boottime(), l.End())
	if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Unavailable {
		t.Errorf("with less than the lease is for: %s", d.Reason)
	}
	n.Follow()
	check("with all applied", verifier.Allowed)

	// An older renewal does not shorten a newer one.
	n.Lease.Renew(n.Clock.Boottime()-time.Hour, l.End())
	check("after an old answer", verifier.Allowed)

	// A lease does not depend on the time of day.
	n.Clock.Set(n.Clock.Now().Add(-100 * time.Hour))
	check("with the calendar put back", verifier.Allowed)
	n.Clock.Pass(lease)
	check("with the calendar put back, at the end", verifier.Unavailable)
	n.Clock.Set(n.Clock.Now().Add(200 * time.Hour))
	check("with the calendar put forward, at the end", verifier.Unavailable)

	n.Lease.Renew(n.Clock.Boottime(), l.End())
	check("renewed", verifier.Allowed)
	n.Lease.Release()
	check("given up", verifier.Unavailable)
}

func TestNoLeaseYet(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	n := verifiertest.Start(t, eventstest.NewLog(1), verifiertest.Options{Dir: t.TempDir()})
	if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Unknown {
		t.Errorf("an empty log: %s, want %s", d.Reason, verifier.Unknown)
	}

	p, err := projector.Open(projector.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if err := p.Apply(t.Context(), l.Messages); err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(verifier.Config{Index: p, Lease: &verifiertest.Lease{}})
	if err != nil {
		t.Fatal(err)
	}
	if d := v.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Unavailable {
		t.Errorf("a node that never had a lease: %s, want %s", d.Reason, verifier.Unavailable)
	}
	if d := v.Check("garbage", verifier.Request{}); d.Reason != verifier.Malformed {
		t.Errorf("garbage, which needs no index: %s, want %s", d.Reason, verifier.Malformed)
	}
}

// TestLeaseEndsDuringCheck has a lease that expires after a check has begun.
func TestLeaseEndsDuringCheck(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	for late := range 4 {
		looks := 0
		n := verifiertest.Start(t, l, verifiertest.Options{Boottime: func() time.Duration {
			if looks++; looks > late {
				return verifier.DefaultLease
			}
			return 0
		}})
		looks = 0
		n.Lease.Renew(0, l.End())
		// The clock is read after the decision.
		want := verifier.Unavailable
		if late >= 1 {
			want = verifier.Allowed
		}
		d := n.Verifier.Check(secret.Reveal(), verifier.Request{Need: eventstest.Scopes("view:site/3")})
		if d.Reason != want {
			t.Errorf("the lease ends after %d looks at the clock: %s, want %s", late, d.Reason, want)
		}
		if !d.OK() && d.Scopes() != nil {
			t.Errorf("refused, with scopes %v", d.Scopes())
		}
	}
}

// TestLeaseEndsDuringSearch has a lease that expires during the lookup, as in a
// suspend of the machine.
func TestLeaseEndsDuringSearch(t *testing.T) {
	l := eventstest.NewLog(1)
	_, secret := l.Token(l.Account("superuser"), "superuser")
	n := verifiertest.Start(t, l, verifiertest.Options{})
	v, err := verifier.New(verifier.Config{Index: slowIndex{n}, Lease: n.Lease, Now: n.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]string{"good": secret.Reveal(), "unknown": l.Secret().Reveal()} {
		n.Lease.Renew(n.Clock.Boottime(), l.End())
		if d := v.Check(s, verifier.Request{}); d.Reason != verifier.Unavailable {
			t.Errorf("the lease ended during the search for a secret that is %s: %s, want unavailable", what, d.Reason)
		}
	}
}

// slowIndex is an index with lookups that last longer than the lease.
type slowIndex struct{ n *verifiertest.Node }

func (x slowIndex) Find(d events.Digest) (projector.Facts, error) {
	defer x.n.Clock.Pass(verifier.DefaultLease)
	return x.n.Index.Find(d)
}

func (x slowIndex) FindWave(w *projector.Wave) {
	defer x.n.Clock.Pass(verifier.DefaultLease)
	x.n.Index.FindWave(w)
}
func (x slowIndex) Position() events.Position             { return x.n.Index.Position() }
func (x slowIndex) MatomoSince() (events.Position, error) { return x.n.Index.MatomoSince() }

func (x slowIndex) Policy() (events.PolicyState, error) { return x.n.Index.Policy() }
func (x slowIndex) WaitApplied(ctx context.Context, at events.Position) error {
	return x.n.Index.WaitApplied(ctx, at)
}

// damage changes the index of a stopped node.
func damage(t *testing.T, dir string, change func(tx *badger.Txn) error) {
	t.Helper()
	db, err := badger.Open(badger.DefaultOptions(dir).WithCompression(options.None).WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(change); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// rot flips a bit of the record of a secret in the table in dir.
func rot(dir string, digest events.Digest) error {
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		return fmt.Errorf("tables %q: %w", tables, err)
	}
	f, err := os.OpenFile(tables[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	at := bytes.Index(b, digest[len(digest)-8:]) // the table may have only the end of a key
	if at < 0 {
		return errors.New("the table does not have the secret")
	}
	at += 40 // in the record, after its key
	_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
	return err
}

// TestIndexFails stops the index in every possible way.
func TestIndexFails(t *testing.T) {
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	_, secret := l.Token(account, "superuser")
	_, other := l.Token(account, "superuser")
	id := account.Bytes()
	ofAccount := append([]byte("a/"), id[:]...)
	tests := []struct {
		name    string
		damage  func(tx *badger.Txn) error // before the index is opened
		rot     bool                       // while it is open
		stop    func(n *verifiertest.Node)
		corrupt bool
	}{
		{name: "stopped", stop: func(n *verifiertest.Node) { n.Index.Stop(errors.New("for the test")) }},
		{name: "an invalid message", stop: func(n *verifiertest.Node) {
			_ = n.Index.Apply(t.Context(), []events.Message{{Position: l.End() + 1, Subject: "ledger.token.aa.revoked", Data: []byte("{}")}})
		}},
		{name: "a gap", stop: func(n *verifiertest.Node) {
			_ = n.Index.Apply(t.Context(), []events.Message{{Position: l.End() + 2}})
		}},
		{name: "a bit that flips while it runs", corrupt: true, rot: true},
		{name: "no account", corrupt: true, damage: func(tx *badger.Txn) error { return tx.Delete(ofAccount) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Run("Before", func(t *testing.T) {
				n := verifiertest.Start(t, l, verifiertest.Options{Dir: dir})
				if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); !d.OK() {
					t.Fatalf("before: %s", d.Reason)
				}
			})
			if tt.damage != nil {
				damage(t, dir, tt.damage)
			}
			var logged bytes.Buffer
			// Resident records were read at the start, before the damage.
			n := verifiertest.Start(t, l, verifiertest.Options{Dir: dir, Resident: -1, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			if tt.stop != nil {
				tt.stop(n)
			}
			if tt.rot {
				if err := rot(dir, secret.Digest()); err != nil {
					t.Fatal(err)
				}
			}
			if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Unavailable {
				t.Errorf("%s, want %s", d.Reason, verifier.Unavailable)
			}
			// If one record is damaged, others may be too.
			if d := n.Verifier.Check(other.Reveal(), verifier.Request{}); d.Reason != verifier.Unavailable {
				t.Errorf("another token: %s, want %s", d.Reason, verifier.Unavailable)
			}
			if tt.corrupt && !strings.Contains(logged.String(), "cannot read the index") {
				t.Errorf("the log lacks the error:\n%s", logged.String())
			}
			if err := n.Index.Err(); err == nil {
				t.Error("the index has no error")
			} else if tt.corrupt && !errors.Is(err, projector.ErrCorrupt) {
				t.Errorf("the index stopped with %v, want ErrCorrupt", err)
			}
			n.Lease.Renew(n.Clock.Boottime(), l.End())
			if d := n.Verifier.Check(secret.Reveal(), verifier.Request{}); d.Reason != verifier.Unavailable {
				t.Errorf("after another renewal: %s, want %s", d.Reason, verifier.Unavailable)
			}
		})
	}
}
