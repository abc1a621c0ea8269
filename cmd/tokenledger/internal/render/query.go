package render

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/itchyny/gojq"
)

// A Query is a program in the language of jq, and the value of a flag.
type Query struct {
	text string
	code *gojq.Code
}

// Set compiles a program. It has no access to files, the environment or input.
func (q *Query) Set(s string) error {
	parsed, err := gojq.Parse(s)
	if err != nil {
		return fmt.Errorf("must be an expression of jq: %w", err)
	}
	code, err := gojq.Compile(parsed, gojq.WithEnvironLoader(func() []string { return nil }))
	if err != nil {
		return fmt.Errorf("must be an expression of jq: %w", err)
	}
	q.text, q.code = s, code
	return nil
}

func (q *Query) String() string { return q.text }

// Type names the value in help.
func (*Query) Type() string { return "expression" }

// queryTime bounds a program, which may not end by itself.
const queryTime = 30 * time.Second

// query prints the results of the printer's query for an answer of the API: texts
// as they are, and other values as JSON, one a line.
func (p *Printer) query(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // gojq computes with whole numbers of any size
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), queryTime)
	defer cancel()
	for results := p.Query.code.RunWithContext(ctx, v); ; {
		got, ok := results.Next()
		if !ok {
			return nil
		}
		if err, ok := got.(error); ok {
			if halt, ok := err.(*gojq.HaltError); ok && halt.Value() == nil {
				return nil
			}
			return fmt.Errorf("--jq %s: %w", p.Query.text, err)
		}
		text, ok := got.(string)
		if ok {
			text = escapeLines(text)
		} else {
			b, err := gojq.Marshal(got)
			if err != nil {
				return err
			}
			text = string(EscapeJSON(b))
		}
		if err := p.Print([]byte(text), "\n"); err != nil {
			return err
		}
	}
}

// escapeLines is Escape for a text that may have several lines and tabs, as @tsv
// makes.
func escapeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		cells := strings.Split(l, "\t")
		for j, c := range cells {
			cells[j] = Escape(c)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}

// names returns what other commands take for the things in an answer of the API:
// logins of accounts, ids, names of nodes, positions of receipts.
func names(body []byte) ([]string, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return namesIn(v), nil
}

func namesIn(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case json.Number:
		return []string{v.String()}
	case []any:
		var out []string
		for _, one := range v {
			out = append(out, namesIn(one)...)
		}
		return out
	case map[string]any:
		id, _ := v["id"].(string)
		if login, _ := v["login"].(string); login != "" && strings.HasPrefix(id, "acc_") {
			return []string{login}
		}
		// In answers to commands the thing is a member.
		for _, member := range []string{"id", "items", "token", "account", "session", "tokens", "name", "token_id", "position"} {
			if got, ok := v[member]; ok && got != nil && got != "" {
				return namesIn(got)
			}
		}
	}
	return nil
}
