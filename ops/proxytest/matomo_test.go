package proxytest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/deploy"
	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
)

// matomoSnippet returns the configuration that the program prints for Matomo.
func matomoSnippet(t testing.TB, m deploy.Matomo) string {
	t.Helper()
	var b strings.Builder
	m.Listen, m.AccessLog = addrtest.Free(t), "off"
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// nobody is an address at which nothing answers.
func nobody(t testing.TB) string { return "http://" + addrtest.Free(t) }

const (
	matomoToken = "0123456789abcdef0123456789abcdef"
	hitQuery    = "idsite=3&rec=1&action_name=It%27s%20here&_cvar=%7B%221%22%3A%5B%22a%22%2C%22b%22%5D%7D&url=https%3A%2F%2Fa.example%2F%3Ftoken_auth%3Dx"
)

func post(uri, body string, header ...string) request {
	return request{method: "POST", uri: uri, header: header, body: []byte(body)}
}

const (
	asForm = "Content-Type: application/x-www-form-urlencoded; charset=UTF-8"
	asText = "Content-Type: text/plain;charset=UTF-8"
	asJSON = "Content-Type: application/json"
)

// TestMatomoTokenlessHits has nginx send hits without a token to Matomo while no
// gateway is there, and refuse what may have one.
func TestMatomoTokenlessHits(t *testing.T) {
	up := matomotest.Start(t, matomotest.Options{})
	n := startNginx(t, matomoSnippet(t, deploy.Matomo{Gateways: []string{nobody(t), nobody(t)}, Direct: up.URL}))
	if err := os.WriteFile(filepath.Join(up.Dir, "piwik.js"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	list := `{"requests":["?` + hitQuery + `","?idsite=3&rec=1"],"send_image":0}`
	for name, r := range map[string]request{
		"the script":               get("/matomo.js"),
		"the script of old pages":  get("/piwik.js"),
		"a hit":                    get("/matomo.php?" + hitQuery),
		"its old name":             get("/piwik.php?" + hitQuery),
		"the tracker in js":        get("/js/tracker.php?" + hitQuery),
		"HEAD":                     {method: "HEAD", uri: "/matomo.php?" + hitQuery},
		"empty names":              get("/matomo.php?&&a&=b&" + hitQuery),
		"a beacon":                 post("/matomo.php", hitQuery, asForm),
		"a beacon as text":         post("/matomo.php", hitQuery, asText),
		"an empty POST":            post("/matomo.php?"+hitQuery, "", asForm),
		"a list of hits":           post("/matomo.php", list, asForm),
		"a list without the image": post("/matomo.php", `{"requests":["?idsite=3&rec=1"]}`, asJSON),
		"a header with a token":    get("/matomo.php?"+hitQuery, bearer(matomoToken)),
		"a similar name":           get("/matomo.php?token_author=x&" + hitQuery),
		"the largest body":         post("/matomo.php", "idsite=3&x="+strings.Repeat("a", 64<<10-11), asForm),
	} {
		a := n.send(r)
		if a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s; want it from Matomo", name, a.StatusCode, a.body)
		}
		static := strings.HasSuffix(r.uri, ".js")
		got := up.Take(t)
		if static != (len(got) == 0) {
			t.Errorf("%s: Matomo got %d hits", name, len(got))
		}
		for _, seen := range got {
			if all := fmt.Sprint(seen.Get, seen.Post, seen.Headers); strings.Contains(all, matomoToken) {
				t.Errorf("%s: Matomo got the token: %s", name, all)
			}
			if seen.Get.Has("token_auth") || seen.Post.Has("token_auth") {
				t.Errorf("%s: PHP reads a token: %s %s", name, seen.Get, seen.Post)
			}
			if string(seen.Input) != string(r.body) {
				t.Errorf("%s: the body arrived as %q", name, seen.Input)
			}
			if got := seen.Headers.Text("X-Forwarded-For"); got != "127.0.0.1" {
				t.Errorf("%s: X-Forwarded-For is %q", name, got)
			}
		}
	}
}

// TestMatomoTokensWaitForGateway has nginx refuse, while no gateway is there, all
// that may have a token in a form that PHP reads.
func TestMatomoTokensWaitForGateway(t *testing.T) {
	up := matomotest.Start(t, matomotest.Options{})
	n := startNginx(t, matomoSnippet(t, deploy.Matomo{Gateways: []string{nobody(t)}, Direct: up.URL}))
	refused := map[string]request{
		"the user interface": get("/index.php"), "the API": get("/index.php?module=API&method=API.getMatomoVersion"),
		"another file": get("/config/config.ini.php"), "another script": get("/js/../index.php"),
		"a path behind the script": get("/matomo.php/x?" + hitQuery), "another spelling": get("/mat%6Fmo.php?" + hitQuery),
		"two slashes": get("//matomo.php?" + hitQuery), "a path in the query": get("/x/../matomo.php?" + hitQuery),
		"another method":   {method: "PUT", uri: "/matomo.php", body: []byte(hitQuery)},
		"DELETE":           {method: "DELETE", uri: "/matomo.php?" + hitQuery},
		"a script, posted": post("/matomo.js", "a=b", asForm),
	}
	names := []string{
		"token_auth", "TOKEN_AUTH", "token.auth", "token%5Fauth", "%74oken_auth", "token+auth", "token[auth", "token%5Bauth",
		"%20token_auth", "+token_auth", "token_auth%00x", "token_auth[]", "token_auth[a]", "token%2Eauth", "token%20auth", "t%6fken_auth",
	}
	for _, name := range names {
		pair := name + "=" + matomoToken
		refused["query "+name] = get("/matomo.php?" + pair + "&" + hitQuery)
		refused["query, last "+name] = get("/matomo.php?" + hitQuery + "&" + pair)
		refused["form "+name] = post("/matomo.php", hitQuery+"&"+pair, asForm)
		refused["text "+name] = post("/matomo.php", hitQuery+"&"+pair, asText)
		refused["list "+name] = post("/matomo.php", `{"requests":["?idsite=3","?idsite=3&`+pair+`"]}`, asForm)
		refused["file "+name] = get("/matomo.js?" + pair)
	}
	for name, body := range map[string]string{
		"in the list":            `{"requests":["?idsite=3"],"token_auth":"` + matomoToken + `"}`,
		"in the list, before it": `{"token_auth":"` + matomoToken + `","requests":["?idsite=3"]}`,
		"in the list, escaped":   `{"requests":["?idsite=3&\u0074oken_auth=` + matomoToken + `"]}`,
		"in an entry's object":   `{"requests":[{"idsite":3,"token_auth":"` + matomoToken + `"}]}`,
		"an entry's escape":      `{"requests":["?idsite=3","?idsite=3&x=\u0026token_auth=` + matomoToken + `"]}`,
		"an entity":              `{"requests":["?idsite=3&x=1&amp;token_auth=` + matomoToken + `"]}`,
		"a list in a form":       `x='requests'&idsite=3`,
		"JSON":                   `{"idsite":3,"token_auth":"` + matomoToken + `"}`,
		"JSON after a space":     ` {"idsite":3,"token_auth":"` + matomoToken + `"}`,
		"a line's end":           "idsite=3\ntoken_auth=" + matomoToken,
		"a semicolon":            "idsite=3;token_auth=" + matomoToken,
		"more than the memory":   "idsite=3&x=" + strings.Repeat("a", 100<<10),
		"a token behind a lot":   "idsite=3&x=" + strings.Repeat("a", 1<<20) + "&token_auth=" + matomoToken,
	} {
		refused["body "+name] = post("/matomo.php", body, asForm)
	}
	refused["multipart"] = post("/matomo.php", "--b\r\nContent-Disposition: form-data; name=\"token_auth\"\r\n\r\n"+matomoToken+"\r\n--b--\r\n",
		"Content-Type: multipart/form-data; boundary=b")
	refused["compressed"] = post("/matomo.php", "idsite=3", asForm, "Content-Encoding: gzip")
	refused["a body of GET"] = request{method: "GET", uri: "/matomo.php", header: []string{asJSON}, body: []byte(`{"token_auth":"` + matomoToken + `"}`)}
	refused["a body of the script"] = request{method: "GET", uri: "/matomo.js", body: []byte("idsite=3")}
	refused["chunked"] = request{method: "POST", uri: "/matomo.php", header: []string{asForm, "Transfer-Encoding: chunked"}}
	for name, r := range refused {
		if name == "chunked" { // the body in its own form, which send does not write
			r.uri = "/matomo.php?" + hitQuery
			r.header = append(r.header, "\r\n2e\r\ntoken_auth="+matomoToken+"&b\r\n0\r\n")
		}
		a := n.send(r)
		if a.StatusCode < http.StatusBadRequest {
			t.Errorf("%s: %d; want it refused", name, a.StatusCode)
		}
		if got := up.Take(t); len(got) > 0 {
			t.Errorf("%s: Matomo got it: %s %s %s %q", name, got[0].Get, got[0].Post, got[0].Headers, got[0].Input)
		}
	}
	if a := n.send(get("/matomo.php?token_auth=" + matomoToken)); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != "5" {
		t.Errorf("a hit with a token: %d, Retry-After %q; want 503 and 5", a.StatusCode, a.Header.Get("Retry-After"))
	}
	if b, err := os.ReadFile(filepath.Join(n.dir, "error.log")); err != nil || strings.Contains(string(b), matomoToken) {
		t.Errorf("the error log has a token, or cannot be read (%v)", err)
	}
}

// TestMatomoAnswersAreFinal has nginx pass on what a gateway says, also that Matomo
// is down, and take the next gateway only if one is away.
func TestMatomoAnswersAreFinal(t *testing.T) {
	gateway, direct := matomotest.Start(t, matomotest.Options{}), matomotest.Start(t, matomotest.Options{})
	n := startNginx(t, matomoSnippet(t, deploy.Matomo{Gateways: []string{nobody(t), gateway.URL}, Direct: direct.URL}))
	for _, status := range []int{200, 400, 401, 403, 429, 500, 502, 503, 504} {
		for _, uri := range []string{"/matomo.php?idsite=3", "/index.php?module=API"} {
			a := n.send(get(uri, fmt.Sprintf("X-Echo-Status: %d", status), bearer(matomoToken)))
			if a.StatusCode != status {
				t.Errorf("%s: %d, want the gateway's %d", uri, a.StatusCode, status)
			}
			if got := gateway.Take(t); len(got) != 1 || got[0].Headers.Text("Authorization") != "Bearer "+matomoToken {
				t.Errorf("%s: the gateway got %d requests, or no token", uri, len(got))
			}
			if got := direct.Take(t); len(got) != 0 {
				t.Errorf("%s: Matomo got it past the gateway", uri)
			}
		}
	}
}

// TestMatomoSpoofedHeaders has nginx replace what a client says about itself.
func TestMatomoSpoofedHeaders(t *testing.T) {
	up := matomotest.Start(t, matomotest.Options{})
	for way, m := range map[string]deploy.Matomo{
		"gateway": {Gateways: []string{up.URL}, Direct: nobody(t)}, "direct": {Gateways: []string{nobody(t)}, Direct: up.URL},
	} {
		n := startNginx(t, matomoSnippet(t, m))
		n.send(get("/matomo.php?idsite=3", "X-Forwarded-For: 192.0.2.1", "X_Forwarded_For: 192.0.2.2", "X-Real-IP: 192.0.2.3",
			"Forwarded: for=192.0.2.4", "Client-IP: 192.0.2.5", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", "Proxy: x"))
		got := up.Take(t)
		if len(got) != 1 {
			t.Fatalf("%s: %d requests", way, len(got))
		}
		h := got[0].Headers
		if all := h.String(); strings.Contains(all, "192.0.2.") || strings.Contains(all, "evil") || h.Has("Proxy") {
			t.Errorf("%s: a client's header arrived: %s", way, all)
		}
		if h.Text("X-Forwarded-For") != "127.0.0.1" || h.Text("X-Forwarded-Proto") != "http" || h.Text("X-Forwarded-Host") != "app.example.org" ||
			h.Text("Host") != "app.example.org" {
			t.Errorf("%s: %s", way, h)
		}
	}
}
