package node_test

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

var knownFlags = []string{"data", "roles", "api-addr", "lease", "nats-listen"}

func readFile(t testing.TB, content string) (node.File, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokenledger.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return node.ReadFile(path, knownFlags)
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	got, err := readFile(t, `
# everything that there is
data: /var/lib/tokenledger
roles: [ledger, verifier]
api_addr: "127.0.0.1:7600"
lease: 30s
policies:
  reports:
    query_tokens: true
    rules:
      - methods: [GET]
        path: /report/{site}/*
        query: {format.name: fmt}
        need: ["view:site/{site}"]
trusted_proxies:
  - 10.0.0.0/8
  - fd00::/8
stale: {track: 5m, view: 90s}
`)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"data": "/var/lib/tokenledger", "roles": "ledger,verifier", "api-addr": "127.0.0.1:7600", "lease": "30s"}; !maps.Equal(got.Flags, want) {
		t.Errorf("flags %v, want %v", got.Flags, want)
	}
	want := map[string]proxy.Policy{"reports": {QueryTokens: true, Rules: []proxy.Rule{{
		Methods: []string{"GET"}, Path: "/report/{site}/*", Query: map[string]string{"format.name": "fmt"}, Need: []string{"view:site/{site}"},
	}}}}
	if !reflect.DeepEqual(got.Policies, want) {
		t.Errorf("policies %+v, want %+v", got.Policies, want)
	}
	if nets := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}; !reflect.DeepEqual(got.TrustedProxies, nets) {
		t.Errorf("trusted proxies %v", got.TrustedProxies)
	}

	if want := map[string]time.Duration{"track": 5 * time.Minute, "view": 90 * time.Second}; !maps.Equal(got.Stale, want) {
		t.Errorf("stale %v, want %v", got.Stale, want)
	}

	if got, err := readFile(t, ""); err != nil || len(got.Flags) != 0 || got.Policies != nil || got.TrustedProxies != nil {
		t.Errorf("an empty file: %+v, %v", got, err)
	}
	if got, err := readFile(t, "roles: ledger\nlease: 90"); err != nil || got.Flags["roles"] != "ledger" || got.Flags["lease"] != "90" {
		t.Errorf("one role, and a number: %v, %v", got.Flags, err)
	}
}

func TestReadFileRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, content string
		says          []string
	}{
		{"an unknown key", "api_adr: x", []string{`"api_adr" is not known`, "api_addr", "policies"}},
		{"two unknown keys", "a: 1\nb: 2", []string{`"a"`, `"b"`}},
		{"a key in capitals", "Data: x", []string{`"Data" is not known`}},
		{"a key twice", "data: x\ndata: y", []string{"data", "already defined"}},
		{"a key in two spellings", "api_addr: x\napi-addr: y", []string{"api-addr", "twice"}},
		{"a list for the whole", "- data", []string{"tokenledger.yaml"}},
		{"no YAML", "data: [", []string{"tokenledger.yaml"}},
		{"a map for a flag", "data: {a: b}", []string{"data", "want"}},
		{"a list of maps for a flag", "roles: [{a: b}]", []string{"roles", "want"}},
		{"nothing for a flag", "data:", []string{"data", "want"}},
		{"an unknown key in a policy", "policies: {p: {query_token: true, rules: [{}]}}", []string{"policies", "query_token"}},
		{"an unknown key in a rule", "policies: {p: {rules: [{method: GET}]}}", []string{"policies", "method"}},
		{"text for policies", "policies: x", []string{"policies"}},
		{"text for a policy", "policies: {p: x}", []string{"policies"}},
		{"text for a flag of a policy", "policies: {p: {query_tokens: perhaps, rules: [{}]}}", []string{"policies"}},
		{"a network that is none", "trusted_proxies: [10.0.0.0]", []string{"trusted_proxies", `"10.0.0.0"`}},
		{"text for networks", "trusted_proxies: 10.0.0.0/8", []string{"trusted_proxies", "want a list"}},
		{"no networks", "trusted_proxies: []", []string{"trusted_proxies", "want a list"}},
		{"text for stale", "stale: 5m", []string{"stale", "track: 5m"}},
		{"nothing for stale", "stale:", []string{"stale"}},
		{"a number for a time", "stale: {track: 5}", []string{"stale", `"track"`, "5m"}},
		{"a time that is none", "stale: {track: soon}", []string{"stale", `"track"`}},
		{"no time at all", "stale: {track: 0s}", []string{"stale", `"track"`}},
		{"a number among networks", "trusted_proxies: [1]", []string{"trusted_proxies"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readFile(t, tt.content)
			for _, says := range tt.says {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Fatalf("ReadFile = %+v, %v; want it to say %q", got, err, says)
				}
			}
			if !strings.Contains(err.Error(), "tokenledger.yaml") {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
	if _, err := node.ReadFile(filepath.Join(t.TempDir(), "none.yaml"), knownFlags); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestReadFileHidesSecrets puts a secret where it does not belong. No error repeats
// any part of it.
func TestReadFileHidesSecrets(t *testing.T) {
	t.Parallel()
	const secret = "tls_WHo12p711LTw2IEXVTckfk9DsYJEQnU02jZkih"
	for _, content := range []string{
		"S", "- S", "S: 1", "data: {S: S}", "policies: S", "policies: {p: S}", "policies: {p: {query_tokens: S, rules: [{}]}}",
		"policies: {p: {S: S}}", "policies: {p: {rules: S}}", "policies: {p: {rules: [{methods: S, need: [S]}]}}",
		"trusted_proxies: [S]", "trusted_proxies: S", "stale: S", "stale: {track: S}", "stale: {S: 5m}", "model: {S: S}",
		"model: {permissions: S}", "model: {permissions: [S]}",
	} {
		_, err := readFile(t, strings.ReplaceAll(content, "S", secret))
		if err != nil && strings.Contains(err.Error(), "WHo") {
			t.Errorf("%s: %v", content, err)
		}
	}
}
