package tlsfiles

import (
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"slices"
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

// ParseFingerprints parses fingerprints with commas between them, one for each
// server, and returns them in the same form.
func ParseFingerprints(s string) (string, error) {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		got, err := ParseFingerprint(part)
		if err != nil {
			return "", err
		}
		list = append(list, got)
	}
	return strings.Join(list, ","), nil
}

// Pinned returns the configuration of a client that accepts certificates with one
// of the fingerprints, which have commas between them, and no others. Their issuers
// do not matter.
func Pinned(fingerprints string) *tls.Config {
	known := strings.Split(fingerprints, ",")
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection is stricter
		VerifyConnection: func(state tls.ConnectionState) error {
			if have := Fingerprint(state.PeerCertificates[0].Raw); !slices.Contains(known, have) {
				return fmt.Errorf(
					"%w: its fingerprint is %s, and %s is expected", ErrFingerprint, have, strings.Join(known, " or "),
				)
			}
			return nil
		},
	}
}
