package matomo_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// TestPassUntouched passes on what has no token as it came.
func TestPassUntouched(t *testing.T) {
	f := newFixture(t)
	form := "a=1&a=2&b[]=x&c.d=%20%2f"
	a := f.post("/index.php?module=CoreHome&x=%2f&&y", form, session())
	a.passed(t, "a form of a session")
	if got := string(a.seen[0].Input); got != form || a.seen[0].Server.Text("QUERY_STRING") != "module=CoreHome&x=%2f&&y" {
		t.Errorf("PHP read %q of %q", got, a.seen[0].Server.Text("QUERY_STRING"))
	}
	if a.seen[0].Cookies.Text("MATOMO_SESSID") == "" {
		t.Error("the session is gone")
	}
	a = f.get("/index.php?token_auth%00x=" + strings.Repeat("a", 32) + "&%zz&+token_auth=anonymous")
	a.passed(t, "a query that Go cannot parse", "token_auth=anonymous")
	f.get("/index.php?module=API&method=VisitsSummary.get&idSite=1&token_auth=anonymous").passed(t, "anonymous", "token_auth=anonymous")
	f.get("/index.php?module=API&method=VisitsSummary.get&idSite=1&token_auth=").passed(t, "an empty token")
	site := api + "SitesManager.addSite&urls[]=https%3A%2F%2Fa.example&token_auth="
	if a := f.get(site + f.token("superuser")); len(a.seen) != 1 || !a.seen[0].Get.Has("urls") {
		t.Errorf("addresses of a site: %d %s", a.status, a.body)
	}
	f.post("/index.php?module=SitesManager", "urls=x", session()).passed(t, "addresses of a site, in a session", "urls=x")
	f.get("/matomo.php?idsite=1&rec=1&url=https%3a%2f%2fx").passed(t, "a hit", "url=https://x")
	f.post("/matomo.php", "idsite=1&rec=1").passed(t, "a posted hit", "idsite=1")
	a = f.get("/matomo.js")
	if a.status != 200 || !strings.Contains(a.body, "") {
		t.Errorf("a static file: %d", a.status)
	}
	a = f.send("POST", "/index.php?module=X", "multipart/form-data; boundary=x",
		"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"p.zip\"\r\n\r\n"+strings.Repeat("z", 100000)+"\r\n--x--\r\n", session())
	a.passed(t, "an upload")
	if !a.seen[0].Files.Has("f") {
		t.Errorf("PHP saw the files %s", a.seen[0].Files)
	}
	a = f.send("PUT", "/index.php?module=X", "application/octet-stream", strings.Repeat("q", 10<<20), session())
	if a.passed(t, "ten megabytes streamed"); len(a.seen) == 1 && len(a.seen[0].Input) != 10<<20 {
		t.Errorf("PHP read %d bytes", len(a.seen[0].Input))
	}
	// Without a connection: a server may close one before a client has sent so much.
	large := httptest.NewRequest("POST", "/index.php?module=X", strings.NewReader("a="+strings.Repeat("x", 9<<20)))
	large.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	if f.gateway.ServeHTTP(w, large); w.Code != 413 {
		t.Errorf("a form of nine megabytes: %d", w.Code)
	}
	chunked := func(r *http.Request) { r.ContentLength = -1; r.TransferEncoding = []string{"chunked"} }
	f.post("/index.php?module=X", form, chunked).passed(t, "chunked", "c_d= /")
	f.post(api+"VisitsSummary.get", "idSite=1&token_auth="+f.token("read:site/1"), chunked).passed(t, "chunked with a token", "idSite=1")
}

// TestCompressedBodies checks what some servers decompress for PHP.
func TestCompressedBodies(t *testing.T) {
	f := newFixture(t)
	pack := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(s))
		_ = w.Close()
		return b.String()
	}
	token := f.token("track:site/1")
	gz := header("Content-Encoding", "gzip")
	a := f.send("POST", "/matomo.php", "application/json", pack(`{"requests":["?idsite=1&cip=1"],"token_auth":"`+token+`"}`), gz)
	a.passed(t, "a list of hits")
	if got, want := string(a.seen[0].Input), `{"requests":["?idsite=1&cip=1"],"token_auth":"`+backend+`"}`+"\n"; got != want {
		t.Errorf("PHP read %q, want %q", got, want)
	}
	f.send("POST", api+"VisitsSummary.get", "application/x-www-form-urlencoded", pack("idSite=2&token_auth="+f.token("read:site/1")), gz).
		refused(t, "a form", 403)
	f.send("POST", "/matomo.php", "application/json", "no gzip", gz).refused(t, "not compressed", 400)
	f.send("POST", "/matomo.php", "application/json", "x", header("Content-Encoding", "br")).refused(t, "brotli", 415)
	f.send("POST", "/matomo.php", "application/json", pack(strings.Repeat("0", 20<<20)), gz).refused(t, "a bomb", 413)
}

// TestErrors answers in the format that the client asked for.
func TestErrors(t *testing.T) {
	f := newFixture(t)
	for query, want := range map[string][2]string{
		"":                          {"text/xml", "<error message=\"The token is unknown"},
		"&format=xml":               {"text/xml", "<result>"},
		"&format=JSON":              {"application/json", `{"result":"error","message":"The token is unknown`},
		"&format=json&callback=f.g": {"application/javascript", `f.g({"result"`},
		"&format=json&callback=<x>": {"application/json", `{"result"`},
		"&format=csv":               {"text/plain", "Error: "},
		"&format=html":              {"text/html", "<p>The token"},
		"&format=original":          {"application/json", `{"result"`},
	} {
		a := f.get(api + "VisitsSummary.get&idSite=1&token_auth=" + strings.Repeat("a", 32) + query)
		a.refused(t, query, 401)
		if !strings.HasPrefix(a.header.Get("Content-Type"), want[0]) || !strings.Contains(a.body, want[1]) {
			t.Errorf("%s: %s %s", query, a.header.Get("Content-Type"), a.body)
		}
	}
	a := f.get(api + url.QueryEscape(`<b>"x"`) + "&token_auth=" + f.token("superuser"))
	if a.refused(t, "markup", 403); strings.Contains(a.body, "<b>") {
		t.Errorf("the answer has markup of the client: %s", a.body)
	}
	f.get(api+"VisitsSummary.get&idSite=1&token_auth[]="+f.token("superuser")).refused(t, "an array", 400)
	f.get(api+"VisitsSummary.get&idSite=1&token_auth="+f.token("superuser"), bearer(f.token("superuser"))).refused(t, "two tokens", 400)
	f.get(api+"VisitsSummary.get&idSite=1", header("Authorization", "Bearer a", "Bearer b")).refused(t, "two headers", 400)
	long := strings.Repeat("x", 63000)
	f.get(api+"VisitsSummary.get&idSite=1&x="+long+"&token_auth="+f.token("superuser")).passed(t, "a long URL", "x="+long)
	f.get(api+"VisitsSummary.get&x="+strings.Repeat("x", 70000)).refused(t, "a URL that is too long", 413)
	f.send("DELETE", api+"VisitsSummary.get&idSite=1&token_auth="+f.token("superuser"), "", "").refused(t, "DELETE", 405)
	f.send("POST", api+"VisitsSummary.get&idSite=1&token_auth="+f.token("superuser"), "application/json", "{}").refused(t, "JSON", 415)
}

// TestConstraints uses a token as it may be used.
func TestConstraints(t *testing.T) {
	f := newFixture(t)
	call := api + "VisitsSummary.get&idSite=1"
	header1 := f.constrained(&events.Constraints{HeaderOnly: true}, "read:site/1")
	f.get(call, bearer(header1)).passed(t, "in the header", "token_auth="+backend)
	f.post(call, "token_auth="+header1).passed(t, "in a form", "token_auth="+backend)
	f.get(call+"&token_auth="+header1).refused(t, "in the URL", 401)
	f.post(call+"&token_auth="+header1, "token_auth="+header1).refused(t, "in both", 401)
	f.get(call+"&token_auth="+header1, bearer(header1)).refused(t, "in the header too", 401)

	page := f.constrained(&events.Constraints{Origins: []string{"https://shop.example"}}, "read:site/1", "widget:site/1")
	f.get(call+"&token_auth="+page).refused(t, "no page", 401)
	f.get(call+"&token_auth="+page, header("Origin", "https://shop.example")).passed(t, "its page")
	f.get(call+"&token_auth="+page, header("Origin", "https://evil.example")).refused(t, "another page", 401)
	widget := "/index.php?module=Widgetize&action=iframe&moduleToWidgetize=VisitsSummary&actionToWidgetize=getEvolutionGraph&idSite=1&token_auth="
	f.get(widget+page, header("Referer", "https://shop.example/cart?x")).passed(t, "a frame in its page")
	f.get(widget+page, header("Referer", "https://evil.example/")).refused(t, "a frame in another page", 401)

	set := f.constrained(&events.Constraints{Audience: []string{"VisitsSummary.get", "Goals"}}, "write:site/1")
	f.get(call+"&token_auth="+set).passed(t, "one of its methods")
	f.get(api+"Goals.addGoal&idSite=1&token_auth="+set).passed(t, "of its plugin")
	f.get(api+"Actions.get&idSite=1&token_auth="+set).refused(t, "another method", 401)
	f.get(api+"API.getMetadata&apiModule=VisitsSummary&apiAction=get&idSite=1&token_auth="+set).refused(t, "a method around one of its", 401)
	bulk := api + "API.getBulkRequest&token_auth=" + set + "&urls[]=" + url.QueryEscape("method=VisitsSummary.get&idSite=1")
	f.get(bulk).passed(t, "a bulk of its methods")
	f.get(bulk+"&urls[]="+url.QueryEscape("method=Actions.get&idSite=1")).refused(t, "a bulk with another", 401)
	f.get("/matomo.php?idsite=1&cip=1&token_auth="+set).passed(t, "a hit", "token_auth=", "cip=")
	everything := f.constrained(&events.Constraints{Audience: []string{matomo.Audience}}, "write:site/1")
	f.get(api+"Actions.get&idSite=1&token_auth="+everything).passed(t, "for all of Matomo")
	limited := f.constrained(&events.Constraints{Rate: 1}, "read:site/1")
	f.get(bulk+"&token_auth="+limited).passed(t, "the first request")
	a := f.get(call + "&token_auth=" + limited)
	if a.refused(t, "the second", 429); a.header.Get("Retry-After") == "" {
		t.Errorf("the answer has %v", a.header)
	}
}

// TestWidgets shows widgets only to tokens with that scope, and hides the gateway's
// own token.
func TestWidgets(t *testing.T) {
	f := newFixture(t)
	widget := func(rest, token string) answer {
		return f.get("/index.php?module=Widgetize&action=iframe&" + rest + "&token_auth=" + token)
	}
	token := f.token("widget:site/1")
	a := widget("moduleToWidgetize=VisitsSummary&actionToWidgetize=getEvolutionGraph&idSite=1", token)
	a.passed(t, "its widget", "idSite=1", "token_auth="+widgets)
	if strings.Contains(a.body, widgets) { // PHP echoes in base64, so see TestOwnTokenStaysHidden
		t.Error("the answer has the gateway's token")
	}
	widget("moduleToWidgetize=Live&actionToWidgetize=widget&idSite=all", token).passed(t, "all its sites", "idSite=1")
	widget("moduleToWidgetize=Live&actionToWidgetize=widget&idSite=2", token).refused(t, "another site", 403)
	widget("moduleToWidgetize=Live&actionToWidgetize=widget", token).refused(t, "no site", 400)
	for _, bad := range []string{
		"moduleToWidgetize=UsersManager&actionToWidgetize=index", "moduleToWidgetize=CoreAdminHome&actionToWidgetize=generalSettings",
		"moduleToWidgetize=API&actionToWidgetize=index", "moduleToWidgetize=Annotations&actionToWidgetize=add",
		"moduleToWidgetize[]=Live&actionToWidgetize=widget", "moduleToWidgetize=live&actionToWidgetize=widget", "",
	} {
		widget(bad+"&idSite=1", token).refused(t, bad, 403)
	}
	widget("moduleToWidgetize=Live&actionToWidgetize=widget&idSite=1", f.token("admin:site/*")).refused(t, "an admin's token", 403)
	f.get(api+"VisitsSummary.get&idSite=1&token_auth="+token).refused(t, "the API", 403)
	f.get(api+"LanguagesManager.getAvailableLanguages&token_auth="+token).refused(t, "a harmless method", 403)
}

// TestOwnTokenStaysHidden replaces the gateway's token in answers.
func TestOwnTokenStaysHidden(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.PostFormValue("token_auth")
		w.Header().Set("Location", "/x?token_auth="+token)
		w.Header().Set("Set-Cookie", "MATOMO_SESSID=of-the-backend")
		if r.FormValue("zip") != "" {
			w.Header().Set("Content-Encoding", "gzip")
		}
		for i := range token { // in pieces
			_, _ = w.Write([]byte(token[i : i+1]))
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write([]byte(token[:10] + "." + token + token))
	}))
	defer upstream.Close()
	f := newFixtureAt(t, upstream.URL, nil)
	token := f.token("read:site/1")
	ask := func(rest string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", api+"VisitsSummary.get&idSite=1"+rest+"&token_auth="+token, nil)
		r.RemoteAddr = "192.0.2.7:1"
		f.gateway.ServeHTTP(w, r)
		return w
	}
	w := ask("")
	if got, want := w.Body.String(), token+backend[:10]+"."+token+token; got != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}
	if strings.Contains(w.Header().Get("Location"), backend) || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("the answer has %v", w.Header())
	}
	if w := ask("&zip=1"); w.Code != http.StatusBadGateway {
		t.Errorf("a compressed answer: %d", w.Code)
	}
}
