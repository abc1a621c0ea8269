package projector

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenledger/tokenledger/events"
)

var fullToken = events.Token{
	ID: "tok_01k5y8z3v0a1b2c3d4e5f6g7h8", Account: "acc_01k5y8z3v0zyxwvtsrqpnmkjhg", App: "cron", Device: "an é phone", Inherit: true,
	Scopes:  []events.Scope{events.Superuser, events.MustScope("view:site/*")},
	Expires: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
	Constraints: &events.Constraints{
		CIDRs:   []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")},
		Origins: []string{"https://example.org"}, Methods: []string{"GET"}, Audience: []string{"reporting"}, HeaderOnly: true, Rate: 9,
	},
	Import: &events.TokenImport{
		Source: "matomo", Created: time.Unix(1_600_000_000, 0).UTC(), LastUsed: time.Unix(1_650_000_000, 5).UTC(), Migrated: true,
	},
	State: events.Suspended, Reason: "lost", StoppedBy: "acc_01k5y8z3v00123456789abcdef",
	Created: time.Unix(1_700_000_000, 123).UTC(),
	CreatedBy: events.Actor{
		Account: "acc_01k5y8z3v00123456789abcdef", Token: "tok_01k5y8z3v0actactactactacta", Session: "ses_01k5y8z3v0actactactactacta", Address: "2001:db8::7",
	},
	CreatedIn: 7, Changed: time.Unix(1_800_000_000, 0).UTC(), Version: 1 << 60, Revoked: time.Date(1500, 1, 1, 0, 0, 0, 1, time.UTC),
	Secrets: []events.SecretSlot{
		{Digest: events.Digest{1, 31: 2}, Since: time.Unix(1_700_000_000, 9).UTC(), Format: events.FormatHex32, IssuedBy: "acc_01k5y8z3v0zyxwvtsrqpnmkjhg"},
		{Digest: events.Digest{3}, Since: time.Unix(1_600_000_000, 9).UTC(), Until: time.Unix(1_900_000_000, 0).UTC(), IssuedBy: "acc_01k5y8z3v00123456789abcdef"},
		{Digest: events.Digest{4}, Since: time.Unix(1_500_000_000, 9).UTC()},
		{Digest: events.Digest{5}, Since: time.Unix(1_400_000_000, 9).UTC(), Format: events.FormatHex32, Scheme: events.SchemeMatomo},
	},
}

var minimalToken = events.Token{ID: fullToken.ID, Account: fullToken.Account, State: events.Revoked, Scopes: []events.Scope{}}

// TestTokenCodec encodes and decodes a token with all fields, and one with few.
func TestTokenCodec(t *testing.T) {
	for i, v := range reflect.ValueOf(fullToken).Fields() {
		if v.IsZero() {
			t.Errorf("fullToken has no %v", i.Name)
		}
	}
	for _, want := range []events.Token{fullToken, minimalToken} {
		b, err := appendToken(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		var got events.Token
		if err := parseToken(b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("parseToken(appendToken(token)): -want +got\n%s", diff)
		}
		for n := range b {
			if err := parseToken(b[:n], &got); err == nil {
				t.Errorf("parseToken accepts %d of %d bytes", n, len(b))
			}
		}
		if err := parseToken(append(b, 0), &got); err == nil {
			t.Error("parseToken accepts an extra byte")
		}
		b[0]++
		if err := parseToken(b, &got); err == nil {
			t.Error("parseToken accepts another version")
		}
	}
	for what, bad := range map[string]events.Token{
		"state": {ID: fullToken.ID, Account: fullToken.Account, State: "x"},
		"form":  {ID: fullToken.ID, Account: fullToken.Account, State: events.Active, Secrets: []events.SecretSlot{{Format: "x"}}},
	} {
		if b, err := appendToken(nil, &bad); err == nil {
			t.Errorf("appendToken accepts an unknown %s: %x", what, b)
		}
	}
}

func TestDoneCodec(t *testing.T) {
	done := events.Done{Position: 1 << 60, Event: "evt_01k5y8z3v0c6q2h4m7n9p1r3t5", About: "policy", Kind: events.KindPolicySet, Digest: "0d275c13817f7acc73a3f66a75bc3eba"}
	var got events.Done
	b := appendDone(nil, &done)
	if err := parseDone(b, &got); err != nil || got != done {
		t.Errorf("parseDone(appendDone(%+v)) = %+v, %v", done, got, err)
	}
	for n := range b {
		if err := parseDone(b[:n], &got); err == nil {
			t.Errorf("parseDone accepts %d of %d bytes", n, len(b))
		}
	}
}

// FuzzToken checks that a token keeps its fields when it is written and read
// again.
func FuzzToken(f *testing.F) {
	for _, t := range []events.Token{fullToken, minimalToken} {
		b, err := appendToken(nil, &t)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second events.Token
		if parseToken(b, &first) != nil {
			return
		}
		once, err := appendToken(nil, &first)
		if err != nil {
			t.Fatal(err)
		}
		if err := parseToken(once, &second); err != nil {
			t.Fatalf("a written token cannot be read: %v", err)
		}
		if first.Constraints.Empty() {
			first.Constraints = nil
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("the token has changed:\n%+v\n%+v", first, second)
		}
	})
}
