package projector

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Record holds the facts that a check needs about a secret and its token.
type Record struct {
	Token   events.TokenID
	Account events.AccountID
	App     string // label of the token
	State   RecordState
	Inherit bool // the token has all grants of its account
	// Plain is true if the secret has neither prefix nor checksum.
	Plain bool
	// Created is when the token was created, and CreatedIn the position of that
	// event. Bulk revocations compare with them.
	Created   time.Time
	CreatedIn events.Position
	// Expires is when the token expires, zero if never.
	Expires time.Time
	// Until is when this secret expires, zero if only with the token.
	Until       time.Time
	Scopes      []events.Scope
	Constraints *events.Constraints
	// Version is the position of the last event about the token.
	Version events.Position
	// IssuedBy is the account that issued the secret, empty for none.
	IssuedBy events.AccountID
}

// RecordState is the state of a secret. Values are stored and never reused.
type RecordState uint8

// The states of a secret.
const (
	SecretLive       RecordState = 1
	SecretSuspended  RecordState = 2 // its token is suspended
	SecretRevoked    RecordState = 3 // its token is revoked
	SecretSuperseded RecordState = 4 // a rotation ended it before its Until
)

// ended reports whether the secret is invalid forever.
func (s RecordState) ended() bool { return s == SecretRevoked || s == SecretSuperseded }

const (
	recordVersion  = 2
	recordFixed    = 3 + 5*8 + 2*16 + 1
	flagInherit    = 1
	flagConstraint = 2
	flagPlain      = 4
	flagIssuer     = 8 // another account than the token's issued the secret
)

// append appends the stored form: version, state, flags, five times or
// positions of eight bytes, two IDs and with flagIssuer a third, the label as
// length and text, the number of scopes as a varint and each as length and
// text, the constraints as JSON.
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

// appendText appends the length of s in one byte, and s. Labels and scopes are
// shorter than 256 bytes.
func appendText(b []byte, s string) []byte {
	b = append(b, byte(len(s)))
	return append(b, s...)
}

// takeText splits off a text that appendText appended.
func takeText(b []byte) (text, rest []byte, err error) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, errShort
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], nil
}

// takeCount splits off the number of texts that follow.
func takeCount(b []byte) (n int, rest []byte, err error) {
	count, size := binary.Uvarint(b)
	if size <= 0 || count > uint64(len(b)-size) { // a text has at least one byte
		return 0, nil, errShort
	}
	return int(count), b[size:], nil
}

var errShort = errors.New("record is truncated")

// recordParts are the fields of a stored record. The slices are parts of it.
type recordParts struct {
	state          RecordState
	flags          byte
	times          [3]int64 // created, expires, until
	createdIn      events.Position
	version        events.Position
	token, account [16]byte
	issuer         []byte // an ID, zeros for none; empty for the token's account
	app            []byte
	scopes         []byte // their number as a varint, then each as length and text
	constraints    []byte // JSON; empty for none
}

// splitRecord splits a stored record. It does not parse scopes and constraints.
func splitRecord(b []byte) (f recordParts, err error) {
	if len(b) < recordFixed {
		return f, errShort
	}
	if b[0] != recordVersion {
		return f, fmt.Errorf("record has version %d; this program reads version %d", b[0], recordVersion)
	}
	f.state, f.flags = RecordState(b[1]), b[2]
	b = b[3:]
	for i := range f.times {
		n := int64(binary.BigEndian.Uint64(b))
		if n < 0 || n >= maxNanos {
			return f, errors.New("record has a time that is never written")
		}
		f.times[i] = n
		b = b[8:]
	}
	f.createdIn = events.Position(binary.BigEndian.Uint64(b))
	f.version = events.Position(binary.BigEndian.Uint64(b[8:]))
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
		Created: TimeOf(f.times[0]), Expires: TimeOf(f.times[1]), Until: TimeOf(f.times[2]),
		CreatedIn: f.createdIn, Version: f.version,
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

// parseScopes parses recordParts.scopes.
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

// maxNanos is the first instant that does not fit into a record.
var maxNanos = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()

// nanos returns t in nanoseconds of Unix time, 0 for the zero time, which means
// never. Times after the year 2261 do not fit and become never. Times before
// 1970 become 1, because 0 would turn a time long past into never.
func nanos(t time.Time) int64 {
	switch {
	case t.IsZero() || t.Year() > 2261:
		return 0
	case t.Unix() < 0:
		return 1
	}
	return max(1, t.UnixNano())
}

// TimeOf converts a time of [Facts], in nanoseconds of Unix time. It returns
// the zero time for 0.
func TimeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
