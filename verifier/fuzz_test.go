package verifier_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// oldForm is a legacy secret.
const oldForm = "0123456789abcdef0123456789abcdef"

// FuzzCheck accepts no text except the two existing secrets.
func FuzzCheck(f *testing.F) {
	l := eventstest.NewLog(1)
	account := l.Account("superuser")
	_, secret := l.Token(account, "superuser")
	old := eventstest.MustSecret(oldForm)
	l.Change(string(l.TokenID()), &events.TokenCreated{Account: account, Scopes: eventstest.Scopes("superuser"), Secret: eventstest.SecretRecord(old.Digest())})
	n := verifiertest.Start(f, l, verifiertest.Options{})
	f.Add(secret.Reveal())
	f.Add(oldForm)
	for _, bad := range verifiertest.BadSecrets(secret.Reveal()) {
		if len(bad) < 200 {
			f.Add(bad)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		d := n.Verifier.Check(s, verifier.Request{Need: eventstest.Scopes("view:site/3")})
		if want := s == secret.Reveal() || s == oldForm; d.OK() != want {
			t.Errorf("%s, want allowed %t", d.Reason, want)
		}
	})
}

// FuzzCheckRequest sends bodies. An allowed one must be one object with the
// token, as another reader reads it.
func FuzzCheckRequest(f *testing.F) {
	d := newHTTPFixture(f)
	_, _, secret := d.token("view:site/3")
	for _, s := range []string{
		`{"token":"` + secret + `"}`, `{"token":"` + secret + `","need":["view:site/3"],"address":"192.0.2.1","origin":"https://example.org","method":"GET","audience":"a","in_url":true}`,
		`{"token":"` + secret + `","explain":true}`, `{"token":"` + secret + `","need":["view:site/4"]}`,
		``, `{}`, `null`, `[]`, `{"token":1}`, `{"token":"x","token":"y"}`, `{"a":{"a":{"a":[[[]]]}}}`, "{\"to\u212aen\":\"x\"}", `{"token":"x"}{}`, `{"need":[null]}`, `{"token":"\ud800"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := (&httpFixture{Node: d.Node, t: t}).post(string(body))
		switch w.Code {
		case 200, 400, 401, 413, 422:
		default:
			t.Fatalf("status %d", w.Code)
		}
		var answer verifier.CheckAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if !answer.Allowed {
			return
		}
		var read map[string]any
		if err := json.Unmarshal(body, &read); err != nil {
			t.Fatalf("allowed, and another reader says %v", err)
		}
		// The decoder ignores the case of names.
		for name, value := range read {
			switch {
			case strings.EqualFold(name, "token") && value != secret:
				t.Errorf("allowed for the token %q", value)
			case strings.EqualFold(name, "need") && value != nil:
				for _, s := range value.([]any) {
					if s != "view:site/3" && s != "read:site/3" {
						t.Errorf("allowed for %q", s)
					}
				}
			}
		}
		if w.Code != 200 || len(read) == 0 {
			t.Errorf("allowed with status %d, for %v", w.Code, read)
		}
	})
}
