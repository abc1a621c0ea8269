package resident

import "github.com/tokenledger/tokenledger/events"

// label is the label of a token and the issuer of the secret, if that is not
// the token's account. They share one number in the record: most secrets have
// no such issuer, and one issuer uses few labels.
type label struct {
	app    string
	issuer *events.AccountID // nil for the token's own account
}

// issuerMark begins the stored form of a label with an issuer, and the 16 bytes
// of the issuer follow. No UTF-8 text begins with this byte.
const (
	issuerMark  = 0xff
	issuerBytes = 16
)

// appendLabel appends the stored form of a secret's label.
func appendLabel(b []byte, s *Secret) []byte {
	if len(s.Issuer) > 0 {
		b = append(append(b, issuerMark), s.Issuer...)
	}
	return append(b, s.App...)
}

// labelReader returns a function that parses the stored form of a label. The
// function never returns an error.
func labelReader(issuerOf func([]byte) events.AccountID) func([]byte) (*label, error) {
	return func(b []byte) (*label, error) {
		if len(b) <= issuerBytes || b[0] != issuerMark {
			return &label{app: string(b)}, nil
		}
		issuer := issuerOf(b[1 : 1+issuerBytes])
		return &label{app: string(b[1+issuerBytes:]), issuer: &issuer}, nil
	}
}
