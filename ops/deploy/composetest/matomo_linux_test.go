package composetest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// backend is the token of Matomo that the gateway puts in place of others.
const backend = "0123456789abcdef0123456789abcdef"

// TestMatomoUp runs tokenledger and nginx of the file for Matomo, with PHP in place
// of Matomo, and does what its README says.
func TestMatomoUp(t *testing.T) {
	needContainers(t)
	for _, program := range []string{"nginx", "php"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("******** NOT TESTED: there is no %s here, so the services of ops/deploy/matomo do not run ********", program)
		}
	}
	p := loadFrom(t, matomoDir).WithServicesDisabled("import", "mariadb")
	p = withPHP(t, p)
	e := newEngine(t, p)
	e.startAll()
	e.waitHealthy("tokenledger")

	// The token of Matomo is written into the volume, and the node starts with it.
	if err := os.WriteFile(e.inside("tokenledger", "/data/matomo-token"), []byte(backend+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(e.inside("tokenledger", "/data/matomo-token"), 65532, 65532); err != nil {
		t.Fatal(err)
	}
	e.stop("nginx", "tokenledger")
	file := "/data/matomo-token"
	p.Services["tokenledger"].Environment["TOKENLEDGER_MATOMO_TOKEN_FILE"] = &file
	e.start("tokenledger")
	e.waitHealthy("tokenledger")
	e.start("nginx")

	b, err := os.ReadFile(e.inside("tokenledger", "/data/root.token"))
	if err != nil {
		t.Fatal(err)
	}
	admin := client{t: t, secret: strings.TrimSpace(string(b))}
	const api, web = "http://127.0.0.1:7600", "http://127.0.0.1:8080"
	admin.api("POST", api+"/v1/accounts", map[string]any{"login": "alice", "kind": "user", "grants": []string{"write:site/3"}})
	made := admin.api("POST", api+"/v1/tokens", map[string]any{"account": "alice", "app": "report", "scopes": []string{"write:site/3"}})
	id, secret := made["token"].(map[string]any)["id"].(string), made["secret"].(string)

	call := web + "/index.php?module=API&format=json&method=VisitsSummary.get&period=day&date=today&idSite="
	hit := web + "/matomo.php?rec=1&idsite=3"
	seen := func(a answer) string {
		t.Helper()
		return phpSaw(t, a)
	}
	var a answer
	until(t, "an API call through nginx", func() (err error) {
		if a, err = (client{t: t, secret: secret}).send("GET", call+"3", nil); err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
	if all := seen(a); !strings.Contains(all, backend) || strings.Contains(all, secret) || !strings.Contains(all, "10.76.3.1 ") {
		t.Errorf("Matomo did not get its own token and the client's address instead of the client's token: %s", all)
	}
	status := func(what, url, secret string, want int) answer {
		t.Helper()
		a := client{t: t}.get(url, secret)
		if a.status != want {
			t.Errorf("%s: %d, want %d: %.200s", what, a.status, want, a.body)
		}
		return a
	}
	status("another site", call+"4", secret, http.StatusForbidden)
	status("the user interface", web+"/index.php", "", http.StatusOK)
	status("the tracker's script", web+"/matomo.js", "", http.StatusOK)
	if all := seen(status("a hit with the token", hit+"&cip=192.0.2.9", secret, http.StatusOK)); !strings.Contains(all, backend) || !strings.Contains(all, "192.0.2.9") {
		t.Errorf("the hit came without its token: %s", all)
	}

	// While no gateway is there, hits without a token are tracked.
	e.stop("tokenledger")
	status("a hit, without the gateway", hit, "", http.StatusOK)
	status("a hit with a token in the URL, without the gateway", hit+"&token_auth="+secret, "", http.StatusServiceUnavailable)
	if a := admin.get(call+"3", secret); a.status != http.StatusBadGateway && a.status != http.StatusGatewayTimeout {
		t.Errorf("an API call, without the gateway: %d, want 502 or 504", a.status)
	}
	if all := seen(status("a hit with a token in the header, without the gateway", hit, secret, http.StatusOK)); strings.Contains(all, secret) {
		t.Errorf("Matomo got the token past the gateway: %s", all)
	}
	e.start("tokenledger")
	e.waitHealthy("tokenledger")
	until(t, "nginx finds the gateway again", func() error {
		a, err := client{t: t, secret: secret}.send("GET", call+"3", nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})

	// Revoked: calls are refused, and hits are tracked without the token.
	got := admin.api("POST", api+"/v1/tokens/"+id+"/revoke?wait=45s", map[string]any{"reason": "lost"})
	if r, _ := got["receipt"].(map[string]any); r["complete"] != true {
		t.Errorf("the receipt is not complete: %v", got)
	}
	status("a call with a revoked token", call+"3", secret, http.StatusUnauthorized)
	if all := seen(status("a hit with a revoked token", hit+"&cip=192.0.2.9", secret, http.StatusOK)); strings.Contains(all, backend) ||
		strings.Contains(all, secret) || strings.Contains(all, "192.0.2.9") {
		t.Errorf("the hit was not stripped: %s", all)
	}
}

// withPHP puts PHP in place of Matomo, with the same name, address and port.
func withPHP(t *testing.T, p *types.Project) *types.Project {
	t.Helper()
	site, err := filepath.Abs(root + "/verifier/matomo/matomotest/site")
	if err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("php")
	if err == nil {
		program, err = filepath.EvalSymlinks(program) // Debian's leads through /etc
	}
	if err != nil {
		t.Fatal(err)
	}
	s := p.Services["matomo"]
	s.Entrypoint = types.ShellCommand{"sh", "-c", `trap 'exit 0' TERM; "$@" & wait`, "sh", program, "-n", "-S", "0.0.0.0:80", "-t", "/site"}
	s.User, s.CapAdd, s.DependsOn, s.StopGracePeriod = "0:0", nil, nil, nil
	log := "/tmp/echo.log"
	s.Environment = types.MappingWithEquals{"ECHO_LOG": &log}
	s.Tmpfs = types.StringList{"/tmp:mode=1777"}
	s.Volumes = append(s.Volumes, types.ServiceVolumeConfig{
		Type: types.VolumeTypeBind, Source: site, Target: "/site", ReadOnly: true, Bind: &types.ServiceVolumeBind{},
	})
	p.Services["matomo"] = s
	return p
}

// phpSaw returns what PHP read of a request, as text.
func phpSaw(t *testing.T, a answer) string {
	t.Helper()
	var parts map[string]any
	if err := json.Unmarshal([]byte(a.body), &parts); err != nil {
		t.Errorf("not an answer of PHP: %v: %.200s", err, a.body)
		return ""
	}
	var b strings.Builder
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			text, _ := base64.StdEncoding.DecodeString(v)
			fmt.Fprintf(&b, "%s ", text)
		case []any:
			for _, part := range v {
				walk(part)
			}
		}
	}
	for _, name := range []string{"get", "post", "headers", "input"} {
		walk(parts[name])
	}
	return b.String()
}
