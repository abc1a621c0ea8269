package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/tokenledger/tokenledger/events"
)

// format is a form of output. Every form but the table has the API's own
// fields, those included that this program does not know.
type format string

const (
	asTable format = "table"
	asLines format = "jsonl"
	asJSON  format = "json"
	asYAML  format = "yaml"
)

var formats = []string{string(asTable), string(asJSON), string(asLines), string(asYAML)}

func (f *format) Set(s string) error {
	switch got := format(s); got {
	case asTable, asJSON, asLines, asYAML:
		*f = got
		return nil
	}
	return errors.New("want table, json, jsonl or yaml")
}
func (f *format) String() string { return string(*f) }
func (*format) Type() string     { return "form" }

// sink is standard output. It keeps the first error, since a secret that could
// not be written must not pass for one that was shown.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(b)
	s.err = err
	return n, err
}

// show prints one answer of the API: as it came, or as draw draws it.
func (e *env) show(body []byte, draw func()) error {
	body = bytes.TrimSpace(body)
	switch e.output {
	case asTable:
		draw()
		return e.stdout.err
	case asYAML:
		return e.yaml(body)
	case asLines:
		var b bytes.Buffer
		if err := json.Compact(&b, body); err != nil {
			return err
		}
		return e.print(legible(b.Bytes()), "\n")
	}
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "  "); err != nil {
		return err
	}
	return e.print(legible(b.Bytes()), "\n")
}

func (e *env) print(b []byte, end string) error {
	_, err := e.stdout.Write(append(b, end...))
	return err
}

func (e *env) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(e.stdout, format, args...) // the sink keeps the error
}

// note writes a remark to standard error, where the reader is a person.
func (e *env) note(format string, args ...any) {
	if e.output == asTable {
		_, _ = fmt.Fprintf(e.stderr, format+"\n", args...)
	}
}

// yaml prints JSON as YAML, members in their order.
func (e *env) yaml(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	node, err := yamlValue(d)
	if err != nil {
		return err
	}
	enc := yaml.NewEncoder(e.stdout)
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

// A grid is a table or a list of facts on its way to standard output.
type grid struct{ w *tabwriter.Writer }

// grid begins a table, with a header where one is given.
func (e *env) grid(header ...string) *grid {
	g := &grid{w: tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		g.row(header...)
	}
	return g
}

// row adds a row. What is empty becomes a dash, so that columns can be counted.
func (g *grid) row(cells ...string) {
	for i, c := range cells {
		if c = clean(c); c == "" {
			c = "-"
		}
		cells[i] = c
	}
	_, _ = io.WriteString(g.w, strings.Join(cells, "\t")+"\n")
}

// fact adds a name and its value, where there is one.
func (g *grid) fact(name, value string) {
	if value != "" {
		g.row(name, value)
	}
}

func (g *grid) end() { _ = g.w.Flush() }

// when prints a time for people.
func (e *env) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(e.zone).Format("2006-01-02 15:04")
}

func (e *env) whenPtr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return e.when(*t)
}

// expiry prints when a token expires, nothing where it never does.
func (e *env) expiry(t *time.Time, soon bool) string {
	if soon {
		return e.whenPtr(t) + ", soon"
	}
	return e.whenPtr(t)
}

// until prints that something holds for all before a time.
func (e *env) until(t *time.Time) string {
	if t == nil {
		return ""
	}
	return "all that were made before " + e.when(*t)
}

// took prints how long something took.
func took(d time.Duration) string {
	if d < time.Second {
		return strconv.FormatInt(max(1, d.Milliseconds()), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
}

// clean escapes what could move the cursor, change the colour or reverse the
// order of what follows.
func clean(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch _, size := utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			escaped := strconv.QuoteRuneToASCII(r)
			b.WriteString(escaped[1 : len(escaped)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// legible escapes in JSON what [clean] escapes in text. JSON lets some of it
// stand, inside of strings alone.
func legible(b []byte) []byte {
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
func foreignControl(r rune) bool { return r > unicode.MaxASCII && unprintable(r) || r == 0x7F }

// quote prints what was typed, for an error.
func quote(s string) string { return events.Quote(s) }

// shorten prints the first few of a list.
func shorten(list []string) string {
	const most = 3
	if len(list) <= most+1 {
		return strings.Join(list, ",")
	}
	return strings.Join(list[:most], ",") + fmt.Sprintf(",+%d more", len(list)-most)
}
