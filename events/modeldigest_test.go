package events_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// TestModelDigest has the same digest for models with the same decisions, and
// different ones for others.
func TestModelDigest(t *testing.T) {
	describe := func(change func(*events.ModelSpec)) string {
		t.Helper()
		spec := events.MatomoSpec
		spec.Permissions, spec.Types = maps.Clone(spec.Permissions), maps.Clone(spec.Types)
		spec.Reads, spec.Lasting = slices.Clone(spec.Reads), slices.Clone(spec.Lasting)
		change(&spec)
		m, err := events.NewModel(spec)
		if err != nil {
			t.Fatal(err)
		}
		return m.Digest()
	}
	want := events.Matomo.Digest()
	if want != "1a5540ea44f83259" { // must not change: nodes of two versions compare it
		t.Errorf("Matomo's digest is %s now", want)
	}
	for name, change := range map[string]func(*events.ModelSpec){
		"as it is": func(*events.ModelSpec) {},
		"what follows anyway": func(s *events.ModelSpec) {
			s.Permissions["admin"] = append([]string{"read"}, s.Permissions["admin"]...)
		},
		"an empty list for none":     func(s *events.ModelSpec) { s.Permissions["read"] = []string{} },
		"in another order":           func(s *events.ModelSpec) { slices.Reverse(s.Reads); slices.Reverse(s.Lasting) },
		"one that reads named twice": func(s *events.ModelSpec) { s.Reads = append(s.Reads, "view") },
	} {
		if got := describe(change); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	seen := map[string]string{want: "Matomo's", events.Plain.Digest(): "the plain one"}
	for name, change := range map[string]func(*events.ModelSpec){
		"one permission more":       func(s *events.ModelSpec) { s.Permissions["export"] = nil },
		"one included less":         func(s *events.ModelSpec) { s.Permissions["view"] = nil },
		"one included more":         func(s *events.ModelSpec) { s.Permissions["track"] = []string{"read"} },
		"one type more":             func(s *events.ModelSpec) { s.Types["goal"] = events.NumberID },
		"ids that may be names":     func(s *events.ModelSpec) { s.Types["site"] = events.NameID },
		"another delegate":          func(s *events.ModelSpec) { s.Admin = "write" },
		"no delegate":               func(s *events.ModelSpec) { s.Admin = "" },
		"one more that only reads":  func(s *events.ModelSpec) { s.Reads = append(s.Reads, "track") },
		"nothing that only reads":   func(s *events.ModelSpec) { s.Reads = nil },
		"one less that leaves code": func(s *events.ModelSpec) { s.Lasting = s.Lasting[1:] },
	} {
		got := describe(change)
		if other, twice := seen[got]; twice {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[got] = name
	}
}
