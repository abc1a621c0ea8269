package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"
)

// rootFile is the name of the first credential in the data folder.
const rootFile = "root.token"

// longestSecret is more than any secret has, old systems' included.
const longestSecret = 4 << 10

// credential reads the secret of the caller's own token, and says where from.
func (e *env) credential(ctx context.Context) (secret, from string, err error) {
	path := string(e.tokenFile)
	if path == "-" {
		secret, err := e.readSecret(ctx)
		return secret, "standard input", err
	}
	if holdsSecret(path) {
		return "", "", inputf("--token-file takes the name of a file, not the secret itself; treat that as leaked")
	}
	noCredential := func(format string, args ...any) error {
		return failf(exitNotAllowed, "credential", format, args...)
	}
	switch {
	case path == "" && e.dataDir == "":
		return "", "", noCredential("there is no token to send: name a file that holds yours with --token-file, or the data folder of the ledger with --data")
	case path == "":
		path = filepath.Join(string(e.dataDir), rootFile)
	}

	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && e.tokenFile == "" {
		return "", "", noCredential("there is no token to send: %s does not exist; name a file that holds yours with --token-file, or the data folder of the ledger with --data", path)
	}
	if err != nil {
		return "", "", noCredential("cannot read the token file %s: %s", path, plain(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", "", noCredential("cannot read the token file %s: %s", path, plain(err))
	}
	const others = 0o077
	if mode := info.Mode(); mode.Perm()&others != 0 && runtime.GOOS != "windows" {
		return "", "", noCredential("others may read the token file %s (its mode is %04o): chmod 600 it, and rotate the token if they may have", path, mode.Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, longestSecret+1))
	if err != nil {
		return "", "", noCredential("cannot read the token file %s: %s", path, plain(err))
	}
	secret, err = parseSecret(string(b))
	if err != nil {
		return "", "", noCredential("the token file %s %s", path, err)
	}
	return secret, path, nil
}

// readSecret reads a secret from standard input: a line without echo where that
// is a terminal, and else all that there is.
func (e *env) readSecret(ctx context.Context) (string, error) {
	var text string
	if e.terminal() != nil {
		var err error
		if text, err = e.ask(ctx, "secret"); err != nil {
			return "", err
		}
	} else {
		b, err := interruptible(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(e.stdin, longestSecret+1)) })
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			return "", inputf("cannot read a secret from standard input: %s", plain(err))
		}
		text = string(b)
	}
	secret, err := parseSecret(text)
	if err != nil {
		return "", inputf("standard input %s", err)
	}
	return secret, nil
}

// parseSecret takes one trailing newline away, and refuses what cannot be sent.
// Its errors repeat nothing of s.
func parseSecret(s string) (string, error) {
	tooLong := len(s) > longestSecret
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	switch {
	case s == "":
		return "", errors.New("holds no secret; it is empty")
	case tooLong, !utf8.ValidString(s), strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || unprintable(r) }):
		return "", errors.New("holds something else than one secret on one line")
	}
	return s, nil
}
