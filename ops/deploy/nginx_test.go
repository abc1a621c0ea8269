package deploy_test

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/deploy"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

var update = flag.Bool("update", false, "write testdata")

func valid() deploy.Nginx {
	return deploy.Nginx{
		Listen: "127.0.0.1:8080", Upstream: "http://127.0.0.1:3000",
		Verifiers: []string{"http://127.0.0.1:7601", "http://verifier-2.example.org:7601"}, Policy: "site",
	}
}

func printed(t *testing.T, n deploy.Nginx) string {
	t.Helper()
	var b strings.Builder
	if err := n.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGolden compares the configurations with golden files, so that a diff shows
// what changes for an operator.
func TestGolden(t *testing.T) {
	for name, printer := range map[string]interface{ Write(io.Writer) error }{
		"nginx.conf": valid(),
		"matomo.conf": deploy.Matomo{
			Listen: "80", Gateways: []string{"http://127.0.0.1:7605", "http://10.0.0.2:7605"}, Direct: "http://127.0.0.1:8081",
		},
	} {
		path := filepath.Join("testdata", name)
		var got strings.Builder
		if err := printer.Write(&got); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("the configuration changed; run with -update if it should (-want +got):\n%s", diff)
		}
	}
}

// TestEveryOwnHeaderIsSet checks that nginx sets or removes each identity header.
// Otherwise the client's header would reach the application.
func TestEveryOwnHeaderIsSet(t *testing.T) {
	conf := printed(t, valid())
	_, block, _ := strings.Cut(conf, "location / {")
	block, _, _ = strings.Cut(block, "\n    }")
	for _, name := range append(slices.Clone(proxy.Identity),
		proxy.HeaderDeny, proxy.HeaderUnavailable, proxy.HeaderURI, proxy.HeaderReferer,
		"Authorization", "Referer", "X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Original-Method",
		"X-Original-Host", "X-Forwarded-Uri", "Forwarded", "X-Client-IP", "X-Forwarded-Prefix", "Proxy",
		"Host", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto",
		"Upgrade", "Connection") {
		if n := strings.Count(block, "proxy_set_header "+name+" "); n != 1 {
			t.Errorf("%s is set %d times, want once", name, n)
		}
	}
	for _, name := range proxy.Identity {
		variable := regexp.MustCompile(`proxy_set_header ` + name + ` (\$ledger_[a-z_]+);`).FindStringSubmatch(block)
		if variable == nil {
			t.Errorf("%s is not set from a variable", name)
			continue
		}
		source := "$upstream_http_" + strings.ReplaceAll(strings.ToLower(name), "-", "_")
		if !strings.Contains(block, "auth_request_set "+variable[1]+" "+source+";") {
			t.Errorf("%s is not what the verifier says", variable[1])
		}
	}
}

func TestWriteAccepts(t *testing.T) {
	tests := map[string]func(*deploy.Nginx){
		"port":             func(n *deploy.Nginx) { n.Listen = "8080" },
		"all addresses":    func(n *deploy.Nginx) { n.Listen = "[::]:8080" },
		"name to listen":   func(n *deploy.Nginx) { n.Listen = "localhost:8080" },
		"default port":     func(n *deploy.Nginx) { n.Upstream = "http://app" },
		"IPv6 upstream":    func(n *deploy.Nginx) { n.Upstream = "http://[2001:db8::1]:3000" },
		"service's name":   func(n *deploy.Nginx) { n.Verifiers = []string{"http://tokenledger_verifier-1:7601"} },
		"named policy":     func(n *deploy.Nginx) { n.Policy = "reporting-api" },
		"scope":            func(n *deploy.Nginx) { n.Policy = "need/view:site/3" },
		"scope on all":     func(n *deploy.Nginx) { n.Policy = "need/admin:site/*" },
		"no access log":    func(n *deploy.Nginx) { n.AccessLog = "off" },
		"access log":       func(n *deploy.Nginx) { n.AccessLog = "/srv/log/nginx-1/a_b.log" },
		"scope of no site": func(n *deploy.Nginx) { n.Policy = "need/superuser" },
		// The verifier checks whether a scope exists.
		"scope of another model": func(n *deploy.Nginx) { n.Policy = "need/read:bucket/my-files.2" },
	}
	for name, change := range tests {
		n := valid()
		change(&n)
		if err := n.Write(new(bytes.Buffer)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWriteRefuses puts invalid values into every field: the end of a directive, a
// new directive, a variable, a comment, or a value of another type.
func TestWriteRefuses(t *testing.T) {
	evil := []string{
		"", " ", ";", "}", "{", "#", "$host", `"`, "'", `\`, "\n", "\r", "\t", "\x00", "\v", "\u00a0", "é",
		"; return 200", "\n    return 200;", "} server { listen 1;", "`", "(", "*.example.org", "%3b", "/", "//", "a b",
	}
	fields := map[string]func(*deploy.Nginx, string){
		"listen":     func(n *deploy.Nginx, s string) { n.Listen = s },
		"upstream":   func(n *deploy.Nginx, s string) { n.Upstream = s },
		"verifier":   func(n *deploy.Nginx, s string) { n.Verifiers = []string{"http://127.0.0.1:7601", s} },
		"policy":     func(n *deploy.Nginx, s string) { n.Policy = s },
		"access-log": func(n *deploy.Nginx, s string) { n.AccessLog = s },
	}
	good := map[string][]string{ // field -> valid values, to which the attack is added
		"listen":     {"8080", "127.0.0.1:8080", "[::1]:80"},
		"upstream":   {"http://app", "http://app:3000", "http://[::1]:80"},
		"verifier":   {"http://app", "http://app:3000", "http://[::1]:80"},
		"policy":     {"site", "need/view:site/3", "need/superuser"},
		"access-log": {"/var/log/x.log"},
	}
	refused := func(field, value string) {
		t.Helper()
		n := valid()
		fields[field](&n, value)
		var b bytes.Buffer
		switch err := n.Write(&b); {
		case err == nil:
			t.Errorf("%s %q: printed, want an error", field, value)
		case !strings.HasPrefix(err.Error(), field+": "):
			t.Errorf("%s %q: error %q, want one that begins with the field", field, value, err)
		case b.Len() > 0:
			t.Errorf("%s %q: printed %d bytes besides the error", field, value, b.Len())
		}
	}
	for field := range fields {
		if field != "access-log" { // it has a default
			refused(field, "")
		}
		for _, e := range evil[1:] {
			refused(field, e)
			for _, g := range good[field] {
				if field == "access-log" && strings.Trim(e, "/") == "" {
					continue // still a valid path
				}
				refused(field, g+e)
				refused(field, e+g)
				mid := len(g) / 2
				if e != "/" && e != "//" || field != "policy" {
					refused(field, g[:mid]+e+g[mid:])
				}
			}
		}
	}
	for _, s := range []string{
		"0", "65536", "080", "-1", "+80", "8080 ssl", ":8080", "[::1]", "::1:80", "host", "host:", "host:http", "[host]:80",
		"[fe80::1%eth0]:80", "unix:/run/x.sock",
	} {
		refused("listen", s)
	}
	for _, s := range []string{
		"https://app:3000", "app:3000", "http://", "http://:80", "http://app:", "http://app:0", "http://app:99999",
		"http://app/", "http://app/path", "http://app?x", "http://app#x",
		"http://u:p@app", "HTTP://app", "http://a..b:x", "http://-app", "http://app-:80", "http://$upstream:80",
		"http://unix:/run/x.sock",
	} {
		refused("upstream", s)
		refused("verifier", s)
	}
	for _, s := range []string{
		"need", "need/", "need/view:", "need/view:site", "need/view:site/", "need/view:site/3/4", "need/view:site/..",
		"need/View:site/3", "need/view:/3", "need/view:site/3 ",
		"site/", "site/3", "any/view:site/3", "Site", "../any", "site?x", strings.Repeat("a", 65),
	} {
		refused("policy", s)
	}
	secret := events.DefaultFormat.NewSecret(events.UserAccount).Reveal()
	for field := range fields {
		n := valid()
		fields[field](&n, secret)
		if err := n.Write(new(bytes.Buffer)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: error %v, want one that does not repeat a secret", field, err)
		}
	}
	if err := (deploy.Nginx{}).Write(new(bytes.Buffer)); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("empty: error %q, want four problems", err)
	}
}
