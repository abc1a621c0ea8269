package events

import (
	"errors"
	"fmt"
	"time"
)

// Policy is what holds for every token and every session.
type Policy struct {
	// MaxLifetime is the longest that a token may live, in seconds. Zero means
	// that it may live for ever.
	MaxLifetime int64 `json:"max_lifetime_s"`
	// DefaultLifetime is how long a token lives whose maker does not say, in
	// seconds. Zero means as long as MaxLifetime allows.
	DefaultLifetime int64 `json:"default_lifetime_s"`
	// MaxGrace is the longest that an old secret may live after a rotation,
	// in seconds.
	MaxGrace int64 `json:"max_grace_s"`
	// WarnBefore is how long before its end checks of a token warn of it, in
	// seconds. Zero means never.
	WarnBefore int64 `json:"warn_before_s,omitempty"`

	// Issuers says who may make and widen tokens. Empty means [IssuersAll].
	Issuers IssuerPolicy `json:"token_issuers,omitempty"`
	// SiteAdminsAnyAccount lets admins of some resources make, widen and rotate
	// tokens of every account, not only of those within their resources.
	SiteAdminsAnyAccount bool `json:"site_admins_any_account,omitempty"`
	// LegacyRefused ends the use of plain secrets: those of 32 hexadecimal
	// characters, without prefix and checksum, that old clients insist on.
	LegacyRefused bool `json:"legacy_refused,omitempty"`
	// LegacyUntil is when the use of plain secrets ends, zero for no such time.
	LegacyUntil time.Time `json:"legacy_until,omitzero"`
	// URLRefused refuses every token that travelled in a URL.
	URLRefused bool `json:"url_refused,omitempty"`

	// TokenSignIn lets a token begin a session. It never proves the person.
	TokenSignIn bool `json:"token_sign_in,omitempty"`
	// SessionIdle is for how long a session may rest, in seconds. Zero means
	// [DefaultSessionIdle].
	SessionIdle int64 `json:"session_idle_s,omitempty"`
	// SessionLifetime is the longest that a session may be, in seconds. Zero means
	// [DefaultSessionLifetime].
	SessionLifetime int64 `json:"session_lifetime_s,omitempty"`
}

// How long sessions last where the policy does not say, and at most.
const (
	DefaultSessionIdle     = 30 * time.Minute
	DefaultSessionLifetime = 12 * time.Hour
	MaxSessionLifetime     = 30 * 24 * time.Hour
)

// IssuerPolicy says who may make and widen tokens. Values are stored and never
// reused.
type IssuerPolicy string

// Who may make and widen tokens.
const (
	IssuersAll        IssuerPolicy = "all"         // everybody theirs, and those below
	IssuersSiteAdmins IssuerPolicy = "site_admins" // admins those of their sites, and superusers
	IssuersSuperusers IssuerPolicy = "superusers"  // superusers alone
)

// DefaultPolicy is what a new ledger starts with.
var DefaultPolicy = Policy{
	MaxLifetime:     365 * 24 * 3600,
	DefaultLifetime: 365 * 24 * 3600,
	MaxGrace:        30 * 24 * 3600,
	WarnBefore:      14 * 24 * 3600,
}

// LegacyEnded reports whether plain secrets are refused at a time.
func (p *Policy) LegacyEnded(now time.Time) bool {
	return p.LegacyRefused || !p.LegacyUntil.IsZero() && !now.Before(p.LegacyUntil)
}

// Warns reports whether a token that ends at a time is to be warned of now.
func (p *Policy) Warns(now, expires time.Time) bool {
	return p.WarnBefore > 0 && !expires.IsZero() && expires.Sub(now) <= time.Duration(p.WarnBefore)*time.Second
}

// Idle returns for how long a session may rest.
func (p *Policy) SessionTimeout() time.Duration {
	if p.SessionIdle == 0 {
		return DefaultSessionIdle
	}
	return time.Duration(p.SessionIdle) * time.Second
}

// Life returns the longest that a session may be.
func (p *Policy) SessionMax() time.Duration {
	if p.SessionLifetime == 0 {
		return DefaultSessionLifetime
	}
	return time.Duration(p.SessionLifetime) * time.Second
}

// longestTime bounds a policy's times: more seconds are no duration.
const longestTime = 200 * 365 * 24 * 3600

// PolicySet replaces the policy.
type PolicySet struct {
	Policy Policy `json:"policy"`
}

// PolicyTokensRevoked ends every token of every account that was created before
// a time, or at a lower position than this event if Before is zero.
type PolicyTokensRevoked struct {
	NotBefore time.Time `json:"not_before,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

func (*PolicySet) Kind() Kind           { return KindPolicySet }
func (*PolicyTokensRevoked) Kind() Kind { return KindPolicyTokensRevoked }

func (c *PolicySet) validate() error {
	p := c.Policy
	var problems []error
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"max_lifetime_s", p.MaxLifetime},
		{"default_lifetime_s", p.DefaultLifetime},
		{"max_grace_s", p.MaxGrace},
		{"warn_before_s", p.WarnBefore},
		{"session_idle_s", p.SessionIdle},
		{"session_lifetime_s", p.SessionLifetime},
	} {
		if f.n < 0 || f.n > longestTime {
			problems = append(problems, fmt.Errorf("%s is %d; want 0 to %d seconds", f.name, f.n, int64(longestTime)))
		}
	}
	if p.MaxLifetime > 0 && p.DefaultLifetime > p.MaxLifetime {
		problems = append(problems, errors.New("default_lifetime_s is more than max_lifetime_s"))
	}
	if p.SessionMax() > MaxSessionLifetime {
		problems = append(
			problems,
			fmt.Errorf(
				"session_lifetime_s is %d; %d seconds are the most",
				p.SessionLifetime,
				int64(MaxSessionLifetime/time.Second),
			),
		)
	}
	if p.SessionTimeout() > p.SessionMax() {
		problems = append(problems, errors.New("session_idle_s is more than session_lifetime_s"))
	}
	switch p.Issuers {
	case "", IssuersAll, IssuersSiteAdmins, IssuersSuperusers:
	default:
		problems = append(problems, fmt.Errorf("%w issuers of tokens %s", ErrUnknown, Quote(string(p.Issuers))))
	}
	return errors.Join(problems...)
}

// critical returns what a reader that ignores it would let through.
func (c *PolicySet) critical() []string {
	var out []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"policy.token_issuers", c.Policy.Issuers != ""},
		{"policy.legacy_refused", c.Policy.LegacyRefused},
		{"policy.legacy_until", !c.Policy.LegacyUntil.IsZero()},
		{"policy.url_refused", c.Policy.URLRefused},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

func (c *PolicyTokensRevoked) validate() error { return checkLabel("reason", c.Reason) }
