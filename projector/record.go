package projector

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Record is what a check needs to know of the token that a secret belongs to.
type Record struct {
	Token   events.TokenID
	Account events.AccountID
	App     string // label of the token
	State   RecordState
	Inherit bool
	// Plain says that the secret has neither prefix nor checksum.
	Plain bool
	// Created is when the token was created, and CreatedIn the position of that
	// event. Bulk revocations compare with them.
	Created   time.Time
	CreatedIn events.Position
	// Expires is when the token ends, zero if never.
	Expires time.Time
	// Until is when this secret of the token ends, zero if with the token.
	Until       time.Time
	Scopes      []events.Scope
	Constraints *events.Constraints
	// Version is the position of the last event about the token.
	Version events.Position
	// IssuedBy is the account that made the secret, empty for none.
	IssuedBy events.AccountID
}

// RecordState is what a secret is good for. Values are stored and never reused.
type RecordState uint8

// The states of a secret.
const (
	SecretLive       RecordState = 1
	SecretSuspended  RecordState = 2 // its token is suspended
	SecretRevoked    RecordState = 3 // its token is revoked
	SecretSuperseded RecordState = 4 // its token has newer ones, and its grace was cut short
)

// ended reports whether a secret is good for nothing any more, and for ever.
func (s RecordState) ended() bool { return s == SecretRevoked || s == SecretSuperseded }

const (
	recordVersion  = 2
	recordFixed    = 3 + 5*8 + 2*16 + 1
	flagInherit    = 1
	flagConstraint = 2
	flagPlain      = 4
	flagIssuer     = 8 // the secret was made by another account than the token's
)

// append writes the stored form: version, state, flags, five times or positions
// of eight bytes, two ids and with flagIssuer a third, the label and scopes as
// length and text, the scopes behind their number (a varint), constraints as JSON.
func (r *Record) append(b []byte) ([]byte, error) {
	flags := flag(r.Inherit, flagInherit) | flag(!r.Constraints.Empty(), flagConstraint) | flag(r.Plain, flagPlain) |
		flag(r.IssuedBy != r.Account, flagIssuer)
	b = append(b, recordVersion, byte(r.State), flags)
	for _, t := range [...]time.Time{r.Created, r.Expires, r.Until} {
		b = binary.BigEndian.AppendUint64(b, uint64(nanos(t)))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.CreatedIn))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Version))
	token, account := r.Token.Bytes(), r.Account.Bytes()
	b = append(b, token[:]...)
	b = append(b, account[:]...)
	if flags&flagIssuer != 0 {
		b = appendID(b, issuerBytes(r.IssuedBy))
	}
	b = appendText(b, r.App)
	b = appendScopes(b, r.Scopes)
	if flags&flagConstraint == 0 {
		return b, nil
	}
	c, err := json.Marshal(r.Constraints)
	return append(b, c...), err
}

// appendText appends a text of at most 255 bytes behind its length. Labels and
// scopes are shorter.
func appendText(b []byte, s string) []byte {
	b = append(b, byte(len(s)))
	return append(b, s...)
}

// takeText reads what appendText wrote.
func takeText(b []byte) (text, rest []byte, err error) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, errShort
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], nil
}

// takeCount reads how many texts follow.
func takeCount(b []byte) (n int, rest []byte, err error) {
	count, size := binary.Uvarint(b)
	if size <= 0 || count > uint64(len(b)-size) { // each takes a byte at least
		return 0, nil, errShort
	}
	return int(count), b[size:], nil
}

var errShort = errors.New("record cut short")

// recordParts are a stored record's, as they stand there.
type recordParts struct {
	state          RecordState
	flags          byte
	times          [3]int64 // created, expires, until
	createdIn      events.Position
	version        events.Position
	token, account [16]byte
	issuer         []byte // an id, zeros for nobody; empty for the account itself
	app            []byte
	scopes         []byte // their number as a varint, and each as length and text
	constraints    []byte // as JSON; empty for none
}

// splitRecord reads all but the scopes and the constraints.
func splitRecord(b []byte) (f recordParts, err error) {
	if len(b) < recordFixed {
		return f, errShort
	}
	if b[0] != recordVersion {
		return f, fmt.Errorf("record of version %d, and %d is known", b[0], recordVersion)
	}
	f.state, f.flags = RecordState(b[1]), b[2]
	b = b[3:]
	for i := range f.times {
		n := int64(binary.BigEndian.Uint64(b))
		if n < 0 || n >= pastNanos {
			return f, errors.New("record holds a time that is never written")
		}
		f.times[i] = n
		b = b[8:]
	}
	f.createdIn, f.version = events.Position(
		binary.BigEndian.Uint64(b),
	), events.Position(
		binary.BigEndian.Uint64(b[8:]),
	)
	b = b[8:]
	f.token, f.account = [16]byte(b[8:24]), [16]byte(b[24:40])
	b = b[40:]
	if f.flags&flagIssuer != 0 {
		if len(b) < 16 {
			return f, errShort
		}
		f.issuer, b = b[:16], b[16:]
	}
	if f.app, b, err = takeText(b); err != nil {
		return f, err
	}
	n, rest, err := takeCount(b)
	if err != nil {
		return f, err
	}
	for range n {
		if _, rest, err = takeText(rest); err != nil {
			return f, err
		}
	}
	f.scopes = b[:len(b)-len(rest)]
	if f.flags&flagConstraint != 0 {
		if f.constraints = rest; len(rest) == 0 {
			return f, errShort
		}
	}
	return f, nil
}

func parseRecord(b []byte) (Record, error) {
	f, err := splitRecord(b)
	if err != nil {
		return Record{}, err
	}
	r := Record{
		Token: events.TokenIDFrom(f.token), Account: events.AccountIDFrom(f.account), App: string(f.app),
		State: f.state, Inherit: f.flags&flagInherit != 0, Plain: f.flags&flagPlain != 0,
		Created: fromNanos(
			f.times[0],
		), Expires: fromNanos(f.times[1]), Until: fromNanos(f.times[2]), CreatedIn: f.createdIn, Version: f.version,
	}
	r.IssuedBy = r.Account
	if len(f.issuer) > 0 {
		r.IssuedBy = issuerFrom([16]byte(f.issuer))
	}
	if r.Scopes, err = parseScopes(f.scopes); err != nil {
		return Record{}, err
	}
	if len(f.constraints) > 0 {
		if r.Constraints, err = parseConstraints(f.constraints); err != nil {
			return Record{}, err
		}
	}
	return r, nil
}

// parseScopes reads the scopes of a record, which splitRecord has measured.
func parseScopes(b []byte) ([]events.Scope, error) {
	n, b, err := takeCount(b)
	if err != nil {
		return nil, err
	}
	list := make([]events.Scope, n)
	for i := range list {
		var text []byte
		text, b, _ = takeText(b)
		if err := list[i].UnmarshalText(text); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// pastNanos is the first instant that is not stored.
var pastNanos = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()

// nanos is t in nanoseconds of Unix time, with 0 for the zero time. Times past
// the year 2261, which do not fit, stand for never. Those before 1970 are the
// first instant after it: 0 would turn the longest over into never.
func nanos(t time.Time) int64 {
	switch {
	case t.IsZero() || t.Year() > 2261:
		return 0
	case t.Unix() < 0:
		return 1
	}
	return max(1, t.UnixNano())
}

// TimeOf returns the time of what [Found] has: nanoseconds of Unix time, 0 for
// none.
func TimeOf(n int64) time.Time { return fromNanos(n) }

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
