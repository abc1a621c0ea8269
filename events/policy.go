package events

import (
	"errors"
	"fmt"
	"time"
)

// Policy is what holds for every token and every session.
type Policy struct {
	// MaxLife is the longest that a token may live, in seconds. Zero means
	// that it may live for ever.
	MaxLife int64 `json:"max_life_s"`
	// DefaultLife is how long a token lives whose maker does not say, in
	// seconds. Zero means as long as MaxLife allows.
	DefaultLife int64 `json:"default_life_s"`
	// MaxGrace is the longest that an old secret may live after a rotation,
	// in seconds.
	MaxGrace int64 `json:"max_grace_s"`
	// WarnBefore is how long before its end checks of a token warn of it, in
	// seconds. Zero means never.
	WarnBefore int64 `json:"warn_before_s,omitempty"`

	// Makers says who may make and widen tokens. Empty means [MakersAll].
	Makers Makers `json:"token_makers,omitempty"`
	// SiteAdminsAnyAccount lets admins of some resources make, widen and rotate
	// tokens of every account, not only of those within their resources.
	SiteAdminsAnyAccount bool `json:"site_admins_any_account,omitempty"`
	// PlainRefused ends the use of plain secrets: those of 32 hexadecimal
	// characters, without prefix and checksum, that old clients insist on.
	PlainRefused bool `json:"plain_refused,omitempty"`
	// PlainUntil is when the use of plain secrets ends, zero for no such time.
	PlainUntil time.Time `json:"plain_until,omitzero"`
	// URLRefused refuses every token that travelled in a URL.
	URLRefused bool `json:"url_refused,omitempty"`

	// TokenSignIn lets a token begin a session. It never proves the person.
	TokenSignIn bool `json:"token_sign_in,omitempty"`
	// SessionIdle is for how long a session may rest, in seconds. Zero means
	// [DefaultSessionIdle].
	SessionIdle int64 `json:"session_idle_s,omitempty"`
	// SessionLife is the longest that a session may be, in seconds. Zero means
	// [DefaultSessionLife].
	SessionLife int64 `json:"session_life_s,omitempty"`
}

// How long sessions last where the policy does not say, and at most.
const (
	DefaultSessionIdle = 30 * time.Minute
	DefaultSessionLife = 12 * time.Hour
	MaxSessionLife     = 30 * 24 * time.Hour
)

// Makers says who may make and widen tokens. Values are stored and never
// reused.
type Makers string

// Who may make and widen tokens.
const (
	MakersAll        Makers = "all"         // everybody theirs, and those below
	MakersSiteAdmins Makers = "site_admins" // admins those of their sites, and superusers
	MakersSuperusers Makers = "superusers"  // superusers alone
)

// DefaultPolicy is what a new ledger starts with.
var DefaultPolicy = Policy{
	MaxLife:     365 * 24 * 3600,
	DefaultLife: 365 * 24 * 3600,
	MaxGrace:    30 * 24 * 3600,
	WarnBefore:  14 * 24 * 3600,
}

// PlainEnded reports whether plain secrets are refused at a time.
func (p *Policy) PlainEnded(now time.Time) bool {
	return p.PlainRefused || !p.PlainUntil.IsZero() && !now.Before(p.PlainUntil)
}

// Warns reports whether a token that ends at a time is to be warned of now.
func (p *Policy) Warns(now, expires time.Time) bool {
	return p.WarnBefore > 0 && !expires.IsZero() && expires.Sub(now) <= time.Duration(p.WarnBefore)*time.Second
}

// Idle returns for how long a session may rest.
func (p *Policy) Idle() time.Duration {
	if p.SessionIdle == 0 {
		return DefaultSessionIdle
	}
	return time.Duration(p.SessionIdle) * time.Second
}

// Life returns the longest that a session may be.
func (p *Policy) Life() time.Duration {
	if p.SessionLife == 0 {
		return DefaultSessionLife
	}
	return time.Duration(p.SessionLife) * time.Second
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
	Before time.Time `json:"before,omitzero"`
	Reason string    `json:"reason,omitempty"`
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
		{"max_life_s", p.MaxLife},
		{"default_life_s", p.DefaultLife},
		{"max_grace_s", p.MaxGrace},
		{"warn_before_s", p.WarnBefore},
		{"session_idle_s", p.SessionIdle},
		{"session_life_s", p.SessionLife},
	} {
		if f.n < 0 || f.n > longestTime {
			problems = append(problems, fmt.Errorf("%s is %d; want 0 to %d seconds", f.name, f.n, int64(longestTime)))
		}
	}
	if p.MaxLife > 0 && p.DefaultLife > p.MaxLife {
		problems = append(problems, errors.New("default_life_s is more than max_life_s"))
	}
	if p.Life() > MaxSessionLife {
		problems = append(
			problems,
			fmt.Errorf(
				"session_life_s is %d; %d seconds are the most",
				p.SessionLife,
				int64(MaxSessionLife/time.Second),
			),
		)
	}
	if p.Idle() > p.Life() {
		problems = append(problems, errors.New("session_idle_s is more than session_life_s"))
	}
	switch p.Makers {
	case "", MakersAll, MakersSiteAdmins, MakersSuperusers:
	default:
		problems = append(problems, fmt.Errorf("%w makers of tokens %s", ErrUnknown, Quote(string(p.Makers))))
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
		{"policy.token_makers", c.Policy.Makers != ""},
		{"policy.plain_refused", c.Policy.PlainRefused},
		{"policy.plain_until", !c.Policy.PlainUntil.IsZero()},
		{"policy.url_refused", c.Policy.URLRefused},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

func (c *PolicyTokensRevoked) validate() error { return checkLabel("reason", c.Reason) }
