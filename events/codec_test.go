package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// edited returns the stored form of an event with replaced parts. edits maps a
// path, such as data.change.app, to its JSON, or to an empty string to remove
// it.
func edited(t testing.TB, e *events.Event, edits map[string]string) []byte {
	t.Helper()
	b, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(b, &object); err != nil {
		t.Fatal(err)
	}
	for path, text := range edits {
		at, parts := object, strings.Split(path, ".")
		for _, part := range parts[:len(parts)-1] {
			at = at[part].(map[string]any)
		}
		name := parts[len(parts)-1]
		if text == "" {
			delete(at, name)
			continue
		}
		at[name] = json.RawMessage(text)
	}
	return mustJSON(t, object)
}

// quoted returns s as JSON.
func quoted(s string) string { return fmt.Sprintf("%q", s) }

// longText is longer than a label, a reason or an address may be.
var longText = strings.Repeat("x", 101)

// refusedEdits are changes of golden events, each of which makes an event that
// Decode refuses.
var refusedEdits = []struct {
	what string
	of   *events.Event // nil means a creation
	edit map[string]string
	want error
}{
	{"version of CloudEvents", nil, map[string]string{"specversion": `"2.0"`}, events.ErrUnknown},
	{"no version of CloudEvents", nil, map[string]string{"specversion": ""}, events.ErrUnknown},
	{"kind", nil, map[string]string{"type": `"tokenledger.token.forgotten.v1"`}, events.ErrUnknown},
	{"form of a kind", nil, map[string]string{"type": `"tokenledger.token.created.v2"`}, events.ErrUnknown},
	{"kind of another system", nil, map[string]string{"type": `"x"`}, events.ErrUnknown},
	{"no kind", nil, map[string]string{"type": ""}, events.ErrUnknown},
	{"critical field", nil, map[string]string{"data.crit": `["weekdays"]`}, events.ErrUnknown},
	{"critical field after a known one", nil, map[string]string{"data.crit": `["scopes","weekdays"]`}, events.ErrUnknown},
	{"critical field of another kind", nil, map[string]string{"data.crit": `["until"]`}, events.ErrUnknown},
	{"scheme of digest", nil, map[string]string{"data.change.secret.scheme": `"sha3"`}, events.ErrUnknown},

	{"no id", nil, map[string]string{"id": ""}, events.ErrMalformed},
	{"id of a token", nil, map[string]string{"id": quoted(goldenToken)}, events.ErrMalformed},
	{"id in capitals", nil, map[string]string{"id": quoted("evt_" + strings.ToUpper(goldenEvent[4:]))}, events.ErrMalformed},
	{"id past the last", nil, map[string]string{"id": quoted("evt_8" + goldenEvent[5:])}, events.ErrMalformed},
	{"foreign source", nil, map[string]string{"source": quoted("/elsewhere/" + goldenEpoch)}, events.ErrMalformed},
	{"no epoch", nil, map[string]string{"source": `"/tokenledger/"`}, events.ErrMalformed},
	{"no time", nil, map[string]string{"time": ""}, events.ErrMalformed},
	{"null time", nil, map[string]string{"time": "null"}, events.ErrMalformed},
	{"time before 2000", nil, map[string]string{"time": `"1999-12-31T23:59:59Z"`}, events.ErrMalformed},
	{"time before 2000 in another zone", nil, map[string]string{"time": `"2000-01-01T00:59:59+01:00"`}, events.ErrMalformed},
	{"time in the 30th of February", nil, map[string]string{"time": `"2026-02-30T00:00:00Z"`}, events.ErrMalformed},
	{"number as time", nil, map[string]string{"time": "1e9"}, events.ErrMalformed},
	{"subject of another noun", nil, map[string]string{"subject": quoted(goldenAccount)}, events.ErrMalformed},
	{"no subject", nil, map[string]string{"subject": ""}, events.ErrMalformed},
	{"subject of an account's event", goldens["tokenledger.account.erased.v1"], map[string]string{"subject": quoted(goldenToken)}, events.ErrMalformed},
	{"subject of a policy's event", goldens["tokenledger.policy.set.v1"], map[string]string{"subject": quoted(goldenToken)}, events.ErrMalformed},
	{"no data", nil, map[string]string{"data": ""}, events.ErrMalformed},
	{"no change", nil, map[string]string{"data.change": ""}, events.ErrMalformed},
	{"null change", nil, map[string]string{"data.change": "null"}, events.ErrMalformed},
	{"list as change", nil, map[string]string{"data.change": "[]"}, events.ErrMalformed},
	{"actor's account", nil, map[string]string{"data.actor.account": `"acc_1"`}, events.ErrMalformed},
	{"actor's token", nil, map[string]string{"data.actor.token": quoted(goldenAccount)}, events.ErrMalformed},
	{"long address", nil, map[string]string{"data.actor.address": quoted(longText)}, events.ErrMalformed},
	{"line break in an address", nil, map[string]string{"data.actor.address": `"192.0.2.7\n"`}, events.ErrMalformed},
	{"short key", nil, map[string]string{"data.key": `"abc"`}, events.ErrMalformed},
	{"key in capitals", nil, map[string]string{"data.key": quoted(strings.Repeat("A", 32))}, events.ErrMalformed},
	{"request that is no hash", nil, map[string]string{"data.request": quoted(strings.Repeat("x", 32))}, events.ErrMalformed},
	{"crit that is no list", nil, map[string]string{"data.crit": `"scopes"`}, events.ErrMalformed},

	{"no account", nil, map[string]string{"data.change.account": ""}, events.ErrMalformed},
	{"long app", nil, map[string]string{"data.change.app": quoted(longText)}, events.ErrMalformed},
	{"control character in device", nil, map[string]string{"data.change.device": `"a\u0000b"`}, events.ErrMalformed},
	{"line separator in app", nil, map[string]string{"data.change.app": `"a\u2028b"`}, events.ErrMalformed},
	{"direction override in app", nil, map[string]string{"data.change.app": `"a\u202eb"`}, events.ErrMalformed},
	{"empty scope", nil, map[string]string{"data.change.scopes": `[""]`}, events.ErrMalformed},
	{"null scope", nil, map[string]string{"data.change.scopes": `[null]`}, events.ErrMalformed},
	{"misspelt scope", nil, map[string]string{"data.change.scopes": `["view site 3"]`}, events.ErrMalformed},
	{"number as scope", nil, map[string]string{"data.change.scopes": `[3]`}, events.ErrMalformed},
	{"2001 scopes", nil, map[string]string{"data.change.scopes": "[" + strings.Repeat(`"audit",`, 2000) + `"audit"]`}, events.ErrMalformed},
	{"secret in a scope", nil, map[string]string{"data.change.scopes": quotedList("view:site/" + goodSecret)}, events.ErrMalformed},
	{"text as inherit", nil, map[string]string{"data.change.inherit": `"yes"`}, events.ErrMalformed},
	{"expiry in year 10000", nil, map[string]string{"data.change.expires_at": `"10000-01-01T00:00:00Z"`}, events.ErrMalformed},
	{"no secret", nil, map[string]string{"data.change.secret": ""}, events.ErrUnknown}, // the scheme is missing
	{"no digest", nil, map[string]string{"data.change.secret.digest": ""}, events.ErrMalformed},
	{"null digest", nil, map[string]string{"data.change.secret.digest": "null"}, events.ErrMalformed},
	{"short digest", nil, map[string]string{"data.change.secret.digest": quoted(strings.Repeat("a", 62))}, events.ErrMalformed},
	{"digest in capitals", nil, map[string]string{"data.change.secret.digest": quoted(strings.Repeat("A", 64))}, events.ErrMalformed},
	{"address as network", nil, map[string]string{"data.change.constraints.cidrs": `["192.0.2.7"]`}, events.ErrMalformed},
	{"network with host bits", nil, map[string]string{"data.change.constraints.cidrs": `["192.0.2.7/24"]`}, events.ErrMalformed},
	{"null network", nil, map[string]string{"data.change.constraints.cidrs": `[null]`}, events.ErrMalformed},
	{"null origin", nil, map[string]string{"data.change.constraints.origins": `[null]`}, events.ErrMalformed},
	{"65 methods", nil, map[string]string{"data.change.constraints.methods": "[" + strings.Repeat(`"GET",`, 64) + `"GET"]`}, events.ErrMalformed},

	{"rest that is no record", goldens["tokenledger.token.revoked.v1"], map[string]string{"data.rests": `{"ses_01k5y8z3v0s3ss10ns3ss10nse":1}`}, events.ErrMalformed},
	{"rest twice", goldens["tokenledger.token.revoked.v1"], map[string]string{"data.rests": `{"policy":1,"policy":2}`}, events.ErrMalformed},
	{"rest on what it is about", goldens["tokenledger.token.revoked.v1"], map[string]string{"data.rests": `{"` + goldenToken + `":1}`}, events.ErrMalformed},
	{"rest in no version", goldens["tokenledger.token.revoked.v1"], map[string]string{"data.rests": `{"policy":-1}`}, events.ErrMalformed},
	{"rests in a list", goldens["tokenledger.token.revoked.v1"], map[string]string{"data.rests": `[]`}, events.ErrMalformed},
	{"opened without a session", goldens["tokenledger.token.revoked.v1"], map[string]string{"data.actor.opened": `1`}, events.ErrMalformed},
	{"kept among none that end", goldens["tokenledger.account.credential_changed.v1-ends"], map[string]string{"data.change.ends_sessions": "false"}, events.ErrMalformed},
	{"end of no session", goldens["tokenledger.account.session_ended.v1"], map[string]string{"data.change.session": ""}, events.ErrMalformed},
	{"long reason", goldens["tokenledger.token.revoked.v1"], map[string]string{"data.change.reason": quoted(longText)}, events.ErrMalformed},
	{"edit with a bad constraint", goldens["tokenledger.token.edited.v1"], map[string]string{"data.change.constraints.methods": `["get"]`}, events.ErrMalformed},
	{"account of no kind", goldens["tokenledger.account.created.v1"], map[string]string{"data.change.kind": `"robot"`}, events.ErrMalformed},
	{"owner that is a token", goldens["tokenledger.account.edited.v1"], map[string]string{"data.change.owner": quoted(goldenToken)}, events.ErrMalformed},
	{"change of nothing of a person", goldens["tokenledger.account.edited.v1-person"], map[string]string{"data.change.person": `[]`}, events.ErrMalformed},
	{"change of a person out of order", goldens["tokenledger.account.edited.v1-person"], map[string]string{"data.change.person": `["name","mail"]`}, events.ErrMalformed},
	{"change of a person listed twice", goldens["tokenledger.account.edited.v1-person"], map[string]string{"data.change.person": `["mail","mail"]`}, events.ErrMalformed},
	{"change of something else of a person", goldens["tokenledger.account.edited.v1-person"], map[string]string{"data.change.person": `["mail","name","phone"]`}, events.ErrUnknown},
	{"change of null of a person", goldens["tokenledger.account.edited.v1-person"], map[string]string{"data.change.person": `[null]`}, events.ErrUnknown},
	{"text as what changed of a person", goldens["tokenledger.account.edited.v1-person"], map[string]string{"data.change.person": `"name"`}, events.ErrMalformed},
	{"negative life", goldens["tokenledger.policy.set.v1"], map[string]string{"data.change.policy.max_lifetime_s": "-1"}, events.ErrMalformed},
	{"default past the longest", goldens["tokenledger.policy.set.v1"], map[string]string{"data.change.policy.max_lifetime_s": "5"}, events.ErrMalformed},
	{"life past 64 bits", goldens["tokenledger.policy.set.v1"], map[string]string{"data.change.policy.max_lifetime_s": "9223372036854775808"}, events.ErrMalformed},
	{"life of part of a second", goldens["tokenledger.policy.set.v1"], map[string]string{"data.change.policy.max_lifetime_s": "1.5"}, events.ErrMalformed},
}

func TestDecodeRefuses(t *testing.T) {
	created := goldens["tokenledger.token.created.v1-constraints"]
	for _, tt := range refusedEdits {
		of := tt.of
		if of == nil {
			of = created
		}
		e, err := events.Decode(edited(t, of, tt.edit))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: Decode = %+v, %v; want %v", tt.what, e, err, tt.want)
		}
		if e != nil && err != nil {
			t.Errorf("%s: Decode gave an event with its error", tt.what)
		}
	}
}

func quotedList(list ...string) string {
	b, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestDecodeRefusesBytes(t *testing.T) {
	good, err := events.Encode(goldens["tokenledger.token.revoked.v1"])
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{
		"nothing":      nil,
		"null":         []byte("null"),
		"list":         []byte("[]"),
		"empty object": []byte("{}"),
		"cut short":    good[:len(good)-1],
		"two events":   append(slices.Clone(good), good...),
		"zero byte":    append(slices.Clone(good), 0),
		"deep nesting": append(bytes.Repeat([]byte("["), 20_000), bytes.Repeat([]byte("]"), 20_000)...),
		"too large":    append(slices.Clone(good), bytes.Repeat([]byte(" "), events.MaxSize)...),
	} {
		if _, err := events.Decode(b); err == nil {
			t.Errorf("%s: Decode did not refuse", what)
		}
	}
	spaced := append(append([]byte("\n "), good...), '\t')
	if _, err := events.Decode(spaced); err != nil {
		t.Errorf("Decode with space around = %v", err)
	}
}

func TestCriticalFields(t *testing.T) {
	e := goldens["tokenledger.token.created.v1"]
	got, err := events.Decode(edited(t, e, map[string]string{"data.crit": `["scopes","constraints","expires_at"]`}))
	if err != nil || got.ID != e.ID {
		t.Errorf("Decode with known critical fields = %v, %v", got, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	base := func() events.Event { return *golden(&events.TokenResumed{}) }
	for what, change := range map[string]func(*events.Event){
		"no change":                func(e *events.Event) { e.Change = nil },
		"no id":                    func(e *events.Event) { e.ID = "" },
		"no epoch":                 func(e *events.Event) { e.Epoch = "" },
		"no time":                  func(e *events.Event) { e.Time = time.Time{} },
		"time that is 1999 in UTC": func(e *events.Event) { e.Time = time.Date(2000, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600)) },
		"nothing it is about":      func(e *events.Event) { e.About = "" },
		"another noun":             func(e *events.Event) { e.About = goldenAccount },
		"actor":                    func(e *events.Event) { e.Actor.Account = "me" },
		"address in bad UTF-8":     func(e *events.Event) { e.Actor.Address = "\xff" },
		"key":                      func(e *events.Event) { e.Key = "retry-1" },
		"label":                    func(e *events.Event) { e.Change = &events.TokenRevoked{Reason: "\xff"} },
		"secret in a label":        func(e *events.Event) { e.Change = &events.TokenRevoked{Reason: "it was " + goodSecret} },
		"scope without a name":     func(e *events.Event) { e.Change = &events.TokenScoped{Scopes: make([]events.Scope, 1)} },
		"scope with a slash": func(e *events.Event) {
			e.Change = &events.TokenScoped{Scopes: []events.Scope{{Permission: "view", Type: "site", ID: "1/2"}}}
		},
		"scope that reads as another": func(e *events.Event) {
			e.Change = &events.AccountGranted{Grants: []events.Scope{{Permission: "view:site/1"}}}
		},
		"id without a type": func(e *events.Event) {
			e.Change = &events.TokenScoped{Scopes: []events.Scope{{Permission: "view", ID: "1"}}}
		},
		"zero network": func(e *events.Event) {
			e.Change = &events.TokenEdited{Constraints: &events.Constraints{CIDRs: make([]netip.Prefix, 1)}}
		},
		"name of a person": func(e *events.Event) {
			e.About, e.Change = goldenAccount, &events.AccountEdited{Person: []events.PersonField{"Anna Ek"}}
		},
		"expiry in year 10000": func(e *events.Event) {
			e.Change = &events.TokenEdited{Expires: new(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))}
		},
	} {
		e := base()
		change(&e)
		if b, err := events.Encode(&e); err == nil {
			t.Errorf("%s: Encode = %s, want an error", what, b)
		}
	}
}

// TestEncodeTellsOneTime encodes a time in several time zones to the same bytes.
func TestEncodeTellsOneTime(t *testing.T) {
	e := *golden(&events.TokenResumed{})
	utc, err := events.Encode(&e)
	if err != nil {
		t.Fatal(err)
	}
	e.Time = e.Time.In(time.FixedZone("", -5*3600))
	if there, err := events.Encode(&e); err != nil || !bytes.Equal(utc, there) {
		t.Errorf("Encode in another zone = %s, %v; want %s", there, err, utc)
	}
}

// TestLargestEvent encodes the largest valid event.
func TestLargestEvent(t *testing.T) {
	word := "w" + strings.Repeat("_", 63)
	c := &events.Constraints{HeaderOnly: true}
	for range 64 {
		c.CIDRs = append(c.CIDRs, netip.MustParsePrefix("2001:db8:1111:2222:3333:4444:5555:6666/128"))
		c.Origins = append(c.Origins, "https://"+strings.Repeat("o", 192))
		c.Methods = append(c.Methods, strings.Repeat("M", 32))
		c.Audience = append(c.Audience, strings.Repeat("a", 31)+strings.Repeat("Z", 33))
	}
	list := slices.Repeat([]events.Scope{{Permission: word, Type: word, ID: strings.Repeat("Z", 64)}}, events.MaxScopes)
	label := strings.Repeat("\"", 100) // each escaped to two
	e := golden(&events.TokenCreated{
		Account: goldenAccount, App: label, Device: label, Scopes: list, Inherit: true,
		Expires: goldenTime, Constraints: c, Secret: goldenSecret(9),
	})
	b, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Decode(b); err != nil {
		t.Error(err)
	}
	t.Logf("the largest event has %d of %d bytes", len(b), events.MaxSize)
}

func TestDecodeMessage(t *testing.T) {
	e := goldens["tokenledger.token.revoked.v1"]
	data, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	m := events.Message{Position: 7, Subject: "ledger.token.h8.revoked", Data: data}
	got, err := events.DecodeMessage(m)
	if err != nil || got.ID != e.ID {
		t.Fatalf("DecodeMessage = %v, %v", got, err)
	}
	for _, subject := range []string{
		"", "ledger.token.h8.created", "ledger.token.h9.revoked", "ledger.account.h8.revoked", "ledger.token.h8.revoked.",
		"tail.ledger.token.h8.revoked", "ledger.policy.revoked", "ledger.token.H8.revoked",
	} {
		m.Subject = subject
		if _, err := events.DecodeMessage(m); !errors.Is(err, events.ErrMalformed) {
			t.Errorf("DecodeMessage under %q = %v, want ErrMalformed", subject, err)
		}
	}
	m.Subject, m.Data = "ledger.token.h8.revoked", []byte("{")
	if _, err := events.DecodeMessage(m); !errors.Is(err, events.ErrMalformed) || !strings.Contains(err.Error(), "position 7") {
		t.Errorf("DecodeMessage of half an object = %v, want ErrMalformed and its position", err)
	}
}

// TestErrorsKeepSecrets puts a secret in every place of every event. The error
// does not contain it, or the place is an unknown field.
func TestErrorsKeepSecrets(t *testing.T) {
	for _, secret := range []string{goodSecret, goodHex} {
		for name, stored := range readGolden(t) {
			var object map[string]any
			if err := json.Unmarshal(stored, &object); err != nil {
				t.Fatal(err)
			}
			for _, place := range places(object) {
				was := place.get()
				place.set(secret)
				e, err := events.Decode(mustJSON(t, object))
				place.set(was)
				switch {
				case err != nil && strings.Contains(err.Error(), secret):
					t.Errorf("%s, %s: the error repeats the secret", name, place.name)
				case err != nil || place.name == "datacontenttype":
				case e.Key == events.CommandKey(secret) || e.Digest == events.RequestHash(secret):
					// A hash looks like a legacy secret.
				default:
					t.Errorf("%s, %s: Decode let a secret into an event", name, place.name)
				}
			}
		}
	}
}

// place is a string in a JSON object.
type place struct {
	name string
	get  func() any
	set  func(any)
}

func places(v any) []place {
	var out []place
	walk(v, "", func(p place) { out = append(out, p) })
	return out
}

func walk(v any, name string, visit func(place)) {
	each := func(key string, get func() any, set func(any)) {
		if _, ok := get().(string); ok {
			visit(place{key, get, set})
		} else {
			walk(get(), key, visit)
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			each(strings.TrimPrefix(name+"."+k, "."), func() any { return v[k] }, func(x any) { v[k] = x })
		}
	case []any:
		for i := range v {
			each(fmt.Sprintf("%s[%d]", name, i), func() any { return v[i] }, func(x any) { v[i] = x })
		}
	}
}

func TestKinds(t *testing.T) {
	nouns := map[events.Noun]bool{events.NounToken: true, events.NounAccount: true, events.NounPolicy: true, events.NounReceipt: true, events.NounLog: true}
	kinds := events.Kinds()
	if !slices.IsSorted(kinds) {
		t.Errorf("Kinds() = %v, want them in order", kinds)
	}
	for _, k := range kinds {
		if !nouns[k.Noun()] || k.Verb() == "" {
			t.Errorf("%s is %q of %q", k, k.Verb(), k.Noun())
		}
	}
	if got := events.KindAccountTokensRevoked; got.Noun() != events.NounAccount || got.Verb() != "tokens_revoked" {
		t.Errorf("%s is %q of %q", got, got.Verb(), got.Noun())
	}
	for _, k := range []events.Kind{"", "x", "a.b", "tokenledger.token"} {
		if k.Noun() != "" || k.Verb() != "" {
			t.Errorf("%q is %q of %q, want nothing", k, k.Verb(), k.Noun())
		}
	}
}

func TestCommandKeys(t *testing.T) {
	a, b := events.AccountID(goldenAccount), events.AccountID(goldenOwner)
	if got := events.NewCommandKey(a, ""); got != "" {
		t.Errorf("NewCommandKey without a key = %q, want none", got)
	}
	keys := map[events.CommandKey]string{}
	for _, k := range []struct {
		account events.AccountID
		key     string
	}{{a, "1"}, {a, "2"}, {b, "1"}, {"", "1"}, {a + "\x00", "1"}} {
		got := events.NewCommandKey(k.account, k.key)
		if len(got) != 32 || strings.Contains(string(got), k.key+k.key) {
			t.Errorf("NewCommandKey(%q, %q) = %q, want 32 digits", k.account, k.key, got)
		}
		if was, taken := keys[got]; taken {
			t.Errorf("NewCommandKey(%q, %q) is that of %s", k.account, k.key, was)
		}
		keys[got] = fmt.Sprintf("(%q, %q)", k.account, k.key)
		if got != events.NewCommandKey(k.account, k.key) {
			t.Errorf("NewCommandKey(%q, %q) differs from call to call", k.account, k.key)
		}
	}
	if a, b := events.HashRequest([]byte("a")), events.HashRequest([]byte("b")); a == b || len(a) != 32 {
		t.Errorf("HashRequest = %q and %q, want two of 32 digits", a, b)
	}
}

func TestHistoryHasEverything(t *testing.T) {
	kinds := map[events.Kind]int{}
	cases := map[string]int{}
	for seed := range uint64(10) {
		run := eventstest.History(seed, 300)
		t.Log(run)
		state := eventstest.Fold(run.Messages)
		given := map[events.Digest]bool{}
		rotated := map[string]time.Time{}
		states := map[string]string{}
		var clock time.Time
		for i, m := range run.Messages {
			e, err := events.DecodeMessage(m)
			if err != nil {
				t.Fatalf("%s: %v", run, err)
			}
			if m.Position != events.Position(i+1) || e.Epoch != run.Epoch {
				t.Fatalf("%s: message %d has position %d and epoch %s", run, i, m.Position, e.Epoch)
			}
			kinds[e.Change.Kind()]++
			count := func(what string, is bool) {
				if is {
					cases[what]++
				}
			}
			if why, void := state.Void(m.Position); void {
				why, _, _ = strings.Cut(why, " of ")
				count("void: "+why, true)
			}
			count("clock went back", e.Time.Before(clock))
			count("command key", e.Key != "")
			clock = e.Time
			give := func(s events.SecretRecord) {
				count("digest given again", given[s.Digest])
				given[s.Digest] = true
			}
			switch c := e.Change.(type) {
			case *events.TokenCreated:
				give(c.Secret)
				count("created in an erased account", states[string(c.Account)] == "erased")
				count("created in a suspended account", states[string(c.Account)] == "suspended")
			case *events.TokenRotated:
				give(c.Secret)
				count("rotated twice within grace", e.Time.Before(rotated[e.About]))
				count("rotated while suspended", states[e.About] == "suspended")
				rotated[e.About] = c.Until
			case *events.AccountEdited:
				count("person changed", c.Person != nil)
			case *events.TokenSuspended:
				count("suspended again", states[e.About] == "suspended")
			}
			switch verb := e.Change.Kind().Verb(); verb {
			case "suspended", "resumed", "revoked", "erased":
				states[e.About] = verb
			}
		}
		if len(given) != len(run.Digests) || len(run.Secrets) != len(run.Digests) {
			t.Errorf("%s: %d digests were given and %d are listed, for %d secrets", run, len(given), len(run.Digests), len(run.Secrets))
		}
		again := eventstest.History(seed, 300)
		for i, m := range run.Messages {
			if !bytes.Equal(m.Data, again.Messages[i].Data) {
				t.Fatalf("%s: message %d differs from call to call", run, i)
			}
		}
	}
	for _, k := range events.Kinds() {
		if kinds[k] == 0 {
			t.Errorf("no history has an event of kind %s", k)
		}
	}
	for _, what := range []string{
		"clock went back", "command key", "digest given again", "created in an erased account", "created in a suspended account",
		"rotated twice within grace", "rotated while suspended", "suspended again", "person changed",
		"void: it depends on an older version", "void: its actor's account has ended", "void: it does not name its actor's account",
		"void: its actor's session has ended", "void: its actor's session has ended with others", "void: its actor's token has ended",
		"void: its actor's token has expired", "void: its actor's token has ended with others", "void: it does not name its actor's token",
	} {
		if cases[what] == 0 {
			t.Errorf("no history has the case: %s", what)
		}
	}
	t.Log(cases)
}
