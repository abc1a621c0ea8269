package bench

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// TestSecrets: what is made is what a ledger would make, each once, and the same
// every time.
func TestSecrets(t *testing.T) {
	p := &population{seed: 7, size: 2000}
	other := &population{seed: 8, size: 2000}
	seen := map[string]bool{}
	for i := range p.size {
		for _, s := range []string{string(p.secret(nil, i)), string(p.stranger(nil, i)), string(other.secret(nil, i))} {
			if _, err := events.DefaultFormat.ParseSecret(s); err != nil || len(s) != secretLength {
				t.Fatalf("token %d: %d characters that are no secret: %v", i, len(s), err)
			}
			if seen[s] {
				t.Fatalf("token %d: a secret is repeated", i)
			}
			seen[s] = true
		}
		if string(p.secret([]byte("x"), i)) != "x"+string(p.secret(nil, i)) {
			t.Fatalf("token %d: its secret differs the second time", i)
		}
		if p.digest(i) != sha256.Sum256(p.secret(nil, i)) {
			t.Fatalf("token %d: the digest is not its secret's", i)
		}
	}
}

// TestEvents: the events are those of the size, at consecutive positions, and
// are read back.
func TestEvents(t *testing.T) {
	p := &population{seed: 1, size: 5000, doomed: 321}
	kinds, next := map[events.Kind]int{}, events.Position(1)
	if err := p.each(t.Context(), func(batch []events.Message) error {
		for _, m := range batch {
			e, err := events.DecodeMessage(m)
			if err != nil || m.Position != next {
				t.Fatalf("position %d, want %d: %v", m.Position, next, err)
			}
			next++
			kinds[e.Change.Kind()]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if total := int(next - 1); total != p.events() {
		t.Errorf("%d events, and %d were promised", total, p.events())
	}
	if kinds[events.KindTokenCreated] != p.all() || kinds[events.KindTokenRevoked] != p.size/revokedEvery ||
		kinds[events.KindAccountCreated] != 54 {
		t.Errorf("events %v, want %d tokens made, %d revoked, 54 accounts", kinds, p.all(), p.size/revokedEvery)
	}
	stop := errors.New("enough")
	if err := p.each(t.Context(), func([]events.Message) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("each = %v, want what the taker said", err)
	}
}

// TestWorkload: what is asked about is of its kind.
func TestWorkload(t *testing.T) {
	for _, size := range []int{minTokens, 1000} {
		p := &population{seed: 3, size: size, doomed: 10}
		owner := map[string]int{}
		for i := range p.all() {
			owner[string(p.secret(nil, i))] = i
		}
		for _, spread := range []Spread{Uniform, Zipf} {
			times := map[int]int{}
			for _, kind := range []Kind{Hit, Miss, Garbage, Revoked} {
				w, err := newWorkload(p, kind, spread, 20_000)
				if err != nil {
					t.Fatal(err)
				}
				for i := range w.len() {
					q := w.at(i)
					token, known := owner[q.secret]
					_, shaped := digestOf(q.secret)
					good := false
					switch kind {
					case Hit:
						good = known && token == q.token && token < size && !p.revoked(token)
						times[token]++
					case Revoked:
						good = known && token == q.token && p.revoked(token)
					case Miss:
						good = !known && shaped
					case Garbage:
						good = !known && !shaped
					}
					if !good {
						t.Fatalf("%d tokens, %s: question %d is about token %d (known %t, shaped %t)",
							size, kind, i, q.token, known, shaped)
					}
				}
			}
			highest, lowest := 0, 1<<30
			for _, n := range times {
				highest, lowest = max(highest, n), min(lowest, n)
			}
			if skewed := highest > 10*lowest; size > minTokens && (len(times) < size/3 || skewed != (spread == Zipf)) {
				t.Errorf("%d tokens, %s: %d of them asked about, %d to %d times", size, spread, len(times), lowest, highest)
			}
		}
	}
}

func TestRecord(t *testing.T) {
	p := &population{seed: 1, size: 100}
	for i := range p.size {
		r := p.record(i)
		got, err := parseRecord(r.append(nil))
		if err != nil || got != r {
			t.Fatalf("record %+v comes back as %+v, %v", r, got, err)
		}
		if got.allows(query{token: i}) == p.revoked(i) || got.allows(query{token: i + 1}) {
			t.Errorf("token %d, revoked %t: allowed for its site %t, for the next %t",
				i, p.revoked(i), got.allows(query{token: i}), got.allows(query{token: i + 1}))
		}
		r.expires = 1
		if r.allows(query{token: i}) {
			t.Errorf("token %d is allowed past its end", i)
		}
	}
	if _, err := parseRecord(nil); err == nil {
		t.Error("a record of no bytes is read")
	}
}
