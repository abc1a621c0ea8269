package events

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy has the rules for all tokens and sessions.
type Policy struct {
	// MaxLifetime is the maximum lifetime of a token, in seconds. Zero means no limit.
	MaxLifetime int64 `json:"max_lifetime_s"`
	// DefaultLifetime is the lifetime of a token that is created without one, in
	// seconds. Zero means MaxLifetime.
	DefaultLifetime int64 `json:"default_lifetime_s"`
	// MaxGrace is the maximum time for which the previous secret works after a
	// rotation, in seconds.
	MaxGrace int64 `json:"max_grace_s"`
	// WarnBefore is the time before a token's expiry in which checks warn of it, in
	// seconds. Zero means no warning.
	WarnBefore int64 `json:"warn_before_s,omitempty"`

	// Issuers tells who may create and widen tokens. Empty means [IssuersAll].
	Issuers IssuerPolicy `json:"token_issuers,omitempty"`
	// SiteAdminsAnyAccount lets admins of some resources create, widen and rotate
	// tokens of every account, not only of accounts within their resources.
	SiteAdminsAnyAccount bool `json:"site_admins_any_account,omitempty"`
	// LegacyRefused refuses legacy secrets: 32 hexadecimal characters without prefix
	// and checksum.
	LegacyRefused bool `json:"legacy_refused,omitempty"`
	// LegacyUntil is the time from which legacy secrets are refused. Zero means never.
	LegacyUntil time.Time `json:"legacy_until,omitzero"`
	// URLRefused refuses every token that was sent in a URL.
	URLRefused bool `json:"url_refused,omitempty"`
	// CORSOrigins are the origins of pages whose scripts may call with a token and
	// read the answers. Empty means none.
	CORSOrigins Origins `json:"cors_origins,omitempty"`

	// TokenSignIn lets a person sign in with a token. A token never re-authenticates.
	TokenSignIn bool `json:"token_sign_in,omitempty"`
	// SessionIdle is the time after which an unused session expires, in seconds. Zero
	// means [DefaultSessionIdle].
	SessionIdle int64 `json:"session_idle_s,omitempty"`
	// SessionLifetime is the maximum lifetime of a session, in seconds. Zero means
	// [DefaultSessionLifetime].
	SessionLifetime int64 `json:"session_lifetime_s,omitempty"`
}

// Origins is a list of origins, separated by spaces. A text can be compared, and a
// [Policy] with it.
type Origins string

// NewOrigins returns a list of origins.
func NewOrigins(list []string) Origins { return Origins(strings.Join(list, " ")) }

// List returns the origins.
func (o Origins) List() []string { return strings.Fields(string(o)) }

// Has reports whether an origin is in the list. It allocates nothing.
func (o Origins) Has(origin string) bool {
	if origin == "" || strings.Contains(origin, " ") {
		return false
	}
	for one := range strings.SplitSeq(string(o), " ") {
		if strings.EqualFold(one, origin) {
			return true
		}
	}
	return false
}

func (o Origins) validate() error {
	list := o.List()
	if o != NewOrigins(list) {
		return errors.New("cors_origins: origins are separated by one space")
	}
	if len(list) > maxNarrow {
		return fmt.Errorf("cors_origins has %d entries; the limit is %d", len(list), maxNarrow)
	}
	for i, s := range list {
		if err := checkOrigin(s); err != nil {
			return fmt.Errorf("cors_origins: %w", err)
		}
		if slices.Contains(list[:i], s) {
			return fmt.Errorf("cors_origins: %s is there twice", Quote(s))
		}
	}
	return nil
}

// The defaults of sessions, and the longest lifetime that a policy may set.
const (
	DefaultSessionIdle     = 30 * time.Minute
	DefaultSessionLifetime = 12 * time.Hour
	MaxSessionLifetime     = 30 * 24 * time.Hour
)

// IssuerPolicy tells who may create and widen tokens. Values are stored and never
// reused.
type IssuerPolicy string

// The issuer policies.
const (
	IssuersAll        IssuerPolicy = "all"         // also people and services, for their own accounts
	IssuersSiteAdmins IssuerPolicy = "site_admins" // admins for their resources, and superusers
	IssuersSuperusers IssuerPolicy = "superusers"  // only superusers
)

// DefaultPolicy is the policy of a new ledger.
var DefaultPolicy = Policy{
	MaxLifetime:     365 * 24 * 3600,
	DefaultLifetime: 365 * 24 * 3600,
	MaxGrace:        30 * 24 * 3600,
	WarnBefore:      14 * 24 * 3600,
}

// LegacyEnded reports whether legacy secrets are refused at a time.
func (p *Policy) LegacyEnded(now time.Time) bool {
	return p.LegacyRefused || !p.LegacyUntil.IsZero() && !now.Before(p.LegacyUntil)
}

// Warns reports whether a check warns now that a token expires at a time.
func (p *Policy) Warns(now, expires time.Time) bool {
	return p.WarnBefore > 0 && !expires.IsZero() && expires.Sub(now) <= time.Duration(p.WarnBefore)*time.Second
}

// Idle returns the time after which an unused session expires.
func (p *Policy) SessionTimeout() time.Duration {
	if p.SessionIdle == 0 {
		return DefaultSessionIdle
	}
	return time.Duration(p.SessionIdle) * time.Second
}

// Life returns the maximum lifetime of a session.
func (p *Policy) SessionMax() time.Duration {
	if p.SessionLifetime == 0 {
		return DefaultSessionLifetime
	}
	return time.Duration(p.SessionLifetime) * time.Second
}

// maxSeconds is the longest time in a policy. It fits into a [time.Duration].
const maxSeconds = 200 * 365 * 24 * 3600

// PolicySet replaces the policy.
type PolicySet struct {
	Policy Policy `json:"policy"`
}

// PolicyTokensRevoked revokes every token of every account that was created before
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
		if f.n < 0 || f.n > maxSeconds {
			problems = append(problems, fmt.Errorf("%s is %d; want 0 to %d seconds", f.name, f.n, int64(maxSeconds)))
		}
	}
	if p.MaxLifetime > 0 && p.DefaultLifetime > p.MaxLifetime {
		problems = append(problems, errors.New("default_lifetime_s is greater than max_lifetime_s"))
	}
	if p.SessionMax() > MaxSessionLifetime {
		problems = append(
			problems,
			fmt.Errorf(
				"session_lifetime_s is %d; the limit is %d seconds",
				p.SessionLifetime,
				int64(MaxSessionLifetime/time.Second),
			),
		)
	}
	if p.SessionTimeout() > p.SessionMax() {
		problems = append(problems, errors.New("session_idle_s is greater than session_lifetime_s"))
	}
	if err := p.CORSOrigins.validate(); err != nil {
		problems = append(problems, err)
	}
	switch p.Issuers {
	case "", IssuersAll, IssuersSiteAdmins, IssuersSuperusers:
	default:
		problems = append(problems, fmt.Errorf("%w issuers of tokens %s", ErrUnknown, Quote(string(p.Issuers))))
	}
	return errors.Join(problems...)
}

// critical returns the fields that an older reader must not ignore.
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
