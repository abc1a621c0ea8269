package matomo_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// TestOtherSpellings refuses requests that Matomo reads otherwise than PHP itself
// does: it removes line ends and zero bytes, and decodes entities.
func TestOtherSpellings(t *testing.T) {
	f := newFixture(t)
	id, ended := f.imported("superuser")
	f.Log.Change(string(id), &events.TokenRevoked{})
	f.Follow()
	valid := f.token("read:site/1")

	const bulk = "/index.php?module=API&method=API.getBulkRequest"
	for _, entry := range []string{
		"method=API.get&idSite=1&token_auth=&x=%25&#38;token_auth=" + ended,
		"method=API.get&idSite=1&token_auth=&x=1&#x26;token_auth=" + ended,
		"method=API.get&idSite=1&token_auth=" + valid + "&x=%25&#38;idSite=2",
		"method=API.get&idSite=1&token_auth=" + valid + "&x=1&#38;method=SitesManager.deleteSite",
	} {
		for _, text := range []string{url.QueryEscape(entry), url.QueryEscape(url.QueryEscape(entry))} {
			f.post(bulk, "urls[0]="+text).refused(t, entry, 400)
		}
	}
	form := "force_api_session=1&token_auth=0123456789abcdef0123456789abcdef"
	f.post(bulk, form+"&urls[0]="+url.QueryEscape("method=API.get&x=1%\n26token_auth="+ended), session()).
		refused(t, "a line end in an escape", 400)

	for _, name := range []string{"API.getBulk%0ARequest", "API.getBulk%26%2382%3Bequest", "API%00.getBulkRequest"} {
		f.post("/index.php?module=API&method="+name, "urls[0]=method%3DAPI.get%26token_auth%3D"+ended).refused(t, name, 400)
	}
	f.get("/index.php?module=API&method=UsersManager.createAppSpecific%0ATokenAuth&userLogin=a").
		refused(t, "a method that takes a password", 400)

	nested := "/index.php?module=API&method=API.getProcessedReport&apiModule=Actions&apiAction=get&idSite=1&apiParameters"
	for _, o := range [][]option{nil, {bearer(valid)}} {
		f.get(nested+"[token_auth]="+ended, o...).refused(t, "a token for the second method", 400)
	}
	f.get(nested+"[idGoal]=3", bearer(valid)).passed(t, "a goal for the second method")

	for _, token := range []string{ended + "\n", "\x00" + ended, fmt.Sprintf("&#%d;%s", ended[0], ended[1:])} {
		f.post("/index.php?module=API&method=API.get&idSite=1",
			"force_api_session=1&token_auth="+url.QueryEscape(token), session()).refused(t, "another spelling of a revoked token", 401)
	}
}

// TestHitsOfOtherSpellings finds tokens in lists of hits as parse_url does, and under
// other paths of the tracker.
func TestHitsOfOtherSpellings(t *testing.T) {
	f := newFixture(t)
	id, ended := f.imported("superuser")
	f.Log.Change(string(id), &events.TokenRevoked{})
	f.Follow()
	const json, form = "application/json", "application/x-www-form-urlencoded"

	a := f.send("POST", "/matomo.php", json, `{"requests":["?idsite=1&rec=1&cip=192.0.2.1&token\u0001auth=`+ended+`"]}`)
	a.passed(t, "a control character in a name")
	if got := string(a.seen[0].Input); strings.Contains(got, ended) || strings.Contains(got, "cip") {
		t.Errorf("Matomo got %s, want a hit without the token", got)
	}
	list := `{"requests":[{"idsite":1,"rec":1,"token_auth":"` + ended + `"}]}`
	for _, path := range []string{"/matomo.php/x", "//matomo.php", "/./piwik.php", "/js/index.php/x", "/js/tracker.php/x"} {
		for _, typ := range []string{json, form} {
			f.send("POST", path, typ, list).refused(t, path+" "+typ, 403)
		}
	}
	f.send("POST", "/matomo.php", form, `{"requests":["?idsite=1&rec=1"],"a":"&token_auth=`+ended+`&"}`).
		refused(t, "a list that is also a form", 400)
}

// TestManyTokens checks some of the tokens in a list of hits. The others are lost, and
// no hit is.
func TestManyTokens(t *testing.T) {
	f := newFixture(t)
	hits := make([]string, 200)
	for i := range hits {
		hits[i] = fmt.Sprintf(`"?idsite=1&cip=192.0.2.1&token_auth=%032x"`, i)
	}
	valid := `"?idsite=1&cip=192.0.2.1&token_auth=` + f.token("track:site/1") + `"`
	list := `{"requests":[` + valid + "," + strings.Join(hits, ",") + "," + valid + `]}`
	a := f.send("POST", "/matomo.php", "application/json", list)
	a.passed(t, "many tokens")
	got := string(a.seen[0].Input)
	if n := strings.Count(got, "idsite=1"); n != len(hits)+2 {
		t.Errorf("Matomo got %d hits, want %d", n, len(hits)+2)
	}
	if n := strings.Count(got, "token_auth="+backend); n != 2 || strings.Count(got, "cip=") != 2 || strings.Count(got, "token_auth=") != 2 {
		t.Errorf("Matomo got %d hits with the token, want 2: %s", n, got)
	}
	if f.counts()["untrusted too_many_tokens"]+f.counts()["untrusted unknown"] == 0 {
		t.Errorf("the counts are %v", f.counts())
	}
}

// TestRangesWithAnotherToken passes no range on if the gateway's token may be in the
// answer, of which a part could be asked for.
func TestRangesWithAnotherToken(t *testing.T) {
	f := newFixture(t)
	a := f.get("/index.php?module=API&method=API.get&idSite=1", bearer(f.token("read:site/1")), header("Range", "bytes=0-9"))
	a.passed(t, "a range")
	if a.seen[0].Headers.Has("Range") {
		t.Error("Matomo got Range: an answer could have a part of the gateway's token")
	}
}
