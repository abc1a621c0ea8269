package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// checkActive returns [ErrEnded] if an account is suspended or erased.
func checkActive(a *events.Account) error {
	switch {
	case a.Erased:
		return fmt.Errorf("%w: account %s is erased", ErrEnded, a.ID)
	case a.Suspended:
		return fmt.Errorf("%w: account %s is suspended; resume it first", ErrEnded, a.ID)
	}
	return nil
}

// checkWithinAccount returns [ErrForbidden] if scopes exceed the account's grants.
func (l *Ledger) checkWithinAccount(a *events.Account, scopes []events.Scope) error {
	if missing := l.cfg.Model.Missing(a.Grants, scopes); len(missing) > 0 {
		return fmt.Errorf("%w: account %s does not have %s; a token cannot have more rights than its account",
			ErrForbidden, a.ID, events.ListScopes(missing))
	}
	return nil
}

func (l *Ledger) parseScopes(list []string, inherit bool) ([]events.Scope, error) {
	switch {
	case inherit && len(list) > 0:
		return nil, errdefs.Invalid("inherit", "means all grants of the account; omit scopes")
	case !inherit && len(list) == 0:
		return nil, errdefs.Invalid("scopes", "is empty, so the token could do nothing; give scopes or set inherit")
	}
	return l.checkScopes("scopes", list)
}

func (l *Ledger) checkScopes(field string, list []string) ([]events.Scope, error) {
	scopes, err := events.ParseScopes(list)
	if err == nil {
		err = l.cfg.Model.CheckAll(scopes)
	}
	if err != nil {
		return nil, errdefs.Invalid(field, "%s", oneLine(err))
	}
	return scopes, nil
}

// checkClock returns [ErrUnavailable] if this machine's clock is in doubt. Every
// command that computes a time, or compares one with the clock, calls it.
func (l *Ledger) checkClock() error {
	if err := l.cfg.Clock(); err != nil {
		return fmt.Errorf(
			"%w: nothing was changed, because the clock of this ledger may be wrong: %w",
			ErrUnavailable,
			err,
		)
	}
	return nil
}

func (l *Ledger) expiry(now time.Time, in *time.Duration) (time.Time, error) {
	p, err := l.policy()
	if err != nil {
		return time.Time{}, err
	}
	life := time.Duration(p.DefaultLifetime) * time.Second
	if life == 0 {
		life = time.Duration(p.MaxLifetime) * time.Second
	}
	if in != nil {
		if life = *in; life <= 0 {
			return time.Time{}, errdefs.Invalid("expires_in", "is not in the future")
		}
	} else if life == 0 {
		return time.Time{}, nil // the policy sets no end
	}
	at := now.Add(life).UTC().Round(0)
	return at, l.checkExpiry(now, at, "expires_in")
}

// lastYear bounds times: later ones do not fit into nanoseconds.
const lastYear = 2261

func (l *Ledger) checkExpiry(now, at time.Time, field string) error {
	p, err := l.policy()
	if err != nil {
		return err
	}
	longest := time.Duration(p.MaxLifetime) * time.Second
	switch {
	case !at.After(now):
		return errdefs.Invalid(field, "is not in the future")
	case longest > 0 && at.Sub(now) > longest:
		return errdefs.Invalid(
			field,
			"is more than %s away, the maximum that the policy allows",
			humanDuration(longest),
		)
	case at.Year() > lastYear:
		return errdefs.Invalid(field, "is after the year %d", lastYear)
	}
	return nil
}

// graceEnd returns when the old secret ends, zero if it ends with the event.
func (l *Ledger) graceEnd(t *events.Token, now time.Time, grace *time.Duration) (time.Time, error) {
	p, err := l.policy()
	if err != nil {
		return time.Time{}, err
	}
	longest := time.Duration(p.MaxGrace) * time.Second
	g := min(defaultGrace, longest)
	if grace != nil {
		g = *grace
	}
	switch {
	case g < 0:
		return time.Time{}, errdefs.Invalid("grace", "is negative")
	case g > longest:
		return time.Time{}, errdefs.Invalid(
			"grace",
			"is more than %s, the maximum that the policy allows",
			humanDuration(longest),
		)
	}
	if g == 0 {
		return time.Time{}, nil
	}
	if err := l.checkClock(); err != nil {
		return time.Time{}, err
	}
	until := now.Add(g).UTC().Round(0)
	if !t.Expires.IsZero() && t.Expires.Before(until) {
		until = t.Expires
	}
	return until, nil
}

// inGrace returns the earlier secrets of a token that are still valid.
func inGrace(t *events.Token, now time.Time) []events.SecretSlot {
	var list []events.SecretSlot
	for _, s := range t.Secrets {
		if !s.Until.IsZero() && now.Before(s.Until) {
			list = append(list, s)
		}
	}
	return list
}

// checkNoneInGrace returns [ErrInGrace] if an earlier secret is still valid.
func checkNoneInGrace(t *events.Token, now time.Time) error {
	for _, s := range inGrace(t, now) {
		return fmt.Errorf("%w: the secret of %s works until %s, and this rotation would end it now; nothing was changed",
			ErrInGrace, s.Since.UTC().Format(time.RFC3339), s.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// laterOf returns the later of two times.
func laterOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func expired(t *events.Token, now time.Time) bool {
	return !t.Expires.IsZero() && !now.Before(t.Expires)
}

// notEnded returns [ErrEnded] if a token was revoked, alone or by a bulk
// revocation, or if its account was erased. Such a token never works again.
func (l *Ledger) notEnded(t *events.Token) error {
	if t.State == events.Revoked {
		return endedError(t)
	}
	switch cut, err := l.cutOff(t); {
	case err != nil:
		return err
	case cut:
		return fmt.Errorf(
			"%w: token was revoked by a bulk revocation, or its account was erased; create a new one",
			ErrEnded,
		)
	}
	return nil
}

func endedError(t *events.Token) error {
	return fmt.Errorf("%w: token was revoked on %s; create a new one", ErrEnded, t.Revoked.Format(time.RFC3339))
}

// newSecret makes a secret in a format, and the record that the log keeps.
func (l *Ledger) newSecret(kind events.AccountKind, format events.SecretFormat) (events.Secret, events.SecretRecord) {
	s := l.cfg.Format.NewSecret(kind)
	if format == events.FormatHex32 {
		s = events.NewHexSecret()
	}
	r := record(s)
	r.Format = format
	return s, r
}

func record(s events.Secret) events.SecretRecord {
	return events.SecretRecord{Scheme: events.SchemeSHA256, Digest: s.Digest()}
}

// checkChange returns [ErrInvalid] if an event cannot have the change.
func checkChange(c events.Change) error {
	if err := events.Check(c); err != nil {
		return fmt.Errorf("%w: %s", ErrInvalid, oneLine(err))
	}
	return nil
}

// oneLine writes a joined error on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// humanDuration formats whole days, hours and minutes in words.
func humanDuration(d time.Duration) string {
	for _, unit := range []struct {
		name string
		is   time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		switch {
		case d == unit.is:
			return "1 " + unit.name
		case d > unit.is && d%unit.is == 0:
			return fmt.Sprintf("%d %ss", d/unit.is, unit.name)
		}
	}
	return d.String()
}
