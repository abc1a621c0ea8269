package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Process provides the values of the metrics that are about the process, and not
// about tokens. A nil function is left out.
type Process struct {
	Lines   LogLines // nil if nothing counts them
	Reloads func() Reloads
	// TLS returns the certificate of the listeners, nil without TLS.
	TLS func() *Certificate
	// Connections by listener.
	Connections func() map[string]Connections
}

// Certificate describes a certificate.
type Certificate struct {
	Expires time.Time
	Failing bool // its files hold something that cannot be used
}

// Connections describes the connections of a listener.
type Connections struct {
	Open, Limit int
	Closed      uint64 // idle ones that were closed for a new one
	Refused     uint64 // new ones that were closed, because none was idle
}

// LogLines tells what becomes of log lines.
type LogLines interface {
	Dropped() uint64        // in total
	Waiting() time.Duration // how long the oldest line that is not written has been waiting
}

// Reloads counts reloads of the configuration.
type Reloads struct {
	Done, Refused uint64
	Failing       bool // the last one was refused
}

var (
	descLogDropped = prometheus.NewDesc(
		"tokenledger_log_lines_dropped_total",
		"Log lines that were dropped, because they could not be written in time.",
		nil,
		nil,
	)
	descLogWaiting = prometheus.NewDesc(
		"tokenledger_log_waiting_seconds",
		"How long the oldest log line that is not written has been waiting.",
		nil,
		nil,
	)
	descReloads = prometheus.NewDesc(
		"tokenledger_config_reloads_total",
		"Reloads of the configuration, by result: done or refused.",
		[]string{"result"},
		nil,
	)
	descReloaded = prometheus.NewDesc(
		"tokenledger_config_last_reload_successful",
		"0 if the last reload of the configuration was refused, so that an older one is in force, else 1.",
		nil,
		nil,
	)
)

var (
	descExpires = prometheus.NewDesc(
		"tokenledger_tls_certificate_expires_timestamp_seconds",
		"When the certificate of the listeners expires, in Unix time. Absent without TLS.",
		nil,
		nil,
	)
	descTLSFailing = prometheus.NewDesc(
		"tokenledger_tls_certificate_files_bad",
		"1 while the files of the certificate cannot be used, so that an older certificate is in use, else 0.",
		nil,
		nil,
	)
)

var (
	descConnections = prometheus.NewDesc(
		"tokenledger_connections",
		"Open connections, by listener.",
		[]string{"listener"},
		nil,
	)
	descConnectionLimit = prometheus.NewDesc(
		"tokenledger_connections_limit",
		"Most connections at a time, by listener.",
		[]string{"listener"},
		nil,
	)
	descConnectionsCut = prometheus.NewDesc(
		"tokenledger_connections_cut_total",
		"Connections that were closed at the limit: idle ones for a new one, and new ones where none was idle.",
		[]string{"listener", "which"},
		nil,
	)
)

// Describe implements [prometheus.Collector].
func (p Process) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descLogDropped, descLogWaiting, descReloads, descReloaded,
		descConnections, descConnectionLimit, descConnectionsCut, descExpires, descTLSFailing,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (p Process) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if p.Lines != nil {
		counter(descLogDropped, p.Lines.Dropped())
		gauge(descLogWaiting, p.Lines.Waiting().Seconds())
	}
	if p.TLS != nil {
		if c := p.TLS(); c != nil {
			failing := 0.0
			if c.Failing {
				failing = 1
			}
			gauge(descExpires, float64(c.Expires.Unix()))
			gauge(descTLSFailing, failing)
		}
	}
	if p.Connections != nil {
		for name, c := range p.Connections() {
			gauge(descConnections, float64(c.Open), name)
			gauge(descConnectionLimit, float64(c.Limit), name)
			counter(descConnectionsCut, c.Closed, name, "idle")
			counter(descConnectionsCut, c.Refused, name, "new")
		}
	}
	if p.Reloads != nil {
		r := p.Reloads()
		counter(descReloads, r.Done, "done")
		counter(descReloads, r.Refused, "refused")
		successful := 1.0
		if r.Failing {
			successful = 0
		}
		gauge(descReloaded, successful)
	}
}
