package projector

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenledger/tokenledger/events"
)

// FuzzRecord checks that a record keeps its fields when it is written and read
// again.
func FuzzRecord(f *testing.F) {
	full := Record{
		Token: "tok_01k5y8z3v0a1b2c3d4e5f6g7h8", Account: "acc_01k5y8z3v0zyxwvtsrqpnmkjhg", App: "cron", State: SecretSuperseded, Inherit: true,
		Created: time.Unix(1_700_000_000, 123).UTC(), Expires: time.Unix(1_800_000_000, 0).UTC(), Until: time.Unix(0, 1).UTC(),
		Scopes: []events.Scope{events.Superuser, events.MustScope("view:site/*")},
		Constraints: &events.Constraints{
			CIDRs:   []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")},
			Origins: []string{"https://example.org"}, Methods: []string{"GET"}, Audience: []string{"reporting"}, HeaderOnly: true,
		},
		CreatedIn: 1 << 59, Version: 1 << 60, IssuedBy: "acc_01k5y8z3v00123456789abcdef",
	}
	minimal := Record{Token: full.Token, Account: full.Account, State: SecretLive, Scopes: []events.Scope{}}
	own := minimal
	own.IssuedBy = own.Account
	for _, r := range []Record{full, minimal, own} {
		b, err := r.append(nil)
		if err != nil {
			f.Fatal(err)
		}
		if got, err := parseRecord(b); err != nil || got.IssuedBy != r.IssuedBy {
			f.Fatalf("IssuedBy = %q, %v; want %q", got.IssuedBy, err, r.IssuedBy)
		}
		f.Add(b)
		for n := range b {
			f.Add(b[:n])
		}
		f.Add(append(b, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		once, err := r.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseRecord(once)
		if err != nil {
			t.Fatalf("a written record cannot be read: %v", err)
		}
		twice, err := again.append(nil)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("the stored form has changed, %v:\n%x\n%x", err, once, twice)
		}
		r.Scopes, r.Constraints, again.Scopes, again.Constraints = nil, nil, nil, nil // compared as bytes
		if diff := cmp.Diff(r, again); diff != "" {
			t.Errorf("the record has changed:\n%s", diff)
		}
	})
}

func TestNanos(t *testing.T) {
	first := time.Unix(0, 1).UTC()
	for _, tt := range []struct{ in, want time.Time }{
		{time.Time{}, time.Time{}},
		{first, first},
		{time.Date(2026, 3, 4, 5, 6, 7, 891_234_567, time.UTC), time.Date(2026, 3, 4, 5, 6, 7, 891_234_567, time.UTC)},
		{time.Date(2261, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(2261, 12, 31, 23, 59, 59, 999_999_999, time.UTC)},
		{time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		{time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Time{}},
		// A past time does not become "never".
		{time.Unix(0, 0), first},
		{time.Unix(-1, 999_999_999), first},
		{time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC), first},
		{time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), first},
		{time.Date(-292277022399, 1, 1, 0, 0, 0, 0, time.UTC), first},
	} {
		if got := TimeOf(nanos(tt.in)); !got.Equal(tt.want) {
			t.Errorf("%s is stored as %s, want %s", tt.in, got, tt.want)
		}
	}
}
