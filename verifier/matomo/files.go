package matomo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/verifier/matomo/method"
)

// Files name the files of [Settings]. An empty name means none.
type Files struct {
	Methods     string // as [method.Table.With] reads it
	Token       string // the token alone
	WidgetToken string // the token alone
}

// Load reads the files. A token's file must be one that the rule accepts. No error
// has the content of a token's file.
func (f Files) Load(rule disk.SecretRule) (s Settings, err error) {
	s.Methods = method.Builtin
	var problems []error
	if f.Methods != "" {
		text, err := readUpTo(f.Methods, method.MaxFile, nil)
		if err == nil {
			s.Methods, err = method.Builtin.With(text)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("matomo-methods %s: %w", f.Methods, err))
		}
	}
	read := func(flag, name string) string {
		if name == "" {
			return ""
		}
		const longest = 1 << 10
		text, err := readUpTo(name, longest, &rule)
		text = strings.TrimSpace(text)
		if err == nil && !isHex32(text) {
			err = errors.New("it does not hold a token of Matomo, which is 32 characters of 0-9 and a-f")
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s %s: %w", flag, name, err))
		}
		return text
	}
	s.Token = read("matomo-token-file", f.Token)
	s.WidgetToken = read("matomo-widget-token-file", f.WidgetToken)
	return s, errors.Join(problems...)
}

// readUpTo reads a file. If there is a rule, the file must be one that it accepts.
func readUpTo(name string, limit int64, rule *disk.SecretRule) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", errors.Unwrap(err) // the name is in the caller's error
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() && rule == nil:
		return "", errors.New("it is not a file")
	case rule != nil:
		if err := rule.Check(name, info); err != nil {
			return "", err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return string(b), err
}
