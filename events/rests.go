package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Rest is a record that a command was decided on, in the version that the
// decision saw.
type Rest struct {
	About   string   // id of a token or account, or [PolicyName]
	Version Position // of the record; zero for a record that does not exist
}

// Rests lists records in order of About, each once. Its stored form is a JSON
// object from About to Version.
type Rests []Rest

// maxRests bounds what one event rests on.
const maxRests = 16

// Version returns the version in which a record is named, and whether it is
// named at all.
func (r Rests) Version(about string) (Position, bool) {
	for i := range r { // a handful
		if r[i].About == about {
			return r[i].Version, true
		}
	}
	return 0, false
}

// MarshalJSON writes an object with its names in order.
func (r Rests) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, rest := range r {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, rest.About)
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(rest.Version), 10)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads an object. It refuses a name that is repeated, because of
// two versions readers could choose different ones.
func (r *Rests) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("rests is not an object")
	}
	var out Rests
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		rest := Rest{About: name.(string)} // a name always is a string
		if err := d.Decode(&rest.Version); err != nil {
			return errors.New("a version in rests is not a position")
		}
		out = append(out, rest)
		if len(out) > maxRests {
			return fmt.Errorf("rests has more than %d records", maxRests)
		}
	}
	slices.SortFunc(out, func(a, b Rest) int { return strings.Compare(a.About, b.About) })
	*r = out
	return nil
}

// validate reports what cannot be in an event about a record.
func (r Rests) validate(about string) error {
	if len(r) > maxRests {
		return fmt.Errorf("rests on %d records, and %d are the most", len(r), maxRests)
	}
	for i, rest := range r {
		if i > 0 && r[i-1].About >= rest.About {
			return errors.New("rests names a record twice, or not in order")
		}
		if rest.About == about {
			return errors.New("rests names the record that the event is about")
		}
		if err := checkRecord(rest.About); err != nil {
			return err
		}
	}
	return nil
}

// checkRecord reports what is neither the id of a token or account nor the
// policy.
func checkRecord(about string) error {
	var err error
	switch {
	case about == PolicyName:
	case IsTokenID(about):
		_, err = ParseTokenID(about)
	default:
		_, err = ParseAccountID(about)
	}
	return err
}
