package matomo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// Config is the part of config.ini.php that an import needs.
type Config struct {
	Prefix string // of the tables
	// Salt is [General] salt. HasSalt tells an empty one from none.
	Salt    events.MatomoSalt
	HasSalt bool

	database map[string]string // [database], by name
	salt     secret
}

// secret is a text that fmt does not print: it does not follow a pointer to a string
// in an unexported field.
type secret struct{ text *string }

func (secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[secret]") }

// SaltText returns the salt, for the file of the nodes.
func (c *Config) SaltText() string {
	if c.salt.text == nil {
		return ""
	}
	return *c.salt.text
}

// Format hides the password and the salt.
func (*Config) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[config.ini.php]") }

// ParseConfig reads a config.ini.php. Its errors contain no values.
func ParseConfig(file []byte) (*Config, error) {
	c := &Config{database: map[string]string{}}
	section, n := "", 0
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(file, []byte("\xef\xbb\xbf"))))
	lines.Buffer(nil, len(file)+1)
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == ';' || line[0] == '#':
			continue
		case line[0] == '[':
			name, _, ok := strings.Cut(line[1:], "]")
			if !ok {
				return nil, fmt.Errorf("line %d: a section without ]", n)
			}
			section = strings.TrimSpace(name)
			continue
		case section != "database" && section != "General":
			continue // values of plugins may span lines
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		wanted := section == "database" || name == "salt"
		if !ok || !wanted {
			continue
		}
		text, err := iniValue(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("line %d: %s in section %s: %w", n, name, section, err)
		}
		if section == "database" {
			c.database[name] = text
			continue
		}
		c.HasSalt, c.salt, c.Salt = true, secret{&text}, events.NewMatomoSalt(text)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	c.Prefix = c.database["tables_prefix"]
	if len(c.database) == 0 && !c.HasSalt {
		return nil, errors.New("it has neither a section [database] nor a salt; is it Matomo's config/config.ini.php?")
	}
	if err := CheckPrefix(c.Prefix); err != nil {
		return nil, err
	}
	return c, nil
}

// iniValue returns a value as Matomo reads it. Matomo writes values in double quotes,
// and encodes quotes and other characters in them as HTML does.
func iniValue(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	quote := s[0]
	if quote != '"' && quote != '\'' {
		if i := strings.IndexByte(s, ';'); i >= 0 {
			s = strings.TrimSpace(s[:i])
		}
		return html.UnescapeString(s), nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == quote || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		case c == quote:
			rest := strings.TrimSpace(s[i+1:])
			if rest != "" && rest[0] != ';' {
				return "", errors.New("text follows the closing quote")
			}
			return html.UnescapeString(b.String()), nil
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("the closing quote is missing")
}

// CheckPrefix reports a prefix that no table of Matomo has. Prefixes become a part of
// statements.
func CheckPrefix(prefix string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	if len(prefix) > 40 || strings.Trim(prefix, allowed) != "" {
		return errors.New("the prefix of the tables has other characters than ASCII letters, digits and _")
	}
	return nil
}
