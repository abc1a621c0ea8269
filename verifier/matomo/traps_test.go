package matomo_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

const api = "/index.php?module=API&method="

// TestTrapBulkEntries checks every entry of urls, with its own token and what it has
// from outside, however it is encoded.
func TestTrapBulkEntries(t *testing.T) {
	f := newFixture(t)
	one, two := f.token("read:site/1"), f.token("read:site/2")
	bulk := api + "API.getBulkRequest&format=json&token_auth=" + one
	entry := func(s string) string { return "&urls[]=" + url.QueryEscape(s) }
	f.get(bulk+entry("method=VisitsSummary.get&idSite=1")).passed(t, "one's own site")
	f.get(bulk+entry("method=VisitsSummary.get&idSite=2")).refused(t, "another site", 403)
	f.get(bulk+entry("method=VisitsSummary.get&idSite=1")+entry("method=SitesManager.addSite")).refused(t, "the second entry", 403)
	f.get(bulk+entry("method=VisitsSummary.get&idSite=2&token_auth="+two)).passed(t, "an entry's own token")
	f.get(bulk+entry("method=VisitsSummary.get&idSite=2&token_auth="+f.token("read:site/3"))).refused(t, "an entry's wrong token", 403)
	f.get(bulk+entry("method=VisitsSummary.get&idSite=2&token_auth="+strings.Repeat("a", 32))).refused(t, "an unknown token", 401)
	for _, encoded := range []string{
		url.QueryEscape("method=VisitsSummary.get&idSite=2"), // twice in all
		"method=VisitsSummary.get%26idSite%3D2",
		"method=VisitsSummary.get&amp;idSite=2",
		"method=VisitsSummary.get%26amp%3BidSite=2",
		"method=VisitsSummary.get&idSite=1&idSite=2",
		"method=VisitsSummary.get&idSite=1&token.auth=x",
		"method=VisitsSummary.get&\tidSite=2",
		"?method=VisitsSummary.get&idSite=2",
		"index.php?method=VisitsSummary.get&idSite=2",
	} {
		if a := f.get(bulk + entry(encoded)); a.status != 403 && a.status != 400 || len(a.seen) > 0 {
			t.Errorf("%s: status %d, PHP saw %v", encoded, a.status, a.seen)
		}
	}
	f.get(bulk+"&idSite=2"+entry("method=VisitsSummary.get")).refused(t, "a site from outside", 403)
	f.get(bulk+"&idSite=1"+entry("method=VisitsSummary.get")).passed(t, "one's own site from outside")
	f.get(bulk+entry("method=API.getBulkRequest&urls[]=x")).refused(t, "a bulk in a bulk", 400)
	f.get(bulk+entry("idSite=1")).refused(t, "no method", 400)
	f.get(bulk+"&urls=x").refused(t, "a text", 400)
	f.get(bulk+entry("method=UsersManager.createAppSpecificTokenAuth")).refused(t, "a password", 403)
	// Entries without a token and with one, in a request without.
	a := f.get(api + "API.getBulkRequest" + entry("method=VisitsSummary.get&idSite=2&token_auth="+one))
	a.refused(t, "a token in an entry alone", 403)
	a = f.get(api + "API.getBulkRequest" + entry("method=VisitsSummary.get&idSite=1&segment=a%3Db%2526c&token_auth="+one) + entry("method=VisitsSummary.get&idSite=9"))
	a.passed(t, "a token in an entry")
	if len(a.seen) == 1 {
		var entries []string
		for _, p := range a.seen[0].Post {
			if p.Key == "urls" {
				for _, e := range p.Array {
					entries = append(entries, unescapeOnce(t, e.Text))
				}
			}
		}
		want := "method=VisitsSummary.get&idSite=1&segment=a=b%26c&token_auth=" + backend + "|method=VisitsSummary.get&idSite=9&token_auth="
		if got := strings.Join(entries, "|"); got != want {
			t.Errorf("the entries became\n%s, want\n%s", got, want)
		}
	}
}

func unescapeOnce(t *testing.T, s string) string {
	t.Helper()
	if s, err := url.QueryUnescape(s); err == nil {
		return s
	}
	t.Fatalf("%q", s)
	return ""
}

// TestTrapRenamedParameters reads names as PHP makes them, and PHP gets one token.
func TestTrapRenamedParameters(t *testing.T) {
	f := newFixture(t)
	view, super := f.token("read:site/1"), f.token("superuser")
	for _, name := range []string{"token.auth", "token%20auth", "token[auth", "token%5Bauth", "%20token_auth", "token_auth%00x", "token+auth"} {
		a := f.get(api + "VisitsSummary.get&idSite=1&token_auth=" + view + "&" + name + "=" + super)
		if len(a.seen) != 1 { // the last one wins, in PHP and here
			if a.status != 400 {
				t.Errorf("%s: status %d", name, a.status)
			}
			continue
		}
		a.passed(t, name, "token_auth="+backend, "idSite=1", "method=VisitsSummary.get")
		if got := a.seen[0].Get.String(); strings.Contains(got, super) || strings.Contains(got, view) {
			t.Errorf("%s: PHP saw %s", name, got)
		}
		f.get(api+"SitesManager.addSite&token_auth="+super+"&"+name+"="+view).refused(t, name+" weaker", 403)
	}
	f.get(api+"VisitsSummary.get&idSite=1&id.Site=2&token_auth="+view).passed(t, "id.Site is id_Site", "idSite=1")
	f.get(api+"VisitsSummary.get&idSite=1&idSite=2&token_auth="+view).refused(t, "idSite twice", 403)
}

// TestTrapOnePlace refuses security keys in the URL and in the body.
func TestTrapOnePlace(t *testing.T) {
	f := newFixture(t)
	token := f.token("read:site/1")
	for _, key := range []string{"module=API", "method=VisitsSummary.get", "idSite=1", "apiModule=x", "action=index"} {
		query := "module=API&method=VisitsSummary.get&idSite=1&apiModule=VisitsSummary&apiAction=get&action=index"
		f.post("/index.php?"+query, "token_auth="+token+"&"+key).refused(t, key+" twice", 400)
	}
	f.post("/index.php?module=API", "method=VisitsSummary.get&idSite=1&token_auth="+token).
		passed(t, "each once", "module=API", "method=VisitsSummary.get", "idSite=1", "token_auth="+backend)
}

// TestTrapSites accepts one spelling of a site, and "all" becomes the token's.
func TestTrapSites(t *testing.T) {
	f := newFixture(t)
	token := f.token("read:site/1", "view:site/20", "track:site/3")
	call := func(sites string) answer {
		return f.get(api + "VisitsSummary.get&idSite=" + sites + "&token_auth=" + token)
	}
	for _, bad := range []string{"2e0", "01", "%202", "1%20", "+1", "-1", "1,", "1,,1", "0", "1.0", "", "ALL", "1;2"} {
		call(bad).refused(t, "idSite="+bad, 400)
	}
	call("2").refused(t, "another", 403)
	call("1,2").refused(t, "a list with another", 403)
	call("3").refused(t, "a site that it only tracks", 403)
	call("1,20").passed(t, "a list", "idSite=1,20")
	call("all").passed(t, "all", "idSite=1,20")
	f.get(api+"VisitsSummary.get&idSite[]=1&idSite[]=20&token_auth="+token).passed(t, "an array", "idSite=1,20")
	f.get(api+"VisitsSummary.get&idSite[]=1&idSite[]=2&token_auth="+token).refused(t, "an array with another", 403)
	f.get(api+"VisitsSummary.get&idSite[][]=1&token_auth="+token).refused(t, "a nested array", 400)
	f.get(api+"VisitsSummary.get&token_auth="+token).refused(t, "no site", 403)
	f.get(api+"VisitsSummary.get&idSite=all&token_auth="+f.token("read:site/*")).passed(t, "all of all", "idSite=all")
	f.get(api+"VisitsSummary.get&idSite=1&idSites=2&token_auth="+token).passed(t, "idSites that is not read", "idSite=1", "idSites=")
}

// TestTrapMethod trims methods, and capitals count.
func TestTrapMethod(t *testing.T) {
	f := newFixture(t)
	token := f.token("read:site/1")
	call := func(name string) answer { return f.get(api + name + "&idSite=1&token_auth=" + token) }
	call("%20VisitsSummary.get%0a").passed(t, "white space", "method=VisitsSummary.get")
	call("Referers.get").passed(t, "the old name", "method=Referrers.get")
	call("visitssummary.get").refused(t, "small letters", 403)
	call("Unknown.method").refused(t, "an unknown method", 403)
	call("").refused(t, "no method", 400)
	f.get("/index.php?module=API&method[]=VisitsSummary.get&idSite=1&token_auth="+token).refused(t, "an array", 400)
}

// TestTrapSecondTarget checks the method that a call names besides its own.
func TestTrapSecondTarget(t *testing.T) {
	f := newFixture(t)
	token := f.token("read:site/1")
	for _, name := range []string{"API.getProcessedReport", "API.getMetadata", "API.getRowEvolution", "ImageGraph.get", "Insights.getInsights"} {
		call := func(rest string) answer { return f.get(api + name + "&idSite=1&token_auth=" + token + rest) }
		call("&apiModule=VisitsSummary&apiAction=get").passed(t, name, "apiModule=VisitsSummary", "apiAction=get")
		call("&apiModule=SitesManager&apiAction=addSite").refused(t, name+" of a superuser", 403)
		call("&apiModule=Annotations&apiAction=add").refused(t, name+" that changes", 403)
		call("&apiModule=MultiSites&apiAction=getAll").refused(t, name+" of all sites", 403)
		call("&apiModule=Nope&apiAction=get").refused(t, name+" unknown", 403)
		call("&apiModule=VisitsSummary").refused(t, name+" with half a target", 400)
		call("&apiModule=API&apiAction=getBulkRequest").refused(t, name+" with a bulk", 403)
		call("&apiModule=UsersManager&apiAction=createAppSpecificTokenAuth").refused(t, name+" with a password", 403)
	}
	f.get(api+"Insights.getInsights&idSite=1&reportUniqueId=Referrers_getWebsites&token_auth="+token).passed(t, "a report")
	f.get(api+"Insights.getInsights&idSite=1&reportUniqueId=SitesManager_getAllSites&token_auth="+token).refused(t, "a superuser's report", 403)
}

// TestTrapModule opens the API with a token, and nothing else.
func TestTrapModule(t *testing.T) {
	f := newFixture(t)
	token := f.token("superuser")
	for _, query := range []string{
		"module=CoreHome&action=index", "", "module=api&method=VisitsSummary.get", "module[]=API&method=VisitsSummary.get",
		"module=API&action=listAllAPI", "module=UsersManager", "module=Widgetize", "module=Widgetize&action=index",
		"module=Proxy&action=getCss", "module=API%00&method=VisitsSummary.get",
	} {
		if a := f.get("/index.php?" + query + "&idSite=1&token_auth=" + token); a.status != 403 && a.status != 400 || len(a.seen) > 0 {
			t.Errorf("%s: status %d, PHP saw %v", query, a.status, a.seen)
		}
	}
	f.get("/?module=API&method=VisitsSummary.get&idSite=1&token_auth="+token).passed(t, "the folder", "method=VisitsSummary.get")
	for _, path := range []string{"/index.php/x", "//index.php", "/./index.php", "/plugins/index.php", "/INDEX.PHP", "/index.php%00", "/x/../index.php"} {
		if a := f.get(path + "?module=API&method=VisitsSummary.get&idSite=1&token_auth=" + token); a.status < 400 || len(a.seen) > 0 {
			t.Errorf("%s: status %d, PHP saw %v", path, a.status, a.seen)
		}
	}
}

// TestTrapPasswordMethods never passes on a method that makes a token of a password,
// with a token, with a session or with neither.
func TestTrapPasswordMethods(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{
		"UsersManager.createAppSpecificTokenAuth", "%20UsersManager.createAppSpecificTokenAuth", "usersmanager.createappspecifictokenauth",
	} {
		f.get(api+name+"&userLogin=a&passwordConfirmation=b").refused(t, name, 403)
		f.post("/index.php?module=API", "method="+name).refused(t, name+" in a form", 403)
		f.post("/index.php?module=API", "method="+name, session()).refused(t, name+" in a session", 403)
		f.get(api+name+"&token_auth="+f.token("superuser")).refused(t, name+" of a superuser", 403)
		if a := f.get(api + "API.getBulkRequest&urls[]=" + url.QueryEscape("method="+name)); a.status < 400 || len(a.seen) > 0 {
			t.Errorf("%s in a bulk: status %d", name, a.status)
		}
		f.send("POST", "/index.php?module=API", "multipart/form-data; boundary=x",
			"--x\r\nContent-Disposition: form-data; name=\"method\"\r\n\r\nUsersManager.createAppSpecificTokenAuth\r\n--x--\r\n").
			refused(t, "in a multipart form", 403)
	}
}

// TestTrapForceSession drops what would make Matomo use a session.
func TestTrapForceSession(t *testing.T) {
	f := newFixture(t)
	token := f.token("read:site/1")
	a := f.get(api+"VisitsSummary.get&idSite=1&force_api_session=1&token_auth="+token, session(), header("Accept", "x"))
	a.passed(t, "in the URL", "force_api_session=")
	if got := a.seen[0].Headers.Text("Cookie"); got != "" {
		t.Errorf("PHP saw the cookies %q", got)
	}
	f.post(api+"VisitsSummary.get&idSite=1", "force_api_session=1&token_auth="+token).passed(t, "in a form", "force_api_session=")
}

// TestTrapUnverifiedTokens never passes on a token that is not valid, and sets the
// client's address afresh.
func TestTrapUnverifiedTokens(t *testing.T) {
	f := newFixture(t)
	id, ended := f.imported("superuser")
	f.Log.Revoke(id)
	f.Follow()
	unknown := strings.Repeat("d", 32)
	for what, token := range map[string]string{"revoked": ended, "unknown": unknown} {
		f.get(api+"VisitsSummary.get&idSite=1&token_auth="+token).refused(t, what, 401)
		f.get(api+"VisitsSummary.get&idSite=1", bearer(token)).refused(t, what+" in the header", 401)
		f.post(api+"VisitsSummary.get&idSite=1", "token_auth="+token).refused(t, what+" in a form", 401)
		f.get("/index.php?module=CoreHome&token_auth="+token).refused(t, what+" for the user interface", 403)
		for _, path := range []string{"/matomo.php", "/piwik.php", "/js/tracker.php", "/js/"} {
			a := f.get(path + "?idsite=1&rec=1&cip=192.0.2.1&token_auth=" + token)
			a.passed(t, what+" at "+path, "token_auth=", "cip=", "idsite=1")
		}
	}
	f.get(api+"VisitsSummary.get&idSite=1&token_auth="+ended, session()).refused(t, "revoked, with a made-up session", 401)
	f.post(api+"VisitsSummary.get&idSite=1", "force_api_session=1&token_auth="+ended, session()).refused(t, "revoked, in a made-up session", 401)
	f.get(api+"VisitsSummary.get&idSite=1&force_api_session=1&token_auth="+unknown, session()).refused(t, "unknown in the URL", 401)
	f.post(api+"VisitsSummary.get&idSite=1", "force_api_session=1&token_auth="+unknown, session()).
		passed(t, "a session's token", "token_auth="+unknown, "force_api_session=1")
	f.post(api+"VisitsSummary.get&idSite=1", "token_auth="+unknown, session()).refused(t, "not said to be a session's", 401)
	f.post(api+"API.getBulkRequest", "force_api_session=1&token_auth="+unknown+"&urls[]="+url.QueryEscape("method=X.y&token_auth="+ended), session()).
		refused(t, "an entry's token in a made-up session", 400)
}

// TestTrapClientAddress sets afresh what Matomo believes about the client.
func TestTrapClientAddress(t *testing.T) {
	f := newFixture(t)
	f.ask("GET", "/matomo.php?idsite=1", "", func(r *http.Request) { r.Host, r.RemoteAddr = "stats.example:8443", "127.0.0.1:1" },
		header("X-Forwarded-For", "198.51.100.9, 203.0.113.5"), header("X-Forwarded-Proto", "https"),
		header("X-Forwarded-Host", "evil.example"), header("X_Forwarded_For", "6.6.6.6"), header("Client-Ip", "6.6.6.6"),
		header("X-Real-Ip", "6.6.6.6"))
	seen := f.php.Take(t)
	if len(seen) != 1 {
		t.Fatalf("PHP saw %d requests", len(seen))
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "stats.example:8443",
		"Host": "stats.example:8443", "Client-Ip": "", "X-Real-Ip": "", "X_Forwarded_For": "",
	} {
		if got := seen[0].Headers.Text(name); got != want {
			t.Errorf("PHP saw %s: %q, want %q", name, got, want)
		}
	}
	if status, _ := f.ask("GET", "/matomo.php?idsite=1", "", func(r *http.Request) { r.RemoteAddr = "127.0.0.1:1" },
		header("X-Forwarded-For", "nobody")); status != http.StatusBadRequest {
		t.Errorf("a proxy that does not tell the address gets %d", status)
	}
}

// TestTrapPreflight answers the questions of browsers.
func TestTrapPreflight(t *testing.T) {
	f := newFixture(t)
	p := events.DefaultPolicy
	p.CORSOrigins = "https://shop.example"
	f.Log.Change(events.PolicyName, &events.PolicySet{Policy: p})
	f.Follow()
	token := f.token("read:site/1")
	ask := func(origin string) answer {
		return f.send("OPTIONS", api+"VisitsSummary.get&idSite=1&token_auth="+token, "", "", header("Origin", origin),
			header("Access-Control-Request-Method", "GET"), header("Access-Control-Request-Headers", "authorization"))
	}
	a := ask("https://shop.example")
	a.refused(t, "listed", http.StatusNoContent)
	if a.header.Get("Access-Control-Allow-Origin") != "https://shop.example" || a.header.Get("Access-Control-Allow-Headers") != "authorization" {
		t.Errorf("the answer has %v", a.header)
	}
	ask("https://evil.example").refused(t, "not listed", 403)
	a = f.get(api+"VisitsSummary.get&idSite=1", bearer(token), header("Origin", "https://shop.example"))
	a.passed(t, "the call", "token_auth="+backend)
	if a.header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("the call's answer has %v", a.header)
	}
	a = f.get(api+"VisitsSummary.get&idSite=2", bearer(token), header("Origin", "https://shop.example"))
	if a.refused(t, "a refusal", 403); a.header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("the refusal has %v", a.header)
	}
}
