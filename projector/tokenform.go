package projector

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Tokens and commands are stored in forms of their own: they are most of what is
// written, and as JSON they took longer than all that was done with them.
const (
	tokenVersion = 2
	doneVersion  = 1
)

// Flags of a stored token.
const (
	tokenInherits = 1 << iota
	tokenConstrained
	tokenActorAccount
	tokenActorToken
	tokenStopped
)

var tokenStates = [...]events.TokenState{1: events.Active, 2: events.Suspended, 3: events.Revoked}

var secretFormats = [...]events.SecretFormat{0: "", 1: events.FormatHex32}

// number returns a value's place in a list of stored ones, 0 for one that is not
// there.
func number[T comparable](list []T, v T) byte {
	for i, known := range list {
		if i > 0 && known == v {
			return byte(i)
		}
	}
	return 0
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

// appendToken writes a token's stored form: version, state, flags, ids, texts
// behind their lengths, times as seconds and nanoseconds, scopes, secrets, and
// constraints as JSON to the end.
func appendToken(b []byte, t *events.Token) ([]byte, error) {
	state := number(tokenStates[:], t.State)
	if state == 0 {
		return nil, fmt.Errorf("a token's state %q is not stored", t.State)
	}
	flags := flag(t.Inherit, tokenInherits) | flag(!t.Constraints.Empty(), tokenConstrained) |
		flag(t.CreatedBy.Account != "", tokenActorAccount) | flag(t.CreatedBy.Token != "", tokenActorToken) |
		flag(t.StoppedBy != "", tokenStopped)
	b = append(b, tokenVersion, state, flags)
	b = appendID(b, t.ID.Bytes())
	b = appendID(b, t.Account.Bytes())
	if t.CreatedBy.Account != "" {
		b = appendID(b, t.CreatedBy.Account.Bytes())
	}
	if t.CreatedBy.Token != "" {
		b = appendID(b, t.CreatedBy.Token.Bytes())
	}
	if t.StoppedBy != "" {
		b = appendID(b, t.StoppedBy.Bytes())
	}
	for _, text := range [...]string{string(t.CreatedBy.Session), t.CreatedBy.Address, t.App, t.Device, t.Reason} {
		b = appendText(b, text)
	}
	for _, at := range [...]time.Time{t.Created, t.Changed, t.Expires, t.Revoked} {
		b = appendTime(b, at)
	}
	b = binary.AppendUvarint(b, uint64(t.CreatedBy.Opened))
	b = binary.AppendUvarint(b, uint64(t.CreatedIn))
	b = binary.AppendUvarint(b, uint64(t.Version))
	b = appendScopes(b, t.Scopes)
	b = append(b, byte(len(t.Secrets)))
	for _, s := range t.Secrets {
		format := number(secretFormats[:], s.Format)
		if format == 0 && s.Format != "" {
			return nil, fmt.Errorf("a secret's format %q is not stored", s.Format)
		}
		b = append(b, s.Digest[:]...)
		b = append(b, format)
		b = appendTime(b, s.Since)
		b = appendTime(b, s.Until)
		b = appendIssuer(b, s.IssuedBy, t.Account)
	}
	if t.Constraints.Empty() {
		return b, nil
	}
	c, err := json.Marshal(t.Constraints)
	return append(b, c...), err
}

// parseToken reads what appendToken wrote.
func parseToken(b []byte, t *events.Token) error {
	r := formReader{rest: b}
	r.version(tokenVersion)
	state, flags := r.byte(), r.byte()
	if int(state) >= len(tokenStates) || state == 0 {
		r.fail(fmt.Errorf("a token's state is %d", state))
		state = 0
	}
	*t = events.Token{
		State: tokenStates[state], Inherit: flags&tokenInherits != 0,
		ID: events.TokenIDFrom(r.id()), Account: events.AccountIDFrom(r.id()),
	}
	if flags&tokenActorAccount != 0 {
		t.CreatedBy.Account = events.AccountIDFrom(r.id())
	}
	if flags&tokenActorToken != 0 {
		t.CreatedBy.Token = events.TokenIDFrom(r.id())
	}
	if flags&tokenStopped != 0 {
		t.StoppedBy = events.AccountIDFrom(r.id())
	}
	t.CreatedBy.Session, t.CreatedBy.Address = events.SessionID(r.text()), r.text()
	t.App, t.Device, t.Reason = r.text(), r.text(), r.text()
	t.Created, t.Changed, t.Expires, t.Revoked = r.time(), r.time(), r.time(), r.time()
	t.CreatedBy.Opened = events.Position(r.uvarint())
	t.CreatedIn, t.Version = events.Position(r.uvarint()), events.Position(r.uvarint())
	t.Scopes = r.scopes()
	for range r.byte() {
		var s events.SecretSlot
		copy(s.Digest[:], r.take(len(s.Digest)))
		if format := r.byte(); int(format) < len(secretFormats) {
			s.Format = secretFormats[format]
		} else {
			r.fail(fmt.Errorf("a secret's format is %d", format))
		}
		s.Since, s.Until, s.IssuedBy = r.time(), r.time(), r.issuer(t.Account)
		t.Secrets = append(t.Secrets, s)
	}
	if flags&tokenConstrained != 0 && r.err == nil {
		var err error
		if t.Constraints, err = parseConstraints(r.rest); err != nil {
			r.fail(err)
		}
		r.rest = nil
	}
	return r.end()
}

// appendDone writes a command's stored form.
func appendDone(b []byte, d *events.Done) []byte {
	b = append(b, doneVersion)
	b = binary.AppendUvarint(b, uint64(d.Position))
	for _, text := range [...]string{string(d.Event), d.About, string(d.Kind), string(d.Digest)} {
		b = appendText(b, text)
	}
	return b
}

// parseDone reads what appendDone wrote.
func parseDone(b []byte, d *events.Done) error {
	r := formReader{rest: b}
	r.version(doneVersion)
	d.Position = events.Position(r.uvarint())
	d.Event, d.About, d.Kind, d.Digest = events.EventID(
		r.text(),
	), r.text(), events.Kind(
		r.text(),
	), events.RequestHash(
		r.text(),
	)
	return r.end()
}

// appendIssuer writes the account that made a secret: 0 if it is the token's own
// account, else 1 and the id.
func appendIssuer(b []byte, issuer, own events.AccountID) []byte {
	if issuer == own {
		return append(b, 0)
	}
	return appendID(append(b, 1), issuerBytes(issuer))
}

func (r *formReader) issuer(own events.AccountID) events.AccountID {
	switch flag := r.byte(); flag {
	case 0:
		return own
	case 1:
		return issuerFrom(r.id())
	default:
		r.fail(fmt.Errorf("a secret's issuer is of form %d", flag))
		return ""
	}
}

// issuerBytes returns an issuer's stored form: zeros stand for none.
func issuerBytes(id events.AccountID) (b [16]byte) {
	if id != "" {
		b = id.Bytes()
	}
	return b
}

func issuerFrom(b [16]byte) events.AccountID {
	if b == ([16]byte{}) {
		return ""
	}
	return events.AccountIDFrom(b)
}

func appendID(b []byte, id [16]byte) []byte { return append(b, id[:]...) }

func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

func appendScopes(b []byte, list []events.Scope) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		at := len(b)
		b = append(b, 0)
		b = s.Append(b)
		b[at] = byte(len(b) - at - 1)
	}
	return b
}

// formReader reads a stored form from front to back. After an error it returns
// zero values.
type formReader struct {
	rest []byte
	err  error
}

func (r *formReader) fail(err error) {
	if r.err == nil {
		r.err, r.rest = err, nil
	}
}

// take returns the next n bytes, nil where there are not as many.
func (r *formReader) take(n int) []byte {
	if n > len(r.rest) {
		r.fail(errShort)
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *formReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// version reads the version of the form, and fails where it is not the one that
// is known.
func (r *formReader) version(known byte) {
	if v := r.byte(); v != known {
		r.fail(fmt.Errorf("it is of version %d, and %d is known", v, known))
	}
}

func (r *formReader) id() (id [16]byte) {
	copy(id[:], r.take(len(id)))
	return id
}

func (r *formReader) text() string { return string(r.take(int(r.byte()))) }

func (r *formReader) uvarint() uint64 { return varint(r, binary.Uvarint) }
func (r *formReader) varint() int64   { return varint(r, binary.Varint) }

func varint[T any](r *formReader, read func([]byte) (T, int)) (v T) {
	v, n := read(r.rest)
	if n <= 0 {
		var zero T
		r.fail(errShort)
		return zero
	}
	r.rest = r.rest[n:]
	return v
}

func (r *formReader) time() time.Time {
	seconds, nanos := r.varint(), r.uvarint()
	if r.err != nil {
		return time.Time{}
	}
	if nanos > 999_999_999 {
		r.fail(errors.New("a time has too many nanoseconds"))
	}
	return time.Unix(seconds, int64(nanos)).UTC()
}

func (r *formReader) scopes() []events.Scope {
	n := r.uvarint()
	if n > uint64(len(r.rest)) { // each takes a byte at least
		r.fail(errShort)
		return nil
	}
	list := make([]events.Scope, n)
	for i := range list {
		if err := list[i].UnmarshalText(r.take(int(r.byte()))); err != nil {
			r.fail(err)
			return nil
		}
	}
	return list
}

// end returns the first error. What is left over is one.
func (r *formReader) end() error {
	if len(r.rest) > 0 {
		r.fail(fmt.Errorf("%d bytes too many", len(r.rest)))
	}
	return r.err
}
