package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/node"
)

// TestPortOfAnother runs commands on a data folder whose node has died, while
// another user's program listens on its ports. No secret is sent there: neither
// root.token, nor another token file, nor a secret to verify.
func TestPortOfAnother(t *testing.T) {
	asked := 0
	impostor := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer impostor.Close()
	for name, left := range map[string]struct{ run, socket bool }{
		"after a crash":     {true, true},
		"without a socket":  {true, false},
		"nothing ever ran":  {false, false},
		"run.json was lost": {false, true},
	} {
		dir := t.TempDir()
		secret := events.DefaultFormat.NewSecret(events.ServiceAccount).Reveal()
		if err := os.WriteFile(filepath.Join(dir, "root.token"), []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if left.run {
			b, err := json.Marshal(node.Addresses{API: impostor.URL, Verify: impostor.URL, Metrics: impostor.URL})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "run.json"), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if left.socket {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "api.sock"), Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		commands := [][]string{{"token", "list"}, {"policy", "show"}, {"account", "create", "anna", "--kind", "user"}}
		if left.socket && left.run {
			commands = append(commands, []string{"verify", "--need", "view:site/1"}, []string{"token", "list", "--token-file", filepath.Join(dir, "root.token")})
		}
		for _, args := range commands {
			var out, errs bytes.Buffer
			e := []string{"HOME=" + dir}
			if code := run(t.Context(), append(args, "--data", dir, "--timeout", "1s"), strings.NewReader(secret+"\n"), &out, &errs, e); code != int(exit.Unavailable) {
				t.Errorf("%s: %v ended with %d: %s", name, args, code, &errs)
			}
			if strings.Contains(out.String()+errs.String(), secret) {
				t.Errorf("%s: %v shows the secret", name, args)
			}
		}
	}
	if asked > 0 {
		t.Errorf("the program on the port was asked %d times", asked)
	}
}
