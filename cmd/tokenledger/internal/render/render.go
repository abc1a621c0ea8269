// Package render writes what commands print: tables and facts for people, or the
// API's own fields as JSON, JSON lines or YAML. Nothing from a server or a user
// reaches a terminal unescaped.
package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
)

// A Format is a form of output, and the value of a flag. Every format except the
// table has the API's own fields, including those that this program does not
// know.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide" // a table with all columns, at any width
	Name  Format = "name" // ids, logins or names, one a line, for other commands
	JSON  Format = "json"
	Lines Format = "jsonl"
	YAML  Format = "yaml"
)

// Formats are the names of the formats.
var Formats = []string{string(Table), string(Wide), string(Name), string(JSON), string(Lines), string(YAML)}

// Set parses a flag's value.
func (f *Format) Set(s string) error {
	switch got := Format(s); got {
	case Table, Wide, Name, Lines, JSON, YAML:
		*f = got
		return nil
	}
	return errors.New("must be table, wide, name, json, jsonl or yaml")
}

// Tabular reports whether people read the format.
func (f Format) Tabular() bool { return f == Table || f == Wide }

// Machine reports whether programs read the format, which then has errors too.
func (f Format) Machine() bool { return f == JSON || f == Lines || f == YAML }

func (f *Format) String() string { return string(*f) }

// Type names the value in help.
func (*Format) Type() string { return "format" }

// An ErrWriter keeps the first error of a writer: a secret that could not be
// written must not count as shown.
type ErrWriter struct {
	W   io.Writer
	Err error
}

func (w *ErrWriter) Write(b []byte) (int, error) {
	if w.Err != nil {
		return 0, w.Err
	}
	n, err := w.W.Write(b)
	w.Err = err
	return n, err
}

// A Printer writes results to standard output and remarks to standard error.
type Printer struct {
	Stdout *ErrWriter
	Stderr io.Writer
	Format Format
	Query  Query            // if one is set, its results are printed in place of the format
	Zone   *time.Location   // of times in tables
	Now    func() time.Time // nil for time.Now
	Width  int              // of the terminal that tables have to fit, 0 for any
}

// Show prints one answer of the API: in the table format as draw draws it, and
// in the other formats as it came.
func (p *Printer) Show(body []byte, draw func()) error {
	body = bytes.TrimSpace(body)
	if p.Query.code != nil {
		return p.query(body)
	}
	switch p.Format {
	case Table, Wide:
		draw()
		return p.Stdout.Err
	case Name:
		list, err := names(body)
		for _, name := range list {
			if err == nil {
				err = p.Print([]byte(Escape(name)), "\n")
			}
		}
		return err
	case YAML:
		return p.yaml(body)
	case Lines:
		var b bytes.Buffer
		if err := json.Compact(&b, body); err != nil {
			return err
		}
		return p.Print(EscapeJSON(b.Bytes()), "\n")
	}
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "  "); err != nil {
		return err
	}
	return p.Print(EscapeJSON(b.Bytes()), "\n")
}

// Print writes b and then end to standard output.
func (p *Printer) Print(b []byte, end string) error {
	_, err := p.Stdout.Write(append(b, end...))
	return err
}

// Printf writes to standard output.
func (p *Printer) Printf(format string, args ...any) {
	_, _ = fmt.Fprintf(p.Stdout, format, args...) // the ErrWriter keeps the error
}

// Note writes a remark to standard error, except in the formats that programs
// read.
func (p *Printer) Note(format string, args ...any) {
	if !p.Format.Machine() {
		_, _ = fmt.Fprintf(p.Stderr, format+"\n", args...)
	}
}

// Progress shows on one line of standard error what text returns, every second
// until stop is called. Text is given the time since the call.
func (p *Printer) Progress(text func(since time.Duration) string) (stop func()) {
	const line = "\r\x1b[K" // go to the beginning of the line, and clear it
	over, done := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			_, _ = io.WriteString(p.Stderr, line+Escape(text(time.Since(begun))))
			select {
			case <-over:
				_, _ = io.WriteString(p.Stderr, line)
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(over)
		<-done
	}
}

// yaml prints JSON as YAML and keeps the order of members.
func (p *Printer) yaml(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	node, err := yamlValue(d)
	if err != nil {
		return err
	}
	enc := yaml.NewEncoder(p.Stdout)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return err
	}
	return enc.Close()
}

func yamlValue(d *json.Decoder) (*yaml.Node, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	node := &yaml.Node{}
	switch t := t.(type) {
	case json.Delim:
		if node.Kind = yaml.SequenceNode; t == '{' {
			node.Kind = yaml.MappingNode
		}
		for d.More() {
			// A mapping's content is its keys and values in turn, as they come.
			item, err := yamlValue(d)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, item)
		}
		if len(node.Content) == 0 {
			node.Style = yaml.FlowStyle // an empty block cannot be written
		}
		_, err := d.Token()
		return node, err
	case json.Number:
		node.Kind, node.Value = yaml.ScalarNode, t.String()
		return node, nil
	default:
		if text, ok := t.(string); ok && strings.ContainsFunc(text, unicode.IsControl) {
			// Encode writes it as a block, which cannot be read where it begins
			// with a tab.
			*node = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
			return node, nil
		}
		return node, node.Encode(t) // quotes a string that reads as something else
	}
}

// Time formats a time for people, as a fact: how far it is from now, and exactly.
// The zero time is empty.
func (p *Printer) Time(t time.Time) string { return when.Both(t, p.now(), p.Zone) }

// TimePtr is Time for an optional time.
func (p *Printer) TimePtr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return p.Time(*t)
}

// Cell formats a time for a table: how far it is from now, or exactly in the format
// wide.
func (p *Printer) Cell(t *time.Time) string {
	switch {
	case t == nil:
		return ""
	case p.Format == Wide:
		return when.Exact(*t, p.Zone)
	}
	return when.Relative(*t, p.now())
}

// Exact formats a time for a sentence.
func (p *Printer) Exact(t time.Time) string { return when.Exact(t, p.Zone) }

func (p *Printer) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

// Elapsed formats how long something took.
func Elapsed(d time.Duration) string {
	if d < time.Second {
		return strconv.FormatInt(max(1, d.Milliseconds()), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
}

// Escape escapes characters that could move the cursor, change the colour or
// reverse the order of the text after them.
func Escape(s string) string {
	if !strings.ContainsFunc(s, Unprintable) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch _, size := utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case Unprintable(r):
			escaped := strconv.QuoteRuneToASCII(r)
			b.WriteString(escaped[1 : len(escaped)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Unprintable reports whether a terminal could do something with r other than
// show it.
func Unprintable(r rune) bool { return !unicode.IsPrint(r) }

// EscapeJSON escapes in JSON the characters that [Escape] escapes in text. JSON
// allows some of them unescaped, only inside strings.
func EscapeJSON(b []byte) []byte {
	if !bytes.ContainsFunc(b, foreignControl) {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		switch {
		case !foreignControl(r):
			out = utf8.AppendRune(out, r)
		case r > 0xFFFF:
			const first, base = 0xD800, 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, first+(r-base)>>10, 0xDC00+(r-base)&0x3FF)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// foreignControl reports what JSON does not escape by itself.
func foreignControl(r rune) bool { return r > unicode.MaxASCII && Unprintable(r) || r == 0x7F }

// Shorten joins the first few items of a list and counts the rest.
func Shorten(list []string) string {
	const most = 3
	if len(list) <= most+1 {
		return strings.Join(list, ",")
	}
	return strings.Join(list[:most], ",") + fmt.Sprintf(",+%d more", len(list)-most)
}

// Encode is json.Marshal without its escapes for HTML, so that a value that came
// from the API is printed as it was.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// Wrap breaks lines at spaces, so that they fit a width in columns, and joins
// lines that were broken elsewhere. Empty lines and indented lines stay.
func Wrap(text string, width int) string {
	var out []string
	var words []string
	flush := func() {
		if len(words) > 0 {
			out = append(out, Indent(strings.Join(words, " "), width, "", ""))
			words = nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			flush()
			out = append(out, line)
			continue
		}
		words = append(words, line)
	}
	flush()
	return strings.Join(out, "\n")
}

// Indent breaks one line at spaces, so that it fits a width in columns. The first
// line begins with first and the others with rest. Longer words stay whole.
func Indent(line string, width int, first, rest string) string {
	var b strings.Builder
	b.WriteString(first)
	used, begin := utf8.RuneCountInString(first), true
	for word := range strings.FieldsSeq(line) {
		n := utf8.RuneCountInString(word)
		switch {
		case begin:
		case used+1+n <= width:
			b.WriteByte(' ')
			used++
		default:
			b.WriteString("\n" + rest)
			used = utf8.RuneCountInString(rest)
		}
		b.WriteString(word)
		used, begin = used+n, false
	}
	return b.String()
}
