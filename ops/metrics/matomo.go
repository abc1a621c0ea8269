package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

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
