package resident

import "github.com/tokenledger/tokenledger/events"

// label is a token's label and, if another account than its own made the secret,
// that account. They are held together: nearly all secrets are made by their own
// account, and those of one issuer have few labels.
type label struct {
	app    string
	issuer *events.AccountID // nil for the token's own account
}

// issuerMark begins the stored form of a label with an issuer, whose 16 bytes
// follow. No text in UTF-8 begins with it.
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

// labelReader returns what reads the stored forms of labels. It returns no
// errors.
func labelReader(issuerOf func([]byte) events.AccountID) func([]byte) (*label, error) {
	return func(b []byte) (*label, error) {
		if len(b) <= issuerBytes || b[0] != issuerMark {
			return &label{app: string(b)}, nil
		}
		issuer := issuerOf(b[1 : 1+issuerBytes])
		return &label{app: string(b[1+issuerBytes:]), issuer: &issuer}, nil
	}
}
