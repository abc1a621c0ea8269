package when

import (
	"math"
	"testing"
	"time"
)

var now = time.Date(2030, 6, 15, 12, 0, 0, 0, time.UTC)

func TestRelative(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "now"},
		{400 * time.Millisecond, "now"},
		{-400 * time.Millisecond, "now"},
		{time.Second, "in 1 s"},
		{-99 * time.Second, "99 s ago"},
		{100 * time.Second, "in 2 min"},
		{-45 * time.Minute, "45 min ago"},
		{3*time.Hour - time.Second, "in 3 h"},
		{-47 * time.Hour, "47 h ago"},
		{-2 * Day, "2 days ago"},
		{Year, "in 365 days"},
		{3*Year + Day, "in 3 years"},
		{-2 * Year, "2 years ago"},
		{math.MaxInt64, "in 292 years"},
		{math.MinInt64, "292 years ago"},
	} {
		if got := Relative(now.Add(tt.d), now); got != tt.want {
			t.Errorf("Relative(%s) = %q, want %q", tt.d, got, tt.want)
		}
	}
	if got := Relative(time.Time{}, now) + Both(time.Time{}, now, time.UTC) + Exact(time.Time{}, time.UTC); got != "" {
		t.Errorf("the zero time is %q, want nothing", got)
	}
}

func TestParse(t *testing.T) {
	at := time.Date(2031, 12, 31, 18, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"2031-12-31 18:00 UTC": at, "2031-12-31 18:00": at, "2031-12-31T18:00:00Z": at, "2031-12-31t18:00z": at,
		"2031-12-31 19:00:00 +01:00": at, "2031-12-31T19:00:00+0100": at, "2031-12-31 18:00:00.000 GMT": at,
		" 2031-12-31 18:00:00 UTC ": at, "in 565 days (2031-12-31 18:00:00 UTC), soon": at,
		"2031-12-31":   at.Add(-18 * time.Hour),
		"in 3 h":       now.Add(3 * time.Hour),
		"in 3 h, soon": now.Add(3 * time.Hour),
		"2 days ago":   now.Add(-2 * Day),
		"2w":           now.Add(2 * Week),
		"1y":           now.Add(Year),
		"90d ago":      now.Add(-90 * Day),
		"in 1h30m":     now.Add(90 * time.Minute),
		"now":          now,
	} {
		if got, err := Parse(in, now, Ahead); err != nil || !got.Equal(want) {
			t.Errorf("Parse(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
	if got, err := Parse("2w", now, Back); err != nil || !got.Equal(now.Add(-2*Week)) {
		t.Errorf("Parse(2w, Back) = %s, %v", got, err)
	}
	for _, in := range []string{
		"", "soon", "tomorrow", "in", "ago", "in 3 h ago", "3", "-3h", "2031-13-01", "2031-02-30", "2031-12-31 25:00",
		"2031-12-31 18:00 CET", "31.12.2031", "in 3 x", "9999999999999999999y", "300y300y", "2031-12-31 18:00 (", "()",
	} {
		if got, err := Parse(in, now, Ahead); err == nil {
			t.Errorf("Parse(%q) = %s, want an error", in, got)
		}
	}
	for in, want := range map[string]bool{"2w": true, "in 3 h": true, "now": true, "2031-12-31": false, "x": false} {
		if IsRelative(in) != want {
			t.Errorf("IsRelative(%q) is not %t", in, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "36h": 36 * time.Hour, "90d": 90 * Day, "2w": 2 * Week, "1y": Year, "3 h": 3 * time.Hour,
		"1y2w3d": Year + 2*Week + 3*Day, "1.5h": 90 * time.Minute, "2 days 3 hours": 2*Day + 3*time.Hour, "0s": 0,
		"250ms": 250 * time.Millisecond, (36*time.Hour + time.Nanosecond).String(): 36*time.Hour + time.Nanosecond,
	} {
		if got, err := Duration(in); err != nil || got != want {
			t.Errorf("Duration(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
}

// FuzzPrinted reads every time back as it was printed.
func FuzzPrinted(f *testing.F) {
	f.Add(int64(1_900_000_000), int64(0), 0)
	f.Add(int64(-62_135_596_799), int64(1_900_000_000), 3600)
	f.Add(int64(253_402_300_799), int64(1_900_000_000), -12_345)
	f.Fuzz(func(t *testing.T, at, from int64, offset int) {
		const first, last = -62_135_510_400, 253_402_214_399 // years 1 to 9999, in every zone
		if at < first || at > last || from < first || from > last || offset%60 != 0 && offset%7 != 0 ||
			offset < -86_340 || offset > 86_340 {
			t.Skip()
		}
		x, now, zone := time.Unix(at, 0), time.Unix(from, 0), time.FixedZone("X", offset)
		for _, s := range []string{Exact(x, zone), Precise(x, zone), Both(x, now, zone), Both(x, now, zone) + SoonMark} {
			if got, err := Parse(s, now, Back); err != nil || !got.Equal(x) {
				t.Errorf("%d is printed as %q and read as %s, %v", at, s, got, err)
			}
		}
		short := Relative(x, now)
		got, err := Parse(short, now, Back)
		if err != nil || Relative(got, now) != short {
			t.Errorf("%q is read as %s, %v, which is %q", short, got, err, Relative(got, now))
		}
	})
}

// FuzzParse reads anything, and prints what it read so that it is read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"in 3 h", "2 days ago", "2031-12-31 18:00 UTC", "2031-12-31T18:00:00+01:00", "1y2w", "now"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s, now, Ahead)
		if err != nil || got.IsZero() || got.Year() < 1 || got.Year() > 9998 {
			return
		}
		again, err := Parse(Exact(got, time.UTC), now, Ahead)
		if err != nil || !again.Equal(got.Truncate(time.Second)) {
			t.Errorf("%q is %s, and read again %s, %v", s, got, again, err)
		}
	})
}
