package events_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

func TestModelsThatAreNone(t *testing.T) {
	good := func() events.ModelSpec {
		return events.ModelSpec{
			Permissions: map[string][]string{"read": nil, "write": {"read"}},
			Types:       map[string]string{"bucket": events.NameID},
		}
	}
	if _, err := events.NewModel(good()); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*events.ModelSpec)
		want   string
	}{
		"no permissions":      {func(s *events.ModelSpec) { s.Permissions = nil }, "permissions and types of resource must not be empty"},
		"no types":            {func(s *events.ModelSpec) { s.Types = nil }, "permissions and types of resource must not be empty"},
		"unknown include":     {func(s *events.ModelSpec) { s.Permissions["write"] = []string{"raed"} }, `"raed", which is not among the permissions`},
		"a cycle of two":      {func(s *events.ModelSpec) { s.Permissions["read"] = []string{"write"} }, "includes itself"},
		"itself":              {func(s *events.ModelSpec) { s.Permissions["read"] = []string{"read"} }, "includes itself"},
		"superuser":           {func(s *events.ModelSpec) { s.Permissions["superuser"] = nil }, "is reserved"},
		"a permission's sign": {func(s *events.ModelSpec) { s.Permissions["re:ad"] = nil }, "lower-case letters"},
		"a homoglyph":         {func(s *events.ModelSpec) { s.Permissions["re\u0430d"] = nil }, "lower-case letters"},
		"a type's sign":       {func(s *events.ModelSpec) { s.Types["a/b"] = events.NameID }, "lower-case letters"},
		"a form of ids":       {func(s *events.ModelSpec) { s.Types["bucket"] = "uuid" }, "number or name"},
		"unknown admin":       {func(s *events.ModelSpec) { s.Admin = "admin" }, `"admin" is named`},
		"unknown lasting":     {func(s *events.ModelSpec) { s.Lasting = []string{"x"} }, `"x" is named`},
	} {
		t.Run(name, func(t *testing.T) {
			spec := good()
			test.change(&spec)
			_, err := events.NewModel(spec)
			if !errors.Is(err, events.ErrBadModel) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("NewModel: %v, want it to say %q", err, test.want)
			}
		})
	}
	if _, err := events.ModelNamed("matomo2"); !errors.Is(err, events.ErrBadModel) {
		t.Errorf("ModelNamed of an unknown name: %v", err)
	}
}

func TestPlainModel(t *testing.T) {
	for _, test := range []struct {
		have, need string
		want       bool
	}{
		{"admin:bucket/a", "read:bucket/a", true},
		{"write:bucket/a", "read:bucket/a", true},
		{"write:bucket/a", "admin:bucket/a", false},
		{"read:bucket/a", "write:bucket/a", false},
		{"admin:bucket/a", "read:bucket/b", false},
		{"admin:bucket/*", "write:bucket/b", true},
		{"admin:bucket/*", "read:queue/b", false},
		{"superuser", "admin:queue/b", true},
	} {
		have, need := events.MustScope(test.have), events.MustScope(test.need)
		if err := errors.Join(events.Plain.Check(have), events.Plain.Check(need)); err != nil {
			t.Fatal(err)
		}
		if got := events.Plain.Covers(have, need); got != test.want {
			t.Errorf("%s covers %s: %t", have, need, got)
		}
	}
	for _, bad := range []string{"view:bucket/a", "read", "superuser:bucket/a", "track:site/1"} {
		if err := events.Plain.Check(events.MustScope(bad)); !errors.Is(err, events.ErrBadScope) {
			t.Errorf("%s: %v, want it refused", bad, err)
		}
	}
}
