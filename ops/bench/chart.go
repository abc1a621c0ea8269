package bench

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// The chart's measures, in its own units.
const (
	chartWidth, chartHeight = 960, 560
	plotLeft, plotRight     = 80, 640
	plotTop, plotBottom     = 64, 500
	labelGap                = 17 // between the names at the lines' ends
)

// WriteChart writes a chart of the cost of a check by the number of tokens, as
// an SVG for light and dark pages. Both axes are logarithmic.
func (r *Report) WriteChart(w io.Writer) error {
	lines := r.lines()
	c := newScales(r, lines)
	var b strings.Builder
	add := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">`,
		chartWidth, chartHeight)
	add(`<title id="title">What a check costs against the number of tokens</title>`)
	add(`<desc id="desc">%s</desc>`, text(describe(lines)))
	b.WriteString(`<style>
svg { font: 14px system-ui, sans-serif; --ink: #1b1f24; --faint: #d8dce1; --quiet: #59636e; --paper: #ffffff;
  --main: #0a5fb4; --rest: #6e7781 }
@media (prefers-color-scheme: dark) { svg { --ink: #e6e8eb; --faint: #353b43; --quiet: #9aa4af; --paper: #14171b;
  --main: #5cb0ff; --rest: #9aa4af } }
.paper { fill: var(--paper) } text { fill: var(--ink) } .quiet { fill: var(--quiet) } .grid { stroke: var(--faint) }
.line { fill: none; stroke: var(--rest); stroke-width: 1.5 } .dot { fill: var(--rest) } .lead { stroke: var(--faint) }
.main .line { stroke: var(--main); stroke-width: 3 } .main .dot, .main text { fill: var(--main) }
.main text { font-weight: 600 }
</style>
`)
	add(`<rect class="paper" width="%d" height="%d"/>`, chartWidth, chartHeight)
	add(`<text x="%d" y="28" font-size="17">What a check costs against the number of tokens</text>`, plotLeft)
	add(`<text class="quiet" x="%d" y="48">p50 of a check, live tokens, each as often; lower is better</text>`, plotLeft)
	for e := c.lowest; e <= c.highest; e++ {
		y := c.y(math.Pow(10, float64(e)))
		add(`<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`, plotLeft, y, plotRight, y)
		add(`<text class="quiet" x="%d" y="%.1f" text-anchor="end">%s</text>`, plotLeft-10, y+5, text(power(e)))
	}
	for _, s := range r.Sizes {
		x := c.x(s.Tokens)
		add(`<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x, plotTop, x, plotBottom)
		add(`<text class="quiet" x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, plotBottom+22, short(s.Tokens))
	}
	add(`<text class="quiet" x="%d" y="%d" text-anchor="middle">tokens</text>`, (plotLeft+plotRight)/2, plotBottom+46)
	places := spread(lines, c)
	for i, l := range lines {
		class := ""
		if l.id == productID {
			class = ` class="main"`
		}
		add(`<g%s>`, class)
		var path []string
		for _, p := range l.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", c.x(p.tokens), c.y(p.ns)))
			add(`<circle class="dot" cx="%.1f" cy="%.1f" r="3"/>`, c.x(p.tokens), c.y(p.ns))
		}
		add(`<polyline class="line" points="%s"/>`, strings.Join(path, " "))
		last := l.points[len(l.points)-1]
		add(`<line class="lead" x1="%.1f" y1="%.1f" x2="%d" y2="%.1f"/>`,
			c.x(last.tokens)+5, c.y(last.ns), plotRight+26, places[i])
		add(`<text x="%d" y="%.1f">%s</text>`, plotRight+30, places[i]+5, text(l.name+"  "+ns(last.ns)))
		add(`</g>`)
	}
	add(`</svg>`)
	_, err := io.WriteString(w, b.String())
	return err
}

// chartLine is a contender's p50 over the sizes.
type chartLine struct {
	id, name string
	points   []chartPoint
}

type chartPoint struct {
	tokens int
	ns     float64
}

// lines returns the lines of the first cell, highest end first.
func (r *Report) lines() []chartLine {
	var out []chartLine
	for _, c := range contenders {
		l := chartLine{id: c.ID, name: c.ID}
		for i := range r.Sizes {
			s := &r.Sizes[i]
			cells := s.cells()
			if len(cells) == 0 {
				continue
			}
			if got := s.result(cells[0], c.ID); got != nil && got.Skipped == "" && got.P50 > 0 {
				l.points = append(l.points, chartPoint{s.Tokens, got.P50})
			}
		}
		if len(l.points) > 0 {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b chartLine) int {
		return int(math.Copysign(1, b.points[len(b.points)-1].ns-a.points[len(a.points)-1].ns))
	})
	return out
}

// scales place sizes and times.
type scales struct {
	minSize, maxSize float64 // logarithms of the sizes
	lowest, highest  int     // powers of ten, of nanoseconds
}

func newScales(r *Report, lines []chartLine) scales {
	c := scales{minSize: 1, maxSize: 1, lowest: 2, highest: 3}
	for i, s := range r.Sizes {
		at := math.Log10(float64(s.Tokens))
		if i == 0 {
			c.minSize, c.maxSize = at, at
		}
		c.minSize, c.maxSize = min(c.minSize, at), max(c.maxSize, at)
	}
	for _, l := range lines {
		for _, p := range l.points {
			power := math.Log10(p.ns)
			c.lowest, c.highest = min(c.lowest, int(math.Floor(power))), max(c.highest, int(math.Ceil(power)))
		}
	}
	return c
}

func (c scales) x(tokens int) float64 {
	const margin = 24
	if c.maxSize == c.minSize {
		return (plotLeft + plotRight) / 2
	}
	share := (math.Log10(float64(tokens)) - c.minSize) / (c.maxSize - c.minSize)
	return plotLeft + margin + share*(plotRight-plotLeft-2*margin)
}

func (c scales) y(ns float64) float64 {
	share := (math.Log10(ns) - float64(c.lowest)) / float64(c.highest-c.lowest)
	return plotBottom - share*(plotBottom-plotTop)
}

// spread returns the positions of the labels of lines so that they do not
// overlap. The lines are sorted by their ends, highest first.
func spread(lines []chartLine, c scales) []float64 {
	out := make([]float64, len(lines))
	for i, l := range lines {
		out[i] = c.y(l.points[len(l.points)-1].ns)
		if i > 0 {
			out[i] = max(out[i], out[i-1]+labelGap)
		}
	}
	// Labels below the plot move up, and push the others up.
	for i, limit := len(out)-1, float64(plotBottom); i >= 0; i, limit = i-1, limit-labelGap {
		limit = min(limit, out[i])
		out[i] = limit
	}
	return out
}

func describe(lines []chartLine) string {
	var parts []string
	for _, l := range lines {
		var at []string
		for _, p := range l.points {
			at = append(at, fmt.Sprintf("%s with %s", ns(p.ns), short(p.tokens)))
		}
		parts = append(parts, l.name+": "+strings.Join(at, ", "))
	}
	return strings.Join(parts, "; ") + "."
}

// power prints a power of ten of nanoseconds.
func power(e int) string {
	units := []string{"ns", "µs", "ms", "s"}
	i := min(max(0, e/3), len(units)-1)
	return fmt.Sprintf("%.0f %s", math.Pow(10, float64(e-3*i)), units[i])
}

func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
