// Package when writes and reads times as people do. [Parse] reads everything that
// the functions of this package write, and exact times without a zone are UTC.
package when

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Lengths of days, weeks and years. They are fixed, so that a lifetime does not
// depend on the calendar.
const (
	Day  = 24 * time.Hour
	Week = 7 * Day
	Year = 365 * Day
)

// SoonMark follows a time that is near.
const SoonMark = ", soon"

// Exact returns a time to the second with its zone, as in "2031-12-31 18:00:00
// UTC". The zero time is empty.
func Exact(t time.Time, zone *time.Location) string { return exact(t, zone, "2006-01-02 15:04:05") }

// Precise is Exact to the millisecond.
func Precise(t time.Time, zone *time.Location) string {
	return exact(t, zone, "2006-01-02 15:04:05.000")
}

func exact(t time.Time, zone *time.Location, layout string) string {
	if t.IsZero() {
		return ""
	}
	t = t.In(zone)
	const minute = 60
	switch _, offset := t.Zone(); {
	case offset == 0, offset%minute != 0: // such an offset cannot be written
		return t.UTC().Format(layout) + " UTC"
	}
	// Zones have no names here: those in use are ambiguous.
	return t.Format(layout + " -07:00")
}

// units are the units of Relative, the shortest first. The next one begins at
// limit.
var units = []struct {
	length time.Duration
	limit  int64
	name   string
}{
	{time.Second, 100, "s"},
	{time.Minute, 100, "min"},
	{time.Hour, 48, "h"},
	{Day, 2 * int64(Year/Day), "days"},
	{Year, math.MaxInt64, "years"},
}

// Relative returns how far a time is from now, as in "in 3 h" or "2 days ago". The
// zero time is empty.
func Relative(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := t.Sub(now)
	ahead := d >= 0
	if !ahead {
		d = -max(d, -math.MaxInt64)
	}
	for _, u := range units {
		n := int64(d / u.length)
		if d%u.length >= u.length/2 {
			n++
		}
		switch {
		case n >= u.limit:
			continue
		case n == 0:
			return "now"
		case ahead:
			return fmt.Sprintf("in %d %s", n, u.name)
		}
		return fmt.Sprintf("%d %s ago", n, u.name)
	}
	panic("the last unit has no limit")
}

// Both returns how far a time is from now, and the exact time: "in 3 h (2031-12-31
// 18:00:00 UTC)".
func Both(t, now time.Time, zone *time.Location) string {
	if t.IsZero() {
		return ""
	}
	return Relative(t, now) + " (" + Exact(t, zone) + ")"
}

// A Direction is where a length of time alone, such as "2w", points to.
type Direction int

// The directions.
const (
	Ahead Direction = 1  // "2w" is in two weeks
	Back  Direction = -1 // "2w" is two weeks ago
)

var (
	errTime = errors.New(`must be a time such as 2031-12-31, "2031-12-31 18:00 UTC", 2031-12-31T18:00:00Z, ` +
		`"in 3 h", "2 days ago" or 2w`)
	errDuration = errors.New(`must be a duration such as 30s, 36h, 90d, 2w, 1y or "3 h"`)
)

// instant matches an exact time. A name in place of the zone is matched too.
var instant = regexp.MustCompile(
	`^([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]+([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]{1,9})?)?)?` +
		` *([+-][0-9]{2}:?[0-9]{2}|[A-Za-z]+)?$`)

// Parse reads a time: an exact one, or one that is relative to now.
func Parse(s string, now time.Time, bare Direction) (time.Time, error) {
	s = strings.TrimSuffix(strings.TrimSpace(s), SoonMark)
	if _, inner, ok := strings.Cut(s, " ("); ok && strings.HasSuffix(inner, ")") {
		s = strings.TrimSuffix(inner, ")") // the exact time of Both
	}
	if m := instant.FindStringSubmatch(s); m != nil {
		return parseInstant(m[1], m[2], m[3], m[4])
	}
	d, err := offset(s, bare)
	if err != nil {
		return time.Time{}, err
	}
	return now.Add(d), nil
}

// IsRelative reports whether a time that Parse reads depends on now.
func IsRelative(s string) bool {
	_, err := offset(strings.TrimSuffix(strings.TrimSpace(s), SoonMark), Ahead)
	return err == nil
}

func parseInstant(day, clock, seconds, zone string) (time.Time, error) {
	if clock == "" {
		clock = "00:00"
	}
	if seconds == "" {
		seconds = ":00"
	}
	switch upper := strings.ToUpper(zone); {
	case upper == "", upper == "Z", upper == "UTC", upper == "GMT":
		zone = "Z"
	case zone[0] != '+' && zone[0] != '-':
		return time.Time{}, fmt.Errorf("must have a zone such as UTC or +01:00: names such as %s are ambiguous", zone)
	case len(zone) == len("+0100"):
		zone = zone[:3] + ":" + zone[3:]
	}
	t, err := time.Parse(time.RFC3339Nano, day+"T"+clock+seconds+zone)
	if err != nil {
		return time.Time{}, errTime
	}
	return t, nil
}

// offset reads a time that is relative to now.
func offset(s string, bare Direction) (time.Duration, error) {
	length, ahead := strings.CutPrefix(s, "in ")
	length, ago := strings.CutSuffix(length, " ago")
	if s == "now" {
		return 0, nil
	}
	d, err := Duration(length)
	switch {
	case err != nil, ahead && ago:
		return 0, errTime
	case ago, !ahead && bare == Back:
		return -d, nil
	}
	return d, nil
}

// lengths are the units that Duration reads.
var lengths = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": Day, "day": Day, "days": Day, "w": Week, "week": Week, "weeks": Week,
	"y": Year, "year": Year, "years": Year,
}

var part = regexp.MustCompile(`^([0-9]+)(\.[0-9]+)? ?([a-zµ]+) ?`)

// Duration reads a length of time: one or more numbers with units, as in "90d",
// "1h30m" or "2 days".
func Duration(s string) (sum time.Duration, err error) {
	rest := strings.TrimSpace(s)
	if rest == "" {
		return 0, errDuration
	}
	for rest != "" {
		m := part.FindStringSubmatch(rest)
		if m == nil || lengths[m[3]] == 0 {
			return 0, errDuration
		}
		unit := lengths[m[3]]
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-sum)/unit) {
			return 0, errDuration
		}
		sum += time.Duration(n) * unit
		if m[2] != "" {
			f, err := strconv.ParseFloat("0"+m[2], 64)
			more := time.Duration(math.Round(f * float64(unit)))
			if err != nil || more > math.MaxInt64-sum {
				return 0, errDuration
			}
			sum += more
		}
		rest = rest[len(m[0]):]
	}
	return sum, nil
}
