package signin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// The shortest and longest password, in code points (NIST SP 800-63B-4 section 3.1.1.2).
const (
	MinPassword = 15
	MaxPassword = 128
)

// maxPasswordBytes is the most bytes that the longest password can have.
const maxPasswordBytes = MaxPassword * utf8.UTFMax

// normalize returns the bytes of a password that are hashed, so that another
// keyboard or system gives the same bytes (RFC 8265 section 4.2.2). It refuses
// anything that cannot be a password.
func normalize(field string, password []byte) ([]byte, error) {
	refuse := func(format string, args ...any) ([]byte, error) {
		return nil, &ledger.FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(password) == 0:
		return refuse("is required")
	case len(password) > maxPasswordBytes, utf8.RuneCount(password) > MaxPassword:
		return refuse("has more than %d characters; choose a shorter one", MaxPassword)
	case !utf8.Valid(password):
		return refuse("is not UTF-8")
	}
	out := make([]byte, 0, len(password))
	for _, r := range string(password) {
		switch {
		case unicode.Is(unicode.Zs, r):
			r = ' '
		case !unicode.IsPrint(r):
			return refuse("has a character that cannot be printed; leave it out")
		}
		out = utf8.AppendRune(out, r)
	}
	return norm.NFC.Bytes(out), nil
}

// prepareNew normalizes a new password, and refuses a weak one. The login is that of
// its account.
func prepareNew(field string, password []byte, login string) ([]byte, error) {
	p, err := normalize(field, password)
	if err != nil {
		return nil, err
	}
	if why := weaknessOf(string(p), login); why != "" {
		return nil, &ledger.FieldError{Field: field, Problem: why}
	}
	return p, nil
}

// weaknessOf returns why a password is weak, empty if it is not. The text repeats
// nothing of the password.
func weaknessOf(password, login string) string {
	folded := fold(password)
	names := []string{"tokenledger"}
	if login = fold(login); len(login) >= minNameLength {
		names = append(names, login)
		if local, _, mail := strings.Cut(login, "@"); mail && len(local) >= minNameLength {
			names = append(names, local)
		}
	}
	switch n := utf8.RuneCountInString(password); {
	case n < MinPassword:
		return fmt.Sprintf(
			"has %d characters, but needs at least %d; some unrelated words are easy to remember",
			n,
			MinPassword,
		)
	case n > MaxPassword: // normalisation can make more of them
		return fmt.Sprintf("has more than %d characters; choose a shorter one", MaxPassword)
	}
	for _, name := range names {
		if strings.Contains(folded, name) || strings.Contains(unleet(folded), name) {
			return "contains the login or the name of this program"
		}
	}
	switch {
	case repeats(folded):
		return "repeats itself; choose one that does not"
	case uncommon(folded, login) < minUncommon:
		return "is common, or consists mostly of common words, years and keyboard rows; choose less common words"
	}
	return ""
}

// minNameLength is the length of the shortest login that a password must not
// contain. Shorter logins are parts of many words.
const minNameLength = 4

// fold removes differences of case.
func fold(s string) string { return strings.ToLower(s) }

// repeats reports whether a text repeats a short one, or has few different
// characters.
func repeats(s string) bool {
	const minDifferent, maxUnit = 5, 8
	runes := []rune(s)
	different := map[rune]bool{}
	for _, r := range runes {
		different[r] = true
	}
	if len(different) < minDifferent {
		return true
	}
	for unit := 1; unit <= maxUnit && 2*unit <= len(runes); unit++ {
		same := true
		for i := unit; i < len(runes) && same; i++ {
			same = runes[i] == runes[i-unit]
		}
		if same {
			return true
		}
	}
	return false
}

// newPassword checks and hashes a new password of the payer's account.
func (s *SignIn) newPassword(ctx context.Context, by payer, field string, password []byte) (string, error) {
	login, err := s.cfg.Directory.LoginOf(ctx, events.AccountID(by.account))
	if err != nil {
		return "", err
	}
	p, err := prepareNew(field, password, login)
	if err != nil {
		return "", err
	}
	defer clear(p)
	return s.hashes.hash(ctx, by, p)
}

// ChangePassword replaces the caller's password, if the old one is correct. It ends
// the other sessions of the account. The caller's session counts as re-authenticated.
func (s *SignIn) ChangePassword(ctx context.Context, c authz.Principal, old, password []byte) error {
	defer clear(old)
	defer clear(password)
	if err := s.requirePerson(c); err != nil {
		return err
	}
	cred, try, err := s.beginAttempt(ctx, c)
	if err != nil {
		return err
	}
	err = s.checkPassword(ctx, c, cred, "old", old)
	if !errors.Is(err, ErrFailed) {
		try.refund()
	}
	if err != nil {
		return err
	}
	phc, err := s.newPassword(ctx, payer{string(c.Account), c.Address}, "new", password)
	if err != nil {
		return err
	}
	changed, err := s.changeCredential(
		ctx,
		c.Account,
		newSessionsEnd(c, events.CredentialPassword, c.Session),
		func(now *credential) error {
			if now.Password != cred.Password {
				return errChanged
			}
			now.Password, now.Invitation = phc, nil
			return nil
		},
	)
	if err != nil {
		return err
	}
	s.dropPointer(ctx, cred.Invitation)
	s.removeEnded(ctx, c.Account, changed.From, c.Session)
	s.log.InfoContext(ctx, "password changed", "account_id", c.Account, "session_id", c.Session)
	_, err = s.updateSession(ctx, c, func(r *session) { r.Authenticated = s.now() })
	return err
}
