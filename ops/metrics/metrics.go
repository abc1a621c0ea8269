// Package metrics serves a node's figures to Prometheus, and its health.
//
// # Promise
//
// No label names a token, an account, an address or a path. /livez answers
// while the process runs, /readyz only while checks are answered, and says why
// where they are not.
package metrics

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Source is where the figures come from. Its functions are called at each
// scrape.
type Source struct {
	Name, Version string
	Checks        func() map[string]uint64 // checks by the reason they ended in
	Applied       func() uint64            // position of the last applied event
	Lease         func() time.Duration     // what is left of it
	Stale         func() uint64            // checks answered past the lease, where that is configured
	Moves         func() uint64            // switches to another server of the log
	Resident      func() Resident          // what checks find in memory
	Unrecorded    func() uint64            // receipts that could not be recorded; nil where there is no ledger
	Clock         func() (float64, bool)   // seconds that the time of day is ahead of the ledgers', false if not known
	Ready         func() error             // why checks are refused, nil if not
}

// Resident is what checks find in memory.
type Resident struct {
	Secrets int64 // of tokens, those that ended included
	Away    int64 // secrets that are on the disk alone
	Bytes   int64 // taken
	Limit   int64
}

// Handler serves /metrics, /livez and /readyz.
func Handler(s Source) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(s, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
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
	descChecks  = prometheus.NewDesc("tokenledger_verify_total", "Checks by the reason they ended in.", []string{"reason"}, nil)
	descApplied = prometheus.NewDesc("tokenledger_index_applied_seq", "Position of the last event applied to the index.", nil, nil)
	descLease   = prometheus.NewDesc("tokenledger_lease_seconds", "How much longer checks are answered without hearing from the log.", nil, nil)
	descStale   = prometheus.NewDesc("tokenledger_verify_stale_total", "Checks answered past the lease, for permissions that are configured so.", nil, nil)
	descMoves   = prometheus.NewDesc("tokenledger_log_moves_total", "Switches to another server of the log, because the one in use gave no progress.", nil, nil)
	descLost    = prometheus.NewDesc("tokenledger_receipts_not_recorded_total", "Receipts that were complete and could not be recorded in the log.", nil, nil)
	descReady   = prometheus.NewDesc("tokenledger_ready", "1 while checks are answered.", nil, nil)
	descHeld    = prometheus.NewDesc("tokenledger_resident_tokens", "Secrets of tokens that checks find in memory, those that ended included.", nil, nil)
	descAway    = prometheus.NewDesc("tokenledger_resident_away_tokens", "Secrets of tokens that checks have to read from the disk, because memory has no room for them.", nil, nil)
	descBytes   = prometheus.NewDesc("tokenledger_resident_bytes", "Memory taken by the secrets that are there.", nil, nil)
	descLimit   = prometheus.NewDesc("tokenledger_resident_limit_bytes", "Memory that they may take.", nil, nil)
	descClock   = prometheus.NewDesc("tokenledger_clock_offset_seconds", "How far the clock of this machine is ahead of the ledgers' median; less than 0 if it is behind. Absent while it is not known.", nil, nil)
	descBuild   = prometheus.NewDesc("tokenledger_build_info", "Version of the program.", []string{"version"}, nil)
)

// Describe implements [prometheus.Collector].
func (s Source) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descChecks, descApplied, descLease, descStale, descMoves, descLost, descHeld, descAway, descBytes, descLimit, descClock, descReady, descBuild} {
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
	ch <- prometheus.MustNewConstMetric(descMoves, prometheus.CounterValue, float64(s.Moves()))
	if s.Unrecorded != nil {
		ch <- prometheus.MustNewConstMetric(descLost, prometheus.CounterValue, float64(s.Unrecorded()))
	}
	r := s.Resident()
	ch <- prometheus.MustNewConstMetric(descHeld, prometheus.GaugeValue, float64(r.Secrets))
	ch <- prometheus.MustNewConstMetric(descAway, prometheus.GaugeValue, float64(r.Away))
	ch <- prometheus.MustNewConstMetric(descBytes, prometheus.GaugeValue, float64(r.Bytes))
	ch <- prometheus.MustNewConstMetric(descLimit, prometheus.GaugeValue, float64(r.Limit))
	if offset, known := s.Clock(); known {
		ch <- prometheus.MustNewConstMetric(descClock, prometheus.GaugeValue, offset)
	}
	ch <- prometheus.MustNewConstMetric(descReady, prometheus.GaugeValue, ready)
	ch <- prometheus.MustNewConstMetric(descBuild, prometheus.GaugeValue, 1, s.Version)
}
