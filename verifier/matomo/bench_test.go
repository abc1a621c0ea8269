package matomo_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkGateway sends requests through the gateway and through a plain
// [httputil.ReverseProxy], by turns, to the same upstream. The metric ratio is the
// share of the plain proxy's requests per second.
func BenchmarkGateway(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "image/gif")
		_, _ = w.Write(make([]byte, 43))
	}))
	defer upstream.Close()
	f := newFixtureAt(b, upstream.URL, nil)
	to, err := url.Parse(upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	defer transport.CloseIdleConnections()
	plain := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host; r.SetXForwarded() },
		Transport: transport,
	})
	defer plain.Close()
	token := f.token("view:site/*", "track:site/*")
	hits := strings.TrimSuffix(strings.Repeat(`"?idsite=7&rec=1&cip=192.0.2.1&action_name=a%20page&url=https%3A%2F%2Fexample.org%2F",`, 50), ",")
	for _, kind := range []struct{ name, method, path, typ, body string }{
		{"hit", "GET", "/matomo.php?idsite=7&rec=1&action_name=a%20page&url=https%3A%2F%2Fexample.org%2F&rand=123456&res=1920x1080", "", ""},
		{"call", "GET", api + "VisitsSummary.get&idSite=7&period=day&date=today&format=json&token_auth=" + token, "", ""},
		{"bulk50", "POST", "/matomo.php", "application/json", `{"requests":[` + hits + `],"token_auth":"` + token + `"}`},
	} {
		b.Run(kind.name, func(b *testing.B) {
			c := client{http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, kind.method, kind.path, kind.typ, kind.body}
			defer c.CloseIdleConnections()
			c.run(b, plain.URL, 200)
			c.run(b, f.url, 200)
			var took [2]time.Duration
			var each [2][]time.Duration
			b.ResetTimer()
			for left := b.N; left > 0; left -= 500 {
				for i, base := range []string{plain.URL, f.url} {
					begun := time.Now()
					each[i] = append(each[i], c.run(b, base, min(left, 500))...)
					took[i] += time.Since(begun)
				}
			}
			b.StopTimer()
			b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "ratio")
			b.ReportMetric(float64(b.N)/took[1].Seconds(), "req/s")
			for i, name := range []string{"plain", "gateway"} {
				slices.Sort(each[i])
				b.ReportMetric(float64(each[i][len(each[i])/2].Microseconds()), name+"-p50-µs")
				b.ReportMetric(float64(each[i][len(each[i])*99/100].Microseconds()), name+"-p99-µs")
			}
		})
	}
}

// client sends one kind of request.
type client struct {
	http.Client
	method, path, typ, body string
}

// run sends n requests on a few connections, and returns how long each took.
func (c *client) run(b *testing.B, base string, n int) []time.Duration {
	const workers = 8
	took := make([]time.Duration, n)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < n; i += workers {
				r, err := http.NewRequest(c.method, base+c.path, strings.NewReader(c.body))
				if err != nil {
					b.Error(err)
					return
				}
				if c.typ != "" {
					r.Header.Set("Content-Type", c.typ)
				}
				begun := time.Now()
				resp, err := c.Do(r)
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					b.Errorf("status %d, %v", resp.StatusCode, err)
				}
				_ = resp.Body.Close()
				took[i] = time.Since(begun)
			}
		})
	}
	all.Wait()
	return took
}
