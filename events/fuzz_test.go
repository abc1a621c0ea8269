package events_test

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// most is the maximum length of a part of the input in an error.
const most = 80

// repeats reports whether an error contains a longer part of the input. It allows
// some more, because the text around that part may resemble the input.
func repeats(err error, input string) bool {
	const around = 40
	text := err.Error()
	for i := 0; i+most+around < len(text); i++ {
		if strings.Contains(input, text[i:i+most+around+1]) {
			return true
		}
	}
	return false
}

func FuzzDecode(f *testing.F) {
	for _, b := range readGolden(f) {
		f.Add(b)
	}
	for _, m := range eventstest.History(1, 50).Messages {
		f.Add(m.Data)
	}
	f.Add([]byte(`{"specversion":"1.0","type":"tokenledger.token.created.v1","data":{"change":{"scopes":[null]}}}`))
	f.Add([]byte(`{"type":"` + strings.Repeat("x", 300) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := events.Decode(b)
		if err != nil {
			if !errors.Is(err, events.ErrUnknown) && !errors.Is(err, events.ErrMalformed) {
				t.Errorf("Decode = %v, which is neither ErrUnknown nor ErrMalformed", err)
			}
			if repeats(err, string(b)) {
				t.Errorf("Decode's error repeats its input: %v", err)
			}
			return
		}
		once, err := events.Encode(e)
		if err != nil {
			t.Fatalf("Encode of a decoded event: %v", err)
		}
		again, err := events.Decode(once)
		if err != nil {
			t.Fatalf("Decode of an encoded event: %v\n%s", err, once)
		}
		twice, err := events.Encode(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("an event changes as it is read and written, %v:\n%s\n%s", err, once, twice)
		}
		if e.Subject() != again.Subject() {
			t.Errorf("its subject changes from %s to %s", e.Subject(), again.Subject())
		}
		if _, err := events.DecodeMessage(events.Message{Position: 1, Subject: e.Subject(), Data: b}); err != nil {
			t.Errorf("DecodeMessage under its own subject: %v", err)
		}
	})
}

func FuzzScope(f *testing.F) {
	for _, s := range []string{"view:site/3", "admin:site/*", "superuser", "view:site/..", "a:b/c/d", "", ":/", goodSecret} {
		f.Add(s)
	}
	grammar := regexp.MustCompile(`\A[a-z][a-z0-9_]{0,63}(:[a-z][a-z0-9_]{0,63}/(\*|[A-Za-z0-9._-]{1,64}))?\z`)
	f.Fuzz(func(t *testing.T, in string) {
		s, err := events.ParseScope(in)
		want := grammar.MatchString(in) && !strings.HasSuffix(in, "/.") && !strings.HasSuffix(in, "/..")
		if (err == nil) != want {
			t.Fatalf("ParseScope(%q) = %v; by its grammar it is one: %t", in, err, want)
		}
		if err != nil {
			// A part of a long input is printed, each byte as \x00 at most.
			const longest = 4*most + 120
			if !errors.Is(err, events.ErrBadScope) || len(err.Error()) > longest {
				t.Errorf("ParseScope's error is not ErrBadScope or repeats its input: %v", err)
			}
			return
		}
		if s.String() != in {
			t.Errorf("ParseScope(%q) prints as %q", in, s)
		}
		if !events.Matomo.Covers(s, s) || !events.Matomo.Covers(events.Superuser, s) {
			t.Errorf("%s is not covered by itself and the superuser", s)
		}
		_ = events.Matomo.Check(s)
	})
}

func FuzzSecret(f *testing.F) {
	f.Add(goodSecret, "")
	f.Add(goodHex, "x")
	f.Add(goodBody+"000000", "&token_auth=")
	f.Add("", strings.Repeat("_", 50))
	f.Add(strings.Repeat("tlu_", 20), "a_b")
	form := regexp.MustCompile(`\Atl[us]_[0-9A-Za-z]{38}\z`)
	old := regexp.MustCompile(`\A[0-9a-f]{32}\z`)
	f.Fuzz(func(t *testing.T, s, around string) {
		want := old.MatchString(s) || form.MatchString(s) && eventstest.Checksum(s[:36]) == s[36:]
		if got := events.DefaultFormat.Shape(s); got != want {
			t.Fatalf("Shape(%q) = %t; by its definition it is a secret: %t", s, got, want)
		}
		_, hasDigest := events.DefaultFormat.DigestOf(s)
		_, err := events.DefaultFormat.ParseSecret(s)
		if hasDigest != want || (err == nil) != want {
			t.Errorf("%q: DigestOf %t, ParseSecret %v; want both to say %t", s, hasDigest, err, want)
		}
		text := around + s + around
		if want && !events.LooksSecret(text) {
			t.Errorf("LooksSecret(%q) = false", text)
		}
		if want && strings.Contains(events.Quote(text), s) {
			t.Errorf("Quote(%q) = %s", text, events.Quote(text))
		}
		// Every text can get its checksum.
		if body := "tls_" + s; len(body) == 36 && form.MatchString(body+"000000") {
			if whole := body + eventstest.Checksum(body); !events.DefaultFormat.Shape(whole) {
				t.Errorf("Shape(%q) = false", whole)
			}
		}
	})
}
