package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"

	"golang.org/x/term"
)

// longestLine is more than any password, code or invitation has, in bytes.
const longestLine = 4 << 10

// terminal returns standard input where a person is at it, else nil.
func (e *env) terminal() *os.File {
	if f, ok := e.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// ask reads one thing that is not for others to see: from the terminal, without
// echo, and else as the next line of standard input.
func (e *env) ask(ctx context.Context, what string) (string, error) {
	f := e.terminal()
	if f != nil {
		show, err := hideTyping(f)
		if err != nil {
			return "", inputf("cannot ask for the %s at this terminal, which would show it: %s", what, plain(err))
		}
		defer show()
		// From here on nothing that is typed is shown, however fast.
		_, _ = io.WriteString(e.stderr, strings.ToUpper(what[:1])+what[1:]+": ")
		defer io.WriteString(e.stderr, "\n")
	}
	text, err := interruptible(ctx, e.line)
	if f != nil {
		text = rubOut(text)
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && !errors.Is(err, io.EOF):
		return "", inputf("cannot read the %s from standard input: %s", what, plain(err))
	case text == "":
		return "", inputf("standard input has no line with the %s", what)
	}
	return text, nil
}

// interruptible reads standard input, until ctx ends at most. The read itself goes
// on then, for nobody: the program ends.
func interruptible[T any](ctx context.Context, read func() (T, error)) (T, error) {
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

// rubOut takes back what was typed before a backspace. Terminals do that
// themselves, but for the one of two keys for it that they are not set to.
func rubOut(typed string) string {
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

// askNew is ask for a new password: twice, where a person types it.
func (e *env) askNew(ctx context.Context) (string, error) {
	password, err := e.ask(ctx, "new password")
	if err != nil || e.terminal() == nil {
		return password, err
	}
	again, err := e.ask(ctx, "new password again")
	if err == nil && again != password {
		err = inputf("the two passwords differ, so nothing was done")
	}
	return password, err
}

// line reads the next line of standard input.
func (e *env) line() (string, error) {
	if e.lines == nil {
		e.lines = bufio.NewReaderSize(e.stdin, longestLine)
	}
	b, tooLong, err := e.lines.ReadLine()
	if tooLong {
		return "", errors.New("the line is too long")
	}
	return string(bytes.Clone(b)), err
}

// sixDigits is a code of a second factor; no password is as short.
var sixDigits = regexp.MustCompile(`^[0-9]{3} ?[0-9]{3}$`)

// prove proves again who is there, by a password or a code.
func (c *client) prove(ctx context.Context) (*answer, error) {
	given, err := c.env.ask(ctx, "password, or code of the second factor")
	if err != nil {
		return nil, err
	}
	body := map[string]any{"password": given}
	if sixDigits.MatchString(given) {
		body = map[string]any{"code": given}
	}
	return c.send(ctx, request{method: http.MethodPost, path: []string{"v1", "session", "prove"}, body: body})
}

// do sends a request. Where the server wants a more recent proof of the person,
// and the person is there, it asks for that and sends the request once more.
func (c *client) do(ctx context.Context, r request) (*answer, error) {
	a, err := c.send(ctx, r)
	var f *failure
	if !errors.As(err, &f) || f.code != "proof_required" {
		return a, err
	}
	if c.env.terminal() == nil {
		f.text += ". Run 'tokenledger session prove' first"
		return a, err
	}
	c.env.note("tokenledger: %s.", clean(f.text))
	if _, err := c.prove(ctx); err != nil {
		return nil, err
	}
	return c.send(ctx, r)
}
