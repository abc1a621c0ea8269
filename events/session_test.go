package events

import (
	"errors"
	"testing"
)

// TestSecretsOfPeople checks that secrets of sessions, invitations and tokens
// are never accepted as each other, with any secret prefix of the ledger.
func TestSecretsOfPeople(t *testing.T) {
	session, invitation := NewSessionSecret().Reveal(), NewInvitation().Reveal()
	token := DefaultFormat.NewSecret(UserAccount).Reveal()
	for _, stem := range []string{"tl", "tlx", "tli", "tl0"} {
		f, err := NewFormat(stem)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{session, invitation} {
			if f.Shape(s) {
				t.Errorf("prefix %s: the secret of a person has the shape of a token's", stem)
			}
		}
		if s := f.NewSecret(UserAccount).Reveal(); IsSessionSecret(s) {
			t.Errorf("prefix %s: a token's secret is taken for a session's", stem)
		}
	}
	for _, tt := range []struct {
		secret              string
		session, invitation bool
	}{
		{session, true, false},
		{invitation, false, true},
		{token, false, false},
		{session[:len(session)-1] + "!", false, false},
		{session + "0", false, false},
		{"tlx_", false, false},
		{"", false, false},
	} {
		got, err := ParseSessionSecret(tt.secret)
		if (err == nil) != tt.session || err != nil && !errors.Is(err, ErrBadSecret) || err == nil && got.Reveal() != tt.secret {
			t.Errorf("ParseSessionSecret = %v, want accepted %t", err, tt.session)
		}
		got, err = ParseInvitation(tt.secret)
		if (err == nil) != tt.invitation || err != nil && !errors.Is(err, ErrBadSecret) || err == nil && got.Reveal() != tt.secret {
			t.Errorf("ParseInvitation = %v, want accepted %t", err, tt.invitation)
		}
	}
	if !LooksSecret("so it is: "+session) || !LooksSecret(invitation) {
		t.Error("the secrets of people do not look like secrets")
	}
	if NewSessionSecret().Reveal() == session {
		t.Error("a secret came twice")
	}
}
