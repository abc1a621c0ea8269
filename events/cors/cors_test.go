package cors_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/cors"
)

// TestHandler asks as browsers do, from pages that are listed and pages that are
// not.
func TestHandler(t *testing.T) {
	const shop, evil = "https://shop.example", "https://evil.example"
	list := events.NewOrigins([]string{shop, "http://127.0.0.1:8080"})
	for _, tt := range []struct {
		name   string
		list   events.Origins
		method string
		header []string
		status int
		allow  string // Access-Control-Allow-Origin
		vary   bool
	}{
		{"a preflight", list, "OPTIONS", []string{"Origin", shop, "Access-Control-Request-Method", "GET"}, 204, shop, true},
		{"a preflight in capitals", list, "OPTIONS", []string{"Origin", "HTTPS://Shop.example", "Access-Control-Request-Method", "GET"}, 204, "HTTPS://Shop.example", true},
		{"one of a page that is not listed", list, "OPTIONS", []string{"Origin", evil, "Access-Control-Request-Method", "GET"}, 418, "", true},
		{"one of a page that begins like it", list, "OPTIONS", []string{"Origin", shop + ".evil.example", "Access-Control-Request-Method", "GET"}, 418, "", true},
		{"one of two pages", list, "OPTIONS", []string{"Origin", shop, "Origin", evil, "Access-Control-Request-Method", "GET"}, 418, "", true},
		{"one of both in one", list, "OPTIONS", []string{"Origin", shop + " http://127.0.0.1:8080", "Access-Control-Request-Method", "GET"}, 418, "", true},
		{"one of no page", list, "OPTIONS", []string{"Origin", "null", "Access-Control-Request-Method", "GET"}, 418, "", true},
		{"one that injects", list, "OPTIONS", []string{"Origin", shop, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "a\r\nX: y"}, 418, shop, true},
		{"OPTIONS without a question", list, "OPTIONS", []string{"Origin", shop}, 418, shop, true},
		{"a call", list, "GET", []string{"Origin", shop}, 418, shop, true},
		{"a call that changes something", list, "POST", []string{"Origin", shop}, 418, shop, true},
		{"a call of another page", list, "GET", []string{"Origin", evil}, 418, "", true},
		{"a call of no page", list, "GET", nil, 418, "", true},
		{"a program's call", list, "POST", nil, 418, "", false},
		{"nothing is listed", "", "GET", []string{"Origin", shop}, 418, "", false},
		{"a preflight, nothing is listed", "", "OPTIONS", []string{"Origin", shop, "Access-Control-Request-Method", "GET"}, 418, "", false},
	} {
		h := cors.Handler(func() events.Origins { return tt.list }, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
		}))
		r := httptest.NewRequest(tt.method, "/v1/tokens", nil)
		for i := 0; i < len(tt.header); i += 2 {
			r.Header[tt.header[i]] = append(r.Header[tt.header[i]], tt.header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got := w.Header()
		if w.Code != tt.status || got.Get("Access-Control-Allow-Origin") != tt.allow || strings.Contains(got.Get("Vary"), "Origin") != tt.vary {
			t.Errorf("%s: %d %v; want %d, allow %q, vary %t", tt.name, w.Code, got, tt.status, tt.allow, tt.vary)
		}
		if got.Get("Access-Control-Allow-Credentials") != "" || strings.Contains(got.Get("Access-Control-Allow-Origin"), "*") {
			t.Errorf("%s: %v allows cookies or everybody", tt.name, got)
		}
		if w.Code == 204 && (got.Get("Access-Control-Max-Age") != "600" || got.Get("Access-Control-Allow-Methods") != "GET") {
			t.Errorf("%s: %v", tt.name, got)
		}
		if w.Code == 418 && tt.allow != "" && !strings.Contains(got.Get("Access-Control-Expose-Headers"), "Retry-After") {
			t.Errorf("%s: scripts may not read Retry-After: %v", tt.name, got)
		}
	}
}

func TestOriginsHas(t *testing.T) {
	list := events.NewOrigins([]string{"https://shop.example", "https://b.example"})
	if n := testing.AllocsPerRun(100, func() { list.Has("https://b.example"); list.Has("https://c.example") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if events.Origins("").Has("") || list.Has("") {
		t.Error("no origin is listed")
	}
}
