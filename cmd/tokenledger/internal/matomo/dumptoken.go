package matomo

import (
	"errors"
	"io"
	"strings"
)

// next returns the next token, and skips spaces and comments before it.
func (p *dumpReader) next() (sqlToken, error) {
	for {
		c, err := p.readByte()
		switch {
		case errors.Is(err, io.EOF):
			return sqlToken{}, nil
		case err != nil:
			return sqlToken{}, err
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case c == '#':
			if err := p.comment(false); err != nil {
				return sqlToken{}, err
			}
			continue
		case c == '-' || c == '/':
			skipped, err := p.skipComment(c)
			if err != nil {
				return sqlToken{}, err
			}
			if skipped {
				continue
			}
		}
		p.complete = false
		switch {
		case c == '\'' || c == '"':
			s, err := p.quotedText(c)
			return sqlToken{text, s}, err
		case c == '`':
			s, err := p.quotedName()
			return sqlToken{quoted, s}, err
		case isWordByte(c):
			s, err := p.word(c)
			return sqlToken{word, s}, err
		}
		return sqlToken{symbol, string(rune(c))}, nil
	}
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$' || c == '@' ||
		c == '.' || c >= 0x80
}

func (p *dumpReader) readByte() (byte, error) {
	c, err := p.in.ReadByte()
	if err == nil && c == '\n' {
		p.line++
	}
	return c, err
}

func (p *dumpReader) peekByte() (byte, error) {
	b, err := p.in.Peek(1)
	if len(b) == 0 {
		if errors.Is(err, io.EOF) {
			err = errCut
		}
		return 0, err
	}
	return b[0], nil
}

// skipComment skips a comment that begins with c, and reports whether there is one.
func (p *dumpReader) skipComment(c byte) (bool, error) {
	after, _ := p.in.Peek(2)
	switch {
	case c == '-' && len(after) > 0 && after[0] == '-' && (len(after) == 1 || after[1] <= ' '):
		return true, p.comment(true)
	case c == '/' && len(after) > 0 && after[0] == '*':
		// Also those that a server executes: mysqldump sets variables and switches
		// keys in them, and defines views and triggers.
		p.complete = false
		return true, p.blockComment()
	}
	return false, nil
}

// comment skips the rest of a line. If it began with two dashes, it notes the one
// with which a dump ends.
func (p *dumpReader) comment(dashes bool) error {
	var b strings.Builder
	for {
		c, err := p.readByte()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil || c == '\n' {
			if dashes && strings.HasPrefix(b.String(), "- Dump completed") {
				p.complete = true
			}
			return nil
		}
		const most = 64
		if b.Len() < most {
			b.WriteByte(c)
		}
	}
}

func (p *dumpReader) blockComment() error {
	last := byte(0)
	if _, err := p.readByte(); err != nil { // the asterisk
		return errCut
	}
	for {
		c, err := p.readByte()
		if errors.Is(err, io.EOF) {
			return errCut
		}
		if err != nil {
			return err
		}
		if last == '*' && c == '/' {
			return nil
		}
		last = c
	}
}

// escapes are the characters that a backslash stands for, beside itself.
var escapes = map[byte]byte{'0': 0, 'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'Z': 26}

// quotedText reads a string after its first quote. A quote in it is doubled, or has
// a backslash before it.
func (p *dumpReader) quotedText(quote byte) (string, error) {
	var b strings.Builder
	put := func(c byte) error {
		switch {
		case p.skipping:
			return nil
		case b.Len() == maxValue:
			return errors.New("a value is longer than 64 kB")
		}
		return b.WriteByte(c)
	}
	for {
		c, err := p.readByte()
		if err != nil {
			return "", cut(err)
		}
		switch c {
		case quote:
			if after, _ := p.in.Peek(1); len(after) == 0 || after[0] != quote {
				return b.String(), nil
			}
			_, _ = p.readByte()
		case '\\':
			if c, err = p.readByte(); err != nil {
				return "", cut(err)
			}
			if e, ok := escapes[c]; ok {
				c = e
			}
		}
		if err := put(c); err != nil {
			return "", err
		}
	}
}

// quotedName reads a name after its first backtick.
func (p *dumpReader) quotedName() (string, error) {
	var b strings.Builder
	for {
		c, err := p.readByte()
		if err != nil {
			return "", cut(err)
		}
		if c == '`' {
			if after, _ := p.in.Peek(1); len(after) == 0 || after[0] != '`' {
				return b.String(), nil
			}
			_, _ = p.readByte()
		}
		if b.Len() == maxValue {
			return "", errors.New("a name is longer than 64 kB")
		}
		b.WriteByte(c)
	}
}

// word reads a name, a keyword or a number.
func (p *dumpReader) word(first byte) (string, error) {
	b := []byte{first}
	for {
		after, err := p.in.Peek(1)
		if len(after) == 0 || !isWordByte(after[0]) {
			if err != nil && !errors.Is(err, io.EOF) {
				return "", err
			}
			return string(b), nil
		}
		if len(b) == maxValue {
			return "", errors.New("a word is longer than 64 kB")
		}
		_, _ = p.readByte()
		b = append(b, after[0])
	}
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return errCut
	}
	return err
}
