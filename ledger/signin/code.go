package signin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
)

// The second factor: time-based one-time passwords (RFC 6238) with what every
// app for it can do: SHA-1, six digits, steps of 30 s.
const (
	issuer     = "tokenledger"
	codeDigits = 6
	codePeriod = 30 * time.Second
	// codeSkew is how many steps a clock may be off, either way (RFC 6238
	// section 5.2).
	codeSkew = 1
)

// Recovery codes stand in for a second factor that was lost.
const (
	recoveryCodes  = 10
	recoveryLength = 10 // bytes: 80 bits
)

// secondFactor is what codes are made from.
type secondFactor struct {
	Secret   string `json:"secret"`    // base32
	LastStep uint64 `json:"last_step"` // of the last code that was used; only rises
}

// newCodeKey makes the secret of a second factor, and the address by which apps
// take it over.
func newCodeKey(account string) (secret, uri string, err error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: issuer, AccountName: account, Rand: rand.Reader})
	if err != nil {
		return "", "", err
	}
	return key.Secret(), key.URL(), nil
}

// step returns the number of the step that a code is of, if it is one of those
// around now and after the last one that was used.
func (f secondFactor) step(code string, now time.Time) (uint64, bool) {
	current := now.Unix() / int64(codePeriod/time.Second)
	found, ok := uint64(0), false
	for n := current - codeSkew; n <= current+codeSkew; n++ {
		want, err := hotp.GenerateCodeCustom(f.Secret, uint64(n), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && uint64(n) > f.LastStep {
			found, ok = uint64(n), true
		}
	}
	return found, ok
}

// method says what a code was.
type method int

const (
	byNothing method = iota
	byCode
	byRecovery
)

// use takes a code of the second factor, or a recovery code, out of the
// credential. It counts only once the credential is stored.
func (c *credential) use(code string, now time.Time) method {
	if c.SecondFactor == nil {
		return byNothing
	}
	code = plainCode(code)
	if step, ok := c.SecondFactor.step(code, now); ok {
		c.SecondFactor.LastStep = step
		return byCode
	}
	digest, found := recoveryDigest(code), -1
	for i, d := range c.Recovery {
		if subtle.ConstantTimeCompare([]byte(d), []byte(digest)) == 1 {
			found = i
		}
	}
	if found < 0 {
		return byNothing
	}
	c.Recovery = slices.Delete(c.Recovery, found, found+1)
	return byRecovery
}

var recoveryAlphabet = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newRecoveryCodes makes codes to be shown once, and what is kept of them.
func newRecoveryCodes() (codes, digests []string) {
	const group = 4
	for range recoveryCodes {
		text := recoveryAlphabet.EncodeToString(random(recoveryLength))
		var parts []string
		for part := range slices.Chunk([]byte(text), group) {
			parts = append(parts, string(part))
		}
		codes = append(codes, strings.Join(parts, "-"))
		digests = append(digests, recoveryDigest(text))
	}
	return codes, digests
}

// longestCode is more than any code has, however it is grouped.
const longestCode = 64

// plainCode is a code as it is compared, however it was typed.
func plainCode(s string) string {
	if len(s) > longestCode {
		return ""
	}
	return strings.NewReplacer(" ", "", "-", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(s))
}

func recoveryDigest(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return phcEncoding.EncodeToString(sum[:])
}
