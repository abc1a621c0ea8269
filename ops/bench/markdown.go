package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteMarkdown writes the report with aligned tables, to be read as text or
// rendered.
func (r *Report) WriteMarkdown(w io.Writer) error {
	m := &markdown{}
	m.line("# What a check costs")
	m.line("")
	memory := ""
	if r.Machine.MemoryGiB > 0 {
		memory = fmt.Sprintf(", %.0f GiB", r.Machine.MemoryGiB)
	}
	processor := r.Machine.Processor
	if processor == "" {
		processor = "processor not known"
	}
	m.line("%s, %d cores%s, %s, %s. Seed %d.",
		processor, r.Machine.Cores, memory, r.Machine.System, r.Machine.Go, r.Seed)
	m.line("Each contender runs %s in each row, in turn over %d rounds. Clients and servers share the machine.",
		r.Duration, r.Rounds)
	if r.Stolen >= 0.005 {
		m.line("Other machines on the same hardware had %.0f %% of the processors' time, so the figures are pessimistic.",
			100*r.Stolen)
	}
	m.line("")
	m.line("")
	m.line("- Mean, rate and processor time are of untimed checks. Quantiles are of single checks, less the %s that",
		ns(float64(r.ClockCost)))
	m.line("  reading the clock costs.")
	m.line("- A rate \"a core\" is by processor time, including that of servers.")
	m.line("- Ratios compare p50 with tokenledger's in the same round: median and range over the rounds.")
	m.line("  Above 1 is slower.")
	m.line("- Contenders that look up by digest share the check of the secret's format and its SHA-256.")
	m.line("- `go doc github.com/tokenledger/tokenledger/ops/bench`, run in ops/bench, explains the method.")
	for i := range r.Sizes {
		m.size(&r.Sizes[i])
	}
	m.versions(r)
	_, err := io.WriteString(w, m.b.String())
	return err
}

type markdown struct{ b strings.Builder }

func (m *markdown) line(format string, a ...any) { fmt.Fprintf(&m.b, format+"\n", a...) }

// table writes a table: the first column left-aligned, the others right-aligned.
func (m *markdown) table(header []string, rows [][]string) {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	write := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				m.b.WriteString("| " + cell + pad)
				continue
			}
			m.b.WriteString(" | " + pad + cell)
		}
		m.b.WriteString(" |\n")
	}
	m.line("")
	write(header)
	for i, n := range width {
		if i == 0 {
			m.b.WriteString("|" + strings.Repeat("-", n+2))
			continue
		}
		m.b.WriteString("|" + strings.Repeat("-", n+1) + ":")
	}
	m.b.WriteString("|\n")
	for _, row := range rows {
		write(row)
	}
}

func (m *markdown) size(s *Size) {
	m.line("")
	m.line("## %s tokens", short(s.Tokens))
	cells := s.cells()
	if len(cells) == 0 {
		return
	}
	m.line("")
	m.line("### Side by side: %s", cells[0])
	rows := [][]string{}
	for _, c := range s.Contenders {
		if c.Missing != "" {
			rows = append(rows, []string{c.Name, c.Missing, "", "", "", "", "", "", ""})
			continue
		}
		r := s.result(cells[0], c.ID)
		memory := "-"
		if c.MemoryIs != "" {
			memory = fmt.Sprintf("%.0f", c.MemoryPerToken)
		}
		rows = append(rows, append(append([]string{c.Name}, r.figures()...), memory, r.ratio()))
	}
	m.table(slices.Concat([]string{""}, figures, []string{"bytes a token", "times tokenledger"}), rows)
	m.memory(s)
	m.everywhere(s, cells)
	m.product(s, cells)
	m.http(s)
}

// memory explains the column with the bytes per token.
func (m *markdown) memory(s *Size) {
	var notes []string
	for _, c := range s.Contenders {
		if c.MemoryIs == "" {
			continue
		}
		note := c.ID + ": " + c.MemoryIs
		if c.DiskPerToken > 0 {
			note += fmt.Sprintf(" (and %.0f on disk)", c.DiskPerToken)
		}
		notes = append(notes, note)
	}
	if len(notes) > 0 {
		m.line("")
		m.line("Bytes a token: %s.", strings.Join(notes, "; "))
	}
}

// everywhere compares medians in all cells.
func (m *markdown) everywhere(s *Size, cells []Cell) {
	m.line("")
	m.line("### p50 in every case")
	header := []string{""}
	for _, c := range s.Contenders {
		if c.Missing == "" {
			header = append(header, c.ID)
		}
	}
	var rows [][]string
	for _, cell := range cells {
		row := []string{cell.String()}
		for _, c := range s.Contenders {
			if c.Missing != "" {
				continue
			}
			switch r := s.result(cell, c.ID); {
			case r == nil:
				row = append(row, "-")
			case r.Skipped != "":
				row = append(row, r.Skipped)
			default:
				row = append(row, ns(r.P50))
			}
		}
		rows = append(rows, row)
	}
	m.table(header, rows)
}

// product writes the figures of tokenledger alone.
func (m *markdown) product(s *Size, cells []Cell) {
	m.line("")
	m.line("### tokenledger in every case")
	var rows [][]string
	for _, cell := range cells {
		r := s.result(cell, productID)
		if r == nil || r.Skipped != "" {
			continue
		}
		flowed := "-"
		if cell.Flow > 0 {
			flowed = fmt.Sprintf("%.0f", r.Flowed)
		}
		rows = append(rows, append(append([]string{cell.String()}, r.figures()...), flowed))
	}
	m.table(slices.Concat([]string{""}, figures, []string{"revocations/s applied"}), rows)
	for _, c := range s.Contenders {
		if l := c.Load; c.ID == productID && l.Fill > 0 {
			m.line("")
			m.line("Its index was folded from %d events, most of which create tokens, in %s (%s events/s), and reopened in %s.",
				l.Events, seconds(l.Fill), rate(float64(l.Events)/l.Fill.Seconds()), seconds(l.Restart))
			m.line("Of complete lifetimes (create, scope, rotate, revoke; %d interleaved), %s events/s were folded.",
				livesApart, rate(l.Lives))
		}
	}
}

func (m *markdown) http(s *Size) {
	if len(s.HTTP) == 0 {
		return
	}
	m.line("")
	m.line("### tokenledger over HTTP, kept connections, client on the same cores")
	var rows [][]string
	for _, h := range s.HTTP {
		rows = append(rows, []string{
			fmt.Sprintf("%d a request", h.Batch), fmt.Sprint(h.Connections), rate(h.PerSecond), ns(h.P50), ns(h.P99),
			rate(h.Alone), fmt.Sprintf("%.0f %%", 100*h.Share),
		})
	}
	m.table([]string{
		"checks", "connections", "checks/s", "p50 of a request", "p99 of a request", "net/http alone", "share of it",
	}, rows)
	m.line("")
	m.line("net/http alone reads each request and gives the same answer to all, in turn with tokenledger.")
	m.line("It is the limit. Shares are medians over the rounds.")
}

func (m *markdown) versions(r *Report) {
	var list []string
	if len(r.Sizes) > 0 {
		for _, c := range r.Sizes[0].Contenders {
			if c.Version != "" {
				list = append(list, c.ID+" "+c.Version)
			}
		}
	}
	if len(list) > 0 {
		m.line("")
		m.line("Versions: %s.", strings.Join(list, ", "))
	}
}

// figures are the columns that every table of checks has.
var figures = []string{"p50", "p99", "p99.9", "mean", "checks/s", "checks/s a core"}

func (r *Result) figures() []string {
	return []string{ns(r.P50), ns(r.P99), ns(r.P999), ns(r.Mean), rate(r.PerSecond), rate(r.PerCore)}
}

func (r *Result) ratio() string {
	if r.Contender == productID {
		return "1"
	}
	return fmt.Sprintf("%s (%s to %s)", digits(r.Ratio), digits(r.RatioMin), digits(r.RatioMax))
}

// digits formats a ratio with two or three digits.
func digits(f float64) string {
	switch {
	case f >= 10:
		return fmt.Sprintf("%.0f", f)
	case f >= 1:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// ns formats nanoseconds with a suitable unit.
func ns(f float64) string {
	switch {
	case f < 1000:
		return fmt.Sprintf("%.0f ns", f)
	case f < 10_000:
		return fmt.Sprintf("%.2f µs", f/1000)
	case f < 1_000_000:
		return fmt.Sprintf("%.1f µs", f/1000)
	}
	return fmt.Sprintf("%.2f ms", f/1e6)
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func rate(f float64) string {
	switch {
	case f <= 0:
		return "-"
	case f >= 1e6:
		return fmt.Sprintf("%.2f M", f/1e6)
	case f >= 10_000:
		return fmt.Sprintf("%.0f k", f/1000)
	case f >= 1000:
		return fmt.Sprintf("%.1f k", f/1000)
	}
	return fmt.Sprintf("%.0f", f)
}
