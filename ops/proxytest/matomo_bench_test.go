package proxytest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// BenchmarkMatomo measures requests through the gateway of a node, and beside it,
// by turns, through a plain ReverseProxy, nginx alone, and nginx that asks the same
// node with auth_request. The application behind them answers at once.
func BenchmarkMatomo(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "image/gif")
		_, _ = w.Write(make([]byte, 43))
	}))
	defer upstream.Close()
	f := startMatomoWays(b, upstream.URL)
	token := f.token(f.account("bench"), "view:site/*", "track:site/*")
	call := "/index.php?module=API&method=VisitsSummary.get&idSite=7&period=day&date=today&format=json&token_auth=" + token.secret
	entry := `"?idsite=7&rec=1&cip=192.0.2.1&action_name=a%20page&url=https%3A%2F%2Fexample.org%2F"`
	bulk := `{"requests":[` + strings.Repeat(entry+",", 49) + entry + `],"token_auth":"` + token.secret + `"}`
	for _, kind := range []struct {
		name, path, body string
		asked            bool // auth_request can check it
	}{
		{"hit", "/matomo.php?" + hitQuery, "", false},
		{"call", call, "", true},
		{"bulk50", "/matomo.php", bulk, false},
	} {
		b.Run(kind.name, func(b *testing.B) {
			ways := slices.Clone(f.ways)
			if !kind.asked {
				ways = slices.DeleteFunc(ways, func(w way) bool { return w.name == "auth_request" })
			}
			measure(b, ways, kind.path, kind.body)
		})
	}
}

// way is one way to the application.
type way struct{ name, url string }

// matomoWays is a node with a gateway, and other ways to the same application.
type matomoWays struct {
	*cluster
	ways []way
}

func startMatomoWays(b *testing.B, upstream string) *matomoWays {
	b.Helper()
	nginxPath(b)
	to, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	own := filepath.Join(b.TempDir(), "own.token")
	if err := os.WriteFile(own, []byte(matomoToken), 0o600); err != nil {
		b.Fatal(err)
	}
	cfg := node.Config{
		Data: b.TempDir(), Name: "gateway",
		Policies: map[string]proxy.Policy{"site": {QueryTokens: true, Rules: []proxy.Rule{
			{Path: "/index.php", Query: map[string]string{"idSite": "site"}, Need: []string{"view:site/{site}"}},
		}}},
	}
	cfg.Matomo.Upstream, cfg.Matomo.Listen, cfg.Matomo.Files.Token = upstream, "127.0.0.1:0", own
	n := startProcess(b, cfg)
	secret, err := os.ReadFile(filepath.Join(cfg.Data, "root.token"))
	if err != nil {
		b.Fatal(err)
	}
	c := &cluster{t: b, nodes: []*process{n}, root: strings.TrimSpace(string(secret))}
	c.waitReady(1)
	plain := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	})
	b.Cleanup(plain.Close)
	alone := startNginx(b, fmt.Sprintf(`
upstream app { server %s; keepalive 64; }
server {
    listen %s;
    location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
}`, to.Host, addrtest.Free(b)))
	asking := startNginx(b, snippet(b, upstream, "site", n.addr.Verify))
	return &matomoWays{c, []way{
		{"gateway", n.addr.Matomo}, {"ReverseProxy", plain.URL}, {"nginx", "http://" + alone.addr}, {"auth_request", "http://" + asking.addr},
	}}
}

// measure sends b.N requests each way, by turns, and reports rates and latencies.
func measure(b *testing.B, ways []way, path, body string) {
	const turn = 500
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	took := make([]time.Duration, len(ways))
	each := make([][]time.Duration, len(ways))
	for _, w := range ways {
		send(b, client, w.url+path, body, 200)
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= turn {
		for i, w := range ways {
			begun := time.Now()
			each[i] = append(each[i], send(b, client, w.url+path, body, min(left, turn))...)
			took[i] += time.Since(begun)
		}
	}
	b.StopTimer()
	for i, w := range ways {
		slices.Sort(each[i])
		b.ReportMetric(float64(b.N)/took[i].Seconds(), w.name+"-req/s")
		b.ReportMetric(float64(each[i][len(each[i])/2].Microseconds()), w.name+"-p50-µs")
		b.ReportMetric(float64(each[i][len(each[i])*99/100].Microseconds()), w.name+"-p99-µs")
	}
}

// send sends n requests on eight connections, and returns how long each took.
func send(b *testing.B, client *http.Client, url, body string, n int) []time.Duration {
	const workers = 8
	took := make([]time.Duration, n)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < n; i += workers {
				method := http.MethodGet
				if body != "" {
					method = http.MethodPost
				}
				begun := time.Now()
				r, err := http.NewRequest(method, url, strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				if body != "" {
					r.Header.Set("Content-Type", "application/json")
				}
				resp, err := client.Do(r)
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					b.Errorf("%s: status %d, %v", strings.SplitN(url, "?", 2)[0], resp.StatusCode, err)
				}
				_ = resp.Body.Close()
				took[i] = time.Since(begun)
			}
		})
	}
	all.Wait()
	return took
}
