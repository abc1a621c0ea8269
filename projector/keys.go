package projector

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// Prefixes of keys, as in the package's documentation.
const (
	prefixDigest  = "d/"
	prefixToken   = "t/"
	prefixAccount = "a/"
	prefixOwned   = "o/"
	prefixCommand = "k/"
	prefixLine    = "l/"
	prefixReceipt = "r/"
	keyCursor     = "c"
	keyPolicy     = "p"
)

// schemeSHA256 stands before a digest, so that imported digests of another
// scheme have a space of their own. Stored; never reused.
const schemeSHA256 = 1

func digestKey(d events.Digest) []byte {
	k := make([]byte, 0, len(prefixDigest)+1+len(d))
	k = append(k, prefixDigest...)
	k = append(k, schemeSHA256)
	return append(k, d[:]...)
}

func tokenKey(id events.TokenID) []byte {
	b := id.Bytes()
	return append([]byte(prefixToken), b[:]...)
}

func accountKey(id events.AccountID) []byte {
	b := id.Bytes()
	return append([]byte(prefixAccount), b[:]...)
}

// ownedPrefix is what an account's entries in the list of its tokens begin
// with.
func ownedPrefix(account events.AccountID) []byte {
	b := account.Bytes()
	return append([]byte(prefixOwned), b[:]...)
}

func ownedKey(account events.AccountID, token events.TokenID) []byte {
	t := token.Bytes()
	return append(ownedPrefix(account), t[:]...)
}

func commandKey(k events.CommandKey) []byte { return append([]byte(prefixCommand), k...) }

func lineKey(line string) []byte { return append([]byte(prefixLine), line...) }

func receiptKey(covers events.Position) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefixReceipt), uint64(covers))
}

// seal appends the check value to a stored value.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint64(value, checkValue(key, value))
}

// unseal verifies and takes off the check value.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 8
	if n < 0 || binary.BigEndian.Uint64(sealed[n:]) != checkValue(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: the record under %.2q does not match its check value", ErrCorrupt, key)
	}
	return sealed[:n], nil
}

func checkValue(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(key)
	_, _ = d.Write(value)
	return d.Sum64()
}

// stored is what is known of a record besides its value.
type stored struct {
	check uint64 // its check value
	// txn is the number of Badger's transaction that wrote it. Records that are
	// written together have the same one.
	txn uint64
}

// read reads the value of key and hands it to use, which must not keep it. It
// returns false where there is none.
//
// Badger panics over some damage that came after it opened a table; here that
// is an error like any other.
func read(tx *badger.Txn, key []byte, use func(value []byte) error) (s stored, found bool, err error) {
	defer recovered(&err)
	item, err := tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return stored{}, false, nil
	}
	if err == nil {
		s.txn = item.Version()
		err = item.Value(func(sealed []byte) error {
			value, err := unseal(key, sealed)
			if err != nil {
				return err
			}
			s.check = binary.BigEndian.Uint64(sealed[len(value):])
			return use(value)
		})
	}
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForm) {
		err = fmt.Errorf("%w: read %.2q: %w", ErrCorrupt, key, err)
	}
	return s, err == nil, err
}

// written returns the number of the transaction that wrote a record.
func written(tx *badger.Txn, key []byte) (txn uint64, found bool, err error) {
	defer recovered(&err)
	item, err := tx.Get(key)
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("%w: read %.2q: %w", ErrCorrupt, key, err)
	}
	return item.Version(), true, nil
}

// recovered turns a panic of Badger's into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: reading it failed: %.200s", ErrCorrupt, fmt.Sprint(r))
	}
}

// get reads the value of key and hands it to use, which must not keep it. It
// returns false where there is none.
func get(tx *badger.Txn, key []byte, use func(value []byte) error) (bool, error) {
	_, found, err := read(tx, key, use)
	return found, err
}

// getJSON reads a record that is stored as JSON.
func getJSON(tx *badger.Txn, key []byte, into any) (bool, error) {
	return get(tx, key, func(b []byte) error { return json.Unmarshal(b, into) })
}

// indexForm is the form of what an index holds. It stands first in the cursor;
// the forms before 2 had none there, and a position begins with a zero.
const indexForm = 3

// cursor says how far the log has been applied, and what the index holds then.
type cursor struct {
	position events.Position
	anchor   [32]byte // SHA-256 of the stored event at position
	epoch    string   // of every event so far; empty before the first
	tally    tally    // of every record but this one
	mark     uint64   // sum of the tally at the last mark
}

const cursorFixed = 1 + 8 + 32 + 3*8

func (c cursor) append(b []byte) []byte {
	b = append(b, indexForm)
	b = binary.BigEndian.AppendUint64(b, uint64(c.position))
	b = append(b, c.anchor[:]...)
	b = binary.BigEndian.AppendUint64(b, c.tally.sum)
	b = binary.BigEndian.AppendUint64(b, c.tally.records)
	b = binary.BigEndian.AppendUint64(b, c.mark)
	return append(b, c.epoch...)
}

func parseCursor(b []byte) (cursor, error) {
	var c cursor
	if len(b) == 0 {
		return c, errors.New("cursor cut short")
	}
	if b[0] != indexForm {
		return c, fmt.Errorf("%w: it is of form %d, and this program knows form %d", ErrForm, b[0], indexForm)
	}
	if len(b) < cursorFixed {
		return c, errors.New("cursor cut short")
	}
	b = b[1:]
	c.position = events.Position(binary.BigEndian.Uint64(b))
	copy(c.anchor[:], b[8:])
	b = b[8+len(c.anchor):]
	c.tally = tally{sum: binary.BigEndian.Uint64(b), records: binary.BigEndian.Uint64(b[8:])}
	c.mark = binary.BigEndian.Uint64(b[16:])
	c.epoch = string(b[24:])
	return c, nil
}

// Record is what a check needs to know of the token that a secret belongs to.
type Record struct {
	Token   events.TokenID
	Account events.AccountID
	App     string // label of the token
	State   RecordState
	Inherit bool
	// Plain says that the secret has neither prefix nor checksum.
	Plain bool
	// Created is when the token was made; cut-offs compare with it.
	Created time.Time
	// Expires is when the token ends, zero if never.
	Expires time.Time
	// Until is when this secret of the token ends, zero if with the token.
	Until       time.Time
	Scopes      []events.Scope
	Constraints *events.Constraints
	// Version is the position of the last event about the token.
	Version events.Position
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
	recordVersion  = 1
	recordFixed    = 3 + 4*8 + 2*16 + 1
	flagInherit    = 1
	flagConstraint = 2
	flagPlain      = 4
)

// append writes the stored form: version, state, flags, four times or positions
// of eight bytes, two ids, the label and scopes as length and text, constraints as JSON.
func (r *Record) append(b []byte) ([]byte, error) {
	var flags byte
	if r.Inherit {
		flags |= flagInherit
	}
	if !r.Constraints.Empty() {
		flags |= flagConstraint
	}
	if r.Plain {
		flags |= flagPlain
	}
	b = append(b, recordVersion, byte(r.State), flags)
	for _, t := range []time.Time{r.Created, r.Expires, r.Until} {
		b = binary.BigEndian.AppendUint64(b, uint64(nanos(t)))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.Version))
	token, account := r.Token.Bytes(), r.Account.Bytes()
	b = append(b, token[:]...)
	b = append(b, account[:]...)
	b = appendText(b, r.App)
	b = append(b, byte(len(r.Scopes)))
	for _, s := range r.Scopes {
		b = appendText(b, s.String())
	}
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

var errShort = errors.New("record cut short")

// recordParts are a stored record's, as they stand there.
type recordParts struct {
	state          RecordState
	flags          byte
	times          [3]int64 // created, expires, until
	version        events.Position
	token, account [16]byte
	app            []byte
	scopes         []byte // their number, and each as length and text
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
	f.version = events.Position(binary.BigEndian.Uint64(b))
	f.token, f.account = [16]byte(b[8:24]), [16]byte(b[24:40])
	if f.app, b, err = takeText(b[40:]); err != nil || len(b) == 0 {
		return f, errShort
	}
	rest := b[1:]
	for range b[0] {
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
		Created: fromNanos(f.times[0]), Expires: fromNanos(f.times[1]), Until: fromNanos(f.times[2]), Version: f.version,
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
	list := make([]events.Scope, b[0])
	b = b[1:]
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
