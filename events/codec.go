package events

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// MaxSize is the maximum size of an encoded event, in bytes. [MaxScopes] of the
// longest scopes need 394,000 bytes, and the largest constraints and labels 60,000.
const MaxSize = 512 << 10

// ErrUnknown reports an event of a newer version: its kind or one of its critical
// fields is unknown.
var ErrUnknown = errors.New("unknown; a newer version is needed")

// ErrMalformed reports bytes that are not an event.
var ErrMalformed = errors.New("malformed event")

// envelope is the stored form: CloudEvents 1.0, structured JSON.
type envelope struct {
	SpecVersion string    `json:"specversion"`
	ID          EventID   `json:"id"`
	Source      string    `json:"source"`
	Type        Kind      `json:"type"`
	Time        time.Time `json:"time"`
	Subject     string    `json:"subject"`
	ContentType string    `json:"datacontenttype"`
	Data        payload   `json:"data"`
}

type payload struct {
	Actor  Actor           `json:"actor"`
	Rests  Rests           `json:"rests,omitempty"`
	Key    CommandKey      `json:"key,omitempty"`
	Digest RequestHash     `json:"request,omitempty"`
	Crit   []string        `json:"crit,omitempty"` // fields of Change that a reader must know
	Change json.RawMessage `json:"change"`
}

const sourcePrefix = "/tokenledger/"

// Encode returns the stored form of e. It rejects an event that [Decode] would
// reject.
func Encode(e *Event) ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	change, err := marshal(e.Change)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	var crit []string
	if n, ok := e.Change.(criticalFielder); ok {
		crit = n.critical()
	}
	b, err := marshal(envelope{
		SpecVersion: "1.0",
		ID:          e.ID,
		Source:      sourcePrefix + e.Epoch,
		Type:        e.Change.Kind(),
		Time:        e.Time.UTC(),
		Subject:     e.About,
		ContentType: "application/json",
		Data:        payload{Actor: e.Actor, Rests: e.Rests, Key: e.Key, Digest: e.Digest, Crit: crit, Change: change},
	})
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("encode event: %d bytes; the limit is %d", len(b), MaxSize)
	}
	return b, nil
}

// marshal is json.Marshal without the escaping of <, > and & for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode decodes the stored form of an event. The error is [ErrUnknown] for an event
// of a newer version, and [ErrMalformed] for an invalid one. Of the event's
// content, it contains only names of kinds and fields.
func Decode(b []byte) (*Event, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes; the limit is %d", ErrMalformed, len(b), MaxSize)
	}
	if e := decodeFast(b); e != nil {
		return e, nil
	}
	return decodeAny(b)
}

// decodeAny decodes every valid form of an event.
func decodeAny(b []byte) (*Event, error) {
	var env envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, jsonProblem(err))
	}
	if env.SpecVersion != "1.0" {
		return nil, fmt.Errorf("%w version of CloudEvents %s", ErrUnknown, Quote(env.SpecVersion))
	}
	make, ok := kinds[env.Type]
	if !ok {
		return nil, fmt.Errorf("event of kind %s: %w", Quote(string(env.Type)), ErrUnknown)
	}
	change := make()
	for _, name := range env.Data.Crit {
		if !knownFields[env.Type][name] {
			return nil, fmt.Errorf("critical field %s of kind %s: %w", Quote(name), env.Type, ErrUnknown)
		}
	}
	if len(env.Data.Change) == 0 || env.Data.Change[0] != '{' {
		return nil, fmt.Errorf("%w: %s without a change", ErrMalformed, env.Type)
	}
	if err := json.Unmarshal(env.Data.Change, change); err != nil {
		return nil, fmt.Errorf("%w: change of %s: %s", ErrMalformed, env.Type, jsonProblem(err))
	}
	epoch, ok := strings.CutPrefix(env.Source, sourcePrefix)
	if !ok {
		return nil, fmt.Errorf("%w: source is not %s with an epoch", ErrMalformed, sourcePrefix)
	}
	e := &Event{
		ID: env.ID, Epoch: epoch, Time: env.Time, About: env.Subject,
		Actor: env.Data.Actor, Rests: env.Data.Rests, Key: env.Data.Key, Digest: env.Data.Digest, Change: change,
	}
	if err := e.validate(); err != nil {
		if errors.Is(err, ErrUnknown) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// DecodeMessage decodes the event of a message, and checks the message's subject.
func DecodeMessage(m Message) (*Event, error) {
	e, err := Decode(m.Data)
	if err != nil {
		return nil, fmt.Errorf("event at position %d: %w", m.Position, err)
	}
	if !e.under(m.Subject) {
		return nil, fmt.Errorf(
			"event at position %d: %w: its subject is %s, want %q",
			m.Position,
			ErrMalformed,
			Quote(m.Subject),
			e.Subject(),
		)
	}
	return e, nil
}

// knownFields maps each kind to the paths of its change's fields, such as
// constraints.rate.
var knownFields = func() map[Kind]map[string]bool {
	out := make(map[Kind]map[string]bool, len(kinds))
	for k, mk := range kinds {
		out[k] = map[string]bool{}
		addFields(out[k], "", reflect.TypeOf(mk()).Elem())
	}
	return out
}()

// addFields adds the paths of the fields of a struct, and of the structs in it that
// do not marshal to text.
func addFields(into map[string]bool, at string, t reflect.Type) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		into[at+name] = true
		inner := t.Field(i).Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && !inner.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
			addFields(into, at+name+".", inner)
		}
	}
}

// Check returns an error if [Encode] would reject a change.
func Check(c Change) error { return c.validate() }

// validate reports an invalid event.
func (e *Event) validate() error {
	if e.Change == nil {
		return errors.New("no change")
	}
	_, err := ParseEventID(string(e.ID))
	problems := []error{err, e.checkAbout(), e.Change.validate()}
	if year := e.Time.UTC().Year(); e.Time.IsZero() || year < 2000 || year > 9999 {
		problems = append(problems, errors.New("the time is missing, or not in the years 2000 to 9999"))
	}
	if !isEpoch(e.Epoch) {
		problems = append(problems, errors.New("the epoch is missing or malformed"))
	}
	if e.Actor.Account != "" {
		_, err := ParseAccountID(string(e.Actor.Account))
		problems = append(problems, err)
	}
	if e.Actor.Token != "" {
		_, err := ParseTokenID(string(e.Actor.Token))
		problems = append(problems, err)
	}
	if e.Actor.Session != "" {
		_, err := ParseSessionID(string(e.Actor.Session))
		problems = append(problems, err)
	}
	if e.Actor.Opened != 0 && e.Actor.Session == "" {
		problems = append(problems, errors.New("the actor has opened, but no session"))
	}
	problems = append(problems, checkLabel("the actor's address", e.Actor.Address), e.Rests.validate(e.About))
	if e.Key != "" && (len(e.Key) != 32 || !isHex(string(e.Key))) ||
		e.Digest != "" && (len(e.Digest) != 32 || !isHex(string(e.Digest))) {
		problems = append(problems, errors.New("key and request are 32 hexadecimal digits"))
	}
	return errors.Join(problems...)
}

func (e *Event) checkAbout() error {
	var err error
	switch e.Change.Kind().Noun() {
	case NounToken:
		_, err = ParseTokenID(e.About)
	case NounAccount:
		_, err = ParseAccountID(e.About)
	case NounPolicy:
		if e.About != PolicyName {
			err = errors.New("the subject of an event of policy is not policy")
		}
	case NounReceipt:
		if e.About != ReceiptName {
			err = errors.New("the subject of a receipt is not receipt")
		}
	case NounLog:
		if e.About != LogName {
			err = errors.New("the subject of an event of the log is not log")
		}
	}
	return err
}

// isEpoch accepts a ULID in lower case.
func isEpoch(s string) bool { return validULID(s) }

// jsonProblem describes an error in JSON without its content, which may be a
// secret.
func jsonProblem(err error) string {
	var typ *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &typ):
		return fmt.Sprintf("field %s: a JSON %s does not fit", Quote(typ.Field), strings.SplitN(typ.Value, " ", 2)[0])
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON at byte %d", syntax.Offset)
	case errors.Is(err, ErrBadScope), errors.Is(err, ErrBadID):
		return err.Error()
	}
	return "a value does not fit its field"
}
