package matomo_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
	"github.com/tokenledger/tokenledger/verifier/matomo"
	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// The gateway's own tokens.
const (
	backend = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	widgets = "cccccccccccccccccccccccccccccccc"
)

// salt is that of the Matomo from which the tests' tokens come.
var salt = events.NewMatomoSalt("salt")

// stale is how long the verifier answers for hits after the end of its lease.
const stale = 5 * time.Minute

// fixture is a gateway between a real index and a real PHP.
type fixture struct {
	*verifiertest.Node
	t       testing.TB
	php     *matomotest.Upstream
	gateway *matomo.Gateway
	url     string
	super   events.AccountID
	log     strings.Builder
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return newFixtureBefore(t, matomotest.Start(t, matomotest.Options{}), nil)
}

// newFixtureBefore returns a gateway before an upstream that runs.
func newFixtureBefore(t testing.TB, php *matomotest.Upstream, change func(*matomo.Config)) *fixture {
	t.Helper()
	f := newFixtureAt(t, php.URL, change)
	f.php = php
	return f
}

// newFixtureAt returns a gateway before the upstream at a URL.
func newFixtureAt(t testing.TB, upstream string, change func(*matomo.Config)) *fixture {
	t.Helper()
	l := eventstest.NewLog(1)
	f := &fixture{t: t, super: l.Account("superuser", "widget:site/*")}
	f.Node = verifiertest.Start(t, l, verifiertest.Options{
		Salts: []events.MatomoSalt{salt}, Stale: map[string]time.Duration{"track": stale},
	})
	up, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := matomo.Config{
		Upstream: up, Checker: matomo.Local{Verifier: f.Verifier}, CORSOrigins: f.Verifier.CORSOrigins,
		Settings: matomo.Settings{Token: backend, WidgetToken: widgets}, Now: f.Clock.Now,
		Trusted: func() forwarded.Trusted { return forwarded.Trusted{netip.MustParsePrefix("127.0.0.0/8")} },
		Logger:  slog.New(slog.NewTextHandler(&f.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	if change != nil {
		change(&cfg)
	}
	if f.gateway, err = matomo.New(cfg); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.gateway)
	t.Cleanup(func() { server.Close(); f.gateway.Close() })
	f.url = server.URL
	return f
}

// token creates a token of a superuser.
func (f *fixture) token(scopes ...string) string { return f.constrained(nil, scopes...) }

// created is the creation of a token of a superuser.
func created(f *fixture, scopes ...string) events.TokenCreated {
	return events.TokenCreated{Account: f.super, Scopes: eventstest.Scopes(scopes...)}
}

func (f *fixture) constrained(c *events.Constraints, scopes ...string) string {
	_, secret := f.create(events.TokenCreated{Account: f.super, Scopes: eventstest.Scopes(scopes...), Constraints: c}, "")
	return secret
}

// imported creates a token that has all scopes of an account, and that Matomo knows.
func (f *fixture) imported(grants ...string) (events.TokenID, string) {
	account := f.Log.Account(grants...)
	return f.create(events.TokenCreated{Account: account, Inherit: true}, events.NewHexSecret().Reveal())
}

func (f *fixture) create(made events.TokenCreated, secret string) (events.TokenID, string) {
	f.t.Helper()
	id := f.Log.TokenID()
	s := f.Log.Secret()
	made.Secret = eventstest.SecretRecord(s.Digest())
	if secret == "" {
		secret = s.Reveal()
	} else { // it comes from Matomo
		made.Secret = events.SecretRecord{Scheme: events.SchemeMatomo, Digest: salt.Hash(secret).Digest(), Format: events.FormatHex32}
		made.Import = &events.TokenImport{Source: "matomo"}
	}
	f.Log.Change(string(id), &made)
	f.Follow()
	return id, secret
}

// answer is what came back, and what PHP saw.
type answer struct {
	status int
	header http.Header
	body   string
	seen   []matomotest.Seen
}

type option func(*http.Request)

func header(name string, values ...string) option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func bearer(secret string) option { return header("Authorization", "Bearer "+secret) }

func session() option { return header("Cookie", "MATOMO_SESSID=0123456789abcdef") }

// get sends a GET, post a form, and send anything.
func (f *fixture) get(target string, o ...option) answer { return f.send("GET", target, "", "", o...) }

func (f *fixture) post(target, form string, o ...option) answer {
	return f.send("POST", target, "application/x-www-form-urlencoded", form, o...)
}

func (f *fixture) send(method, target, typ, body string, o ...option) answer {
	f.t.Helper()
	r, err := http.NewRequest(method, f.url, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	path, query, has := strings.Cut(target, "?")
	r.URL.Opaque = "//" + r.URL.Host + path // the bytes as they are
	r.URL.RawQuery, r.URL.ForceQuery = query, has
	if body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Type", typ)
	}
	r.Header.Set("Accept-Encoding", "identity")
	for _, set := range o {
		set(r)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		f.t.Fatalf("%s %.200s: %v", method, target, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, string(b), f.php.Take(f.t)}
}

// param returns what Matomo sees of a parameter: GET wins.
func param(s matomotest.Seen, name string) string {
	if s.Get.Has(name) {
		return s.Get.Text(name)
	}
	return s.Post.Text(name)
}

// passed checks that PHP saw one request with some parameters, as in "method=x".
func (a answer) passed(t testing.TB, what string, want ...string) {
	t.Helper()
	if a.status != http.StatusOK || len(a.seen) != 1 {
		t.Errorf("%s: status %d %.300s, PHP saw %d requests, want it passed", what, a.status, a.body, len(a.seen))
		return
	}
	for _, w := range want {
		name, value, _ := strings.Cut(w, "=")
		if got := param(a.seen[0], name); got != value {
			t.Errorf("%s: PHP saw %s=%q, want %q", what, name, got, value)
		}
	}
}

// refused checks that PHP saw nothing.
func (a answer) refused(t testing.TB, what string, status int) {
	t.Helper()
	if a.status != status || len(a.seen) != 0 {
		t.Errorf("%s: status %d %.300s, PHP saw %d requests, want status %d", what, a.status, a.body, len(a.seen), status)
	}
}

func (f *fixture) counts() map[string]uint64 {
	m := map[string]uint64{}
	for _, c := range f.gateway.Stats().Counts {
		m[strings.Trim(string(c.Outcome)+" "+c.Reason, " ")] += c.N
	}
	return m
}
