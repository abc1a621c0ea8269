package manifest

import (
	"strconv"
	"strings"
)

// Title returns what a step does to which thing, as in "create token shop/report/"
// and "set grants of account shop".
func (s *Step) Title() string {
	of := " "
	if strings.HasPrefix(s.Action, "set ") {
		of = " of "
	}
	return s.Action + of + s.Kind + " " + s.Name
}

// Lines returns a step for people: a line for the thing, and a line for each part
// of a field that comes (+), goes (-) or changes (~).
func (s *Step) Lines() []string {
	head := s.Sign + " " + s.Kind + " " + s.Name
	if s.ID != "" && s.Kind == "token" {
		head += " (" + s.ID + ")"
	}
	lines := []string{head + ": " + s.Action}
	for _, f := range s.Fields {
		lines = append(lines, f.lines()...)
	}
	return lines
}

// mostScopes is how many scopes of a list are printed for people.
const mostScopes = 12

func (f *Field) lines() []string {
	before, wasList := f.Old.([]string)
	after, isList := f.New.([]string)
	if isList && (wasList || f.Old == nil) {
		return append(parts("-", f.Name, before, after), parts("+", f.Name, after, before)...)
	}
	sign := "~"
	text := fieldText(f.Old) + " -> " + fieldText(f.New)
	switch {
	case f.Old == nil:
		sign, text = "+", fieldText(f.New)
	case f.New == nil:
		sign, text = "-", fieldText(f.Old)
	}
	return []string{"    " + sign + " " + f.Name + ": " + text}
}

// parts returns a line for the texts of a list that are not in another list.
func parts(sign, field string, list, other []string) []string {
	in := make(map[string]bool, len(other))
	for _, s := range other {
		in[s] = true
	}
	var some []string
	for _, s := range list {
		if !in[s] {
			some = append(some, s)
		}
	}
	switch n := len(some); {
	case n == 0:
		return nil
	case n > mostScopes+1:
		some = append(some[:mostScopes:mostScopes], "and "+strconv.Itoa(n-mostScopes)+" more")
	}
	return []string{"    " + sign + " " + field + ": " + strings.Join(some, ", ")}
}
