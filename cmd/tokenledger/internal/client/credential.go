package client

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/ops/datadir"
)

// maxSecret is longer than any secret, including those of old systems.
const maxSecret = 4 << 10

// nearSecret matches a secret that was cut off or mistyped, so that its checksum
// no longer identifies it. Most of it is still secret.
var nearSecret = regexp.MustCompile(`tl[usxi]_[0-9A-Za-z]{20}`)

// digest matches a run of hexadecimal characters that is longer than a secret of
// that format, for example in the name of a folder.
var digest = regexp.MustCompile(`[0-9a-f]{33,}`)

// HoldsSecret reports whether s contains text that looks like a secret.
func HoldsSecret(s string) bool {
	return nearSecret.MatchString(s) || events.LooksSecret(digest.ReplaceAllString(s, " "))
}

// rootToken returns the file with the data folder's token, empty if there is none.
func (cfg *Config) rootToken() string {
	if cfg.DataDir == "" {
		return ""
	}
	path := filepath.Join(cfg.DataDir, datadir.RootToken)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// tokenFile returns the file that the command or its context names, empty for none.
func (cfg *Config) tokenFile() string {
	if cfg.TokenFile != "" {
		return cfg.TokenFile
	}
	return cfg.Context.TokenFile
}

// credential reads the secret of the caller's own token, and says where it is
// from.
func (cfg *Config) credential(ctx context.Context) (secret, from string, err error) {
	path := cfg.tokenFile()
	if path == "-" {
		secret, err := ReadSecret(ctx, cfg.Input)
		return secret, "standard input", err
	}
	if HoldsSecret(path) {
		return "", "", exit.Inputf(
			"--token-file takes the name of a file, not the secret itself. Treat the secret as leaked",
		)
	}
	noCredential := func(format string, args ...any) error {
		return exit.Failf(exit.NotAllowed, "credential", format, args...)
	}
	switch {
	case path == "" && cfg.DataDir == "":
		return "", "", noCredential("there is no token to send. Name a file with your token (--token-file), name the " +
			"data folder of the ledger (--data), or run 'tokenledger login'")
	case path == "":
		path = filepath.Join(cfg.DataDir, datadir.RootToken)
	}

	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && cfg.tokenFile() == "" {
		return "", "", noCredential("there is no token to send: %s does not exist. Name a file with your token "+
			"(--token-file), name the data folder of the ledger (--data), or run 'tokenledger login'", path)
	}
	if err != nil {
		return "", "", noCredential("cannot read the token file %s: %s", path, exit.Cause(err, path))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", "", noCredential("cannot read the token file %s: %s", path, exit.Cause(err, path))
	}
	if kind := notAFile(info); kind != "" {
		return "", "", noCredential("the token file %s is %s; name a file that holds the token, or - for standard input", path, kind)
	}
	if err := cfg.secretRule().Check(path, info); err != nil {
		return "", "", noCredential("the token file %s is exposed: %s. Run chmod 600 on it, and rotate the token if "+
			"somebody may have read it; or add --allow-insecure-file-mode", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", "", noCredential("cannot read the token file %s: %s", path, exit.Cause(err, path))
	}
	secret, err = parseSecret(string(b))
	if err != nil {
		return "", "", noCredential("the token file %s %s", path, err)
	}
	return secret, path, nil
}

// notAFile returns what stands at a path where a file is expected, empty for a file
// or a pipe.
func notAFile(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "a directory"
	case info.Mode()&fs.ModeDevice != 0:
		return "a device"
	}
	return ""
}

// secretRule says which files with secrets are read.
func (cfg *Config) secretRule() disk.SecretRule {
	return disk.SecretRule{AnyMode: cfg.AnyFileMode, Warn: func(path string, exposed *disk.ExposedError) {
		cfg.Warn("tokenledger: %s is exposed: %s.", path, exposed)
	}}
}

// ReadSecret reads a secret from standard input: a line without echo if that is
// a terminal, or else all of it.
func ReadSecret(ctx context.Context, in *term.Input) (string, error) {
	var text string
	if in.Terminal() != nil {
		var err error
		if text, err = in.Ask(ctx, "secret"); err != nil {
			return "", err
		}
	} else {
		b, err := term.Interruptible(ctx, func() ([]byte, error) {
			return io.ReadAll(io.LimitReader(in.Stdin, maxSecret+1))
		})
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			return "", exit.Inputf("cannot read a secret from standard input: %s", exit.Cause(err))
		}
		text = string(b)
	}
	secret, err := parseSecret(text)
	if err != nil {
		return "", exit.Inputf("standard input %s", err)
	}
	return secret, nil
}

// parseSecret removes one trailing newline, and refuses text that cannot be
// sent. Its errors repeat nothing of s.
func parseSecret(s string) (string, error) {
	tooLong := len(s) > maxSecret
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	switch {
	case s == "":
		return "", errors.New("is empty; it must hold one secret")
	case tooLong,
		!utf8.ValidString(s),
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || render.Unprintable(r) }):
		return "", errors.New("must hold one secret on one line, and nothing else")
	}
	return s, nil
}
