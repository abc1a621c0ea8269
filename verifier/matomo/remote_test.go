package matomo_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// remoteFixture is a gateway that asks two verifiers over HTTP, of which the first
// is away. The second is away too if away is set.
func remoteFixture(t *testing.T, audit bool) (f *fixture, away *atomic.Bool) {
	t.Helper()
	away = new(atomic.Bool)
	var inner http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	secret := ""
	remote, err := matomo.NewRemote(matomo.RemoteConfig{
		URLs: []string{"http://" + closed.Addr().String(), server.URL}, Audit: func() string { return secret },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remote.Close)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		_, _ = w.Write([]byte(r.URL.Path + "?" + r.Form.Encode()))
	}))
	t.Cleanup(upstream.Close)
	f = newFixtureAt(t, upstream.URL, func(c *matomo.Config) { c.Checker = remote })
	inner = f.Verifier.Handler()
	if audit {
		_, s := f.Log.Token(f.Log.Account("audit"), "audit")
		f.Follow()
		secret = s.Reveal()
	}
	return f, away
}

// ask sends a request from a client, and returns the status and what Matomo got.
func (f *fixture) ask(method, target, form string, o ...option) (int, string) {
	f.t.Helper()
	r := httptest.NewRequest(method, target, nil)
	if form != "" {
		r = httptest.NewRequest(method, target, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.RemoteAddr = "192.0.2.7:1"
	for _, set := range o {
		set(r)
	}
	w := httptest.NewRecorder()
	f.gateway.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestRemote asks verifiers over HTTP.
func TestRemote(t *testing.T) {
	for _, audit := range []bool{false, true} {
		f, away := remoteFixture(t, audit)
		token, set := f.token("read:site/1"), f.constrained(&events.Constraints{Audience: []string{"VisitsSummary"}}, "read:site/1")
		id, imported := f.imported("view:site/1")
		const call = api + "VisitsSummary.get&idSite=1&token_auth="
		for target, want := range map[string]int{
			call + token: 200, call + set: 200, call + imported: 200, call + strings.Repeat("a", 32): 401,
			api + "Actions.get&idSite=1&token_auth=" + set: 401, api + "Actions.get&idSite=2&token_auth=" + token: 403,
			api + "API.getMatomoVersion&token_auth=" + imported: 200, api + "API.getMatomoVersion&token_auth=" + token: 403,
			api + "VisitsSummary.get&idSite=all&token_auth=" + imported: 200,
		} {
			if got, body := f.ask("GET", target, ""); got != want {
				t.Errorf("audit %t: %s: status %d %s, want %d", audit, target, got, body, want)
			}
		}
		f.Log.Revoke(id)
		f.Follow()
		if got, _ := f.ask("GET", call+imported, ""); got != 401 {
			t.Errorf("audit %t: a revoked token gets %d", audit, got)
		}
		form := "force_api_session=1&token_auth="
		if got, _ := f.ask("POST", api+"VisitsSummary.get&idSite=1", form+imported, session()); got != 401 {
			t.Errorf("audit %t: a revoked token with a made-up session gets %d", audit, got)
		}
		want := 401
		if audit {
			want = 200
		}
		if got, _ := f.ask("POST", api+"VisitsSummary.get&idSite=1", form+strings.Repeat("9", 32), session()); got != want {
			t.Errorf("audit %t: a session's token gets %d, want %d", audit, got, want)
		}
		away.Store(true)
		if got, _ := f.ask("GET", call+token, ""); got != 503 {
			t.Errorf("audit %t: without a verifier the API gets %d", audit, got)
		}
		if got, body := f.ask("GET", "/matomo.php?idsite=1&cip=1&token_auth="+token, ""); got != 200 || body != "/matomo.php?idsite=1" {
			t.Errorf("audit %t: without a verifier a hit gets %d %s", audit, got, body)
		}
		if got, _ := f.ask("GET", "/matomo.php?idsite=1", ""); got != 200 {
			t.Errorf("audit %t: without a verifier a hit without a token gets %d", audit, got)
		}
	}
}

// TestRemoteConfig refuses URLs that are none.
func TestRemoteConfig(t *testing.T) {
	for _, urls := range [][]string{nil, {""}, {"127.0.0.1:7601"}, {"http://u:p@h"}, {"http://h", "ftp://h"}} {
		if _, err := matomo.NewRemote(matomo.RemoteConfig{URLs: urls}); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("NewRemote(%q) = %v", urls, err)
		}
	}
}

// TestRevokedWhileConnecting refuses a token that ended after its check, before
// anything of the request was sent.
func TestRevokedWhileConnecting(t *testing.T) {
	got := make(chan struct{}, 8)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got <- struct{}{} }))
	defer upstream.Close()
	var f *fixture
	var id events.TokenID
	f = newFixtureAt(t, upstream.URL, func(c *matomo.Config) {
		c.Checker = revoking{c.Checker, func() {
			f.Log.Revoke(id)
			f.Follow()
		}}
	})
	var secret string
	id, secret = f.create(events.TokenCreated{Account: f.super, Inherit: true}, "")
	status, body := f.ask("GET", api+"VisitsSummary.get&idSite=1&token_auth="+secret, "")
	if status != http.StatusUnauthorized {
		t.Errorf("the request gets %d %s", status, body)
	}
	if len(got) > 0 {
		t.Error("Matomo got the request")
	}
}

// revoking ends a token after its check.
type revoking struct {
	matomo.Checker
	after func()
}

func (r revoking) Check(ctx context.Context, secret string, q *verifier.Request) matomo.Finding {
	f := r.Checker.Check(ctx, secret, q)
	r.after()
	return f
}
