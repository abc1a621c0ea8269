package bench

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Report has the results of a run. Durations are in nanoseconds.
type Report struct {
	Machine   Machine       `json:"machine"`
	Seed      uint64        `json:"seed"`
	Duration  time.Duration `json:"duration_ns"` // of a contender in a cell
	Rounds    int           `json:"rounds"`
	ClockCost time.Duration `json:"clock_cost_ns"` // taken off each single check
	// Stolen is the share of the processors' time that other machines on the
	// same hardware had meanwhile.
	Stolen float64 `json:"stolen"`
	Sizes  []Size  `json:"sizes"`
}

// Machine describes the machine of a run.
type Machine struct {
	Processor string  `json:"processor,omitempty"`
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memory_gib,omitempty"`
	System    string  `json:"system"`
	Go        string  `json:"go"`
}

func baseMachine() Machine {
	return Machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
}

// Size has the results for one number of tokens.
type Size struct {
	Tokens     int          `json:"tokens"`
	Doomed     int          `json:"doomed"` // tokens beside these, which were revoked meanwhile
	Contenders []Contender  `json:"contenders"`
	Results    []Result     `json:"results"`
	HTTP       []HTTPResult `json:"http,omitempty"`
}

// Contender has the figures of a contender at a size, besides those of checks.
type Contender struct {
	ID             string        `json:"id"`
	Name           string        `json:"name"`
	Version        string        `json:"version,omitempty"`
	Missing        string        `json:"missing,omitempty"` // why it was not measured
	MemoryPerToken float64       `json:"memory_per_token"`  // bytes
	MemoryIs       string        `json:"memory_is,omitempty"`
	DiskPerToken   float64       `json:"disk_per_token,omitempty"`
	Filled         time.Duration `json:"filled_ns"` // including the work of this program
	Load           Load          `json:"load,omitzero"`
}

// Result has the figures of a contender in one cell.
type Result struct {
	Cell      Cell   `json:"cell"`
	Contender string `json:"contender"`
	Skipped   string `json:"skipped,omitempty"` // why it has no figures

	Mean      float64 `json:"mean_ns"` // wall time of a check on one thread, median of the rounds
	P50       float64 `json:"p50_ns"`
	P99       float64 `json:"p99_ns"`
	P999      float64 `json:"p999_ns"`
	Singles   uint64  `json:"singles"` // number of timed checks
	PerSecond float64 `json:"checks_per_second"`
	PerCore   float64 `json:"checks_per_core_second"` // by processor time, servers' included; 0 if not known
	Ratio     float64 `json:"ratio"`                  // of the median check to tokenledger's, median of the rounds
	RatioMin  float64 `json:"ratio_min"`
	RatioMax  float64 `json:"ratio_max"`
	Flowed    float64 `json:"revocations_per_second,omitempty"`
}

// summarize computes a result from the turns of a contender and of the product
// in the same rounds.
func (r *Result) summarize(turns, product []turn, clock time.Duration) {
	var single Histogram
	var means, ratios, flowed []float64
	var checks, cpu float64
	for i := range turns {
		t := &turns[i]
		single.Merge(&t.single)
		means = append(means, t.mean(r.Cell.Threads))
		if i < len(product) {
			ratios = append(ratios, t.half(clock)/product[i].half(clock))
		}
		flowed = append(flowed, t.flowed)
		checks += float64(t.checks)
		cpu += t.cpu.Seconds()
	}
	reading := float64(clock)
	if len(turns) > 0 {
		reading = turns[0].clocked(clock)
	}
	quantile := func(q float64) float64 { return max(0, single.Quantile(q)-reading) }
	r.P50, r.P99, r.P999, r.Singles = quantile(0.5), quantile(0.99), quantile(0.999), single.Count()
	if r.Mean = median(means); r.Mean > 0 {
		r.PerSecond = 1e9 / r.Mean * float64(r.Cell.Threads)
	}
	if cpu > 0 {
		r.PerCore = checks / cpu
	}
	r.Ratio, r.Flowed = median(ratios), median(flowed)
	for i, ratio := range ratios {
		if i == 0 || ratio < r.RatioMin {
			r.RatioMin = ratio
		}
		r.RatioMax = max(r.RatioMax, ratio)
	}
}

// result returns the result of a contender in a cell, or nil if it has none.
func (s *Size) result(c Cell, contender string) *Result {
	for i := range s.Results {
		if r := &s.Results[i]; r.Cell == c && r.Contender == contender {
			return r
		}
	}
	return nil
}

// cells returns the cells of a size, in order.
func (s *Size) cells() []Cell {
	var out []Cell
	seen := map[Cell]bool{}
	for _, r := range s.Results {
		if !seen[r.Cell] {
			seen[r.Cell] = true
			out = append(out, r.Cell)
		}
	}
	return out
}

// moduleVersion returns the version of a library that this program is built
// with.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return ""
}
