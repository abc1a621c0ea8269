// Package metrics serves a node's metrics to Prometheus, and its health.
//
// # Promise
//
// No label names a token, an account, an address or a path. /livez answers 200
// while the process runs. /readyz answers 200 while the node answers checks, and
// else 503 with the cause.
package metrics

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// Source provides the values of the metrics. Each scrape calls its functions.
type Source struct {
	Name, Version string
	Checks        func() map[string]uint64 // checks by reason
	Applied       func() uint64            // position of the last applied event
	Lease         func() time.Duration     // remaining time
	Stale         func() uint64            // checks answered after the lease had expired, if configured
	NoSalt        func() uint64            // checks denied for want of a salt of imported tokens
	Moves         func() uint64            // switches to another log server
	Resident      func() Resident          // what checks find in memory
	Unrecorded    func() uint64            // receipts that could not be recorded; nil without a ledger
	Clock         func() (float64, bool)   // seconds ahead of the ledgers; false if unknown
	Ready         func() error             // why checks are refused, nil if they are not
	Process       Process
	Matomo        *matomo.Gateway // nil without a gateway
}

// Resident describes the resident table.
type Resident struct {
	Secrets int64 // secrets in memory, those of ended tokens included
	Spilled int64 // secrets on disk only
	Bytes   int64 // used
	Limit   int64
}

// Handler serves /metrics, /livez and /readyz.
func Handler(s Source) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(s, s.Process)
	if s.Matomo != nil {
		reg.MustRegister(Gateway{s.Matomo.Stats})
	}
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return mux
}

var (
	descChecks  = prometheus.NewDesc("tokenledger_verify_total", "Checks by reason.", []string{"reason"}, nil)
	descApplied = prometheus.NewDesc(
		"tokenledger_index_applied_seq",
		"Position of the last event applied to the index.",
		nil,
		nil,
	)
	descLease = prometheus.NewDesc(
		"tokenledger_lease_seconds",
		"Remaining time of the lease, in which checks are answered without contact to the log.",
		nil,
		nil,
	)
	descStale = prometheus.NewDesc(
		"tokenledger_verify_stale_total",
		"Checks answered after the lease had expired, for permissions that are configured so.",
		nil,
		nil,
	)
	descNoSalt = prometheus.NewDesc(
		"tokenledger_verify_no_salt_total",
		"Checks denied because the token may be one imported from Matomo, and the node has no salt.",
		nil,
		nil,
	)
	descMoves = prometheus.NewDesc(
		"tokenledger_log_moves_total",
		"Switches to another log server because the current one made no progress.",
		nil,
		nil,
	)
	descLost = prometheus.NewDesc(
		"tokenledger_receipts_not_recorded_total",
		"Complete receipts that could not be recorded in the log.",
		nil,
		nil,
	)
	descReady = prometheus.NewDesc("tokenledger_ready", "1 while the node answers checks, else 0.", nil, nil)
	descHeld  = prometheus.NewDesc(
		"tokenledger_resident_tokens",
		"Secrets of tokens in memory, those of ended tokens included.",
		nil,
		nil,
	)
	descSpilled = prometheus.NewDesc(
		"tokenledger_tokens_on_disk",
		"Secrets of tokens on disk only, because the memory limit is reached.",
		nil,
		nil,
	)
	descBytes = prometheus.NewDesc("tokenledger_resident_bytes", "Memory used by secrets of tokens.", nil, nil)
	descLimit = prometheus.NewDesc(
		"tokenledger_resident_limit_bytes",
		"Limit of the memory for secrets of tokens.",
		nil,
		nil,
	)
	descClock = prometheus.NewDesc(
		"tokenledger_clock_offset_seconds",
		"How far this machine's clock is ahead of the ledgers' median; negative if behind. Absent while unknown.",
		nil,
		nil,
	)
	descBuild = prometheus.NewDesc("tokenledger_build_info", "Version of the program.", []string{"version"}, nil)
)

// Describe implements [prometheus.Collector].
func (s Source) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descChecks, descApplied, descLease, descStale, descNoSalt, descMoves, descLost,
		descHeld, descSpilled, descBytes, descLimit,
		descClock, descReady, descBuild,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (s Source) Collect(ch chan<- prometheus.Metric) {
	for reason, n := range s.Checks() {
		ch <- prometheus.MustNewConstMetric(descChecks, prometheus.CounterValue, float64(n), reason)
	}
	ready := 1.0
	if s.Ready() != nil {
		ready = 0
	}
	ch <- prometheus.MustNewConstMetric(descApplied, prometheus.GaugeValue, float64(s.Applied()))
	ch <- prometheus.MustNewConstMetric(descLease, prometheus.GaugeValue, max(0, s.Lease().Seconds()))
	ch <- prometheus.MustNewConstMetric(descStale, prometheus.CounterValue, float64(s.Stale()))
	ch <- prometheus.MustNewConstMetric(descNoSalt, prometheus.CounterValue, float64(s.NoSalt()))
	ch <- prometheus.MustNewConstMetric(descMoves, prometheus.CounterValue, float64(s.Moves()))
	if s.Unrecorded != nil {
		ch <- prometheus.MustNewConstMetric(descLost, prometheus.CounterValue, float64(s.Unrecorded()))
	}
	r := s.Resident()
	ch <- prometheus.MustNewConstMetric(descHeld, prometheus.GaugeValue, float64(r.Secrets))
	ch <- prometheus.MustNewConstMetric(descSpilled, prometheus.GaugeValue, float64(r.Spilled))
	ch <- prometheus.MustNewConstMetric(descBytes, prometheus.GaugeValue, float64(r.Bytes))
	ch <- prometheus.MustNewConstMetric(descLimit, prometheus.GaugeValue, float64(r.Limit))
	if offset, known := s.Clock(); known {
		ch <- prometheus.MustNewConstMetric(descClock, prometheus.GaugeValue, offset)
	}
	ch <- prometheus.MustNewConstMetric(descReady, prometheus.GaugeValue, ready)
	ch <- prometheus.MustNewConstMetric(descBuild, prometheus.GaugeValue, 1, s.Version)
}
