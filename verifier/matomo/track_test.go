package matomo_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/matomo"
)

const allOverrides = "&cip=192.0.2.1&country=de&region=BY&city=x&lat=1&long=2"

// TestHitWithToken passes on a hit with a token for its site, and without it
// otherwise: the visit is never lost.
func TestHitWithToken(t *testing.T) {
	f := newFixture(t)
	track := f.token("track:site/1")
	hit := "/matomo.php?rec=1&action_name=a%20b&idsite="
	f.get(hit+"1"+allOverrides+"&token_auth="+track).passed(t, "its site", "token_auth="+backend, "cip=192.0.2.1", "city=x", "action_name=a b")
	f.get(hit+"1"+allOverrides, bearer(track)).passed(t, "in the header", "token_auth="+backend, "cip=192.0.2.1")
	f.post("/matomo.php", "idsite=1&cip=192.0.2.1&token_auth="+track).passed(t, "in a form", "token_auth="+backend, "cip=192.0.2.1")
	_, imported := f.imported("write:site/1")
	f.get(hit+"1"+allOverrides+"&token_auth="+imported).passed(t, "imported", "token_auth="+imported, "cip=192.0.2.1")

	expired := f.Clock.Now().Add(-time.Hour)
	_, old := f.create(events.TokenCreated{Account: f.super, Scopes: eventstest.Scopes("track:site/1"), Expires: expired}, "")
	for what, token := range map[string]string{
		"of another site": f.token("track:site/2"), "that only reads": f.token("view:site/1"), "expired": old,
		"unknown": strings.Repeat("e", 32), "garbage": "%22%3e%00", "not in URLs": f.constrained(&events.Constraints{HeaderOnly: true}, "track:site/1"),
	} {
		a := f.get(hit + "1" + allOverrides + "&token_auth=" + token)
		a.passed(t, "a token "+what, "token_auth=", "cip=", "country=", "region=", "city=", "lat=", "long=", "idsite=1", "action_name=a b")
		if !strings.HasPrefix(a.header.Get(matomo.TrackingHeader), "token not used: ") {
			t.Errorf("%s: %s is %q", what, matomo.TrackingHeader, a.header.Get(matomo.TrackingHeader))
		}
	}
	for _, site := range []string{"01", "1.0", "1e0", "1,2", "all", "x", ""} {
		f.get(hit+site+"&cip=192.0.2.1&token_auth="+track).passed(t, "the site "+site, "token_auth=", "cip=")
	}
	f.post("/matomo.php?idsite=2", "idsite=1&cip=192.0.2.1&token_auth="+track).passed(t, "two sites", "token_auth=", "cip=")
	f.post("/matomo.php?idsite=1&token_auth="+old, "token_auth="+track).refused(t, "two tokens", 400)
	counts := f.counts()
	for _, want := range []string{"untrusted unknown", "untrusted expired", "untrusted insufficient_scope", "untrusted in_url", "untrusted bad_site", "untrusted malformed"} {
		if counts[want] == 0 {
			t.Errorf("no count of %q: %v", want, counts)
		}
	}
	if log := f.log.String(); strings.Contains(log, track) || strings.Contains(log, old) {
		t.Error("the log has a token")
	}
}

// TestHitTime drops the time of a hit without a token only where Matomo would
// refuse the hit for it.
func TestHitTime(t *testing.T) {
	f := newFixture(t)
	now := f.Clock.Now()
	for cdt, kept := range map[string]bool{
		fmt.Sprint(now.Add(-time.Hour).Unix()):                          true,
		fmt.Sprint(now.Add(-25 * time.Hour).Unix()):                     false,
		fmt.Sprint(now.Add(-24 * time.Hour).Unix()):                     false,
		fmt.Sprint(now.Add(48 * time.Hour).Unix()):                      false,
		now.Add(-time.Hour).UTC().Format("2006-01-02%2015:04:05"):       true,
		now.Add(-100 * time.Hour).UTC().Format("2006-01-02%2015:04:05"): false,
		"yesterday": false,
		fmt.Sprint(now.Add(-time.Hour).Unix()) + "&cdo=100":    true,
		fmt.Sprint(now.Add(-time.Hour).Unix()) + "&cdo=90000":  false,
		fmt.Sprint(now.Add(-time.Hour).Unix()) + "&cdo=-90000": false,
	} {
		a := f.get("/matomo.php?idsite=1&cdt=" + cdt + "&token_auth=" + strings.Repeat("f", 32))
		a.passed(t, cdt, "token_auth=")
		if len(a.seen) == 1 && a.seen[0].Get.Has("cdt") != kept {
			t.Errorf("cdt=%s: PHP saw %s, want it kept: %t", cdt, a.seen[0].Get, kept)
		}
	}
}

// TestBulkHits decides on each hit of a list.
func TestBulkHits(t *testing.T) {
	f := newFixture(t)
	both, one := f.token("track:site/1", "track:site/2"), f.token("track:site/1")
	bulk := func(body string, o ...option) (answer, map[string]any) {
		t.Helper()
		a := f.send("POST", "/matomo.php", "application/json", body, o...)
		var got map[string]any
		if len(a.seen) == 1 {
			if err := json.Unmarshal(a.seen[0].Input, &got); err != nil {
				t.Fatalf("PHP read %q: %v", a.seen[0].Input, err)
			}
		}
		return a, got
	}
	list := `"requests":["?idsite=1&rec=1&cip=192.0.2.1",{"idsite":2,"rec":1,"cip":"192.0.2.2","n":12345678901234567890}]`
	check := func(what, body, want string, o ...option) {
		t.Helper()
		a, got := bulk(body, o...)
		b, _ := json.Marshal(got)
		var wanted any
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatal(err)
		}
		w, _ := json.Marshal(wanted)
		if a.status != 200 || string(b) != string(w) {
			t.Errorf("%s: status %d, PHP read %s, want %s", what, a.status, b, w)
		}
	}
	check("no token", "{"+list+"}", "{"+list+"}")
	whole := `{"requests":["?idsite=1&rec=1&cip=192.0.2.1",{"idsite":2,"rec":1,"cip":"192.0.2.2","n":12345678901234567890}],"token_auth":"` + backend + `"}`
	check("a token for all", "{"+list+`,"token_auth":"`+both+`"}`, whole)
	check("in the header", "{"+list+`}`, whole, bearer(both))
	check("said to be a form", "{"+list+`,"token_auth":"`+both+`"}`, whole, header("Content-Type", "application/x-www-form-urlencoded"))
	check("a token for one site", "{"+list+`,"token_auth":"`+one+`"}`,
		`{"requests":["?idsite=1&rec=1&cip=192.0.2.1&token_auth=`+backend+`",{"idsite":2,"rec":1,"n":12345678901234567890}]}`)
	check("an unknown token", "{"+list+`,"token_auth":"`+strings.Repeat("a", 32)+`"}`,
		`{"requests":["?idsite=1&rec=1",{"idsite":2,"rec":1,"n":12345678901234567890}]}`)
	check("tokens of their own", `{"requests":["?idsite=1&cip=1&token.auth=`+one+`",{"idsite":"2","cip":1,"token_auth":"`+one+`"},"?idsite=3&cip=9"]}`,
		`{"requests":["?idsite=1&cip=1&token_auth=`+backend+`",{"idsite":"2"},"?idsite=3&cip=9"]}`)
	check("the body's token covers an entry's", `{"requests":["?idsite=1&cip=1&token_auth=`+strings.Repeat("a", 32)+`"],"token_auth":"`+one+`"}`,
		`{"requests":["?idsite=1&cip=1"],"token_auth":"`+backend+`"}`)
	check("a body's weak token covers an entry's", `{"requests":["?idsite=2&cip=1&token_auth=`+both+`"],"token_auth":"`+one+`"}`,
		`{"requests":["?idsite=2"]}`)
	check("a name twice", `{"requests":[{"idsite":1,"token_auth":"x","token_auth":"`+one+`"}]}`,
		`{"requests":[{"idsite":1,"token_auth":"`+backend+`"}]}`)
	check("trimmed, and without line ends", "\x00\v {"+list+",\"token_\r\nauth\":\""+both+"\"}\x00\v\n", whole)
	for _, bad := range []string{
		"\x00{\"token\\u005fauth\":\"" + one + "\",\"x\":}", `{"requ\u0065sts":[}`,
		`{"requests":`, `{"requests":1}`, `{'requests':[]}`, `{"requests":[1]}`, `{"requests":[["a"]]}`, `["requests"]`,
		`{"requests":[],"token_auth":[]}`, `{"requests":[{"token_auth":{}}]}`, `{"requests":[]}{}`, `"requests"`,
	} {
		a, _ := bulk(bad)
		a.refused(t, bad, 400)
	}
	a, _ := bulk(`{"requests":[],"token_auth":"`+one+`"}`, bearer(both))
	a.refused(t, "two tokens", 400)
	var big []string
	for i := range 200 {
		big = append(big, fmt.Sprintf(`"?idsite=%d&cip=1"`, i+1))
	}
	a, _ = bulk(`{"requests":[` + strings.Join(big, ",") + `],"token_auth":"` + f.token("track:site/*") + `"}`)
	a.passed(t, "200 sites")
	if !strings.Contains(string(a.seen[0].Input), backend) {
		t.Error("200 sites: the token is gone")
	}
}

// TestTrackingWithoutVerifier passes hits on while the verifier has no lease: with
// their token for as long as stale says, and then without it.
func TestTrackingWithoutVerifier(t *testing.T) {
	f := newFixture(t)
	token := f.token("superuser")
	hit := "/matomo.php?idsite=1&cip=192.0.2.1&token_auth=" + token
	others := func() {
		t.Helper()
		f.get("/matomo.php?idsite=1&rec=1").passed(t, "no token", "idsite=1")
		f.get(api+"VisitsSummary.get&idSite=1&token_auth="+token).refused(t, "the API", 503)
		f.get("/index.php?module=CoreHome", session()).passed(t, "the user interface")
	}
	f.Clock.Pass(verifier.DefaultLease + stale - time.Second)
	f.get(hit).passed(t, "a token, not long after the lease", "token_auth="+backend, "cip=192.0.2.1", "idsite=1")
	others()
	f.Clock.Pass(time.Second)
	f.get(hit).passed(t, "a token, long after the lease", "token_auth=", "cip=", "idsite=1")
	others()
}
