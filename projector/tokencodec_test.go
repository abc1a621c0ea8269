package projector

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

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
	},
}

var leastToken = events.Token{ID: fullToken.ID, Account: fullToken.Account, State: events.Revoked, Scopes: []events.Scope{}}

// TestTokenForm reads what was written, every field of it.
func TestTokenForm(t *testing.T) {
	for i, v := range reflect.ValueOf(fullToken).Fields() {
		if v.IsZero() {
			t.Errorf("the token says nothing of %v", i.Name)
		}
	}
	for _, want := range []events.Token{fullToken, leastToken} {
		b, err := appendToken(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		var got events.Token
		if err := parseToken(b, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("written\n%+v, read\n%+v, %v", want, got, err)
		}
		for n := range b {
			// Constraints stand at the end, and their JSON is not whole either.
			if err := parseToken(b[:n], &got); err == nil {
				t.Errorf("%d of %d bytes are read as a token", n, len(b))
			}
		}
		if err := parseToken(append(b, 0), &got); err == nil {
			t.Error("a byte too many is read")
		}
		b[0]++
		if err := parseToken(b, &got); err == nil {
			t.Error("another version is read")
		}
	}
	for what, bad := range map[string]events.Token{
		"state": {ID: fullToken.ID, Account: fullToken.Account, State: "x"},
		"form":  {ID: fullToken.ID, Account: fullToken.Account, State: events.Active, Secrets: []events.SecretSlot{{Format: "x"}}},
	} {
		if b, err := appendToken(nil, &bad); err == nil {
			t.Errorf("a %s that is not known is stored: %x", what, b)
		}
	}
	done := events.Done{Position: 1 << 60, Event: "evt_01k5y8z3v0c6q2h4m7n9p1r3t5", About: "policy", Kind: events.KindPolicySet, Digest: "0d275c13817f7acc73a3f66a75bc3eba"}
	var got events.Done
	b := appendDone(nil, &done)
	if err := parseDone(b, &got); err != nil || got != done {
		t.Errorf("written %+v, read %+v, %v", done, got, err)
	}
	for n := range b {
		if err := parseDone(b[:n], &got); err == nil {
			t.Errorf("%d of %d bytes are read as a command", n, len(b))
		}
	}
}

// FuzzToken: whatever is read as a token is written and read again as the same
// one.
func FuzzToken(f *testing.F) {
	for _, t := range []events.Token{fullToken, leastToken} {
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
			t.Fatalf("a token that was written cannot be read: %v", err)
		}
		if first.Constraints.Empty() {
			first.Constraints = nil
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("read\n%+v, and then\n%+v", first, second)
		}
	})
}
