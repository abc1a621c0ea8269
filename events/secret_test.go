package events_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// Secrets that no token has.
const (
	goodBody   = "tlu_7Gk2pQ9sXw4Zr1Bt6Vn8Yc3Md5Hf0Lja"
	goodHex    = "0123456789abcdef0123456789abcdef"
	goodSecret = goodBody + "2ggmXU"
)

func TestGoodSecret(t *testing.T) {
	if want := goodBody + eventstest.Checksum(goodBody); goodSecret != want {
		t.Fatalf("the checksum of %s makes it %s", goodSecret, want)
	}
}

// TestSecretSyntax checks valid and invalid secrets.
func TestSecretSyntax(t *testing.T) {
	format := events.DefaultFormat
	other, err := events.NewFormat("acme")
	if err != nil {
		t.Fatal(err)
	}
	good := goodSecret
	sum := func(body string) string { return body + eventstest.Checksum(body) }
	swapCase := func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 32
		}
		if r >= 'A' && r <= 'Z' {
			return r + 32
		}
		return r
	}
	tests := []struct {
		what string
		in   string
		want bool
	}{
		{"good", good, true},
		{"good, of a service account", sum("tls_" + goodBody[4:]), true},
		{"good, of the old form", goodHex, true},

		{"1 empty", "", false},
		{"2 prefix only", "tlu_", false},
		{"3 wrong prefix", "xyz_" + good[4:], false},
		{"3 wrong prefix, right checksum", sum("xyz_" + goodBody[4:]), false},
		{"3 no prefix", good[4:], false},
		{"3 prefix without its underscore", "tlu" + good[4:], false},
		{"4 prefix of the other kind", "tls_" + good[4:], false},
		{"5 no checksum", goodBody, false},
		{"6 bad checksum", goodBody + "000000", false},
		{"7 one character changed", good[:10] + "A" + good[11:], false},
		{"8 swapped characters", good[:8] + good[9:10] + good[8:9] + good[10:], false},
		{"9 lower case", strings.ToLower(good), false},
		{"9 upper case", strings.ToUpper(good), false},
		{"9 swapped case after the prefix", "tlu_" + strings.Map(swapCase, good[4:]), false},
		{"9 old form in upper case", strings.ToUpper(goodHex), false},
		{"10 one character short", good[:len(good)-1], false},
		{"10 one character short, right checksum", sum(goodBody[:len(goodBody)-1]), false},
		{"10 old form, one short", goodHex[1:], false},
		{"11 one character long", good + "0", false},
		{"11 one character long, right checksum", sum(goodBody + "0"), false},
		{"11 old form, one long", goodHex + "0", false},
		{"12 a mebibyte", strings.Repeat("a", 1<<20), false},
		{"12 a mebibyte after the prefix", sum("tlu_" + strings.Repeat("a", 1<<20)), false},
		{"13 NUL inside", good[:20] + "\x00" + good[21:], false},
		{"13 NUL at the end", good + "\x00", false},
		{"13 NUL inside, right checksum", sum(goodBody[:20] + "\x00" + goodBody[21:]), false},
		{"14 CR LF at the end", good + "\r\n", false},
		{"14 LF inside, right checksum", sum(goodBody[:20] + "\n" + goodBody[21:]), false},
		{"15 leading space", " " + good, false},
		{"15 trailing space", good + " ", false},
		{"15 trailing tab", good + "\t", false},
		{"16 fullwidth digit", strings.Replace(good, "7", "７", 1), false},
		{"16 Cyrillic letter of the same look", strings.Replace(good, "c", "с", 1), false},
		{"16 Turkish dotless i in the prefix", "tlı_" + good[4:], false},
		{"17 invalid UTF-8", good[:20] + "\xff" + good[21:], false},
		{"17 invalid UTF-8, right checksum", sum(goodBody[:20] + "\xff" + goodBody[21:]), false},
		{"18 overlong UTF-8", good[:20] + "\xc0\xaf" + good[22:], false},
		{"19 byte order mark", "\ufeff" + good, false},
		{"20 percent-encoded", strings.Replace(good, "_", "%5F", 1), false},
		{"20 percent-encoded letter", good[:20] + "%41" + good[21:], false},
		{"21 quoted", `"` + good + `"`, false},
		{"21 two joined by a comma", good + "," + good, false},
		{"21 two joined by nothing", good + good, false},
		{"22 token's id", goldenToken, false},
		{"22 token's id without its prefix", goldenToken[4:], false},
		{"23 SHA-256 instead of secret", hex.EncodeToString(make([]byte, 32)), false},
		{"24 no entropy, right checksum", sum("tlu_" + strings.Repeat("0", 32)), true}, // well-formed, but not secret
		{"25 of another ledger", other.NewSecret(events.UserAccount).Reveal(), false},
		{"25 of another ledger under this prefix", "tlu_" + strings.TrimPrefix(other.NewSecret(events.UserAccount).Reveal(), "acmeu_"), false},
	}
	for _, tt := range tests {
		if tt.want != format.Shape(tt.in) {
			t.Errorf("%s: Shape = %t, want %t", tt.what, !tt.want, tt.want)
		}
		secret, err := format.ParseSecret(tt.in)
		digest, ok := format.DigestOf(tt.in)
		if !tt.want {
			if !errors.Is(err, events.ErrBadSecret) || err.Error() != events.ErrBadSecret.Error() {
				t.Errorf("%s: ParseSecret = %v, want ErrBadSecret and no more", tt.what, err)
			}
			if ok || digest != (events.Digest{}) || secret.Reveal() != "" {
				t.Errorf("%s: a refused secret gave something", tt.what)
			}
			continue
		}
		if err != nil || secret.Reveal() != tt.in {
			t.Errorf("%s: ParseSecret: %v", tt.what, err)
			continue
		}
		if want := events.Digest(sha256.Sum256([]byte(tt.in))); !ok || digest != want || secret.Digest() != want {
			t.Errorf("%s: a digest is not the SHA-256 of the whole secret", tt.what)
		}
	}
}

// TestChecksumFindsTypingErrors tries every secret with one typing error.
func TestChecksumFindsTypingErrors(t *testing.T) {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	good := events.DefaultFormat.NewSecret(events.UserAccount).Reveal()
	for i := 4; i < len(good); i++ {
		for _, c := range []byte(alphabet) {
			if c == good[i] {
				continue
			}
			if wrong := good[:i] + string(c) + good[i+1:]; events.DefaultFormat.Shape(wrong) {
				t.Errorf("Shape accepts a secret with another character at %d", i)
			}
		}
		if i+1 < len(good) && good[i] != good[i+1] {
			if wrong := good[:i] + good[i+1:i+2] + good[i:i+1] + good[i+2:]; events.DefaultFormat.Shape(wrong) {
				t.Errorf("Shape accepts a secret with the characters at %d and %d swapped", i, i+1)
			}
		}
	}
}

func TestNewFormat(t *testing.T) {
	for _, stem := range []string{"ac", "acme", "a1", "abcdefghij"} {
		f, err := events.NewFormat(stem)
		if err != nil {
			t.Errorf("NewFormat(%q): %v", stem, err)
			continue
		}
		for _, kind := range []events.AccountKind{events.UserAccount, events.ServiceAccount} {
			s := f.NewSecret(kind).Reveal()
			if !f.Shape(s) || events.DefaultFormat.Shape(s) || !events.LooksSecret(s) {
				t.Errorf("a secret of %q: shaped like its own %t, like the default's %t, like any %t; want true, false, true",
					stem, f.Shape(s), events.DefaultFormat.Shape(s), events.LooksSecret(s))
			}
			if _, ok := f.DigestOf(s); !ok {
				t.Errorf("a secret of %q has no digest", stem)
			}
		}
		if !f.Shape(events.NewHexSecret().Reveal()) {
			t.Errorf("the format of %q refuses the old form", stem)
		}
	}
	for _, stem := range []string{"", "a", "Acme", "1a", "a_b", "a-b", "abcdefghijk", "é", goodSecret} {
		if _, err := events.NewFormat(stem); err == nil || strings.Contains(err.Error(), goodSecret) {
			t.Errorf("NewFormat(%q) = %v, want an error that does not repeat a secret", stem, err)
		}
	}
}

// TestSecretsAreRandom fails by chance less than once in 10^12 runs.
func TestSecretsAreRandom(t *testing.T) {
	const n = 2000
	for _, tt := range []struct {
		what   string
		letter int // in the alphabet
		random func() string
	}{
		{"user's", 62, func() string { return events.DefaultFormat.NewSecret(events.UserAccount).Reveal()[4:36] }},
		{"service account's", 62, func() string { return events.DefaultFormat.NewSecret(events.ServiceAccount).Reveal()[4:36] }},
		{"old form's", 16, func() string { return events.NewHexSecret().Reveal() }},
	} {
		seen := map[string]bool{}
		counts := map[rune]int{}
		for range n {
			s := tt.random()
			if seen[s] {
				t.Fatalf("%s: a secret came twice", tt.what)
			}
			seen[s] = true
			for _, c := range s {
				counts[c]++
			}
		}
		if len(counts) != tt.letter {
			t.Errorf("%s: %d different characters, want %d", tt.what, len(counts), tt.letter)
		}
		want := float64(n*32) / float64(tt.letter)
		var chi2 float64
		for _, c := range counts {
			chi2 += (float64(c) - want) * (float64(c) - want) / want
		}
		// Its mean is the degrees of freedom, its variance twice that.
		freedom := float64(tt.letter - 1)
		if most := freedom + 10*math.Sqrt(2*freedom); chi2 > most {
			t.Errorf("%s: chi-squared of the characters is %.0f, and %.0f is the most expected", tt.what, chi2, most)
		}
	}
}

func TestShapeDoesNotAllocate(t *testing.T) {
	service := events.DefaultFormat.NewSecret(events.ServiceAccount).Reveal()
	garbage := strings.Repeat("x", 4096)
	for what, s := range map[string]string{
		"good": goodSecret, "service account's": service, "old form": goodHex, "bad checksum": goodBody + "000000", "garbage": garbage,
	} {
		if n := testing.AllocsPerRun(100, func() { events.DefaultFormat.Shape(s) }); n != 0 {
			t.Errorf("Shape(%s) allocates %v times", what, n)
		}
		if n := testing.AllocsPerRun(100, func() { events.DefaultFormat.DigestOf(s) }); n != 0 {
			t.Errorf("DigestOf(%s) allocates %v times", what, n)
		}
		if n := testing.AllocsPerRun(100, func() { events.LooksSecret(s) }); n != 0 {
			t.Errorf("LooksSecret(%s) allocates %v times", what, n)
		}
	}
}

// traces returns texts that show a part of b in a formatted value.
func traces(b []byte) []string {
	part := b[4:12] // after the prefix, which is not secret
	list := strings.Trim(fmt.Sprint(part), "[]")
	goList := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}")
	out := []string{
		hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		fmt.Sprintf("% x", part), fmt.Sprintf("% X", part), list, goList, strings.ReplaceAll(list, " ", ","), fmt.Sprintf("%o", part)[1:10],
	}
	if utf8.Valid(part) {
		out = append(out, string(part))
	}
	return out
}

type open struct {
	S events.Secret
	D events.Digest
}

type closed struct{ s events.Secret }

func TestNothingPrintsASecret(t *testing.T) {
	secret := events.DefaultFormat.NewSecret(events.UserAccount)
	digest := secret.Digest()
	marks := append(traces([]byte(secret.Reveal())), traces(digest[:])...)
	check := func(how, printed string) {
		t.Helper()
		for _, mark := range marks {
			if strings.Contains(printed, mark) {
				t.Errorf("%s prints some of it: %s", how, printed)
			}
		}
	}
	holdsDigest := func(name string) bool { return strings.Contains(name, "digest") }
	values := map[string]any{
		"secret": secret, "pointer to a secret": &secret, "list": []events.Secret{secret}, "map": map[string]events.Secret{"a": secret},
		"map's key": map[events.Secret]int{secret: 1}, "array": [1]events.Secret{secret}, "interface": []any{secret},
		"fields with a digest": open{secret, digest}, "pointer to fields with a digest": &open{secret, digest},
		"unexported field": closed{secret}, "pointer to an unexported field": &closed{secret}, "nested": []any{[]closed{{secret}}},
		"digest": digest, "pointer to a digest": &digest, "digests": []events.Digest{digest}, "map by digest": map[events.Digest]bool{digest: true},
	}
	for name, v := range values {
		for c := rune('A'); c <= 'z'; c++ {
			for _, flags := range []string{"", "+", "#", " ", "0", "-8", ".2", "+#", "# "} {
				verb := "%" + flags + string(c)
				if holdsDigest(name) && (c == 'p' || c == 'w') {
					continue // fmt calls no method there
				}
				check(fmt.Sprintf("%s of %s", verb, name), fmt.Sprintf(verb, v))
			}
		}
		check("Println of "+name, fmt.Sprintln(v))
		for _, wrong := range []string{"", "%", "%[2]d", "%*d", "%.*d", "%!"} {
			check(fmt.Sprintf("%q of %s", wrong, name), fmt.Sprintf(wrong, v, v))
		}
		for handler, log := range map[string]func(*bytes.Buffer) slog.Handler{
			"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		} {
			var b bytes.Buffer
			if handler == "JSON" && holdsDigest(name) && name != "digest" {
				continue // JSON has the digest, because events store it
			}
			slog.New(log(&b)).With("with", v).Info("message", "attr", v, slog.Group("group", "in", v))
			check(fmt.Sprintf("slog's %s handler of %s", handler, name), b.String())
		}
	}
	for name, v := range map[string]any{"secret": secret, "list": []events.Secret{secret}, "key": map[events.Secret]int{secret: 1}, "field": closed{secret}} {
		check("json.Marshal of "+name, string(mustJSON(t, v)))
	}
	check("an error", fmt.Errorf("create %v: %w", secret, errors.New("no")).Error())
	check("panic's value", fmt.Sprint(any(secret)))

	if got := fmt.Sprintf("%s %v %q %x %#v", secret, &secret, secret, secret, secret); got != "[secret] [secret] [secret] [secret] [secret]" {
		t.Errorf("a secret prints as %s", got)
	}
	if got := fmt.Sprintf("%s %v %x", digest, &digest, digest); got != "[digest] [digest] [digest]" {
		t.Errorf("a digest prints as %s", got)
	}
	if got := string(mustJSON(t, secret)); got != `"[secret]"` {
		t.Errorf("a secret as JSON is %s", got)
	}
	if got := (events.Secret{}).Reveal(); got != "" {
		t.Errorf("no secret reveals %q", got)
	}
}

// TestTracesAreSeen checks that traces finds secrets.
func TestTracesAreSeen(t *testing.T) {
	b := []byte(goodSecret)
	for _, verb := range []string{"%s", "%q", "%v", "%d", "%x", "%X", "% x", "%#v"} {
		printed, found := fmt.Sprintf(verb, b), false
		for _, mark := range traces(b) {
			found = found || strings.Contains(printed, mark)
		}
		if !found {
			t.Errorf("nothing found in %s of bytes: %s", verb, printed)
		}
	}
}

func TestDigestText(t *testing.T) {
	want := goldenSecret(7).Digest
	text, err := want.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var got events.Digest
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("UnmarshalText(MarshalText) = %x, %v", got[:], err)
	}
	for _, bad := range []string{"", "00", string(text[1:]), string(text) + "0", strings.ToUpper(string(text)), "g" + string(text[1:]), " " + string(text[1:])} {
		var d events.Digest
		if err := d.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("UnmarshalText(%q) did not refuse", bad)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad[1:8]) {
			t.Errorf("UnmarshalText's error repeats its input: %v", err)
		}
	}
	var holder struct {
		D events.Digest `json:"d"`
	}
	holder.D = want
	b := mustJSON(t, holder)
	holder.D = events.Digest{}
	if err := json.Unmarshal(b, &holder); err != nil || holder.D != want {
		t.Errorf("a digest does not survive JSON: %v", err)
	}
}

func TestLooksSecret(t *testing.T) {
	long, err := events.NewFormat("abcdefghij")
	if err != nil {
		t.Fatal(err)
	}
	longest := long.NewSecret(events.ServiceAccount).Reveal()
	for _, s := range []string{
		goodSecret, "token_auth=" + goodSecret, goodSecret + "&x=1", "x" + goodSecret, "tl_u_" + goodSecret, "(" + goodSecret + ")",
		strings.Repeat("_", 100) + goodSecret, strings.Repeat("a_", 500) + goodSecret + strings.Repeat("_b", 500), longest, "a/" + longest + "/b",
		goodHex, "x" + goodHex, goodHex + "zzz", goodHex + goodHex, "g" + goodHex + "g", "tls_" + goodSecret[4:] + goodSecret, goodSecret + goodSecret,
	} {
		if !events.LooksSecret(s) {
			t.Errorf("LooksSecret(%.60q) = false", s)
		}
		if got := events.Quote(s); got != "[secret]" {
			t.Errorf("Quote(%.60q) = %s", s, got)
		}
	}
	for _, s := range []string{
		"", "view:site/3", goldenToken, goldenEvent, goodBody, goodHex[1:], strings.ToUpper(goodHex), goodBody + "000000",
		"192.0.2.7", strings.Repeat("_", 100), strings.Repeat("z_", 100), "https://example.org/a_b_c",
	} {
		if events.LooksSecret(s) {
			t.Errorf("LooksSecret(%q) = true", s)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", `""`},
		{"view", `"view"`},
		{"a\nb", `"a\nb"`},
		{"a\x00\xff", `"a\x00\xff"`},
		{"\u202e", `"\u202e"`},
		{strings.Repeat("x", 80), `"` + strings.Repeat("x", 80) + `"`},
		{strings.Repeat("x", 81), `"` + strings.Repeat("x", 80) + `"...`},
	} {
		if got := events.Quote(tt.in); got != tt.want {
			t.Errorf("Quote(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
	// The part beyond the limit counts too.
	if got := events.Quote(strings.Repeat("x ", 50) + goodSecret); got != "[secret]" {
		t.Errorf("Quote of a secret at the end = %s", got)
	}
}
