package matomo_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/events"
)

// TestConfig reads values in every way of quoting.
func TestConfig(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"in double quotes", `salt = "abc"`, "abc"},
		{"in single quotes", `salt = 'abc'`, "abc"},
		{"without quotes", `salt=abc`, "abc"},
		{"with a comment", `salt = "abc" ; a comment`, "abc"},
		{"without quotes, with a comment", `salt = abc;comment`, "abc"},
		{"with a semicolon", `salt = "a;b"`, "a;b"},
		{"with an equals sign", `salt = "a=b"`, "a=b"},
		{"with a hash", `salt = "#a"`, "#a"},
		{"with quotes as Matomo writes them", `salt = "a&quot;b&amp;c&lt;&#36;"`, `a"b&c<$`},
		{"with escaped quotes", `salt = "a\"b\\c"`, `a"b\c`},
		{"with another backslash", `salt = "a\nb"`, `a\nb`},
		{"with spaces", `salt = " a "`, " a "},
		{"with umlauts", `salt = "äöü&auml;"`, "äöüä"},
		{"empty", `salt = ""`, ""},
		{"with nothing", `salt =`, ""},
		{"twice", "salt = \"x\"\nsalt = \"abc\"", "abc"},
		{"like a section", `salt = "[database]"`, "[database]"},
	} {
		file := "; <?php exit; ?> DO NOT REMOVE THIS LINE\n[General]\n" + tt.line + "\n[Plugins]\nPlugins[] = \"x\nsalt = \"no\"\n[database]\ntables_prefix = \"m_\"\nsalt = \"no\"\n"
		for how, text := range map[string]string{"": file, " from Windows": strings.ReplaceAll(file, "\n", "\r\n"), " with a BOM": "\ufeff" + file} {
			c, err := matomo.ParseConfig([]byte(text))
			if err != nil {
				t.Errorf("%s%s: %v", tt.name, how, err)
				continue
			}
			if !c.HasSalt || c.SaltText() != tt.want || c.Salt.Hash("x") != events.NewMatomoSalt(tt.want).Hash("x") || c.Prefix != "m_" {
				t.Errorf("%s%s: salt %q, prefix %q; want %q", tt.name, how, c.SaltText(), c.Prefix, tt.want)
			}
			if s := fmt.Sprintf("%v %+v %s %#v", c, c, c, struct{ c *matomo.Config }{c}); tt.want != "" && len(tt.want) > 2 && strings.Contains(s, tt.want) {
				t.Errorf("%s%s: it prints as %s", tt.name, how, s)
			}
		}
	}
}

func TestConfigRefused(t *testing.T) {
	const secret = "5ecre7"
	for name, tt := range map[string]struct{ file, says string }{
		"nothing":                {"", "neither"},
		"another file":           {"<?php\nreturn ['salt' => '" + secret + "'];\n", "neither"},
		"a salt without an end":  {"[General]\nsalt = \"" + secret + "\n", "closing quote"},
		"text after the salt":    {"[General]\nsalt = \"" + secret + "\" x\n", "follows"},
		"a password without end": {"[database]\npassword = '" + secret + "\n", "closing quote"},
		"a section without end":  {"[General\nsalt = \"" + secret + "\"\n", "without ]"},
		"a prefix with SQL":      {"[database]\ntables_prefix = \"m`; DROP TABLE x; --\"\n", "prefix"},
	} {
		_, err := matomo.ParseConfig([]byte(tt.file))
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want an error that says %q", name, err, tt.says)
		}
	}
}
