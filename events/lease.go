package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Names of the leases in NATS JetStream.
const (
	// LeaseStreamName is the stream that holds every renewal and barrier. It
	// says nothing of tokens, and its oldest messages are dropped.
	LeaseStreamName = "LEASES"
	// LeaseFilter matches the subject of every message in it.
	LeaseFilter = "lease.>"
	// LeaseTailFilter matches every republished one.
	LeaseTailFilter = TailPrefix + LeaseFilter
	// BarrierSubject is where ledgers publish barriers.
	BarrierSubject = "lease.barrier"
	// RenewalSubjectPrefix stands before a node's name where it renews its
	// lease.
	RenewalSubjectPrefix = "lease.node."
	// RenewalSubjectFilter matches every node's renewals.
	RenewalSubjectFilter = RenewalSubjectPrefix + "*"
)

// LeaseSeq is a message's sequence in the stream of leases. It has nothing to
// do with a [Position].
type LeaseSeq uint64

// LeaseMessage is a message of the stream of leases as it is stored.
type LeaseMessage struct {
	Seq     LeaseSeq
	Subject string
	Data    []byte
}

// Holder is one process that may hold a lease. Two processes with one name are
// two holders.
type Holder struct {
	Node     string `json:"node"`
	Instance string `json:"instance"` // drawn by the process when it starts
}

// String returns the node's name and its instance.
func (h Holder) String() string { return h.Node + "/" + h.Instance }

// IndexDigest stands for the content of an index at one position: the same
// events give the same digest on every node. It tells accidents, not forgeries.
type IndexDigest uint64

// String returns the digest in hexadecimal.
func (d IndexDigest) String() string { return fmt.Sprintf("%016x", uint64(d)) }

// MarshalText writes the digest in hexadecimal.
func (d IndexDigest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *IndexDigest) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || len(b) != 16 {
		return errors.New("index digest: want 16 hexadecimal digits")
	}
	*d = IndexDigest(n)
	return nil
}

// Statement is what a node says of its index: its digest at a position.
type Statement struct {
	Position Position    `json:"position"`
	Digest   IndexDigest `json:"digest"`
}

// Renewal asks for a lease. Committed to the stream of leases, it is a node's
// claim to answer checks for a while: see package verifier/lease.
type Renewal struct {
	Holder
	Number uint64 `json:"number"` // counts the holder's renewals, from 1
	Epoch  string `json:"epoch"`  // of the log that its index holds; empty before the first event
	// Joining asks for a barrier: the node knows of none before.
	Joining bool `json:"joining,omitempty"`
	// Lease is for how long it will answer, from when it sent this. Zero gives
	// up the lease that it has.
	Lease Milliseconds `json:"lease_ms"`
	// Stale are permissions that it goes on to answer for past its lease, and
	// for how long.
	Stale map[string]Milliseconds `json:"stale_ms,omitempty"`
	// Index is what its index holds, and Mark what it held at the last position
	// at which all nodes' can be compared.
	Index   Statement `json:"index"`
	Mark    Statement `json:"mark"`
	Version string    `json:"version,omitempty"` // of the program
	// Clock is the sender's time of day as Unix time, from before it sent this.
	// Zero says nothing.
	Clock Milliseconds `json:"clock_ms,omitempty"`
	// Fenced says that the sender has no lease because its clock is wrong. It
	// sends this to learn when the clock is right.
	Fenced bool `json:"fenced,omitempty"`
}

// Barrier makes every renewal after it conditional: whoever asks for a lease
// behind it has to have applied all events up to the floor. The floors of later
// barriers are never lower.
type Barrier struct {
	Epoch  string       `json:"epoch"`    // of the log
	Floor  Position     `json:"floor"`    // of an event that is committed; 0 while there is none
	Lease  Milliseconds `json:"lease_ms"` // the longest that a lease may be
	Ledger string       `json:"ledger"`   // name of the node that wrote it
	// Clock is the ledger's time of day as Unix time, from before it sent this and
	// after it had read the stream up to Read. Zero says nothing.
	Clock Milliseconds `json:"clock_ms,omitempty"`
	Read  LeaseSeq     `json:"read,omitempty"`
}

// ClockLimit is by how much a node's time of day may differ from that of the
// ledgers. A node that differs by more has no lease.
const ClockLimit = 2 * time.Second

// Milliseconds is a duration as it is stored.
type Milliseconds int64

// InMilliseconds returns d, rounded down.
func InMilliseconds(d time.Duration) Milliseconds { return Milliseconds(d.Milliseconds()) }

// Duration returns m as a duration.
func (m Milliseconds) Duration() time.Duration { return time.Duration(m) * time.Millisecond }

// maxLease bounds what a stored lease may say: a day.
const maxLease = Milliseconds(24 * 3600 * 1000)

// leaseForm is the form of stored renewals and barriers. A reader refuses what
// it does not know: it could be a new condition for a lease.
const leaseForm = 1

type storedRenewal struct {
	Form int `json:"form"`
	*Renewal
}

type storedBarrier struct {
	Form int `json:"form"`
	*Barrier
}

// Subject returns where r is published.
func (r *Renewal) Subject() string { return RenewalSubjectPrefix + r.Node }

// Encode returns the bytes that are stored.
func (r *Renewal) Encode() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("encode renewal: %w", err)
	}
	return json.Marshal(storedRenewal{leaseForm, r})
}

// Encode returns the bytes that are stored.
func (b *Barrier) Encode() ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, fmt.Errorf("encode barrier: %w", err)
	}
	return json.Marshal(storedBarrier{leaseForm, b})
}

// DecodeLease reads a stored message of the stream of leases: one of the two
// results is not nil. The error is [ErrUnknown] for what a newer version wrote
// and [ErrMalformed] for what nobody should have.
func DecodeLease(m LeaseMessage) (*Renewal, *Barrier, error) {
	wrong := func(err error) error {
		if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrMalformed) {
			err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return fmt.Errorf("lease message %d: %w", m.Seq, err)
	}
	if m.Subject == BarrierSubject {
		b := new(Barrier)
		err := decodeLease(m.Data, &storedBarrier{Barrier: b}, b.validate)
		if err != nil {
			return nil, nil, wrong(err)
		}
		return nil, b, nil
	}
	r := new(Renewal)
	if err := decodeLease(m.Data, &storedRenewal{Renewal: r}, r.validate); err != nil {
		return nil, nil, wrong(err)
	}
	if m.Subject != r.Subject() {
		return nil, nil, wrong(
			fmt.Errorf("it stands under subject %s and belongs under %q", Quote(m.Subject), r.Subject()),
		)
	}
	return r, nil, nil
}

func decodeLease(data []byte, into any, validate func() error) error {
	var form struct {
		Form int `json:"form"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return errors.New(jsonProblem(err))
	}
	if form.Form != leaseForm {
		return fmt.Errorf("form %d: %w", form.Form, ErrUnknown)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(into); err != nil {
		return errors.New(jsonProblem(err))
	}
	return validate()
}

func (r *Renewal) validate() error {
	problems := []error{CheckNodeName(r.Node), checkInstance(r.Instance)}
	if r.Number == 0 {
		problems = append(problems, errors.New("a renewal's number counts from 1"))
	}
	if r.Clock < 0 {
		problems = append(problems, errors.New("clock is before 1970"))
	}
	if r.Epoch != "" && !isEpoch(r.Epoch) {
		problems = append(problems, errors.New("epoch is not one"))
	}
	if r.Lease < 0 || r.Lease > maxLease {
		problems = append(problems, errors.New("lease is not between nothing and a day"))
	}
	for permission, d := range r.Stale {
		if d <= 0 || d > maxLease {
			problems = append(problems, errors.New("stale use is not between nothing and a day"))
		}
		problems = append(problems, checkPermission(permission))
	}
	return errors.Join(problems...)
}

func (b *Barrier) validate() error {
	problems := []error{CheckNodeName(b.Ledger)}
	if b.Clock < 0 {
		problems = append(problems, errors.New("clock is before 1970"))
	}
	if !isEpoch(b.Epoch) {
		problems = append(problems, errors.New("epoch is not one"))
	}
	if b.Lease <= 0 || b.Lease > maxLease {
		problems = append(problems, errors.New("lease is not between nothing and a day"))
	}
	return errors.Join(problems...)
}

// CheckNodeName reports a name that cannot be a node's: it is part of subjects.
func CheckNodeName(name string) error {
	if name == "" || len(name) > 64 || LooksSecret(name) || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return fmt.Errorf("node name %s: want up to 64 letters, digits, '-' or '_'", Quote(name))
	}
	return nil
}

func checkPermission(name string) error {
	if !isWord(name) || LooksSecret(name) {
		return fmt.Errorf("%w: %s is not a permission", ErrBadScope, Quote(name))
	}
	return nil
}

func checkInstance(s string) error {
	if s == "" || len(s) > 32 || LooksSecret(s) || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) {
		return errors.New("an instance is up to 32 lower-case letters and digits")
	}
	return nil
}
