package embedded

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// contents returns the files of a folder: path -> bytes.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestIssue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	creds := issued(t, dir, ledgerOn("l1", "10.0.0.1", "l1.example.org"), ledgerOn("l2", "localhost"), verifierNamed("v1"))
	for path := range contents(t, dir) {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want it for the owner alone", path, info.Mode(), err)
		}
	}
	for _, d := range []string{"", "nodes", "nodes/v1"} {
		if info, err := os.Stat(filepath.Join(dir, d)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("folder %s: %v, %v", d, info.Mode(), err)
		}
	}
	for _, tt := range []struct {
		node, host string
		ok         bool
	}{
		{"l1", "10.0.0.1", true},
		{"l1", "l1.example.org", true},
		{"l1", "10.0.0.2", false},
		{"l1", "localhost", false},
		{"l1", "127.0.0.1", false},
		{"l2", "localhost", true},
		{"l2", "127.0.0.1", true},
		{"v1", "v1", false},
		{"v1", "127.0.0.1", false},
	} {
		if err := creds[tt.node].cert.Leaf.VerifyHostname(tt.host); (err == nil) != tt.ok {
			t.Errorf("%s as %s: %v, want %v", tt.node, tt.host, err, tt.ok)
		}
	}
	for name, c := range creds {
		_, err := c.cert.Leaf.Verify(x509.VerifyOptions{Roots: c.ca, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if server := c.Role == RoleLedger; (err == nil) != server {
			t.Errorf("%s passes for a server: %v, want %v", name, err == nil, server)
		}
		if left := time.Until(c.cert.Leaf.NotAfter); left < 9*365*24*time.Hour || c.cert.Leaf.NotBefore.After(time.Now()) {
			t.Errorf("%s is good from %s to %s", name, c.cert.Leaf.NotBefore, c.cert.Leaf.NotAfter)
		}
	}

	// More names change only the lists.
	before := contents(t, dir)
	issued(t, dir, verifierNamed("v2"), ledgerOn("l3", "10.0.0.3"))
	after := contents(t, dir)
	for path, b := range before {
		list := strings.HasSuffix(path, "members.json") || path == "nats.conf"
		if (after[path] == b) == list {
			t.Errorf("%s: changed is %v", path, list)
		}
	}
	for _, path := range []string{"members.json", "nats.conf"} {
		if !strings.Contains(after[path], "v2") || !strings.Contains(after[path], "l3") {
			t.Errorf("%s does not name the new ones", path)
		}
	}
	if after["nodes/v1/members.json"] != after["members.json"] || after["nodes/l3/ca.crt"] != before["ca.crt"] {
		t.Error("the nodes do not have the list or the authority")
	}
	// The files that all nodes get contain no secret.
	for _, c := range creds {
		seed := strings.TrimSpace(after["nodes/"+c.Name+"/node.nk"])
		for _, path := range []string{"members.json", "nats.conf", "ca.crt", "nodes/" + c.Name + "/tls.crt"} {
			if strings.Contains(after[path], seed) || strings.Contains(after[path], "PRIVATE") {
				t.Errorf("%s holds a secret", path)
			}
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	issued(t, dir, ledgerOn("l1", "10.0.0.1"), verifierNamed("v1"))
	before := contents(t, dir)
	for name, tt := range map[string]struct {
		is      error
		says    string
		request []Request
	}{
		"nobody":                     {nil, "at least one", nil},
		"another role than is there": {ErrIssued, "v1", []Request{verifierNamed("v2"), ledgerOn("v1", "10.0.0.9")}},
		"other hosts than are there": {ErrIssued, "l1", []Request{ledgerOn("l1", "10.0.0.2")}},
		"only its case differs":      {ErrIssued, "V1", []Request{verifierNamed("V1")}},
		"twice":                      {ErrIssued, "v2", []Request{verifierNamed("v2"), verifierNamed("v2")}},
		"no name":                    {ErrRequest, "node name", []Request{verifierNamed("")}},
		"a path":                     {ErrRequest, "node name", []Request{verifierNamed("../v2")}},
		"a subject":                  {ErrRequest, "node name", []Request{verifierNamed("v.>")}},
		"no host":                    {ErrRequest, "hosts", []Request{ledgerOn("l2")}},
		"a port":                     {ErrRequest, "ports", []Request{ledgerOn("l2", "10.0.0.1:7604")}},
		"an odd host":                {ErrRequest, "host name", []Request{ledgerOn("l2", "a b\n")}},
		"a verifier's host":          {ErrRequest, "hosts", []Request{{Name: "v2", Role: RoleVerifier, Hosts: []string{"x"}}}},
		"another role":               {ErrRequest, "role", []Request{{Name: "v2", Role: "king"}}},
	} {
		_, err := Issue(dir, tt.request)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v that says %q", name, err, tt.is, tt.says)
		}
		if after := contents(t, dir); !equalContents(before, after) {
			t.Fatalf("%s: something was written", name)
		}
	}

	// The same request twice changes nothing.
	if ms, err := Issue(dir, []Request{verifierNamed("v1"), ledgerOn("l1", "10.0.0.1")}); err != nil || len(ms) != 2 || !equalContents(before, contents(t, dir)) {
		t.Errorf("asked again: %v, %v; want what is there", ms, err)
	}

	// Files without the list, or a list without its key, are refused.
	for name, lose := range map[string]string{"members.json": "nothing was overwritten", "ca.key": "authority's key is kept", "ca.crt": "no such file"} {
		dir := filepath.Join(t.TempDir(), "nats")
		issued(t, dir, verifierNamed("v1"))
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		before := contents(t, dir)
		if _, err := Issue(dir, []Request{verifierNamed("v2")}); err == nil || !strings.Contains(err.Error(), lose) {
			t.Errorf("without %s: %v, want %q", name, err, lose)
		}
		if !equalContents(before, contents(t, dir)) {
			t.Errorf("without %s: something was written", name)
		}
	}
	other := filepath.Join(t.TempDir(), "nats")
	issued(t, other, verifierNamed("v1"))
	raw, err := os.ReadFile(filepath.Join(other, "ca.key"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ca.key"), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(dir, []Request{verifierNamed("v9")}); err == nil || !strings.Contains(err.Error(), "not the key of ca.crt") {
		t.Errorf("with another authority's key: %v", err)
	}
}

func equalContents(a, b map[string]string) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func TestLoadCredentialsRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(dir, other string) error
		says string
	}{
		"no key":                             {func(d, _ string) error { return os.Remove(d + "/node.nk") }, "nats init"},
		"key that others read":               {func(d, _ string) error { return os.Chmod(d+"/node.nk", 0o644) }, "can read it"},
		"certificate's key that others read": {func(d, _ string) error { return os.Chmod(d+"/tls.key", 0o650) }, "can read it"},
		"members that others write":          {func(d, _ string) error { return os.Chmod(d+"/members.json", 0o622) }, "other users can write it"},
		"no members":                         {func(d, _ string) error { return os.WriteFile(d+"/members.json", []byte(`{"members":[]}`), 0o600) }, "has no members"},
		"garbled members":                    {func(d, _ string) error { return os.WriteFile(d+"/members.json", []byte(`{`), 0o600) }, "not written by nats init"},
		"a seed among the members": {func(d, _ string) error {
			seed, err := os.ReadFile(d + "/node.nk")
			if err != nil {
				return err
			}
			return os.WriteFile(d+"/members.json", fmt.Appendf(nil, `{"members":[{"name":"v1","role":"verifier","key":%q,"certificate":""}]}`, strings.TrimSpace(string(seed))), 0o600)
		}, "not the public half"},
		"another's key": {func(d, o string) error { return copyFile(o+"/node.nk", d+"/node.nk") }, "does not name the node"},
		"another's certificate": {func(d, o string) error {
			return errors.Join(copyFile(o+"/tls.crt", d+"/tls.crt"), copyFile(o+"/tls.key", d+"/tls.key"))
		}, "certificate"},
		"another authority": {func(d, o string) error { return copyFile(o+"/ca.crt", d+"/ca.crt") }, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, other := t.TempDir(), t.TempDir()
			issued(t, dir, verifierNamed("v1"))
			issued(t, other, verifierNamed("v1"))
			d, o := filepath.Join(dir, "nodes", "v1"), filepath.Join(other, "nodes", "v1")
			seed, err := os.ReadFile(d + "/node.nk")
			if err == nil {
				err = tt.do(d, o)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = LoadCredentials(d)
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), d) {
				t.Errorf("LoadCredentials = %v, want %q and the folder", err, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), strings.TrimSpace(string(seed))) {
				t.Error("the error quotes the seed")
			}
		})
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

func TestCredentialsDoNotPrint(t *testing.T) {
	c := issued(t, t.TempDir(), verifierNamed("v1"))["v1"]
	raw, err := os.ReadFile(filepath.Join(c.Dir, "node.nk"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	values := []any{c, struct{ C *Credentials }{c}, struct{ c *Credentials }{c}, Config{Credentials: c}, []*Credentials{c}}
	for _, v := range values {
		fmt.Fprintf(&out, "%v %+v %#v %s\n", v, v, v, v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("c", "c", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	for _, secret := range []string{strings.TrimSpace(string(raw)), "PrivateKey"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("a secret is printed:\n%s", out.String())
		}
	}
}
