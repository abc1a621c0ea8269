package events_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenledger/tokenledger/events"
)

var update = flag.Bool("update", false, "write testdata/golden")

const (
	goldenEvent   = "evt_01k5y8z3v0c6q2h4m7n9p1r3t5"
	goldenToken   = "tok_01k5y8z3v0a1b2c3d4e5f6g7h8"
	goldenAccount = "acc_01k5y8z3v0zyxwvtsrqpnmkjhg"
	goldenOwner   = "acc_01k5y8z3v00123456789abcdef"
	goldenSession = "ses_01k5y8z3v0s3ss10ns3ss10nse"
	goldenEpoch   = "01k5y8z3v0ep0chep0chep0che"
)

var goldenTime = time.Date(2026, time.March, 4, 5, 6, 7, 891_234_567, time.UTC)

// golden returns an event with all fields, about a record of the right kind.
func golden(c events.Change) *events.Event {
	about := map[events.Noun]string{
		events.NounToken: goldenToken, events.NounAccount: goldenAccount, events.NounPolicy: events.PolicyName,
		events.NounReceipt: events.ReceiptName, events.NounLog: events.LogName,
	}
	e := &events.Event{
		ID: goldenEvent, Epoch: goldenEpoch, Time: goldenTime, About: about[c.Kind().Noun()],
		Actor: events.Actor{Account: goldenOwner, Token: "tok_01k5y8z3v0actactactactacta", Address: "2001:db8::7"},
		Rests: events.Rests{
			{About: goldenOwner, Version: 7}, {About: events.PolicyName}, {About: "tok_01k5y8z3v0actactactactacta", Version: 1234},
		},
		Key:    events.NewCommandKey(goldenOwner, "a retry has the same"),
		Digest: events.HashRequest([]byte(`{"what":"was asked"}`)),
		Change: c,
	}
	e.Rests = slices.DeleteFunc(e.Rests, func(r events.Rest) bool { return r.About == e.About })
	return e
}

// bySession sets a session as the actor of an event.
func bySession(e *events.Event) *events.Event {
	e.Actor = events.Actor{Account: goldenOwner, Session: goldenSession, Opened: 99, Address: "192.0.2.7"}
	e.Rests = events.Rests{{About: goldenOwner, Version: 7}}
	return e
}

func goldenSecret(n byte) events.SecretRecord {
	var d events.Digest
	for i := range d {
		d[i] = n + byte(i)
	}
	return events.SecretRecord{Scheme: events.SchemeSHA256, Digest: d}
}

func scopes(list ...string) []events.Scope {
	out, err := events.ParseScopes(list)
	if err != nil {
		panic(err)
	}
	return out
}

// goldens maps file names to events. A name is a kind, with a word after a dash
// if there are several events of the kind.
var goldens = map[string]*events.Event{
	"tokenledger.token.created.v1": golden(&events.TokenCreated{
		Account: goldenAccount, App: "cron", Device: "host-7", Scopes: scopes("view:site/3", "track:site/*"),
		Expires: goldenTime.Add(90 * 24 * time.Hour), Secret: goldenSecret(1),
	}),
	"tokenledger.token.created.v1-least": {
		ID: goldenEvent, Epoch: goldenEpoch, Time: goldenTime.Truncate(time.Second), About: goldenToken,
		Change: &events.TokenCreated{Account: goldenAccount, Scopes: scopes(), Inherit: true, Secret: goldenSecret(2)},
	},
	"tokenledger.token.created.v1-constraints": golden(&events.TokenCreated{
		Account: goldenAccount, App: `R&D <test> "écran"`, Scopes: scopes("admin:site/1", "superuser"), Secret: goldenSecret(3),
		Constraints: &events.Constraints{
			CIDRs:   []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
			Origins: []string{"https://example.org", "http://localhost:8080"}, Methods: []string{"GET", "HEAD"},
			Audience: []string{"reporting"}, HeaderOnly: true,
		},
	}),
	"tokenledger.token.created.v1-matomo": golden(&events.TokenCreated{
		Account: goldenAccount, App: "reporting", Scopes: scopes(), Inherit: true,
		Secret: events.SecretRecord{Scheme: events.SchemeMatomo, Digest: goldenSecret(7).Digest, Format: events.FormatHex32},
		Import: &events.TokenImport{
			Source: "matomo", Created: goldenTime.AddDate(-2, 0, 0), LastUsed: goldenTime.AddDate(0, -7, 0), Migrated: true,
		},
	}),
	"tokenledger.token.edited.v1-used": golden(&events.TokenEdited{LastUsed: new(goldenTime)}),
	"tokenledger.account.created.v1-source": golden(&events.AccountCreated{
		Type: events.UserAccount, Grants: scopes("superuser"), Source: "matomo",
	}),
	"tokenledger.token.scoped.v1":         golden(&events.TokenScoped{Scopes: scopes("read:site/3")}),
	"tokenledger.token.scoped.v1-inherit": golden(&events.TokenScoped{Scopes: scopes(), Inherit: true}),
	"tokenledger.token.edited.v1": golden(&events.TokenEdited{
		App: new("phone"), Device: new(""), Expires: new(goldenTime.Add(time.Hour)),
		Constraints: &events.Constraints{Methods: []string{"GET"}},
	}),
	"tokenledger.token.edited.v1-nothing":   golden(&events.TokenEdited{}),
	"tokenledger.token.edited.v1-unlimited": golden(&events.TokenEdited{Expires: new(time.Time), Constraints: &events.Constraints{}}),
	"tokenledger.token.rotated.v1":          golden(&events.TokenRotated{Secret: goldenSecret(4), Until: goldenTime.Add(time.Hour)}),
	"tokenledger.token.suspended.v1":        golden(&events.TokenSuspended{Reason: "lost phone"}),
	"tokenledger.token.resumed.v1":          golden(&events.TokenResumed{}),
	"tokenledger.token.revoked.v1":          golden(&events.TokenRevoked{Reason: "found in a public repository"}),
	"tokenledger.account.created.v1":        golden(&events.AccountCreated{Type: events.UserAccount, Grants: scopes("write:site/3")}),
	"tokenledger.account.created.v1-service": golden(&events.AccountCreated{
		Type: events.ServiceAccount, Owner: goldenOwner, Grants: scopes("track:site/*"),
	}),
	"tokenledger.account.granted.v1":       golden(&events.AccountGranted{Grants: scopes("admin:site/1", "audit")}),
	"tokenledger.account.edited.v1":        golden(&events.AccountEdited{Owner: new(events.AccountID(goldenOwner)), SelfService: new(false)}),
	"tokenledger.account.edited.v1-orphan": golden(&events.AccountEdited{Owner: new(events.AccountID(""))}),
	"tokenledger.account.edited.v1-person": golden(&events.AccountEdited{
		Person: []events.PersonField{events.PersonMail, events.PersonName},
	}),
	"tokenledger.account.suspended.v1":          golden(&events.AccountSuspended{Reason: "on leave"}),
	"tokenledger.account.resumed.v1":            golden(&events.AccountResumed{}),
	"tokenledger.account.tokens_revoked.v1":     golden(&events.AccountTokensRevoked{NotBefore: goldenTime, Reason: "stolen laptop"}),
	"tokenledger.account.erased.v1":             golden(&events.AccountErased{}),
	"tokenledger.account.credential_changed.v1": golden(&events.AccountCredentialChanged{Credential: events.CredentialPassword}),
	"tokenledger.account.credential_changed.v1-ends": golden(&events.AccountCredentialChanged{
		Credential: events.CredentialPassword, EndsSessions: true, Kept: goldenSession,
	}),
	"tokenledger.account.session_ended.v1":        bySession(golden(&events.AccountSessionEnded{Session: goldenSession})),
	"tokenledger.account.unchanged.v1":            golden(&events.AccountUnchanged{Command: "resume"}),
	"tokenledger.account.tokens_revoked.v1-until": golden(&events.AccountTokensRevoked{Reason: "stolen laptop"}),
	"tokenledger.policy.tokens_revoked.v1-until":  golden(&events.PolicyTokensRevoked{}),
	"tokenledger.policy.unchanged.v1":             golden(&events.PolicyUnchanged{Command: "set"}),
	"tokenledger.token.unchanged.v1":              golden(&events.TokenUnchanged{Command: "revoke"}),
	"tokenledger.token.rotated.v1-now":            golden(&events.TokenRotated{Secret: goldenSecret(6)}),
	"tokenledger.log.confirmed.v1": {
		ID: goldenEvent, Epoch: goldenEpoch, Time: goldenTime, About: events.LogName,
		Change: &events.LogConfirmed{Ledger: "ledger-1"},
	},
	"tokenledger.policy.set.v1": golden(&events.PolicySet{Policy: events.Policy{
		MaxLifetime: 31536000, DefaultLifetime: 31536000, MaxGrace: 2592000,
	}}),
	"tokenledger.policy.set.v1-everything": golden(&events.PolicySet{Policy: events.Policy{
		MaxLifetime: 31536000, DefaultLifetime: 86400, MaxGrace: 2592000, WarnBefore: 1209600,
		Issuers: events.IssuersSiteAdmins, LegacyRefused: true, LegacyUntil: goldenTime, URLRefused: true,
		SiteAdminsAnyAccount: true, TokenSignIn: true, SessionIdle: 600, SessionLifetime: 3600,
	}}),
	"tokenledger.token.created.v1-rate": golden(&events.TokenCreated{
		Account: goldenAccount, Scopes: scopes("view:site/3"), Secret: goldenSecret(5), Constraints: &events.Constraints{Rate: 10},
	}),
	"tokenledger.token.scoped.v1-edit": golden(&events.TokenScoped{
		Scopes: scopes("view:site/3"), Edit: &events.TokenEdited{Constraints: &events.Constraints{Rate: 10}},
	}),
	"tokenledger.token.edited.v1-rate":     golden(&events.TokenEdited{Constraints: &events.Constraints{Rate: 10}}),
	"tokenledger.policy.tokens_revoked.v1": golden(&events.PolicyTokensRevoked{NotBefore: goldenTime, Reason: "restored from a backup"}),
	"tokenledger.receipt.issued.v1": golden(&events.ReceiptIssued{
		Covers: 1234, Ledger: "ledger-1", Barrier: 77, Lease: 30_000, Asked: goldenTime, Took: 30_412,
		Nodes: []events.NodeReceipt{
			{Holder: events.Holder{Node: "verifier-1", Instance: "a1b2c3d4"}, How: events.StopApplied, At: goldenTime.Add(time.Millisecond)},
			{Holder: events.Holder{Node: "verifier-2", Instance: "e5f6g7h8"}, How: events.StopGivenUp, At: goldenTime.Add(time.Second)},
			{
				Holder: events.Holder{Node: "verifier_3", Instance: "00000000"}, How: events.StopExpired, At: goldenTime.Add(30 * time.Second),
				Stale: map[string]time.Time{"track": goldenTime.Add(5 * time.Minute)},
			},
		},
	}),
	"tokenledger.receipt.issued.v1-nobody": golden(&events.ReceiptIssued{
		Covers: 1, Ledger: "l", Barrier: 1, Lease: 1, Asked: goldenTime, Nodes: []events.NodeReceipt{},
	}),
}

// readGolden returns every file of the corpus, also those that only an older
// version could write.
func readGolden(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "golden", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// The newline is for editors; it is not in the log.
		out[strings.TrimSuffix(filepath.Base(name), ".json")] = bytes.TrimSuffix(b, []byte("\n"))
	}
	return out
}

func TestGolden(t *testing.T) {
	if *update {
		for name, e := range goldens {
			b, err := events.Encode(e)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := os.WriteFile(filepath.Join("testdata", "golden", name+".json"), append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	files := readGolden(t)
	seen := map[events.Kind]bool{}
	for name, stored := range files {
		e, err := events.Decode(stored)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kind, _, _ := strings.Cut(name, "-")
		if got := e.Change.Kind(); string(got) != kind {
			t.Errorf("%s holds an event of kind %s", name, got)
		}
		seen[e.Change.Kind()] = true
		again, err := events.Encode(e)
		if err != nil {
			t.Errorf("%s: encode: %v", name, err)
		} else if !bytes.Equal(again, stored) {
			t.Errorf("%s: encoded again\n got %s\nwant %s", name, again, stored)
		}
		if want, ok := goldens[name]; ok {
			if diff := cmp.Diff(want, e, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("%s: -want +got\n%s", name, diff)
			}
		}
	}
	for name := range goldens {
		if _, ok := files[name]; !ok {
			t.Errorf("testdata/golden/%s.json is missing; go test ./events -run Golden -update writes it", name)
		}
	}
	for _, kind := range events.Kinds() {
		if !seen[kind] {
			t.Errorf("no file in testdata/golden holds an event of kind %s", kind)
		}
	}
}

// TestGoldenWithMore decodes every golden event with unknown fields, as a newer
// version might write it.
func TestGoldenWithMore(t *testing.T) {
	more := func(m map[string]any) {
		m["later"] = map[string]any{"b": []any{1, "x", nil}}
		m["laterstill"] = nil
	}
	for name, stored := range readGolden(t) {
		want, err := events.Decode(stored)
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := json.Unmarshal(stored, &object); err != nil {
			t.Fatal(err)
		}
		data := object["data"].(map[string]any)
		change := data["change"].(map[string]any)
		more(object)
		more(data)
		more(change)
		got, err := events.Decode(mustJSON(t, object))
		if err != nil {
			t.Errorf("%s with unknown fields: %v", name, err)
		} else if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s with unknown fields: -want +got\n%s", name, diff)
		}
	}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
