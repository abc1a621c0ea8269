package bench

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

// invented returns a report of figures made up, in which Redis is missing.
func invented(sizes ...int) *Report {
	r := &Report{
		Machine:  Machine{Processor: "a <fast> one", Cores: 2, System: "Linux", Go: "go1"},
		Duration: time.Second, Rounds: rounds, ClockCost: 40, Stolen: 0.12,
	}
	cfg := Config{Threads: []int{1, 2}}
	for _, n := range sizes {
		s := Size{Tokens: n, HTTP: []HTTPResult{{
			Connections: 8, Batch: 16, PerSecond: 77_000, P50: 123_000, P99: 456_000, Alone: 91_000, Share: 0.846,
		}}}
		for i, c := range contenders {
			l := Contender{ID: c.ID, Name: c.Name, Version: "v1.2.3"}
			if c.ID == "redis" {
				l.Missing = "not installed: no redis-server here (apt-get install redis-server)"
			}
			if c.ID == productID {
				l.MemoryIs, l.MemoryPerToken = "resident in this process", 99
				l.Load = Load{Events: 5000, Fill: time.Second, Restart: 70 * time.Millisecond}
			}
			s.Contenders = append(s.Contenders, l)
			for j, cell := range cfg.cells() {
				got := Result{Cell: cell, Contender: c.ID}
				switch {
				case c.ID == "redis":
					got.Skipped = "not installed"
				case c.forgets && cell.Kind == Revoked:
					got.Skipped = "accepts it until it expires"
				default:
					got.Mean = 100 * math.Pow(3, float64(i)) * float64(j+1) * (1 + float64(n)/1e8)
					got.P50, got.P99, got.P999, got.PerSecond = got.Mean, 2*got.Mean, 3*got.Mean, 1e9/got.Mean
					got.Ratio, got.RatioMin, got.RatioMax = 2, 1.5, 2.5
				}
				s.Results = append(s.Results, got)
			}
		}
		r.Sizes = append(r.Sizes, s)
	}
	return r
}

func TestMarkdown(t *testing.T) {
	r := invented(10_000, 1_000_000)
	var b strings.Builder
	if err := r.WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	want := []string{
		"## 10k tokens", "## 1M tokens", "a <fast> one, 2 cores", "had 12 % of",
		"5000 events, most of which create tokens, in 1.0 s", "reopened in 70 ms", "| 16 a request", "77 k", "91 k", "85 %",
		"accepts it until it expires", "2.0 (1.5 to 2.5)", "apt-get install redis-server",
	}
	for _, c := range contenders {
		want = append(want, "| "+c.Name)
	}
	for _, c := range (Config{Threads: []int{1, 2}}).cells() {
		want = append(want, "| "+c.String()+" ")
	}
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("the report lacks %q", w)
		}
	}
	for _, c := range contenders {
		if n := strings.Count(got, "| "+c.Name); n != len(r.Sizes) {
			t.Errorf("%s has %d lines, want one for each size", c.Name, n)
		}
	}
	// Every line of a table has as many columns as its header.
	columns := 0
	for line := range strings.Lines(got) {
		n := strings.Count(line, "|")
		if n > 0 && columns > 0 && n != columns {
			t.Errorf("a line of %d columns in a table of %d: %s", n-1, columns-1, line)
		}
		columns = n
	}
}

// TestChart: the chart is XML, says in words what it shows, and names each line
// once, apart from the others and inside.
func TestChart(t *testing.T) {
	for _, sizes := range [][]int{{10_000}, {10_000, 1_000_000, 10_000_000}, {}} {
		r := invented(sizes...)
		var b strings.Builder
		if err := r.WriteChart(&b); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(b.String()))
		var title, desc, within string
		names := map[string]float64{}
		var y float64
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%d sizes: not XML: %v", len(sizes), err)
			}
			switch e := token.(type) {
			case xml.StartElement:
				within = e.Name.Local
				if within == "script" {
					t.Error("the chart has a script")
				}
				for _, a := range e.Attr {
					if a.Name.Local == "y" {
						_, _ = fmt.Sscan(a.Value, &y)
					}
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
						t.Errorf("%s has %s=%q", within, a.Name.Local, a.Value)
					}
				}
			case xml.EndElement:
				within = ""
			case xml.CharData:
				switch within {
				case "title":
					title = string(e)
				case "desc":
					desc = string(e)
				case "text":
					for _, c := range contenders {
						if strings.HasPrefix(string(e), c.ID+"  ") {
							if _, twice := names[c.ID]; twice {
								t.Errorf("%s is named twice", c.ID)
							}
							names[c.ID] = y
						}
					}
				}
			}
		}
		if title == "" || desc == "" {
			t.Errorf("title %q, description %q", title, desc)
		}
		if len(sizes) == 0 {
			continue
		}
		for _, c := range contenders {
			at, named := names[c.ID]
			if named == (c.ID == "redis") || strings.Contains(desc, c.ID+": ") == (c.ID == "redis") {
				t.Errorf("%s: named %t, described %t", c.ID, named, strings.Contains(desc, c.ID+": "))
			}
			if named && (at < 0 || at > chartHeight) {
				t.Errorf("%s stands at %v, outside", c.ID, at)
			}
			for other, there := range names {
				if other != c.ID && named && math.Abs(at-there) < labelGap-0.2 {
					t.Errorf("%s and %s stand at %v and %v, on each other", c.ID, other, at, there)
				}
			}
		}
	}
}

func TestSummarize(t *testing.T) {
	make := func(checks uint64, elapsed, cpu time.Duration, single ...time.Duration) turn {
		t := turn{checks: checks, elapsed: elapsed, cpu: cpu}
		for _, d := range single {
			t.single.Add(d)
		}
		return t
	}
	const ms = time.Millisecond
	product := []turn{make(1000, ms, ms, 41), make(500, ms, ms, 30), make(1000, ms, ms, 42)}
	r := Result{Cell: Cell{Threads: 2}}
	r.summarize([]turn{
		make(100, ms, 2*ms, 50, 60), make(100, ms, 2*ms, 70), make(200, ms, 0, 44),
	}, product, 40)
	// 2 threads: 20 µs, 20 µs, 10 µs a check.
	if r.Mean != 20_000 || r.PerSecond != 100_000 || r.PerCore != 100_000 {
		t.Errorf("mean %v, %v checks/s, %v a core; want 20000, 100000, 100000", r.Mean, r.PerSecond, r.PerCore)
	}
	// Half of the checks took 10, 30, 4 ns without the clock, and tokenledger's 1,
	// less than the clock's 40, 2.
	if r.Ratio != 10 || r.RatioMin != 2 || r.RatioMax != 30 {
		t.Errorf("ratio %v (%v to %v), want 10 (2 to 30)", r.Ratio, r.RatioMin, r.RatioMax)
	}
	if r.P50 != 10 || r.P99 != 30 || r.Singles != 4 {
		t.Errorf("p50 %v, p99 %v of %d; want 10, 30 of 4", r.P50, r.P99, r.Singles)
	}
}

func TestUnits(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0 ns", 999.4: "999 ns", 1000: "1.00 µs", 12_345: "12.3 µs", 1_500_000: "1.50 ms",
	} {
		if got := ns(f); got != want {
			t.Errorf("ns(%v) = %q, want %q", f, got, want)
		}
	}
	for s, want := range map[string]int{
		"16": 16, "10k": 10_000, "10M": 10_000_000,
		"": -1, "k": -1, "1.5k": -1, "-1": -1, "1G": -1, "99999999999999999999": -1,
	} {
		if got, err := ParseSize(s); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
		if want > 0 && short(want) != s {
			t.Errorf("short(%d) = %q, want %q", want, short(want), s)
		}
	}
}
