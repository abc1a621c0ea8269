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
	read := e.line
	if f := e.terminal(); f != nil {
		before, err := term.GetState(int(f.Fd()))
		if err != nil {
			return "", err
		}
		defer term.Restore(int(f.Fd()), before) // an interrupt leaves the echo off
		_, _ = io.WriteString(e.stderr, strings.ToUpper(what[:1])+what[1:]+": ")
		defer io.WriteString(e.stderr, "\n")
		read = func() (string, error) {
			b, err := term.ReadPassword(int(f.Fd()))
			return string(b), err
		}
	}
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() { // a read cannot be interrupted; the program ends instead
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-done:
		switch {
		case r.err != nil && !errors.Is(r.err, io.EOF):
			return "", inputf("cannot read the %s from standard input: %s", what, plain(r.err))
		case r.text == "":
			return "", inputf("standard input has no line with the %s", what)
		}
		return r.text, nil
	}
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
