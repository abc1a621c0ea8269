package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// The second factor is a time-based one-time password (RFC 6238) with the parameters
// that every authenticator app supports: SHA-1, six digits, steps of 30 s.
const (
	issuer     = "tokenledger"
	codeDigits = 6
	codePeriod = 30 * time.Second
	// codeSkew is the accepted clock offset in steps, in either direction (RFC 6238
	// section 5.2).
	codeSkew = 1
)

// Recovery codes replace a lost second factor, each one once.
const (
	recoveryCodes  = 10
	recoveryLength = 10 // bytes: 80 bits
)

// secondFactor is the stored form of a second factor.
type secondFactor struct {
	Secret   string `json:"secret"`    // base32
	LastStep uint64 `json:"last_step"` // of the last used code; only increases
}

// newTOTPSecret generates the secret of a second factor, and the URI by which apps
// import it.
func newTOTPSecret(account string) (secret, uri string, err error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: issuer, AccountName: account, Rand: rand.Reader})
	if err != nil {
		return "", "", err
	}
	return key.Secret(), key.URL(), nil
}

// step returns the step of a code, if it is close to now and after the step of the
// last used code. Used says that it is close to now, and not after that step.
func (f secondFactor) step(code string, now time.Time) (step uint64, used, ok bool) {
	current := now.Unix() / int64(codePeriod/time.Second)
	for n := current - codeSkew; n <= current+codeSkew; n++ {
		want, err := hotp.GenerateCodeCustom(
			f.Secret,
			uint64(n),
			hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1},
		)
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			if uint64(n) > f.LastStep {
				step, ok = uint64(n), true
			} else {
				used = true
			}
		}
	}
	return step, used && !ok, ok
}

// codeKind is the kind of a code that was checked.
type codeKind int

const (
	wrongCode codeKind = iota
	usedCode
	totpCode
	recoveryCode
)

// useCode marks a code of the second factor, or a recovery code, as used. This takes
// effect when the credential is stored.
func (c *credential) useCode(code string, now time.Time) codeKind {
	if c.SecondFactor == nil {
		return wrongCode
	}
	code = normalizeCode(code)
	switch step, used, ok := c.SecondFactor.step(code, now); {
	case ok:
		c.SecondFactor.LastStep = step
		return totpCode
	case used:
		return usedCode
	}
	digest, found := recoveryDigest(code), -1
	for i, d := range c.Recovery {
		if subtle.ConstantTimeCompare([]byte(d), []byte(digest)) == 1 {
			found = i
		}
	}
	if found < 0 {
		return wrongCode
	}
	c.Recovery = slices.Delete(c.Recovery, found, found+1)
	return recoveryCode
}

var recoveryAlphabet = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newRecoveryCodes generates recovery codes and the digests that are stored.
func newRecoveryCodes() (codes, digests []string) {
	const group = 4
	for range recoveryCodes {
		text := recoveryAlphabet.EncodeToString(randomBytes(recoveryLength))
		var parts []string
		for part := range slices.Chunk([]byte(text), group) {
			parts = append(parts, string(part))
		}
		codes = append(codes, strings.Join(parts, "-"))
		digests = append(digests, recoveryDigest(text))
	}
	return codes, digests
}

// maxCodeLength is more than any code has, however it is grouped.
const maxCodeLength = 64

// normalizeCode returns a code as it is compared: without separators, in lower case,
// and with digits for the letters that look like them.
func normalizeCode(s string) string {
	if len(s) > maxCodeLength {
		return ""
	}
	return strings.NewReplacer(" ", "", "-", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(s))
}

func recoveryDigest(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return phcEncoding.EncodeToString(sum[:])
}

// Enrolment is the data for an authenticator app. It is shown once.
type Enrolment struct {
	Secret string // base32
	URI    string // otpauth://totp/…
}

// AddSecondFactor creates a second factor, which is in force after [SignIn.Confirm].
// Until then an existing one stays in force. Replacing it needs one of its codes or a
// recovery code; without a code the error is a [*ledger.FieldError]. The caller must
// have authenticated recently.
func (s *SignIn) AddSecondFactor(ctx context.Context, c authz.Principal, code string) (Enrolment, error) {
	if err := s.requireRecent(c, "add a second factor"); err != nil {
		return Enrolment{}, err
	}
	login, err := s.cfg.Directory.LoginOf(ctx, c.Account)
	if err != nil {
		return Enrolment{}, err
	}
	secret, uri, err := newTOTPSecret(login)
	if err != nil {
		return Enrolment{}, err
	}
	err = s.withCode(ctx, c, code, func(useCode func(*credential) error) error {
		_, err := s.editCredential(ctx, c.Account, func(cred *credential) error {
			cred.Pending = secret
			if cred.SecondFactor == nil {
				return nil
			}
			return useCode(cred)
		})
		return err
	})
	if err != nil {
		return Enrolment{}, err
	}
	return Enrolment{Secret: secret, URI: uri}, nil
}

// withCode carries out a change that needs a code of the second factor or a recovery
// code. The change calls useCode on the credential, which uses up the code or fails.
// A wrong code counts as a failed attempt, a missing one does not.
func (s *SignIn) withCode(
	ctx context.Context, c authz.Principal, code string, change func(useCode func(*credential) error) error,
) error {
	_, try, err := s.beginAttempt(ctx, c)
	if err != nil {
		return err
	}
	err = change(func(cred *credential) error {
		if code == "" {
			return &ledger.FieldError{
				Field:   "code",
				Problem: "is required: a code of the current second factor, or a recovery code",
			}
		}
		kind := cred.useCode(code, s.now())
		if kind == recoveryCode {
			cred.Due = append(cred.Due, newPendingEvent(c, events.CredentialRecoveryCodeUsed))
		}
		return kind.error()
	})
	if !errors.Is(err, ErrFailed) {
		try.refund()
	}
	return err
}

// Confirm puts the added second factor in force, if the code is one of its codes. It
// returns recovery codes, which are shown once. The caller must have authenticated
// recently.
func (s *SignIn) Confirm(ctx context.Context, c authz.Principal, code string) ([]string, error) {
	if err := s.requireRecent(c, "add a second factor"); err != nil {
		return nil, err
	}
	// A caller whose session has ended does not learn whether the code is correct.
	if _, err := s.cfg.Directory.Confirmed(ctx, c); err != nil {
		return nil, err
	}
	codes, digests := newRecoveryCodes()
	_, err := s.changeCredential(
		ctx,
		c.Account,
		newPendingEvent(c, events.CredentialSecondFactor),
		func(cred *credential) error {
			if cred.Pending == "" {
				return fmt.Errorf("%w: no second factor to confirm; add one first", ledger.ErrInvalid)
			}
			f := secondFactor{Secret: cred.Pending}
			step, _, ok := f.step(normalizeCode(code), s.now())
			if !ok {
				return &ledger.FieldError{
					Field:   "code",
					Problem: "is not the current code of the authenticator app; check the clocks of both",
				}
			}
			f.LastStep = step
			cred.SecondFactor, cred.Pending, cred.Recovery = &f, "", digests
			return nil
		},
	)
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// RemoveSecondFactor removes the second factor and its recovery codes. It needs a
// code of either kind, and the caller must have authenticated recently.
func (s *SignIn) RemoveSecondFactor(ctx context.Context, c authz.Principal, code string) error {
	if err := s.requireRecent(c, "remove the second factor"); err != nil {
		return err
	}
	return s.withCode(ctx, c, code, func(useCode func(*credential) error) error {
		_, err := s.changeCredential(
			ctx,
			c.Account,
			newPendingEvent(c, events.CredentialSecondFactorRemoved),
			func(cred *credential) error {
				if cred.SecondFactor == nil {
					return fmt.Errorf("%w: the account has no second factor", ledger.ErrInvalid)
				}
				if err := useCode(cred); err != nil {
					return err
				}
				cred.SecondFactor, cred.Recovery, cred.Pending = nil, nil, ""
				return nil
			},
		)
		return err
	})
}

// RenewRecovery replaces the recovery codes and returns the new ones, which are shown
// once. It needs a code of either kind, and the caller must have authenticated
// recently.
func (s *SignIn) RenewRecovery(ctx context.Context, c authz.Principal, code string) ([]string, error) {
	if err := s.requireRecent(c, "make recovery codes"); err != nil {
		return nil, err
	}
	codes, digests := newRecoveryCodes()
	err := s.withCode(ctx, c, code, func(useCode func(*credential) error) error {
		_, err := s.changeCredential(
			ctx,
			c.Account,
			newPendingEvent(c, events.CredentialRecoveryCodes),
			func(cred *credential) error {
				if cred.SecondFactor == nil {
					return fmt.Errorf("%w: the account has no second factor; add one first", ledger.ErrInvalid)
				}
				if err := useCode(cred); err != nil {
					return err
				}
				cred.Recovery = digests
				return nil
			},
		)
		return err
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}
