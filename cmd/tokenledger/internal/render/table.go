package render

import (
	"io"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// A Column is a column of a table.
type Column struct {
	Head string
	// Wide columns are only in the format wide.
	Wide bool
	// ID cells are ids: in a narrow table they are cut to a beginning that names
	// each row.
	ID bool
	// Keep columns are cut last: numbers, states and times.
	Keep bool
}

// A Grid is a table or a list of facts for standard output. A table is cut to the
// width of the terminal, except in the format wide.
type Grid struct {
	p       *Printer
	columns []Column // nil for facts
	rows    [][]string
}

// Grid begins a table, with a header if one is given.
func (p *Printer) Grid(header ...string) *Grid {
	columns := make([]Column, len(header))
	for i, h := range header {
		columns[i] = Column{Head: h}
	}
	return p.Table(columns...)
}

// Table begins a table.
func (p *Printer) Table(columns ...Column) *Grid { return &Grid{p: p, columns: columns} }

// Row adds a row. An empty cell becomes a dash, so that scripts can count
// columns.
func (g *Grid) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = Escape(c); c == "" {
			row[i] = "-"
		}
	}
	g.rows = append(g.rows, row)
}

// Fact adds a name and its value, unless the value is empty.
func (g *Grid) Fact(name, value string) {
	if value != "" {
		g.Row(name, value)
	}
}

// End writes the grid.
func (g *Grid) End() {
	rows, columns := g.rows, g.columns
	limit := 0
	if len(columns) > 0 {
		rows, columns = g.visible()
		if g.p.Format != Wide {
			limit = g.p.Width
		}
	}
	widths := widthsOf(rows)
	if limit > 0 {
		narrow(rows, columns, widths, limit)
	}
	for _, row := range rows {
		_, _ = io.WriteString(g.p.Stdout, line(row, widths, limit)+"\n")
	}
}

// visible returns the columns of the format, with the header as the first row.
func (g *Grid) visible() (rows [][]string, columns []Column) {
	var shown []int
	var head []string
	for i, c := range g.columns {
		if !c.Wide || g.p.Format == Wide {
			shown, columns, head = append(shown, i), append(columns, c), append(head, c.Head)
		}
	}
	rows = append(rows, head)
	for _, row := range g.rows {
		cells := make([]string, len(shown))
		for i, from := range shown {
			cells[i] = row[from]
		}
		rows = append(rows, cells)
	}
	return rows, columns
}

// gap is the number of spaces between columns.
const gap = 2

// line joins the cells of a row. The last one is not padded.
func line(row []string, widths []int, limit int) string {
	var b strings.Builder
	for i, cell := range row {
		if limit > 0 {
			cell = Cut(cell, widths[i])
		}
		b.WriteString(cell)
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-Columns(cell)+gap))
		}
	}
	if limit > 0 {
		return Cut(b.String(), limit)
	}
	return b.String()
}

func widthsOf(rows [][]string) []int {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Columns(cell))
		}
	}
	return widths
}

// The widths to which columns are cut, in turn: the elastic ones to a width that
// still says something, then further, then all.
const (
	fair   = 8
	little = 3
)

// narrow reduces the widths of columns until the rows fit a limit. It shortens ids
// in the rows themselves.
func narrow(rows [][]string, columns []Column, widths []int, limit int) {
	limit -= gap * (len(columns) - 1)
	excess := func() int {
		sum := -limit
		for _, w := range widths {
			sum += w
		}
		return sum
	}
	if excess() <= 0 {
		return
	}
	for i, c := range columns {
		if c.ID {
			widths[i] = shortenIDs(rows, i)
		}
	}
	for _, stage := range []struct {
		least int
		cuts  func(Column) bool
	}{
		{fair, func(c Column) bool { return !c.ID && !c.Keep }},
		{little, func(c Column) bool { return !c.ID && !c.Keep }},
		{little, func(c Column) bool { return !c.ID }},
		{1, func(Column) bool { return true }},
	} {
		for excess() > 0 {
			widest := -1
			for i, c := range columns {
				if stage.cuts(c) && widths[i] > stage.least && (widest < 0 || widths[i] > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
}

// idBeginning is the length of an id's beginning that tells it from nearly all
// others: the prefix, the time and 20 random bits.
const idBeginning = 18

// shortenIDs cuts the ids of a column to a beginning that no two of them share, and
// returns its length.
func shortenIDs(rows [][]string, column int) int {
	ids := make([]string, 0, len(rows))
	for _, row := range rows[1:] {
		ids = append(ids, row[column])
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	n := idBeginning
	for i := 1; i < len(ids); i++ {
		same := 0
		for same < min(len(ids[i]), len(ids[i-1])) && ids[i][same] == ids[i-1][same] {
			same++
		}
		n = max(n, same+1)
	}
	length := 0
	for i, row := range rows {
		if i > 0 && len(row[column]) > n && isASCII(row[column]) {
			row[column] = row[column][:n]
		}
		length = max(length, Columns(row[column]))
	}
	return length
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

// Columns returns how many columns of a terminal an escaped text takes.
func Columns(s string) (n int) {
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	if r <= unicode.MaxASCII {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0 // combines with the character before it
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Cut cuts a text to a number of columns, and then ends it with an ellipsis. It
// never cuts within a wide character.
func Cut(s string, columns int) string {
	if Columns(s) <= columns {
		return s
	}
	const ellipsis = "…"
	used := 0
	for i, r := range s {
		w := runeColumns(r)
		if used+w > columns-1 {
			return s[:i] + ellipsis
		}
		used += w
	}
	return s
}
