package events_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
)

// vectors are hashes that a running Matomo accepted.
type vectors struct {
	Vectors []struct{ Token, Salt, Hash string }
}

func matomoVectors(t *testing.T) vectors {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "matomo", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil || len(v.Vectors) == 0 {
		t.Fatalf("%d vectors: %v", len(v.Vectors), err)
	}
	return v
}

// TestMatomoHash compares the hash with what Matomo itself stores, and the stored
// digest with that of the hash.
func TestMatomoHash(t *testing.T) {
	for _, v := range matomoVectors(t).Vectors {
		want, err := events.ParseMatomoHash(v.Hash)
		if err != nil {
			t.Fatal(err)
		}
		got := events.NewMatomoSalt(v.Salt).Hash(v.Token)
		if got != want {
			t.Errorf("the hash of %q with the salt %q is %s, want %s", v.Token, v.Salt, hex.EncodeToString(got[:]), v.Hash)
		}
		if got.Digest() != want.Digest() || got.Digest() == (events.Digest{}) {
			t.Errorf("%q: the digests of equal hashes differ", v.Token)
		}
		if native, ok := events.DefaultFormat.DigestOf(v.Token); ok && native == got.Digest() {
			t.Errorf("%q: the digest is the native one", v.Token)
		}
	}
}

// TestMatomoDigestIsStored pins the digest of a hash, which events store.
func TestMatomoDigestIsStored(t *testing.T) {
	h, err := events.ParseMatomoHash(strings.Repeat("0a", 64))
	if err != nil {
		t.Fatal(err)
	}
	const want = "0cc57f938150960e03092f7fc1b7d9c0d1632174e35ecd9ed3d2303b73ac3d55"
	d := h.Digest()
	if got := hex.EncodeToString(d[:]); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func TestParseMatomoHash(t *testing.T) {
	good := strings.Repeat("0123456789abcdef", 8)
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good), "g" + good[1:], good[:127] + "\x00"} {
		if _, err := events.ParseMatomoHash(bad); err == nil {
			t.Errorf("ParseMatomoHash(%q) succeeded", bad)
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error quotes the hash: %v", err)
		}
	}
}

func TestMatomoShape(t *testing.T) {
	for s, want := range map[string]bool{
		strings.Repeat("a1", 16): true, strings.Repeat("A1", 16): false, "anonymous": false, "": false,
		strings.Repeat("a1", 16) + "0": false, strings.Repeat("é", 16): false,
	} {
		if got := events.IsMatomoShape(s); got != want {
			t.Errorf("IsMatomoShape(%q) = %v", s, got)
		}
	}
}

func TestParseMatomoSalts(t *testing.T) {
	const token = "33dc3f2536d3025974cccb4b4d2d98f4"
	for _, tt := range []struct {
		name, file string
		want       []string
		err        string
	}{
		{"one", "abc\n", []string{"abc"}, ""},
		{"one without a newline", "abc", []string{"abc"}, ""},
		{"two, from Windows", "abc\r\ndef\r\n", []string{"abc", "def"}, ""},
		{"empty lines", "\nabc\n\n", []string{"abc"}, ""},
		{"an empty salt", "\"\"\n", []string{""}, ""},
		{"a repeated one", "abc\nabc\n", []string{"abc"}, ""},
		{"spaces belong to it", " a b \n", []string{" a b "}, ""},
		{"nothing", "", nil, "no salt"},
		{"only newlines", "\n\n", nil, "no salt"},
		{"too many", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", nil, "9 salts"},
		{"too long", strings.Repeat("x", 257), nil, "257 bytes"},
		{"binary", "ab\x00c\n", nil, "not text"},
		{"not UTF-8", "ab\xffc\n", nil, "not text"},
	} {
		got, err := events.ParseMatomoSalts([]byte(tt.file))
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
			}
			continue
		case err != nil || len(got) != len(tt.want):
			t.Errorf("%s: %d salts, %v; want %d", tt.name, len(got), err, len(tt.want))
			continue
		}
		for i, salt := range got {
			if salt.Hash(token) != events.NewMatomoSalt(tt.want[i]).Hash(token) {
				t.Errorf("%s: salt %d differs", tt.name, i)
			}
		}
	}
}

// TestMatomoSecretsDoNotPrint prints salts and hashes in every way that may reach a
// log or an error.
func TestMatomoSecretsDoNotPrint(t *testing.T) {
	const secret = "3f1a9c0d2b7e48f6a5c4d3e2f1b0a998"
	salt := events.NewMatomoSalt(secret)
	hash := salt.Hash("x")
	in := struct {
		s events.MatomoSalt
		h *events.MatomoHash
	}{salt, &hash}
	encoded, err := json.Marshal([]any{salt})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %x %d", salt, salt, salt, salt, salt, salt) +
		fmt.Sprintf("%v %x %s %+v %+v", hash, hash, hash, in, []any{salt, hash}) + string(encoded) +
		salt.LogValue().String() + hash.LogValue().String()
	if strings.Contains(text, secret) || strings.Contains(text, hex.EncodeToString([]byte(secret))) ||
		strings.Contains(text, hex.EncodeToString(hash[:8])) {
		t.Errorf("a secret is in %q", text)
	}
}
