package eventstest

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Start is the earliest time of the first event of a [Log].
var Start = time.Date(2026, time.January, 2, 3, 4, 5, 678_000_000, time.UTC)

// Log writes events as a ledger does: encoded, with their subjects, at
// positions from 1 on, all of one epoch. It panics if an event cannot be
// encoded, which is a fault of the test.
type Log struct {
	Messages []events.Message

	epoch string
	now   time.Time
	rng   *rand.Rand
}

// NewLog returns an empty log. Logs with different seeds have no id, secret or
// epoch in common.
func NewLog(seed uint64) *Log {
	l := &Log{now: Start, rng: rand.New(rand.NewPCG(seed, 0x746f6b656e))}
	l.epoch = l.ulid("")
	return l
}

// Epoch returns the epoch of all events.
func (l *Log) Epoch() string { return l.epoch }

// Now returns the time of the next event.
func (l *Log) Now() time.Time { return l.now }

// Advance adds d to the time of the next event. A writer's clock may go back,
// so d may be negative.
func (l *Log) Advance(d time.Duration) { l.now = l.now.Add(d) }

// End returns the position of the last event, 0 before the first.
func (l *Log) End() events.Position { return events.Position(len(l.Messages)) }

// Add appends an event. It sets the id, the epoch and the time if they are
// empty. If the event has an actor and Rests is nil, Rests becomes the actor's
// current versions.
func (l *Log) Add(e events.Event) events.Position {
	if e.ID == "" {
		e.ID = events.EventID(l.ulid("evt_"))
	}
	if e.Epoch == "" {
		e.Epoch = l.epoch
	}
	if e.Time.IsZero() {
		e.Time = l.now
		l.Advance(time.Second)
	}
	if e.Rests == nil {
		e.Rests = l.rests(&e)
	}
	data, err := events.Encode(&e)
	if err != nil {
		panic(fmt.Sprintf("eventstest: %s: %v", e.Change.Kind(), err))
	}
	at := l.End() + 1
	l.Messages = append(l.Messages, events.Message{Position: at, Subject: e.Subject(), Data: data})
	return at
}

// rests returns the current versions of the account and token of an event's
// actor.
func (l *Log) rests(e *events.Event) (out events.Rests) {
	if e.Actor.Account == "" {
		return nil
	}
	state := Fold(l.Messages)
	for _, about := range []string{string(e.Actor.Account), string(e.Actor.Token)} { // in order of their prefixes
		if about != "" && about != e.About {
			out = append(out, events.Rest{About: about, Version: state.version(about)})
		}
	}
	return out
}

// Change appends a change of a token, of an account, or of [events.PolicyName].
func (l *Log) Change(about string, c events.Change) events.Position {
	return l.Add(events.Event{About: about, Change: c})
}

// Account appends the creation of a user's account.
func (l *Log) Account(grants ...string) events.AccountID {
	id := events.AccountID(l.ulid("acc_"))
	l.Change(string(id), &events.AccountCreated{Type: events.UserAccount, Grants: Scopes(grants...)})
	return id
}

// Token appends the creation of a token that never expires.
func (l *Log) Token(account events.AccountID, scopes ...string) (events.TokenID, events.Secret) {
	id, secret := l.TokenID(), l.Secret()
	l.Change(
		string(id),
		&events.TokenCreated{Account: account, Scopes: Scopes(scopes...), Secret: SecretRecord(secret.Digest())},
	)
	return id, secret
}

// Imported appends the creation of a token that inherits, imported from Matomo with
// the hash that Matomo stores.
func (l *Log) Imported(account events.AccountID, hash events.MatomoHash) events.TokenID {
	id := l.TokenID()
	l.Change(string(id), &events.TokenCreated{
		Account: account, Scopes: Scopes(), Inherit: true, Import: &events.TokenImport{Source: "matomo"},
		Secret: events.SecretRecord{
			Scheme: events.SchemeMatomo, Digest: hash.Digest(), Format: events.FormatHex32,
		},
	})
	return id
}

// Rotate appends a rotation and returns the new secret.
func (l *Log) Rotate(id events.TokenID, until time.Time) events.Secret {
	secret := l.Secret()
	l.Change(string(id), &events.TokenRotated{Secret: SecretRecord(secret.Digest()), Until: until})
	return secret
}

// Revoke appends the revocation of a token.
func (l *Log) Revoke(id events.TokenID) events.Position {
	return l.Change(string(id), &events.TokenRevoked{})
}

// TokenID returns an id that no token has.
func (l *Log) TokenID() events.TokenID { return events.TokenID(l.ulid("tok_")) }

// Secret returns a user's secret that no token has.
func (l *Log) Secret() events.Secret {
	var b strings.Builder
	b.WriteString(events.DefaultFormat.User)
	for range 32 {
		b.WriteByte(base62[l.rng.IntN(len(base62))])
	}
	return MustSecret(b.String() + Checksum(b.String()))
}

// ulid returns a new id. Its time is the log's, as a ledger's would be.
func (l *Log) ulid(prefix string) string {
	var b [16]byte
	ms := l.now.UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	for i := 6; i < len(b); i++ {
		b[i] = byte(l.rng.Uint32())
	}
	_, text, _ := strings.Cut(string(events.TokenIDFrom(b)), "_")
	return prefix + text
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Checksum returns the last part of a secret: the CRC-32 of the part before it,
// as six base62 digits.
func Checksum(s string) string {
	n := uint64(crc32.ChecksumIEEE([]byte(s)))
	var digits []byte
	for range 6 {
		digits = append(digits, base62[n%62])
		n /= 62
	}
	slices.Reverse(digits)
	return string(digits)
}

// MustSecret parses a secret of the default format.
func MustSecret(s string) events.Secret {
	secret, err := events.DefaultFormat.ParseSecret(s)
	if err != nil {
		panic(err)
	}
	return secret
}

// Scopes parses scopes and keeps their order. Without scopes it returns an
// empty list, not nil, as an event has.
func Scopes(list ...string) []events.Scope {
	out := make([]events.Scope, 0, len(list))
	for _, s := range list {
		out = append(out, events.MustScope(s))
	}
	return out
}

// SecretRecord returns the form in which an event stores a secret.
func SecretRecord(d events.Digest) events.SecretRecord {
	return events.SecretRecord{Scheme: events.SchemeSHA256, Digest: d}
}
