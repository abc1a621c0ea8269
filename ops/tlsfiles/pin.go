package tlsfiles

import (
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrFingerprint reports a server with another certificate than the pinned one.
var ErrFingerprint = errors.New("the server has another certificate")

var fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ParseFingerprint returns a fingerprint as [Fingerprint] writes it. It also reads
// the form of openssl: pairs of digits with colons between them.
func ParseFingerprint(s string) (string, error) {
	digits := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(s)), "sha256:")
	digits = strings.ReplaceAll(digits, ":", "")
	if !fingerprint.MatchString(digits) {
		return "", errors.New(`must be "sha256:" and 64 hexadecimal digits, as the node logs it when it starts`)
	}
	return "sha256:" + digits, nil
}

// Pinned returns the configuration of a client that accepts the certificate with
// one fingerprint and no other, whoever signed it.
func Pinned(fingerprint string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection is stricter
		VerifyConnection: func(state tls.ConnectionState) error {
			if have := Fingerprint(state.PeerCertificates[0].Raw); have != fingerprint {
				return fmt.Errorf("%w: its fingerprint is %s, and %s is expected", ErrFingerprint, have, fingerprint)
			}
			return nil
		},
	}
}
