package projector

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Versions of the binary stored forms of tokens and commands. They are most of
// the records that a transaction writes. As JSON, encoding and decoding took
// longer than all other work on them.
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
	tokenImported
)

var tokenStates = [...]events.TokenState{1: events.Active, 2: events.Suspended, 3: events.Revoked}

var secretFormats = [...]events.SecretFormat{0: "", 1: events.FormatHex32, 2: events.FormatHex32}

// matomoFormat is the stored form of the format of a secret with the digest scheme
// of Matomo.
const matomoFormat = 2

// number returns the index of v in list, which is its stored form, or 0 if v is
// not in the list.
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

// appendToken appends the stored form of a token: version, state, flags, IDs,
// texts with their lengths, times as seconds and nanoseconds, scopes, secrets,
// the import, and constraints as JSON up to the end.
func appendToken(b []byte, t *events.Token) ([]byte, error) {
	state := number(tokenStates[:], t.State)
	if state == 0 {
		return nil, fmt.Errorf("token state %q has no stored form", t.State)
	}
	flags := flag(t.Inherit, tokenInherits) | flag(!t.Constraints.Empty(), tokenConstrained) |
		flag(t.CreatedBy.Account != "", tokenActorAccount) | flag(t.CreatedBy.Token != "", tokenActorToken) |
		flag(t.StoppedBy != "", tokenStopped) | flag(t.Import != nil, tokenImported)
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
			return nil, fmt.Errorf("secret format %q has no stored form", s.Format)
		}
		switch {
		case s.Scheme == events.SchemeMatomo && s.Format == events.FormatHex32:
			format = matomoFormat
		case s.Scheme != "":
			return nil, fmt.Errorf("digest scheme %q has no stored form", s.Scheme)
		}
		b = append(b, s.Digest[:]...)
		b = append(b, format)
		b = appendTime(b, s.Since)
		b = appendTime(b, s.Until)
		b = appendIssuer(b, s.IssuedBy, t.Account)
	}
	if i := t.Import; i != nil {
		b = append(appendText(b, i.Source), flag(i.Migrated, 1))
		b = appendTime(appendTime(b, i.Created), i.LastUsed)
	}
	if t.Constraints.Empty() {
		return b, nil
	}
	c, err := json.Marshal(t.Constraints)
	return append(b, c...), err
}

// parseToken parses the stored form of a token.
func parseToken(b []byte, t *events.Token) error {
	r := formReader{rest: b}
	r.version(tokenVersion)
	state, flags := r.byte(), r.byte()
	if int(state) >= len(tokenStates) || state == 0 {
		r.fail(fmt.Errorf("unknown token state %d", state))
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
			if format == matomoFormat {
				s.Scheme = events.SchemeMatomo
			}
		} else {
			r.fail(fmt.Errorf("unknown secret format %d", format))
		}
		s.Since, s.Until, s.IssuedBy = r.time(), r.time(), r.issuer(t.Account)
		t.Secrets = append(t.Secrets, s)
	}
	if flags&tokenImported != 0 {
		t.Import = &events.TokenImport{Source: r.text()}
		t.Import.Migrated = r.byte()&1 != 0
		t.Import.Created, t.Import.LastUsed = r.time(), r.time()
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

// appendDone appends the stored form of a command's result.
func appendDone(b []byte, d *events.Done) []byte {
	b = append(b, doneVersion)
	b = binary.AppendUvarint(b, uint64(d.Position))
	for _, text := range [...]string{string(d.Event), d.About, string(d.Kind), string(d.Digest)} {
		b = appendText(b, text)
	}
	return b
}

// parseDone parses the stored form of a command's result.
func parseDone(b []byte, d *events.Done) error {
	r := formReader{rest: b}
	r.version(doneVersion)
	d.Position = events.Position(r.uvarint())
	d.Event, d.About = events.EventID(r.text()), r.text()
	d.Kind, d.Digest = events.Kind(r.text()), events.RequestHash(r.text())
	return r.end()
}

// appendIssuer appends the account that issued a secret: 0 for the token's own
// account, else 1 and the ID.
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
		r.fail(fmt.Errorf("unknown form %d of a secret's issuer", flag))
		return ""
	}
}

// issuerBytes returns the stored form of an issuer: its ID, or zeros for none.
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

// formReader reads a stored form from front to back. After the first error,
// which end returns, it reads zero values.
type formReader struct {
	rest []byte
	err  error
}

func (r *formReader) fail(err error) {
	if r.err == nil {
		r.err, r.rest = err, nil
	}
}

// take returns the next n bytes. It fails if there are fewer.
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

// version reads the version of the form. It fails unless that is known.
func (r *formReader) version(known byte) {
	if v := r.byte(); v != known {
		r.fail(fmt.Errorf("version %d; this program reads version %d", v, known))
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
		r.fail(errors.New("time has a second or more of nanoseconds"))
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

// end returns the first error. Unread bytes are an error too.
func (r *formReader) end() error {
	if len(r.rest) > 0 {
		r.fail(fmt.Errorf("%d bytes follow the end", len(r.rest)))
	}
	return r.err
}
