package embedded

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// startEncrypted is a server alone, with credentials.
func startEncrypted(t *testing.T) (*fixture, map[string]*Credentials, string) {
	t.Helper()
	dir := t.TempDir()
	creds := issued(t, dir, ledgerOn("l1", "127.0.0.1"), verifierNamed("v1"), verifierNamed("v2"))
	k := newFixture(t)
	k.cfg.LedgerKey, k.cfg.VerifierKey, k.cfg.Credentials, k.cfg.Listen = Key{}, "", creds["l1"], "127.0.0.1:0"
	k.start()
	mustCreateStream(t, k.asLedger())
	return k, creds, dir
}

func TestTLS(t *testing.T) {
	k, creds, _ := startEncrypted(t)
	v1 := creds["v1"]
	foreign := issued(t, t.TempDir(), ledgerOn("l1", "127.0.0.1"), verifierNamed("v1"))
	if !strings.HasPrefix(k.URL(), "tls://") {
		t.Errorf("URL() = %s", k.URL())
	}
	mustConnect(t, k.URL(), v1.Options()...).Close()

	with := func(c *tls.Config) []nats.Option { return append(v1.Options(), nats.Secure(c)) }
	noCert, otherCert, old := v1.clientTLS(), v1.clientTLS(), v1.clientTLS()
	noCert.Certificates = nil
	otherCert.Certificates = []tls.Certificate{foreign["v1"].cert}
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	stranger := newKey(t)
	for name, tt := range map[string]struct {
		options []nats.Option
		says    string
	}{
		"no certificate":                 {with(noCert), "tls"},
		"another authority's":            {with(otherCert), "tls"},
		"a server of another authority":  {with(foreign["v1"].clientTLS()), "unknown authority"},
		"an old version":                 {with(old), "protocol version"},
		"no TLS":                         {VerifierOptions(v1.Key), ""},
		"a key that nobody has":          {append(v1.Options(), stranger.Option()), "Authorization"},
		"the key of another authority's": {append(v1.Options(), foreign["v1"].Key.Option()), "Authorization"},
		"no key":                         {[]nats.Option{nats.Secure(v1.clientTLS())}, "Authorization"},
	} {
		nc, err := nats.Connect(k.URL(), tt.options...)
		if err == nil {
			nc.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want a refusal that says %q", name, err, tt.says)
		}
	}

	// Without TLS every command is refused.
	conn, err := net.Dial("tcp", strings.TrimPrefix(k.URL(), "tls://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"tls_required":true`) || !strings.Contains(lines.Text(), `"tls_verify":true`) {
		t.Errorf("the server greets with %q", lines.Text())
	}
	if _, err := conn.Write([]byte("CONNECT {}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		if strings.Contains(lines.Text(), "PONG") {
			t.Error("the server answers in plain text")
		}
	}

	// A verifier's key in a ledger's options has a verifier's rights.
	errs, handler := gathered()
	nc := mustConnect(t, k.URL(), append(append(LedgerOptions(v1.Key), nats.Secure(v1.clientTLS())), handler)...)
	if err := nc.Publish("ledger.token.aa.revoked", nil); err != nil {
		t.Fatal(err)
	}
	wantAllDenied(t, nc, errs, "Publish", []string{"ledger.token.aa.revoked"})
}

// TestOneVerifierIsNotAnother connects as each of two verifiers of one log.
func TestOneVerifierIsNotAnother(t *testing.T) {
	k, creds, _ := startEncrypted(t)
	errs, handler := gathered()
	nc := mustConnect(t, k.URL(), append(creds["v1"].Options(), handler)...)
	for _, subject := range []string{"lease.node.v2", "node.status.v2", "lease.node.v1.x", "lease.barrier"} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	wantAllDenied(t, nc, errs, "Publish", []string{"lease.node.v2", "node.status.v2", "lease.node.v1.x", "lease.barrier"})
	for _, subject := range []string{"_INBOX_v_v2.>", "_INBOX_v_v2.x", "_INBOX_verifier.>", "_INBOX_v_v1"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	wantAllDenied(t, nc, errs, "Subscription", []string{"_INBOX_v_v2.>", "_INBOX_v_v2.x", "_INBOX_verifier.>", "_INBOX_v_v1"})
}

// TestOnlyLedgersAreServers connects to the servers' port with each kind of
// certificate, because permissions do not limit a server.
func TestOnlyLedgersAreServers(t *testing.T) {
	k := startCluster(t)
	k.begin()
	foreign := issued(t, t.TempDir(), ledgerOn("l1", "127.0.0.1"))
	// greeted reports whether the server continues after the handshake.
	greeted := func(c *tls.Config) bool {
		conn, err := net.Dial("tcp", k.configs[0].Cluster.Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		secure := tls.Client(conn, c)
		if secure.Handshake() != nil {
			return false
		}
		line, err := bufio.NewReader(secure).ReadString('\n')
		return err == nil && strings.HasPrefix(line, "INFO ")
	}
	config := func(c *Credentials) *tls.Config {
		t := c.clientTLS()
		t.ServerName = "127.0.0.1"
		return t
	}
	if !greeted(config(k.creds["l2"])) {
		t.Error("a ledger's certificate is refused")
	}
	none := config(k.creds["l2"])
	none.Certificates = nil
	other := config(k.creds["l2"])
	other.Certificates = []tls.Certificate{foreign["l1"].cert}
	for name, c := range map[string]*tls.Config{"a verifier's certificate": config(k.creds["v1"]), "none": none, "another authority's": other} {
		if greeted(c) {
			t.Errorf("%s passes for a server's", name)
		}
	}
}

// TestSetMembers adds and removes a verifier while others work.
func TestSetMembers(t *testing.T) {
	k, creds, dir := startEncrypted(t)
	js := k.asLedger()
	stays := mustConnect(t, k.URL(), creds["v1"].Options()...)
	goes := mustConnect(t, k.URL(), append(creds["v2"].Options(), nats.NoReconnect())...)
	if _, err := Issue(dir, []Request{verifierNamed("v3")}); err != nil {
		t.Fatal(err)
	}
	v3, err := LoadCredentials(dir + "/nodes/v3")
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := nats.Connect(k.URL(), v3.Options()...); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("before it is a member: %v", err)
		nc.Close()
	}
	var members Members
	for _, m := range v3.Members {
		if m.Name != "v2" {
			members = append(members, m)
		}
	}
	if err := k.SetMembers(members); err != nil {
		t.Fatal(err)
	}
	nc := mustConnect(t, k.URL(), v3.Options()...)
	if _, err := newJetStream(t, nc).Publish(testContext(t), "lease.node.v3", nil); err != nil {
		t.Errorf("the new one renews: %v", err)
	}
	if _, err := newJetStream(t, stays).Publish(testContext(t), "lease.node.v1", nil); err != nil || stays.Statistics.Reconnects > 0 {
		t.Errorf("one that stays renews: %v, after %d reconnections", err, stays.Statistics.Reconnects)
	}
	for ctx := testContext(t); !goes.IsClosed(); {
		if ctx.Err() != nil {
			t.Fatal("one that was taken out is connected")
		}
	}
	if nc, err := nats.Connect(k.URL(), creds["v2"].Options()...); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("one that was taken out: %v", err)
		nc.Close()
	}
	mustPublish(t, js, "ledger.token.aa.created", "one")

	// A change that needs other steps is refused, and changes nothing.
	for name, ms := range map[string]Members{
		"without this node": members[1:],
		"another ledger":    append(members[:len(members):len(members)], Member{Name: "l9", Role: RoleLedger, Key: newKey(t).Public(), Certificate: members[0].Certificate[2:] + "00"}),
		"no key":            append(members[:len(members):len(members)], Member{Name: "v9", Role: RoleVerifier, Certificate: members[0].Certificate}),
	} {
		if err := k.SetMembers(ms); err == nil {
			t.Errorf("%s: SetMembers = nil, want a refusal", name)
		}
	}
	mustConnect(t, k.URL(), v3.Options()...)
}
