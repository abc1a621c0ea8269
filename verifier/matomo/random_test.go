package matomo_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
	"github.com/tokenledger/tokenledger/verifier/matomo/method"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// chooser takes choices from bytes, and 0 once there are no more.
type chooser struct{ data []byte }

func (c *chooser) below(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func (c *chooser) of(list []string) string { return list[c.below(len(list))] }

// The words of random requests. READ reads site 1, TRACK tracks site 2, and DEAD was
// revoked.
var (
	tokenNames = []string{"token_auth", "token.auth", "token%5Bauth", "token+auth", "+token_auth", "token_auth%00x", "token_auth%5B%5D", "Token_auth"}
	secrets    = []string{"READ", "TRACK", "DEAD", "", "anonymous", "nonsense", "READ%20", "%52EAD"}
	keys       = []string{
		"module=API", "module=CoreHome", "module=Widgetize", "module.=API", "method=VisitsSummary.get", "method=Goals.addGoal",
		"method=%20VisitsSummary.get", "method=SitesManager.addSite", "method=API.getBulkRequest", "method%5B%5D=VisitsSummary.get",
		"method=API.getMetadata", "method=LanguagesManager.getAvailableLanguages", "idSite=1", "idSite=2", "idSite=all", "idSite=1,2",
		"idSite%5B%5D=1", "idSite=%31", "idSite=01", "id.Site=2", "idSites=2", "idsite=1", "idsite=2", "idsite=02", "cip=192.0.2.1",
		"country=de", "apiModule=VisitsSummary&apiAction=get", "apiModule=SitesManager&apiAction=addSite", "force_api_session=1",
		"action=index", "a=b", "&", "%", "%zz", "=", "x%5B=1", "requests=%22requests%22", "format=json",
	}
	entries = []string{
		"method=VisitsSummary.get", "idSite=1", "idSite=2", "token_auth=READ", "token_auth=TRACK", "token_auth=DEAD", "&amp;", "&",
		"token.auth=DEAD", "%26token_auth%3DDEAD", "method=SitesManager.addSite", "module=CoreHome", "&amp;amp;idSite=2", "segment=a%253Db",
	}
	hits = []string{
		`"?idsite=2&cip=1"`, `"?idsite=1&cip=1&token_auth=TRACK"`, `{"idsite":2,"cip":"1","token_auth":"TRACK"}`, `{"idsite":"2","token_auth":"DEAD"}`,
		`"?idsite=2&token%5Bauth=TRACK&country=x"`, `{"idsite":1}`, `"?a"`, `1`,
	}
	good = []string{
		"/index.php?module=API&method=VisitsSummary.get&idSite=1&token_auth=READ", "/?module=API&method=Actions.get&idSite=all&token_auth=READ",
		"/matomo.php?idsite=2&cip=192.0.2.1&token_auth=TRACK",
		"/index.php?module=API&method=API.getBulkRequest&token_auth=READ&urls%5B%5D=method%3DVisitsSummary.get%26idSite%3D1",
	}
	paths = []string{"/index.php", "/", "/matomo.php", "/piwik.php", "/js/tracker.php", "/index.php/x", "//index.php", "/matomo.js", "/INDEX.php"}
	types = []string{
		"application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x", "text/plain", "",
		"application/x-www-form-urlencoded; charset=UTF-8", "Application/X-WWW-Form-Urlencoded",
	}
)

func (c *chooser) pairs(most int) string {
	var list []string
	for range c.below(most) {
		if c.below(3) == 0 {
			list = append(list, c.of(tokenNames)+"="+c.of(secrets))
			continue
		}
		if c.below(6) == 0 {
			entry := ""
			for range c.below(5) {
				entry += c.of(entries) + []string{"&", ""}[c.below(2)]
			}
			if c.below(2) == 0 {
				entry = url.QueryEscape(entry)
			}
			list = append(list, "urls%5B%5D="+url.QueryEscape(entry))
			continue
		}
		list = append(list, c.of(keys))
	}
	return strings.Join(list, "&")
}

// request returns a random request.
func (c *chooser) request(fill *strings.Replacer) *http.Request {
	target := c.of(paths) + "?" + c.pairs(10)
	verb := []string{"GET", "POST", "POST", "HEAD", "PUT"}[c.below(5)]
	if c.below(2) == 0 { // a request that is allowed, but for what is added to it
		target = c.of(good) + "&" + c.pairs(3)
	}
	typ, body := "", ""
	if verb == "POST" || verb == "PUT" {
		typ = c.of(types)
		switch c.below(3) {
		case 0:
			body = c.pairs(8)
		case 1:
			var list []string
			for range c.below(4) {
				list = append(list, c.of(hits))
			}
			body = `{"requests":[` + strings.Join(list, ",") + `]` + []string{"", `,"token_auth":"` + c.of(secrets) + `"`}[c.below(2)] + "}"
		default:
			for range c.below(4) {
				pair := c.of(keys)
				if c.below(2) == 0 {
					pair = "token_auth=" + c.of(secrets)
				}
				name, value, _ := strings.Cut(pair, "=")
				body += "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
			}
			body += "--x--\r\n"
		}
	}
	u, err := url.ParseRequestURI(fill.Replace(target))
	if err != nil {
		u = &url.URL{Path: "/"}
	}
	r := httptest.NewRequest(verb, "/", strings.NewReader(fill.Replace(body)))
	r.URL, r.RequestURI, r.RemoteAddr = u, u.RequestURI(), "192.0.2.7:1"
	if typ != "" {
		r.Header.Set("Content-Type", typ)
	}
	if c.below(4) == 0 {
		r.Header.Set("Authorization", "Bearer "+fill.Replace(c.of(secrets[:3])))
	}
	if c.below(5) == 0 {
		r.Header.Set("Cookie", "MATOMO_SESSID=x")
	}
	return r
}

// tokensOf returns every token that Matomo could find in what PHP saw, each with the
// parameters of its request.
func tokensOf(t testing.TB, s matomotest.Seen) (list []seenCall) {
	outer := func(name string) string { return param(s, name) }
	script := s.Server.Text("SCRIPT_NAME")
	if s.Headers.Text("Authorization") != "" {
		t.Errorf("PHP saw Authorization")
	}
	for _, p := range []matomotest.Array{s.Get, s.Post} {
		if p.Has("token_auth") && !strings.HasSuffix(script, ".js") {
			list = append(list, seenCall{script, p.Text("token_auth"), outer})
		}
		for _, pair := range p {
			if pair.Key != "urls" || !strings.Contains(script, "index") || !strings.EqualFold(method.Clean(outer("method")), method.Bulk) {
				continue
			}
			for _, entry := range pair.Array {
				list = append(list, entryCalls(t, script, entry.Text, outer)...)
			}
		}
	}
	var body struct {
		Requests []json.RawMessage `json:"requests"`
		Token    string            `json:"token_auth"`
	}
	if !strings.Contains(script, "index") && strings.Contains(string(s.Input), `"requests"`) && json.Unmarshal(s.Input, &body) == nil {
		for _, raw := range body.Requests {
			get := hitGetter(t, raw)
			token := body.Token
			if token == "" {
				token = get("token_auth")
			}
			list = append(list, seenCall{script, token, get})
		}
	}
	return list
}

type seenCall struct {
	script, token string
	get           func(string) string
}

// entryCalls reads an entry of urls in both ways in which versions of Matomo may.
func entryCalls(t testing.TB, script, text string, outer func(string) string) (list []seenCall) {
	decoded, err := url.QueryUnescape(text)
	if err != nil {
		t.Errorf("PHP saw the entry %q", text)
	}
	for _, text := range []string{text, decoded, strings.ReplaceAll(decoded, "&amp;", "&")} {
		p, err := php.ParseQuery(text, php.Limits{})
		if err != nil {
			continue
		}
		get := func(name string) string {
			if v, found := p.Get(name); found {
				return v.Text
			}
			return outer(name)
		}
		list = append(list, seenCall{script, get("token_auth"), get})
	}
	return list
}

func hitGetter(t testing.TB, raw json.RawMessage) func(string) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		_, query, _ := strings.Cut(text, "?")
		p, err := php.ParseQuery(query, php.Limits{})
		if err != nil {
			t.Errorf("PHP saw the hit %q", text)
		}
		return func(name string) string { v, _ := p.Get(name); return v.Text }
	}
	var o map[string]any
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Errorf("PHP saw the hit %s", raw)
	}
	return func(name string) string {
		switch v := o[name].(type) {
		case string:
			return v
		case float64:
			return strings.TrimSuffix(strings.TrimSuffix(jsonText(v), ".0"), "\n")
		}
		return ""
	}
}

func jsonText(v any) string { b, _ := json.Marshal(v); return string(b) }

// checkSeen checks that what PHP saw is what a token may do.
func checkSeen(t testing.TB, s matomotest.Seen, dump string) {
	t.Helper()
	for _, c := range tokensOf(t, s) {
		site := c.get("idSite")
		switch name := c.get("method"); {
		case c.token == "" || c.token == "anonymous":
		case c.token != backend:
			t.Errorf("PHP saw the token %q of\n%s", c.token, dump)
		case strings.Contains(c.script, "index"):
			m := method.Builtin.Find(name)
			if c.get("module") != "API" || m == nil || m.Required != method.None && (m.Required != method.View || m.Effect != method.Read || site != "1") {
				t.Errorf("PHP saw the method %q of the module %q on site %q with a token, of\n%s", name, c.get("module"), site, dump)
			}
			if target := c.get("apiAction"); target != "" && target != "get" {
				t.Errorf("PHP saw the second target %q, of\n%s", target, dump)
			}
		default:
			if c.get("idsite") != "2" {
				t.Errorf("PHP saw a hit on site %q with a token, of\n%s", c.get("idsite"), dump)
			}
		}
	}
}

// random sends random requests through the gateway.
type random struct {
	*fixture
	fill *strings.Replacer
}

func newRandom(t testing.TB) *random {
	r := &random{fixture: newFixture(t)}
	id, dead := r.create(created(r.fixture, "superuser"), "")
	r.Log.Revoke(id)
	r.Follow()
	r.fill = strings.NewReplacer("READ", r.token("read:site/1"), "TRACK", r.token("track:site/2"), "DEAD", dead)
	return r
}

func (r *random) one(t testing.TB, data []byte) (passed, tokened bool) {
	req := (&chooser{data}).request(r.fill)
	dump, _ := httputil.DumpRequest(req, true)
	w := httptest.NewRecorder()
	r.gateway.ServeHTTP(w, req)
	seen := r.php.Take(t)
	if w.Code >= http.StatusInternalServerError {
		t.Errorf("status %d for\n%s", w.Code, dump)
	}
	for _, s := range seen {
		checkSeen(t, s, string(dump))
		tokened = tokened || slices.ContainsFunc(tokensOf(t, s), func(c seenCall) bool { return c.token == backend })
	}
	return len(seen) > 0, tokened
}

var cases = flag.Int("matomo.cases", 1500, "how many random requests are sent through the gateway")

// TestRandomRequests never shows PHP a token, a method or a site that was not
// checked. For a longer search, with other requests:
//
//	TOKENLEDGER_TEST_SEED=new go test ./verifier/matomo -run RandomRequests -args -matomo.cases=100000
func TestRandomRequests(t *testing.T) {
	r, rng := newRandom(t), seed.Rand(t)
	passed, tokened, n := 0, 0, *cases
	for range n {
		data := make([]byte, 120)
		for i := range data {
			data[i] = byte(rng.IntN(256))
		}
		p, withToken := r.one(t, data)
		if p {
			passed++
		}
		if withToken {
			tokened++
		}
	}
	if passed < n/10 || tokened < n/100 {
		t.Errorf("of %d requests %d passed, %d with a token: too few to show anything", n, passed, tokened)
	}
}
