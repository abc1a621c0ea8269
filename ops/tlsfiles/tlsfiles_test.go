package tlsfiles_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
)

// issue creates a certificate in a folder of its own.
func issue(t *testing.T) tlsfiles.Config {
	t.Helper()
	dir := t.TempDir()
	files := tlsfiles.SelfSigned{CertFile: filepath.Join(dir, "a.crt"), KeyFile: filepath.Join(dir, "a.key")}
	if _, err := tlsfiles.Open(tlsfiles.Config{SelfSigned: true}, files, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return tlsfiles.Config{CertFile: files.CertFile, KeyFile: files.KeyFile}
}

func replace(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ask asks a server that has a pinned certificate.
func ask(l net.Listener, pin string) error {
	c := http.Client{Transport: &http.Transport{TLSClientConfig: tlsfiles.Pinned(pin), DisableKeepAlives: true}}
	resp, err := c.Get("https://" + l.Addr().String())
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// TestReplaced replaces the files of a certificate while a server runs.
func TestReplaced(t *testing.T) {
	cfg, other := issue(t), issue(t)
	s, err := tlsfiles.Open(cfg, tlsfiles.SelfSigned{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{TLSConfig: s.TLS(), Handler: http.NotFoundHandler()}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	first := s.Fingerprint()
	if err := ask(l, first); err != nil {
		t.Fatal(err)
	}

	go func() { _ = s.Watch(t.Context()) }()
	replace(t, cfg.CertFile, other.CertFile) // does not fit the key yet
	wait.Until(t, "the pair does not fit", s.Failing)
	if err := ask(l, first); err != nil {
		t.Errorf("the old pair is not in use any more: %v", err)
	}
	replace(t, cfg.KeyFile, other.KeyFile)
	wait.Until(t, "the pair is replaced", func() bool { return s.Fingerprint() != first })
	if err := ask(l, first); !errors.Is(err, tlsfiles.ErrFingerprint) {
		t.Errorf("%v, want the old fingerprint refused", err)
	}
	if err := ask(l, s.Fingerprint()); err != nil || s.Failing() {
		t.Error(err)
	}

	// A reload names other files.
	if _, err := s.Prepare(tlsfiles.Config{CertFile: cfg.CertFile, KeyFile: "nowhere"}); err == nil {
		t.Error("a key that is not there was accepted")
	}
	third, second := issue(t), s.Fingerprint()
	commit, err := s.Prepare(third)
	if err != nil || s.Fingerprint() != second {
		t.Fatalf("%v, or it is in use before the commit", err)
	}
	commit()
	if err := ask(l, s.Fingerprint()); err != nil || s.Fingerprint() == second {
		t.Errorf("after a reload: %v", err)
	}
}

func TestSelfSigned(t *testing.T) {
	dir := t.TempDir()
	files := tlsfiles.SelfSigned{
		CertFile: filepath.Join(dir, "a.crt"), KeyFile: filepath.Join(dir, "a.key"), Hosts: []string{"192.0.2.7", "node.example", "0.0.0.0"},
	}
	open := func() *tlsfiles.Source {
		s, err := tlsfiles.Open(tlsfiles.Config{SelfSigned: true}, files, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if again := open(); again.Fingerprint() != s.Fingerprint() {
		t.Error("a second start has another certificate")
	}
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "192.0.2.7", "node.example"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if info, err := os.Stat(files.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v %v", info.Mode(), err)
	}
}

func TestPinnedSeveral(t *testing.T) {
	one := "sha256:" + strings.Repeat("ab", 32)
	two := "sha256:" + strings.Repeat("cd", 32)
	if got, err := tlsfiles.ParseFingerprints(one + ", " + strings.ToUpper(two[len("sha256:"):])); got != one+","+two || err != nil {
		t.Errorf("ParseFingerprints = %q, %v", got, err)
	}
	for _, s := range []string{"", ",", one + ",", "," + one, one + ",ab", one + " " + two} {
		if got, err := tlsfiles.ParseFingerprints(s); err == nil {
			t.Errorf("ParseFingerprints(%q) = %q, want an error", s, got)
		}
	}
	der := []byte("a certificate")
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: der}}}
	for pins, want := range map[string]bool{
		tlsfiles.Fingerprint(der):             true,
		one + "," + tlsfiles.Fingerprint(der): true,
		tlsfiles.Fingerprint(der) + "," + two: true,
		one:                                   false,
		one + "," + two:                       false,
		"":                                    false,
	} {
		if err := tlsfiles.Pinned(pins).VerifyConnection(state); (err == nil) != want {
			t.Errorf("pinned to %q: %v", pins, err)
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	digits := strings.Repeat("0a", 32)
	want := "sha256:" + digits
	for _, s := range []string{want, digits, strings.ToUpper(digits), strings.TrimSuffix(strings.Repeat("0A:", 32), ":"), " " + want + "\n"} {
		if got, err := tlsfiles.ParseFingerprint(s); got != want || err != nil {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "sha256:", digits[1:], "sha1:" + digits, digits + "0"} {
		if got, err := tlsfiles.ParseFingerprint(s); err == nil {
			t.Errorf("%q: %q, want it refused", s, got)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  tlsfiles.Config
		want string
	}{
		{tlsfiles.Config{}, ""},
		{tlsfiles.Config{SelfSigned: true}, ""},
		{tlsfiles.Config{CertFile: "a", KeyFile: "b"}, ""},
		{tlsfiles.Config{CertFile: "a"}, "tls-key"},
		{tlsfiles.Config{KeyFile: "a"}, "tls-cert"},
		{tlsfiles.Config{CertFile: "a", KeyFile: "b", SelfSigned: true}, "tls-self-signed"},
	} {
		if err := c.cfg.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}
