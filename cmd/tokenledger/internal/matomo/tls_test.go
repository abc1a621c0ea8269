package matomo_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo/matomotest"
)

// writeCertificate writes a self-signed certificate for localhost and its key.
func writeCertificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestDatabaseTLS reads from a server whose user must use TLS, with the settings of
// config.ini.php.
func TestDatabaseTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, "server")
	other, _ := writeCertificate(t, dir, "other")
	s := matomotest.Start(t, "--ssl-cert="+cert, "--ssl-key="+key)
	fill(s, "secure", "5")
	s.Exec("ALTER USER '" + matomotest.User + "'@'localhost' REQUIRE SSL")
	for _, tt := range []struct{ name, settings, says string }{
		{"the certificate is known", "enable_ssl = 1\nssl_ca = \"" + cert + "\"\n", ""},
		{"any certificate", "enable_ssl = 1\nssl_no_verify = 1\n", ""},
		{"without TLS", "", "denied"},
		{"an unknown certificate", "enable_ssl = 1\n", "certificate"},
		{"another certificate is known", "enable_ssl = 1\nssl_ca = \"" + other + "\"\n", "certificate"},
		{"no file", "enable_ssl = 1\nssl_ca = \"" + dir + "/none\"\n", "ssl_ca"},
		{"a file without a certificate", "enable_ssl = 1\nssl_ca = \"" + key + "\"\n", "ssl_ca"},
		{"a key that is none", "enable_ssl = 1\nssl_no_verify = 1\nssl_cert = \"" + cert + "\"\nssl_key = \"" + cert + "\"\n", "ssl_cert"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(s.Config("secure", salt), "[database]\n", "[database]\n"+tt.settings, 1)
			c, err := matomo.ParseConfig([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			dsn, err := c.DSN()
			var got *matomo.Source
			if err == nil {
				got, err = matomo.Database(t.Context(), dsn, "matomo_", now)
			}
			switch {
			case tt.says == "" && (err != nil || len(got.Users) == 0):
				t.Errorf("read %+v, %v", got, err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("read with %v; want it to say %q", err, tt.says)
			case err != nil && strings.Contains(err.Error(), matomotest.Password):
				t.Error("the error has the password")
			}
		})
	}
}
