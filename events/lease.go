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
	// LeaseStreamName is the stream of the renewals and barriers. It has no data on
	// tokens, and the server deletes its oldest messages.
	LeaseStreamName = "LEASES"
	// LeaseFilter matches the subject of every message of the stream.
	LeaseFilter = "lease.>"
	// LeaseTailFilter matches every republished message.
	LeaseTailFilter = TailPrefix + LeaseFilter
	// BarrierSubject is the subject of barriers.
	BarrierSubject = "lease.barrier"
	// RenewalSubjectPrefix and a node's name are the subject of the node's renewals.
	RenewalSubjectPrefix = "lease.node."
	// RenewalSubjectFilter matches every node's renewals.
	RenewalSubjectFilter = RenewalSubjectPrefix + "*"
)

// LeaseSeq is the sequence of a message in the stream of leases. It is unrelated to
// a [Position].
type LeaseSeq uint64

// LeaseMessage is a message of the stream of leases as it is stored.
type LeaseMessage struct {
	Seq     LeaseSeq
	Subject string
	Data    []byte
}

// Holder is a process that may have a lease. Two processes of one node are two
// holders.
type Holder struct {
	Node     string `json:"node"`
	Instance string `json:"instance"` // random, chosen at the start of the process
}

// String returns the node's name and its instance.
func (h Holder) String() string { return h.Node + "/" + h.Instance }

// IndexDigest is a checksum of the content of an index at one position. It is equal
// on all nodes that applied the same events. It detects damage, not forgery.
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

// Statement is the digest of a node's index at a position.
type Statement struct {
	Position Position    `json:"position"`
	Digest   IndexDigest `json:"digest"`
}

// Renewal is a node's request for a lease, see package verifier/lease.
type Renewal struct {
	Holder
	Number uint64 `json:"number"` // counts the holder's renewals, from 1
	Epoch  string `json:"epoch"`  // of the log that its index holds; empty before the first event
	// Joining requests a barrier, because the node has not read one yet.
	Joining bool `json:"joining,omitempty"`
	// Lease is the duration of the lease, from the time of sending. Zero releases
	// the current lease.
	Lease Milliseconds `json:"lease_ms"`
	// Stale maps permissions to the time for which the node answers checks of them
	// after its lease has expired.
	Stale map[string]Milliseconds `json:"stale_ms,omitempty"`
	// Index is the current state of the node's index. Mark is its state at the last
	// position at which the indexes of all nodes are compared.
	Index   Statement `json:"index"`
	Mark    Statement `json:"mark"`
	Version string    `json:"version,omitempty"` // of the program
	// Clock is the sender's time as Unix time, read before sending. Zero means
	// unknown.
	Clock Milliseconds `json:"clock_ms,omitempty"`
	// Fenced is true if the sender has no lease because its clock is wrong. It
	// renews to learn when the clock is right again.
	Fenced bool `json:"fenced,omitempty"`
}

// Barrier is a condition for every later renewal: the node must have applied all
// events up to the floor. The floors of later barriers are never lower.
type Barrier struct {
	Epoch  string       `json:"epoch"`    // of the log
	Floor  Position     `json:"floor"`    // of a committed event; 0 if there is none
	Lease  Milliseconds `json:"lease_ms"` // the maximum duration of a lease
	Ledger string       `json:"ledger"`   // name of the node that wrote it
	// Clock is the ledger's time as Unix time, read before sending and after the
	// ledger had read the stream up to Read. Zero means unknown.
	Clock Milliseconds `json:"clock_ms,omitempty"`
	Read  LeaseSeq     `json:"read,omitempty"`
	// Ended lists leases that have expired. A ledger that starts later learns of them
	// here, and does not wait for their processes again. At most [MaxEnded].
	Ended []EndedLease `json:"ended,omitempty"`
}

// EndedLease says that every lease and every stale permission of a process from its
// renewals up to a number has expired.
type EndedLease struct {
	Holder
	Number uint64 `json:"number"` // of a renewal
}

// MaxEnded is the maximum length of the list in a barrier.
const MaxEnded = 64

// ClockLimit is the maximum difference between a node's clock and the clocks of the
// ledgers. A node with a larger difference has no lease.
const ClockLimit = 2 * time.Second

// Milliseconds is the stored form of a duration.
type Milliseconds int64

// InMilliseconds returns d, rounded down.
func InMilliseconds(d time.Duration) Milliseconds { return Milliseconds(d.Milliseconds()) }

// Duration returns m as a duration.
func (m Milliseconds) Duration() time.Duration { return time.Duration(m) * time.Millisecond }

// maxLease is the longest valid lease in a stored message: a day.
const maxLease = Milliseconds(24 * 3600 * 1000)

// leaseForm is the version of stored renewals and barriers. A reader rejects other
// versions, because they may have a new condition for a lease.
const leaseForm = 1

type storedRenewal struct {
	Form int `json:"form"`
	*Renewal
}

type storedBarrier struct {
	Form int `json:"form"`
	*Barrier
}

// Subject returns the subject of r.
func (r *Renewal) Subject() string { return RenewalSubjectPrefix + r.Node }

// Encode returns the stored form.
func (r *Renewal) Encode() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("encode renewal: %w", err)
	}
	return json.Marshal(storedRenewal{leaseForm, r})
}

// Encode returns the stored form.
func (b *Barrier) Encode() ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, fmt.Errorf("encode barrier: %w", err)
	}
	return json.Marshal(storedBarrier{leaseForm, b})
}

// DecodeLease decodes a message of the stream of leases. One of the two results is
// not nil. The error is [ErrUnknown] for a message of a newer version, and
// [ErrMalformed] for an invalid one.
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
			fmt.Errorf("its subject is %s, want %q", Quote(m.Subject), r.Subject()),
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
		problems = append(problems, errors.New("number is 0; the first is 1"))
	}
	if r.Clock < 0 {
		problems = append(problems, errors.New("clock is before 1970"))
	}
	if r.Epoch != "" && !isEpoch(r.Epoch) {
		problems = append(problems, errors.New("epoch is not a ULID in lower case"))
	}
	if r.Lease < 0 || r.Lease > maxLease {
		problems = append(problems, errors.New("lease is not between zero and a day"))
	}
	for permission, d := range r.Stale {
		if d <= 0 || d > maxLease {
			problems = append(problems, errors.New("stale time is not between zero and a day"))
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
		problems = append(problems, errors.New("epoch is not a ULID in lower case"))
	}
	if b.Lease <= 0 || b.Lease > maxLease {
		problems = append(problems, errors.New("lease is not between zero and a day"))
	}
	if len(b.Ended) > MaxEnded {
		problems = append(problems, fmt.Errorf("%d ended leases; the maximum is %d", len(b.Ended), MaxEnded))
	}
	for _, e := range b.Ended {
		problems = append(problems, CheckNodeName(e.Node), checkInstance(e.Instance))
		if e.Number == 0 {
			problems = append(problems, errors.New("an ended lease has no renewal number"))
		}
	}
	return errors.Join(problems...)
}

// CheckNodeName reports an invalid node name. Names are part of subjects.
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
