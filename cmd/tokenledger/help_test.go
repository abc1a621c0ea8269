package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
)

// eachCommand calls visit with every command that help shows, except for cobra's
// own.
func eachCommand(c *cobra.Command, visit func(*cobra.Command)) {
	if c.Hidden || c.Name() == "completion" {
		return
	}
	visit(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, visit)
	}
}

// TestHelpIsComplete requires of each command one line that says what it does, an
// example that calls it, and a purpose for each flag.
func TestHelpIsComplete(t *testing.T) {
	e := newEnv(nil, &bytes.Buffer{}, &bytes.Buffer{}, nil)
	root := newRootCmd(e)
	e.prepare(root, nil)
	commands := 0
	eachCommand(root, func(c *cobra.Command) {
		commands++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || utf8.RuneCountInString(c.Short) > 75 {
			t.Errorf("%s: the line %q is empty, longer than 75 characters or ends in a period", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && c.Runnable() && !strings.Contains(c.Example, "  "+c.CommandPath()) {
			t.Errorf("%s: no example calls it", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no help", c.CommandPath(), f.Name)
			}
			for _, g := range f.Annotations[groupKey] {
				if !slices.Contains(flagGroups, g) {
					t.Errorf("%s --%s is in the group %q, which help does not show", c.CommandPath(), f.Name, g)
				}
			}
		})
	})
	if commands < 40 {
		t.Errorf("%d commands, want all of some 50", commands)
	}
}

// TestHelpFits checks the width of every command's help without a terminal.
func TestHelpFits(t *testing.T) {
	root := newRootCmd(newEnv(nil, nil, nil, nil))
	eachCommand(root, func(c *cobra.Command) {
		var out, errs bytes.Buffer
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		environ := []string{"HOME=/home/a"}
		if code := run(t.Context(), args, nil, &out, &errs, environ); code != int(exit.OK) || errs.Len() > 0 {
			t.Errorf("%s: exit code %d, %q", c.CommandPath(), code, errs.String())
		}
		if width := term.Width(&out); width != 80 {
			t.Fatalf("%d columns without a terminal, want 80", width)
		}
		inExamples := false
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if line != "" && line[0] != ' ' {
				inExamples = line == "Examples:"
			}
			// A list of URLs cannot be wrapped.
			if n := utf8.RuneCountInString(line); n > 80 && !inExamples || n > 90 {
				t.Errorf("%s: %d columns: %s", c.CommandPath(), n, line)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || strings.Count(out.String(), "--"+f.Name) > 0 {
				return
			}
			t.Errorf("%s: help does not show --%s", c.CommandPath(), f.Name)
		})
	})
}
