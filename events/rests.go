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

// Rest is a record that the ledger's decision depended on, and the record's version
// at the decision.
type Rest struct {
	About   string   // id of a token or account, or [PolicyName]
	Version Position // of the record; zero for a record that does not exist
}

// Rests lists records in order of About, without duplicates. Its stored form is a
// JSON object from About to Version.
type Rests []Rest

// maxRests is the maximum number of records in one event.
const maxRests = 16

// Version returns the version of a record, or false if the list does not have the
// record.
func (r Rests) Version(about string) (Position, bool) {
	for i := range r {
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

// UnmarshalJSON reads an object. It rejects a repeated name, because two readers
// could choose different versions.
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

// validate reports a list that cannot be in an event about a record.
func (r Rests) validate(about string) error {
	if len(r) > maxRests {
		return fmt.Errorf("rests has %d records; the limit is %d", len(r), maxRests)
	}
	for i, rest := range r {
		if i > 0 && r[i-1].About >= rest.About {
			return errors.New("rests repeats a record, or is not sorted")
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

// checkRecord reports a name that is not the id of a token or account, and not
// [PolicyName].
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
