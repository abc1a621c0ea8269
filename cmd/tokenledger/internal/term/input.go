// Package term reads what people type: secrets without echo at a terminal, or
// lines of standard input in a script. Reads end with their context.
package term

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

// maxLine is longer than any password, code or invitation, in bytes.
const maxLine = 4 << 10

// An Input is standard input, and where its prompts go.
type Input struct {
	Stdin   io.Reader
	Prompts io.Writer

	lines *bufio.Reader // of Stdin, once a line was read
}

// Terminal returns standard input if it is a terminal, else nil.
func (in *Input) Terminal() *os.File {
	if f, ok := in.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// IsTerminal reports whether what a command writes to w is seen at a terminal.
func IsTerminal(w io.Writer) bool {
	switch f := w.(type) {
	case *os.File:
		return term.IsTerminal(int(f.Fd()))
	case interface{ IsTerminal() bool }:
		return f.IsTerminal()
	}
	return false
}

// maxWidth keeps lines of prose readable on wide terminals.
const maxWidth = 100

// Width returns the columns that text for w may use: those of its terminal, up to
// 100, or 80 if it is no terminal.
func Width(w io.Writer) int {
	const usual = 80
	f, ok := w.(*os.File)
	if !ok {
		return usual
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		return usual
	}
	return min(columns, maxWidth)
}

// Columns returns the columns of the terminal that w is, 0 if it is none. A number
// in the environment variable COLUMNS, which is given, comes first.
func Columns(w io.Writer, given string) int {
	if !IsTerminal(w) {
		return 0
	}
	if n, err := strconv.Atoi(given); err == nil && n > 0 {
		return n
	}
	const usual = 80
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return usual
}

// Ask reads one secret value: from the terminal without echo, or else the next
// line of standard input. The prompt and the errors call it what.
func (in *Input) Ask(ctx context.Context, what string) (string, error) {
	f := in.Terminal()
	if f != nil {
		show, err := hideTyping(f)
		if err != nil {
			return "", exit.Inputf(
				"cannot turn off the echo of this terminal to ask for the %s: %s",
				what,
				exit.Cause(err),
			)
		}
		defer show()
		// From here on nothing that is typed is shown, however fast.
		_, _ = io.WriteString(in.Prompts, strings.ToUpper(what[:1])+what[1:]+": ")
		defer io.WriteString(in.Prompts, "\n")
	}
	return in.readAnswer(ctx, what)
}

// AskShown reads one value that is no secret, as [Input.Ask] does. At a terminal the
// person sees what they type.
func (in *Input) AskShown(ctx context.Context, what string) (string, error) {
	if in.Terminal() != nil {
		_, _ = io.WriteString(in.Prompts, strings.ToUpper(what[:1])+what[1:]+": ")
	}
	text, err := in.readAnswer(ctx, what)
	if err != nil && in.Terminal() != nil {
		_, _ = io.WriteString(in.Prompts, "\n") // the person has not ended the line
	}
	return text, err
}

// readAnswer reads the line that a person or a script gives for what.
func (in *Input) readAnswer(ctx context.Context, what string) (string, error) {
	text, err := Interruptible(ctx, in.Line)
	if in.Terminal() != nil {
		text = applyBackspaces(text)
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && !errors.Is(err, io.EOF):
		return "", exit.Inputf("cannot read the %s from standard input: %s", what, exit.Cause(err))
	case text == "":
		return "", exit.Inputf("no %s was given on standard input", what)
	}
	return text, nil
}

// Interruptible returns what read returns, or ctx's error as soon as ctx ends. The
// read itself then continues in the background until the program ends.
func Interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		got T
		err error
	}
	done := make(chan result, 1)
	go func() {
		got, err := read()
		done <- result{got, err}
	}()
	select {
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	case r := <-done:
		return r.got, r.err
	}
}

// applyBackspaces removes the character before each backspace. The terminal
// itself handles only the erase key it is configured for (^H or DEL); the other
// one arrives as a byte. (x/term.ReadPassword is not used: it reads past ^D.)
func applyBackspaces(typed string) string {
	if !strings.ContainsRune(typed, '\b') {
		return typed // whatever its bytes are
	}
	var kept []rune
	for _, r := range typed {
		switch {
		case r != '\b':
			kept = append(kept, r)
		case len(kept) > 0:
			kept = kept[:len(kept)-1]
		}
	}
	return string(kept)
}

// AskNew reads a new password. A person at a terminal types it twice.
func (in *Input) AskNew(ctx context.Context) (string, error) {
	password, err := in.Ask(ctx, "new password")
	if err != nil || in.Terminal() == nil {
		return password, err
	}
	again, err := in.Ask(ctx, "new password again")
	if err == nil && again != password {
		err = exit.Inputf("the two passwords differ; nothing was changed")
	}
	return password, err
}

// Line reads the next line of standard input.
func (in *Input) Line() (string, error) {
	if in.lines == nil {
		in.lines = bufio.NewReaderSize(in.Stdin, maxLine)
	}
	b, tooLong, err := in.lines.ReadLine()
	if tooLong {
		return "", errors.New("the line is too long")
	}
	return string(bytes.Clone(b)), err
}
