package node_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// described matches the configuration in the documentation, after its mark.
var described = regexp.MustCompile("(?s)<!-- read by ops/node: TestDescribedModel -->\n```yaml\n(.*?)```")

func documentedModel(t testing.TB) node.File {
	t.Helper()
	doc, err := os.ReadFile("../runbooks/permissions.md")
	if err != nil {
		t.Fatal(err)
	}
	block := described.FindSubmatch(doc)
	if block == nil {
		t.Fatal("permissions.md has no marked configuration")
	}
	f, err := readFile(t, string(block[1]))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestDescribedModel starts a node with the model in the documentation. All of its
// interfaces use the model.
func TestDescribedModel(t *testing.T) {
	t.Parallel()
	f := documentedModel(t)
	n := start(t, node.Config{
		Data: t.TempDir(), Name: "main", NATSListen: "127.0.0.1:0",
		Model: f.Model, Policies: f.Policies, Stale: f.Stale,
	})
	account := n.must("POST", "/v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"write:bucket/logs", "own:project/7"}})["account"].(m)["id"].(string)
	_, secret := n.token(account, "write:bucket/logs", "deploy:project/7")
	for need, want := range map[string]string{
		"list:bucket/logs": "allowed", "write:bucket/logs": "allowed", "deploy:project/7": "allowed",
		"own:bucket/logs": "insufficient_scope", "read:project/7": "insufficient_scope", "list:bucket/other": "insufficient_scope",
		"view:site/3": "invalid_request", "read:project/seven": "invalid_request", "read:bucket/..": "invalid_request",
	} {
		if got := n.reason(secret, need); got != want {
			t.Errorf("%s: %s, want %s", need, got, want)
		}
	}
	if status, out := ask(t, "POST", n.Addresses().API+"/v1/tokens", n.root, m{"account": account, "scopes": []string{"view:site/3"}}); status != 422 || !strings.Contains(out["detail"].(string), "deploy, list") {
		t.Errorf("a scope of another model: %d %v, want it refused and the known permissions named", status, out)
	}

	// The list of nodes shows a warning for a node with another model.
	other := start(t, node.Config{
		Data: t.TempDir(), Name: "other", Roles: []string{node.RoleVerifier},
		NATS: n.Addresses().NATS, NATSKey: n.file("verifier.nk"), Model: events.Plain,
	})
	eventually(t, "the other model is seen", func() bool {
		w, _ := n.listed()["other"]["warning"].(string)
		return strings.Contains(w, "permission model") && strings.Contains(w, events.Plain.Digest()) && strings.Contains(w, f.Model.Digest())
	})
	if w, warned := n.listed()["main"]["warning"]; warned {
		t.Errorf("the ledger's own node: %v", w)
	}
	eventually(t, "the other node answers", func() bool { return other.reason(secret, "write:bucket/logs") == "allowed" })
}

// TestReadModel reads named and defined models. An error names the place.
func TestReadModel(t *testing.T) {
	t.Parallel()
	known := append([]string{"model"}, knownFlags...)
	read := func(content string) (node.File, error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "tokenledger.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return node.ReadFile(path, known)
	}
	if f, err := read("model: plain"); err != nil || f.Model != nil || f.Flags["model"] != "plain" {
		t.Errorf("a name: %v, %v, %v", f.Flags, f.Model, err)
	}
	f, err := read("model: {permissions: {read: , write: [read]}, types: {bucket: name}}")
	if err != nil || f.Model == nil || f.Model.Check(events.MustScope("write:bucket/a")) != nil || len(f.Flags) != 0 {
		t.Errorf("a description: %v, %v", f.Model, err)
	}
	for content, says := range map[string]string{
		"model: {}": "permissions and types of resource must not be empty",
		"model: {permission: {read: []}, types: {bucket: name}}":                                 "permission",
		"model: {permissions: {write: [raed]}, types: {bucket: name}}":                           `"write" includes "raed", which is not among the permissions`,
		"model: {permissions: {a: [b], b: [a]}, types: {bucket: name}}":                          `includes itself`,
		"model: {permissions: {write: read}, types: {bucket: name}}":                             "line 1: cannot unmarshal",
		"model:\n  types: {bucket: name}\n  permissions: [read]":                                 "line 3: cannot unmarshal",
		"model: {permissions: {read: []}, types: {bucket: uuid}}":                                `"uuid"; want number or name`,
		"model: {permissions: {read: []}, types: {bucket: name}, admin: own}":                    `"own" is named under admin`,
		"model: {permissions: {read: []}, types: {bucket: name}, admins: read}":                  "admins",
		"model: {permissions: {superuser: []}, types: {bucket: name}}":                           `"superuser": the name is reserved`,
		"model: [plain]\nlease: {a: b}":                                                          "lease",
		"model: {permissions: {write: [raed], Own: []}, types: {bucket: name}}\nnot_known: here": "lower-case letters",
	} {
		_, err := read(content)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "tokenledger.yaml") {
			t.Errorf("%s: %v; want it to name the file and say %q", content, err, says)
		}
	}
}

// TestValidateByModel checks settings that name permissions against the model.
func TestValidateByModel(t *testing.T) {
	t.Parallel()
	own := documentedModel(t).Model
	policy := func(need string) map[string]proxy.Policy {
		return map[string]proxy.Policy{"p": {Rules: []proxy.Rule{{Need: []string{need}}}}}
	}
	for _, tt := range []struct {
		name string
		cfg  node.Config
		says string // empty means that it is valid
	}{
		{"Matomo's policy", node.Config{Policies: policy("view:site/3")}, ""},
		{"a plain policy under Matomo's model", node.Config{Policies: policy("read:bucket/a")}, "policy p, rule 1"},
		{"a plain policy", node.Config{Policies: policy("read:bucket/a"), Model: events.Plain}, ""},
		{"Matomo's policy under the plain model", node.Config{Policies: policy("view:site/3"), Model: events.Plain}, "policy p, rule 1"},
		{"a built-in one that does not fit, configured", node.Config{Policies: proxy.Builtin, Model: events.Plain}, "policy site, rule 1"},
		{"one's own", node.Config{Policies: policy("deploy:project/7"), Model: own}, ""},
		{"stale: Matomo's", node.Config{Stale: map[string]time.Duration{"track": time.Minute}}, ""},
		{"stale: what writes", node.Config{Stale: map[string]time.Duration{"write": time.Minute}}, `stale: "write"`},
		{"stale: of another model", node.Config{Stale: map[string]time.Duration{"track": time.Minute}, Model: events.Plain}, `stale: "track" is not allowed: unknown permission`},
		{"stale: one's own", node.Config{Stale: map[string]time.Duration{"read": time.Minute}, Model: own}, ""},
		{"stale: one's own that lasts", node.Config{Stale: map[string]time.Duration{"deploy": time.Minute}, Model: own}, `stale: "deploy"`},
		{"stale: one's own that writes", node.Config{Stale: map[string]time.Duration{"own": time.Minute}, Model: own}, `stale: "own" is not allowed: it includes`},
		{"stale: above all", node.Config{Stale: map[string]time.Duration{"superuser": time.Minute}, Model: own}, `stale: "superuser"`},
		{"stale: for too long", node.Config{Stale: map[string]time.Duration{"list": 48 * time.Hour}, Model: own}, "at most 24h0m0s"},
	} {
		tt.cfg.Data = "d"
		err := tt.cfg.Validate()
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
}

// TestRateLimitedCaller asks the API with a token that is held to a request a
// second: it is told to wait, and not that its token is bad.
func TestRateLimitedCaller(t *testing.T) {
	t.Parallel()
	n := start(t, node.Config{Data: t.TempDir()})
	account := n.must("POST", "/v1/accounts", m{"login": "auditor", "kind": "service", "grants": []string{"audit"}})["account"].(m)["id"].(string)
	secret := n.must("POST", "/v1/tokens", m{"account": account, "scopes": []string{"audit"}, "constraints": m{"rate": 1}})["secret"].(string)
	let := 0
	eventually(t, "a request is one too many", func() bool {
		status, out := ask(t, "GET", n.Addresses().API+"/v1/nodes", secret, nil)
		if status == 200 {
			let++
			return false
		}
		if status != 429 || out["code"] != "rate_limited" {
			t.Fatalf("status %d: %v; want 429, rate_limited", status, out)
		}
		return let > 0
	})
}
