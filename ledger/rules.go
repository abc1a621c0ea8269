package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/errdefs"
)

// live returns [ErrEnded] where an account's tokens cannot work.
func live(a *events.Account) error {
	switch {
	case a.Erased:
		return fmt.Errorf("%w: account %s is erased", ErrEnded, a.ID)
	case a.Suspended:
		return fmt.Errorf("%w: account %s is suspended; resume it first", ErrEnded, a.ID)
	}
	return nil
}

// within returns [ErrForbidden] where scopes go beyond what the account has.
func (l *Ledger) within(a *events.Account, scopes []events.Scope) error {
	if missing := l.cfg.Model.Missing(a.Grants, scopes); len(missing) > 0 {
		return fmt.Errorf("%w: account %s does not have %s itself; a token is never more than its account", ErrForbidden, a.ID, strings.Join(events.ScopeStrings(missing), ", "))
	}
	return nil
}

func (l *Ledger) parseScopes(list []string, inherit bool) ([]events.Scope, error) {
	switch {
	case inherit && len(list) > 0:
		return nil, errdefs.Invalid("inherit", "takes all that the account has; leave scopes out")
	case !inherit && len(list) == 0:
		return nil, errdefs.Invalid("scopes", "is empty, and such a token could do nothing; name scopes, or inherit")
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

// clock returns [ErrUnavailable] if a command that computes a time from this
// machine's clock, or compares one with it, would compute a wrong one.
func (l *Ledger) clock() error {
	if err := l.cfg.Clock(); err != nil {
		return fmt.Errorf("%w: nothing was changed, because the clock of this ledger is in doubt: %w", ErrUnavailable, err)
	}
	return nil
}

func (l *Ledger) expiry(now time.Time, in *time.Duration) (time.Time, error) {
	p, err := l.policy()
	if err != nil {
		return time.Time{}, err
	}
	life := time.Duration(p.DefaultLife) * time.Second
	if life == 0 {
		life = time.Duration(p.MaxLife) * time.Second
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

// lastYear bounds times: later ones are no number of nanoseconds.
const lastYear = 2261

func (l *Ledger) checkExpiry(now, at time.Time, field string) error {
	p, err := l.policy()
	if err != nil {
		return err
	}
	longest := time.Duration(p.MaxLife) * time.Second
	switch {
	case !at.After(now):
		return errdefs.Invalid(field, "is not in the future")
	case longest > 0 && at.Sub(now) > longest:
		return errdefs.Invalid(field, "is more than %s away, the longest that the policy allows", humanDuration(longest))
	case at.Year() > lastYear:
		return errdefs.Invalid(field, "is past the year %d", lastYear)
	}
	return nil
}

// graceEnd returns until when the old secret lives, zero if it ends with the
// event.
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
		return time.Time{}, errdefs.Invalid("grace", "is more than %s, the longest that the policy allows", humanDuration(longest))
	}
	if g == 0 {
		return time.Time{}, nil
	}
	if err := l.clock(); err != nil {
		return time.Time{}, err
	}
	until := now.Add(g).UTC().Round(0)
	if !t.Expires.IsZero() && t.Expires.Before(until) {
		until = t.Expires
	}
	return until, nil
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

// notEnded returns [ErrEnded] if a token was revoked, by itself or together with
// others, or if its account was erased. Such a token never works again, so there is
// nothing to change about it.
func (l *Ledger) notEnded(t *events.Token) error {
	if t.State == events.Revoked {
		return endedError(t)
	}
	switch cut, err := l.cutOff(t); {
	case err != nil:
		return err
	case cut:
		return fmt.Errorf("%w: the token was revoked together with others of its account, or its account was erased; create a new one", ErrEnded)
	}
	return nil
}

func endedError(t *events.Token) error {
	return fmt.Errorf("%w: the token is revoked since %s, for ever", ErrEnded, t.Revoked.Format(time.RFC3339))
}

// newSecret makes a secret of a form, and what the log keeps of it.
func (l *Ledger) newSecret(kind events.AccountKind, form events.SecretForm) (events.Secret, events.SecretRecord) {
	s := l.cfg.Format.NewSecret(kind)
	if form == events.FormHex32 {
		s = events.NewHexSecret()
	}
	r := record(s)
	r.Form = form
	return s, r
}

func record(s events.Secret) events.SecretRecord {
	return events.SecretRecord{Scheme: events.SchemeSHA256, Digest: s.Digest()}
}

// checkChange turns what cannot be in an event into [ErrInvalid].
func checkChange(c events.Change) error {
	if err := events.Check(c); err != nil {
		return fmt.Errorf("%w: %s", ErrInvalid, oneLine(err))
	}
	return nil
}

// oneLine puts a joined error on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// humanDuration prints whole days, hours and minutes as such.
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
