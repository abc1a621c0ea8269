package render

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		in      string
		columns int
		want    string
	}{
		{"report", 6, "report"},
		{"report", 5, "repo…"},
		{"日本語アプリ", 12, "日本語アプリ"},
		{"日本語アプリ", 7, "日本語…"},
		{"日本語アプリ", 6, "日本…"},
		{"日本", 1, "…"},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
		{"📱📱", 3, "📱…"},
		{"", 0, ""},
	} {
		if got := Cut(tt.in, tt.columns); got != tt.want || Columns(got) > tt.columns {
			t.Errorf("Cut(%q, %d) = %q, want %q", tt.in, tt.columns, got, tt.want)
		}
	}
}

// TestTablesFit draws any table at any width.
func TestTablesFit(t *testing.T) {
	cell := rapid.OneOf(
		rapid.StringN(0, 40, 100), rapid.StringMatching(`tok_01k[0-9a-z]{23}`),
		rapid.SampledFrom([]string{"日本語アプリケーション", "in 365 days, soon", "ｆｕｌｌ", "e\u0301", "📱 phone"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "columns")
		columns := make([]Column, n)
		for i := range columns {
			columns[i] = Column{Head: "HEAD", ID: i == 0, Keep: rapid.Bool().Draw(t, "keep")}
		}
		var rows [][]string
		for range rapid.IntRange(0, 4).Draw(t, "rows") {
			rows = append(rows, rapid.SliceOfN(cell, n, n).Draw(t, "row"))
		}
		width := rapid.IntRange(1, 200).Draw(t, "width")
		var cut, whole bytes.Buffer
		for _, p := range []*Printer{
			{Stdout: &ErrWriter{W: &cut}, Format: Table, Width: width}, {Stdout: &ErrWriter{W: &whole}, Format: Wide, Width: width},
		} {
			g := p.Table(columns...)
			for _, row := range rows {
				g.Row(row...)
			}
			g.End()
		}
		if lines := strings.Count(cut.String(), "\n"); lines != len(rows)+1 {
			t.Fatalf("%d lines, want %d", lines, len(rows)+1)
		}
		for l := range strings.SplitSeq(cut.String(), "\n") {
			if Columns(l) > width || !utf8.ValidString(l) {
				t.Fatalf("%q takes %d columns of %d", l, Columns(l), width)
			}
		}
		for _, row := range rows {
			for _, c := range row {
				if !strings.Contains(whole.String(), Escape(c)) {
					t.Fatalf("the format wide lacks %q", c)
				}
			}
		}
	})
}

// TestNarrowIDs cuts ids only so far that each names one row.
func TestNarrowIDs(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{Stdout: &ErrWriter{W: &out}, Format: Table, Width: 41}
	g := p.Table(Column{Head: "ID", ID: true}, Column{Head: "APP"}, Column{Head: "ENDS", Keep: true})
	g.Row("tok_01jd3qk8z5n0v7m2x4c6b8a9ef", "an app with a long name", "in 3 h")
	g.Row("tok_01jd3qk8z5n0v7m2x4d6b8a9ef", "an app", "in 365 days")
	g.End()
	want := `ID                       APP  ENDS
tok_01jd3qk8z5n0v7m2x4c  an…  in 3 h
tok_01jd3qk8z5n0v7m2x4d  an…  in 365 days
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
