package main

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
)

// stringFlag is the value of a flag that takes text.
type stringFlag string

func (t *stringFlag) Set(s string) error { *t = stringFlag(s); return nil }
func (t *stringFlag) String() string     { return string(*t) }
func (*stringFlag) Type() string         { return "text" }

// mayBeEmpty is the annotation of flags for which an empty value has a meaning.
const mayBeEmpty = "tokenledger_may_be_empty"

// allowEmpty says that an empty value of some flags has a meaning of its own.
func allowEmpty(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		_ = flags.SetAnnotation(name, mayBeEmpty, []string{"yes"}) // the flags exist
	}
}

// isEmpty reports whether a flag was given an empty value that means nothing.
func isEmpty(f *pflag.Flag) bool {
	if _, allowed := f.Annotations[mayBeEmpty]; allowed {
		return false
	}
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return len(list.GetSlice()) == 0
	}
	return f.Value.String() == ""
}

// serversFlag is a list of servers: the flag is repeated, or its value has commas. The
// first flag replaces what the environment variable set.
type serversFlag struct {
	list  []string
	given bool
}

func (s *serversFlag) Set(text string) error {
	if !s.given {
		s.list = nil
	}
	s.given = true
	s.list = append(s.list, splitList(text)...)
	return nil
}

func (s *serversFlag) String() string { return strings.Join(s.list, ",") }
func (*serversFlag) Type() string     { return "URL" }

// boolFlag is the value of a switch that also has an environment variable.
type boolFlag bool

func (b *boolFlag) Set(s string) error {
	got, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("must be true or false")
	}
	*b = boolFlag(got)
	return nil
}

func (b *boolFlag) String() string { return strconv.FormatBool(bool(*b)) }
func (*boolFlag) Type() string     { return "bool" }

// fingerprintFlag is the fingerprint of a certificate, or several with commas
// between them.
type fingerprintFlag string

func (f *fingerprintFlag) Set(s string) error {
	got, err := tlsfiles.ParseFingerprints(s)
	*f = fingerprintFlag(got)
	return err
}
func (f *fingerprintFlag) String() string { return string(*f) }
func (*fingerprintFlag) Type() string     { return "fingerprint" }

// durationFlag is the value of a flag that takes a duration, as in "90d".
type durationFlag time.Duration

func (d *durationFlag) Set(s string) error {
	got, err := when.Duration(s)
	if err != nil {
		return err
	}
	if got <= 0 {
		return errors.New("must be longer than zero")
	}
	*d = durationFlag(got)
	return nil
}

func (d *durationFlag) String() string {
	if *d == 0 {
		return "" // help then names no default
	}
	return time.Duration(*d).String()
}
func (*durationFlag) Type() string { return "time" }

// timeFlag is the value of a flag that takes a time, exact or relative to now.
type timeFlag struct {
	at       time.Time
	text     string
	relative bool
	bare     when.Direction // of a length of time alone, 0 for ahead
}

func (f *timeFlag) Set(s string) (err error) {
	f.at, err = when.Parse(s, time.Now(), cmp.Or(f.bare, when.Ahead))
	f.text, f.relative = s, when.IsRelative(s)
	return err
}

func (f *timeFlag) String() string { return f.text }
func (*timeFlag) Type() string     { return "time" }

// onOff is a flag's value that is on or off, and on where the flag stands alone.
type onOff bool

func (o *onOff) declare(flags *pflag.FlagSet, name, help string) {
	flags.Var(o, name, help)
	flags.Lookup(name).NoOptDefVal, flags.Lookup(name).DefValue = "on", ""
}

func (o *onOff) Set(s string) error {
	switch s {
	case "on", "true":
		*o = true
	case "off", "false":
		*o = false
	default:
		return errors.New("must be on or off")
	}
	return nil
}

func (o *onOff) String() string { return map[bool]string{true: "on", false: "off"}[bool(*o)] }
func (*onOff) Type() string     { return "on|off" }

// sizeFlag is a flag's value that is a number of bytes, as in 2GiB.
type sizeFlag int64

var sizeUnits = []struct {
	name  string
	shift int
}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}}

func (n *sizeFlag) Set(s string) error {
	digits, shift := s, 0
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			digits, shift = d, u.shift
		}
	}
	got, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 50-shift)
	if err != nil {
		return errors.New(`must be a number of bytes such as "512MiB" or "2GiB"`)
	}
	*n = sizeFlag(got << shift)
	return nil
}

func (n *sizeFlag) String() string {
	for _, u := range slices.Backward(sizeUnits) {
		if *n != 0 && *n%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(*n)>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*n), 10)
}
func (*sizeFlag) Type() string { return "size" }

// limit returns the size as the node takes it: -1 for none.
func (n sizeFlag) limit() int64 {
	if n == 0 {
		return -1
	}
	return int64(n)
}

// countFlag is a flag's value that is a number above zero; zero stands for none.
type countFlag int

func (n *countFlag) Set(s string) error {
	got, err := strconv.Atoi(s)
	if err != nil || got <= 0 {
		return errors.New("must be a number above zero")
	}
	*n = countFlag(got)
	return nil
}

func (n *countFlag) String() string {
	if *n == 0 {
		return "" // help then names no default
	}
	return strconv.Itoa(int(*n))
}
func (*countFlag) Type() string { return "number" }
