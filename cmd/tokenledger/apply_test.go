package main

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
)

// TestApplyUnknownOutcome loses the answers to the creation of a token. The secret
// stays in its file, because the token may exist, and the next run stops there.
func TestApplyUnknownOutcome(t *testing.T) {
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/accounts":
			done(`{"items":[{"id":"acc_mia","login":"mia","kind":"user","state":"active","version":5}]}`)(w, r)
		case "/v1/can-i":
			done(`{"allowed":true}`)(w, r)
		default:
			if r.Method == http.MethodPost {
				panic(http.ErrAbortHandler)
			}
			done(`{"items":[]}`)(w, r)
		}
	})
	file, dir := filepath.Join(t.TempDir(), "tokens.yaml"), filepath.Join(t.TempDir(), "secrets")
	mine := filepath.Join(t.TempDir(), "mine") // its format is that of the new secret
	if err := os.WriteFile(mine, []byte(events.DefaultFormat.NewSecret(events.UserAccount).Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "accounts: [{login: mia, kind: user, tokens: [{app: web, scopes: [view:site/1]}]}]"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, s.URL, "apply", "-f", file, "--timeout", "1s").want(t, exit.Unavailable,
		"create token mia/web/: ", "0 of 1 changes were made; not made: create token mia/web/",
		"It is unknown whether the first of these was made; if so, its secret is lost, and 'tokenledger token rotate' creates")

	path := filepath.Join(dir, "mia~web")
	apply := []string{"apply", "-f", file, "--timeout", "1s", "--token-file", mine, "--secrets-dir", dir}
	command(t, s.URL, apply...).want(t, exit.Unavailable, "if so, its secret is in "+path+", else move that file away")
	secret, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := events.DefaultFormat.ParseSecret(strings.TrimSpace(string(secret)))
	if err != nil {
		t.Fatal(err)
	}
	digest := parsed.Digest()
	requests := s.seen()
	var sent struct {
		Digest string `json:"secret_digest"`
	}
	if err := json.Unmarshal([]byte(s.bodies[len(requests)-1]), &sent); err != nil {
		t.Fatal(err)
	}
	if want := hex.EncodeToString(digest[:]); sent.Digest != want {
		t.Errorf("the digest %q was sent, that of the file is %q", sent.Digest, want)
	}
	if key := requests[len(requests)-1].Header.Get("Idempotency-Key"); !strings.HasPrefix(key, "apply-") {
		t.Errorf("the key is %q", key)
	}

	command(t, s.URL, apply...).want(t, exit.Usage, path+" exists, but there is no token mia/web/", "Move the file away")
	if again, err := os.ReadFile(path); err != nil || string(again) != string(secret) {
		t.Errorf("the file was changed: %v", err)
	}
}
