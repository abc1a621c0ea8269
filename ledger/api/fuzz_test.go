package api

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/ledger"
)

// FuzzDuration parses durations of requests.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{
		`0`, `-0`, `60`, `-1`, `9223372036854775807`, `9223372036`, `9223372037`, `1e3`, `0.5`, `null`, `true`, `[]`, `{}`,
		`""`, `"90d"`, `"-1d"`, `"+1d"`, `"d"`, `"106000d"`, `"106001d"`, `"1d12h"`, `"36h"`, `"15m"`, `"1h1m1s1ms1us1ns"`,
		`"9223372036854775807ns"`, `"9223372036854775808ns"`, `"2540400h"`, `"1e3s"`, `" 1s"`, `"1 s"`, `"１d"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !json.Valid([]byte(s)) {
			return
		}
		var d Duration
		if err := json.Unmarshal([]byte(s), &d); err != nil {
			t.Fatalf("an error ends the decoding of the body: %v", err)
		}
		if d == malformed {
			switch list := d.Resolve(nil, huma.NewPathBuffer(nil, 0)); {
			case len(list) != 1:
				t.Errorf("%s is accepted", s)
			case strings.Contains(list[0].Error(), s) && len(s) > 8:
				t.Errorf("the error repeats %s: %v", s, list[0])
			}
			return
		}
		if s := strings.TrimSpace(s); s == "null" {
			return // leaves a pointer nil; the method is not asked
		}
		var text string
		var number json.Number
		switch {
		case json.Unmarshal([]byte(s), &text) == nil:
			got, err := ParseDuration(text)
			if err != nil || got != time.Duration(d) {
				t.Errorf("%s is %s, and as text %s, %v", s, time.Duration(d), got, err)
			}
			if days, ok := strings.CutSuffix(text, "d"); ok {
				if hours, err := time.ParseDuration(days + "h"); err == nil && hours.Abs() < math.MaxInt64/24 && 24*hours != got {
					t.Errorf("%s is %s, and %s times 24 is %s", s, got, hours, 24*hours)
				}
			}
		case json.Unmarshal([]byte(s), &number) == nil:
			if n, err := number.Int64(); err != nil || time.Duration(d) != time.Duration(n)*time.Second || int64(time.Duration(d)/time.Second) != n {
				t.Errorf("%s is %s", s, time.Duration(d))
			}
		default:
			t.Errorf("%s is %s", s, time.Duration(d))
		}
	})
}

// FuzzETag parses If-Match. A parsed version prints as it was.
func FuzzETag(f *testing.F) {
	for _, s := range []string{``, `*`, `"1"`, ` "1" `, `1`, `"1`, `1"`, `""`, `"0"`, `"01"`, `"+1"`, `"-1"`, `W/"1"`, `"1", "2"`, `"18446744073709551615"`, `"18446744073709551616"`, `"1e3"`, `"٣"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseIfMatch(s)
		trimmed := strings.TrimSpace(s)
		switch {
		case err != nil && v != 0:
			t.Errorf("%q is %d, %v", s, v, err)
		case err != nil && strings.Contains(err.Error(), s) && len(s) > 4:
			t.Errorf("the error repeats %q: %v", s, err)
		case err == nil && v == 0 && trimmed != "" && trimmed != "*":
			t.Errorf("%q names no version", s)
		case err == nil && v != 0 && etag(v) != trimmed:
			t.Errorf("%q is %d, which is printed as %s", s, v, etag(v))
		}
	})
}

// FuzzCursor parses cursors. It accepts only cursors that were created for the
// same list.
func FuzzCursor(f *testing.F) {
	filter := ledger.TokenFilter{Account: "alice"}
	const id = "tok_01jd3qk8z5n0v7m2x4c6b8a9ef"
	f.Add(encodeCursor("tokens", filter, id))
	f.Add(encodeCursor("tokens", ledger.TokenFilter{}, id))
	f.Add(encodeCursor("accounts", nil, "acc_"+id[4:]))
	f.Add(encodeCursor("tokens", filter, ""))
	f.Add(encodeCursor("tokens", filter, "tok_"))
	f.Add(id)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		page := Page{Cursor: s}
		lists := 0
		for _, list := range []struct {
			name   string
			filter any
		}{{"tokens", filter}, {"tokens", ledger.TokenFilter{}}, {"tokens", ledger.TokenFilter{Site: "alice"}}, {"accounts", nil}} {
			after, err := page.decodeCursor(list.name, list.filter)
			if err != nil || s == "" {
				if after != "" {
					t.Errorf("%q begins after %q, %v", s, after, err)
				}
				continue
			}
			lists++
			if made := encodeCursor(list.name, list.filter, after); made != s {
				t.Errorf("%q begins after %s, whose cursor is %q", s, after, made)
			}
		}
		if lists > 1 {
			t.Errorf("%q is a cursor of %d lists", s, lists)
		}
	})
}
