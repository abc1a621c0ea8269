package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
	"github.com/tokenledger/tokenledger/events"
)

// scopesFile is a flag that names a file of scopes: one a line or separated by
// commas or spaces, with comments from # to the end of a line.
type scopesFile struct {
	flag string
	path string
}

func (f *scopesFile) declare(flags *pflag.FlagSet, flag, help string) {
	f.flag = flag
	flags.StringVar(&f.path, flag, "", help)
}

// maxScopesFile is the size of the largest file that is read.
const maxScopesFile = 4 << 20

// add returns a list with the scopes of the file, each once. Without the flag it
// returns the list.
func (f *scopesFile) add(ctx context.Context, e *env, list []string) ([]string, error) {
	if f.path == "" {
		return list, nil
	}
	text, name, err := f.read(ctx, e)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, s := range list {
		seen[s] = true
	}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for _, s := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(", \t\r", r) }) {
			if _, err := events.ParseScope(s); err != nil {
				return nil, exit.Inputf("--%s: %s, line %d: %s", f.flag, name, i+1, err)
			}
			if !seen[s] {
				seen[s] = true
				list = append(list, s)
			}
		}
	}
	switch {
	case len(seen) == 0:
		return nil, exit.Inputf("--%s: %s lists no scopes", f.flag, name)
	case len(list) > events.MaxScopes:
		return nil, exit.Inputf("--%s: %d scopes; the maximum is %d", f.flag, len(list), events.MaxScopes)
	}
	return list, nil
}

// read returns the text of the file, and what to call it.
func (f *scopesFile) read(ctx context.Context, e *env) (text, name string, err error) {
	name = f.path
	in := io.Reader(nil)
	switch {
	case f.path == "-" && e.tokenFile == "-":
		return "", "", exit.Inputf("--%s and --token-file cannot both read standard input", f.flag)
	case f.path == "-" && e.input.Terminal() != nil:
		return "", "", exit.Inputf("--%s - reads standard input, which is a terminal: give it a file, or a pipe", f.flag)
	case f.path == "-":
		in, name = e.input.Stdin, "standard input"
	default:
		file, err := os.Open(f.path)
		if err != nil {
			return "", "", exit.Inputf("--%s: cannot read %s: %s", f.flag, f.path, exit.Cause(err, f.path))
		}
		defer file.Close()
		in = file
	}
	b, err := term.Interruptible(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, maxScopesFile+1)) })
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	if err == nil && len(b) > maxScopesFile {
		err = errors.New("it has more than 4 MiB")
	}
	if err != nil {
		return "", "", exit.Inputf("--%s: cannot read %s: %s", f.flag, name, exit.Cause(err, name))
	}
	return string(b), name, nil
}

// mostListed is how many items of a list are printed for people.
const mostListed = 12

// scopesText prints scopes for people. A long list is cut and counted, unless the
// output is wide.
func (e *env) scopesText(list []string, none string) string {
	switch n := len(list); {
	case n == 0:
		return none
	case n > mostListed+1 && e.Format != "wide":
		return fmt.Sprintf("%s and %d more (%d in all; -o json lists them)", strings.Join(list[:mostListed], ", "), n-mostListed, n)
	}
	return strings.Join(list, ", ")
}

// takesMore checks for one argument or more, of which the others are optional.
func takesMore(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error { return takes(name)(c, args[:min(1, len(args))]) }
}
