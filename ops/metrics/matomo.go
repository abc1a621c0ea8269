package metrics

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// Gateway provides the values of the metrics of a Matomo gateway.
type Gateway struct{ Stats func() matomo.Stats }

var (
	descGatewayRequests = prometheus.NewDesc(
		"tokenledger_matomo_requests_total",
		"Requests at the Matomo gateway, by what became of them and why: untrusted are hits that lost their token.",
		[]string{"outcome", "reason"},
		nil,
	)
	descGatewaySeconds = prometheus.NewDesc(
		"tokenledger_matomo_decision_seconds",
		"Time from the headers of a request to the decision about it, the arrival of a form included.",
		nil,
		nil,
	)
	descGatewayFailed = prometheus.NewDesc(
		"tokenledger_matomo_upstream_failures_total",
		"Requests that Matomo did not answer.",
		nil,
		nil,
	)
)

// Describe implements [prometheus.Collector].
func (Gateway) Describe(ch chan<- *prometheus.Desc) {
	ch <- descGatewayRequests
	ch <- descGatewaySeconds
	ch <- descGatewayFailed
}

// Collect implements [prometheus.Collector].
func (g Gateway) Collect(ch chan<- prometheus.Metric) {
	s := g.Stats()
	for _, c := range s.Counts {
		ch <- prometheus.MustNewConstMetric(
			descGatewayRequests, prometheus.CounterValue, float64(c.N), string(c.Outcome), c.Reason)
	}
	ch <- prometheus.MustNewConstHistogram(descGatewaySeconds, s.Requests, s.Seconds, s.Buckets)
	ch <- prometheus.MustNewConstMetric(descGatewayFailed, prometheus.CounterValue, float64(s.UpstreamFailed))
}

// GatewayHandler serves /metrics, /livez and /readyz of a gateway in a process of its
// own. It is ready while it runs: what has no token passes, whatever else is away.
func GatewayHandler(stats func() matomo.Stats, p Process) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(Gateway{stats}, p)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	for _, path := range []string{"/livez", "/readyz"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	}
	return mux
}
