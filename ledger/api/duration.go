package api

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Duration is a duration in JSON. A request has a number of seconds, or text such
// as "90d", "36h" or "15m". An answer has such text.
type Duration time.Duration

// Schema describes both forms.
func (Duration) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: `a duration: seconds, or text such as "90d", "36h", "15m"`,
		Examples:    []any{"90d"},
		OneOf:       []*huma.Schema{{Type: huma.TypeInteger}, {Type: huma.TypeString, MaxLength: ptr(32)}},
	}
}

// malformed stands for what is not a duration. An error of UnmarshalJSON would end
// the decoding of the whole body, and later fields would seem to be absent.
const malformed = Duration(math.MinInt64)

// UnmarshalJSON reads both forms. What is neither is refused by Resolve.
func (d *Duration) UnmarshalJSON(b []byte) error {
	*d = malformed
	var text string
	if json.Unmarshal(b, &text) == nil {
		if got, err := ParseDuration(text); err == nil {
			*d = Duration(got)
		}
		return nil
	}
	seconds, err := strconv.ParseInt(string(b), 10, 64)
	if err == nil && seconds <= math.MaxInt64/int64(time.Second) && seconds >= math.MinInt64/int64(time.Second) {
		*d = Duration(time.Duration(seconds) * time.Second)
	}
	return nil
}

// Resolve implements [huma.ResolverWithPath]. It refuses what is not a duration.
func (d *Duration) Resolve(_ huma.Context, at *huma.PathBuffer) []error {
	if *d != malformed {
		return nil
	}
	return []error{&huma.ErrorDetail{Location: at.String(), Message: errDuration.Error()}}
}

// MarshalJSON writes text. Whole days are written as days.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

func (d Duration) String() string {
	const day = 24 * time.Hour
	if n := time.Duration(d); n >= day && n%day == 0 {
		return strconv.FormatInt(int64(n/day), 10) + "d"
	}
	s := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} { // "36h0m0s" is "36h"
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

var errDuration = errors.New(`not a duration; send seconds, or text such as "90d", "36h", "15m"`)

// dayUnits are units of days. A year has 365, so that a lifetime does not depend on
// the calendar.
var dayUnits = map[byte]int64{'d': 1, 'w': 7, 'y': 365}

// ParseDuration parses "90d", "2w" or "1y", or what [time.ParseDuration] parses.
func ParseDuration(s string) (time.Duration, error) {
	if days := dayUnits[(" " + s)[len(s)]]; days > 0 {
		n, err := strconv.ParseInt(s[:len(s)-1], 10, 32)
		if most := 106_000 / days; err != nil || n > most || n < -most { // what time.Duration can hold
			return 0, errDuration
		}
		return time.Duration(n*days) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errDuration
	}
	return d, nil
}

// std returns the duration as the ledger takes it, nil for nil.
func (d *Duration) std() *time.Duration { return (*time.Duration)(d) }

func ptr[T any](v T) *T { return &v }
