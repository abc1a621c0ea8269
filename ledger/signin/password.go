package signin

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/tokenledger/tokenledger/ledger"
)

// Bounds of a password, in code points (NIST SP 800-63B-4 section 3.1.1.2).
const (
	MinPassword = 15
	MaxPassword = 128
)

// maxPasswordBytes bounds what is looked at: as many code points have no more
// bytes.
const maxPasswordBytes = MaxPassword * utf8.UTFMax

// prepare returns the bytes of a password that are hashed, so that what is typed
// on another keyboard or system is the same (RFC 8265 section 4.2.2). It refuses
// what can be nobody's password.
func prepare(field string, password []byte) ([]byte, error) {
	refuse := func(format string, args ...any) ([]byte, error) {
		return nil, &ledger.FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(password) == 0:
		return refuse("is required")
	case len(password) > maxPasswordBytes, utf8.RuneCount(password) > MaxPassword:
		return refuse("has more than %d characters", MaxPassword)
	case !utf8.Valid(password):
		return refuse("is not UTF-8")
	}
	out := make([]byte, 0, len(password))
	for _, r := range string(password) {
		switch {
		case unicode.Is(unicode.Zs, r):
			r = ' '
		case !unicode.IsPrint(r):
			return refuse("has a character that cannot be printed")
		}
		out = utf8.AppendRune(out, r)
	}
	return norm.NFC.Bytes(out), nil
}

// choose is prepare for a new password, which has to be a good one. The login is
// whose password it will be.
func choose(field string, password []byte, login string) ([]byte, error) {
	p, err := prepare(field, password)
	if err != nil {
		return nil, err
	}
	if why := weakness(string(p), login); why != "" {
		return nil, &ledger.FieldError{Field: field, Problem: why}
	}
	return p, nil
}

// weakness says what is wrong with a password, empty where nothing is. It repeats
// nothing of it.
func weakness(password, login string) string {
	folded := fold(password)
	names := []string{"tokenledger"}
	if login = fold(login); len(login) >= shortestName {
		names = append(names, login)
		if local, _, mail := strings.Cut(login, "@"); mail && len(local) >= shortestName {
			names = append(names, local)
		}
	}
	switch n := utf8.RuneCountInString(password); {
	case n < MinPassword:
		return fmt.Sprintf("has %d characters, and %d are the least; a few words that do not belong together are easy to remember", n, MinPassword)
	case n > MaxPassword: // normalisation can make more of them
		return fmt.Sprintf("has more than %d characters", MaxPassword)
	}
	for _, name := range names {
		if strings.Contains(folded, name) || strings.Contains(unleet(folded), name) {
			return "contains the login or the name of this program"
		}
	}
	switch {
	case repeats(folded):
		return "repeats itself; choose something longer that does not"
	case uncommon(folded, login) < leastUncommon:
		return "is common, or made of little else than common words, years and rows of keys; choose words that others would not"
	}
	return ""
}

// shortestName is the shortest login that a password must not contain. Shorter
// ones stand in many words, and count as common.
const shortestName = 4

// fold makes letters that differ in case the same.
func fold(s string) string { return strings.ToLower(s) }

// repeats reports whether a text is a short one over and over, or of few
// different characters.
func repeats(s string) bool {
	const fewest, longestUnit = 5, 8
	runes := []rune(s)
	different := map[rune]bool{}
	for _, r := range runes {
		different[r] = true
	}
	if len(different) < fewest {
		return true
	}
	for unit := 1; unit <= longestUnit && 2*unit <= len(runes); unit++ {
		same := true
		for i := unit; i < len(runes) && same; i++ {
			same = runes[i] == runes[i-unit]
		}
		if same {
			return true
		}
	}
	return false
}
