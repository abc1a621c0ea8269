package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

var (
	// ErrStreamExists reports that there is a stream LEDGER already.
	ErrStreamExists = errors.New("stream " + events.StreamName + " exists")
	// ErrNoStream reports that there is no stream LEDGER.
	ErrNoStream = errors.New("there is no stream " + events.StreamName)
	// ErrDrifted reports that a stream's settings are not those that the
	// promises rest on.
	ErrDrifted = errors.New("the stream has other settings than it must have")
	// ErrNoLeader reports that a replicated stream has no leader, so that nothing
	// can be appended and what is read may be old.
	ErrNoLeader = errors.New("the stream has no leader: a majority of its servers is needed")
	// ErrDamaged reports that the stream lacks positions that it has had.
	ErrDamaged = errors.New("stream " + events.StreamName + " is damaged")
)

// DamageError is an [ErrDamaged]. What a stream's leader says of the stream it
// says of its own copy; those of the others may be whole.
type DamageError struct {
	Ledger string // whose copy lacks the positions; empty if there is only one
	Faults []string
}

func (e *DamageError) Error() string {
	faults := strings.Join(e.Faults, "; ")
	if e.Ledger == "" {
		return ErrDamaged.Error() + ": " + faults
	}
	return fmt.Sprintf("%s: the copy of ledger %s, which leads, is not whole: %s; the copies of the other ledgers may be: wipe none of them",
		ErrDamaged, e.Ledger, faults)
}

// Is makes it an ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

const (
	// DefaultMaxBytes is the stream's size where StreamLimits names none.
	DefaultMaxBytes = 48 << 30

	maxMsgSize      = 64 << 10
	duplicateWindow = 2 * time.Minute
	epochKey        = "tokenledger-epoch"
)

// StreamLimits is what may differ between one deployment's stream and
// another's.
type StreamLimits struct {
	// MaxBytes is the size at which appends are refused; nothing is dropped.
	// Zero means DefaultMaxBytes.
	MaxBytes int64
	// Replicas is 1, or 3 or 5 in a cluster. Zero means 1.
	Replicas int
	// Epoch names this life of the stream; a restore starts a new one.
	// Required.
	Epoch string
	// Lease is that of the stream LEASES, see [LeaseLimits]. Zero means
	// DefaultLease.
	Lease time.Duration
}

func (l StreamLimits) withDefaults() StreamLimits {
	if l.MaxBytes == 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	if l.Replicas == 0 {
		l.Replicas = 1
	}
	return l
}

func (l StreamLimits) validate() error {
	var problems []error
	if l.MaxBytes < 0 {
		problems = append(problems, fmt.Errorf("stream: MaxBytes is %d, want a size in bytes", l.MaxBytes))
	}
	if !slices.Contains([]int{1, 3, 5}, l.Replicas) {
		problems = append(problems, fmt.Errorf("stream: Replicas is %d, want 1, 3 or 5", l.Replicas))
	}
	if l.Epoch == "" {
		problems = append(problems, errors.New("stream: Epoch is required"))
	}
	return errors.Join(problems...)
}

// StreamInfo is what a caller needs to know of the stream.
type StreamInfo struct {
	Last    events.Position // 0 when the stream is empty
	Epoch   string
	Created time.Time
}

// settings is the stream that the promises rest on. Where the server has a
// default of its own it is written out, so that settings can be compared with
// what the server reports.
func settings(l StreamLimits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:      events.StreamName,
		Subjects:  []string{events.SubjectFilter},
		Storage:   jetstream.FileStorage,
		Replicas:  l.Replicas,
		Retention: jetstream.LimitsPolicy,
		Metadata:  map[string]string{epochKey: l.Epoch},

		// A full stream refuses the new; it does not drop the old.
		Discard:           jetstream.DiscardNew,
		MaxBytes:          l.MaxBytes,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		MaxMsgSize:        maxMsgSize,

		DenyDelete:         true,
		DenyPurge:          true,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		Duplicates:         duplicateWindow,
		RePublish:          &jetstream.RePublish{Source: events.SubjectFilter, Destination: events.TailFilter},
	}
}

// freeSettings are those that no promise rests on. All others are compared,
// those too that a later version of the client adds.
var freeSettings = map[string]bool{
	"Description":    true,
	"MaxConsumers":   true,
	"ConsumerLimits": true,
	"Placement":      true,
	"Compression":    true,
	"Template":       true,
	"Metadata":       true, // the epoch is checked by itself; the server adds to it
}

// CreateStream makes the stream, empty, and that of its leases. There must be
// no log: one that starts empty by accident has forgotten its revocations.
func CreateStream(ctx context.Context, js jetstream.JetStream, limits StreamLimits) (StreamInfo, error) {
	limits = limits.withDefaults()
	if err := limits.validate(); err != nil {
		return StreamInfo{}, fmt.Errorf("create stream: %w", err)
	}
	// To the server, creating a stream that exists with the same settings is
	// a success. When two creators get past this check, theirs differ by the
	// epoch, and the server refuses the second.
	switch _, err := js.Stream(ctx, events.StreamName); {
	case err == nil:
		return StreamInfo{}, fmt.Errorf("create stream: %w", ErrStreamExists)
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return StreamInfo{}, fmt.Errorf("create stream: look for one that exists: %w", err)
	}
	_, err := js.CreateStream(ctx, settings(limits))
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
		return StreamInfo{}, fmt.Errorf("create stream: %w", ErrStreamExists)
	case errors.As(err, &api) && api.ErrorCode == errCodeInsufficientStorage:
		return StreamInfo{}, fmt.Errorf("create stream: the server keeps no %d bytes for it: raise MaxStore or lower MaxBytes: %w", limits.MaxBytes, err)
	case err != nil:
		return StreamInfo{}, fmt.Errorf("create stream: %w", err)
	}
	// A crash here leaves a log without leases, and the next ledger that opens
	// it makes them.
	if _, err := EnsureLeases(ctx, js, LeaseLimits{Epoch: limits.Epoch, Lease: limits.Lease, Replicas: limits.Replicas}); err != nil {
		return StreamInfo{}, fmt.Errorf("create stream: %w", err)
	}
	return OpenStream(ctx, js)
}

// errCodeInsufficientStorage is JSStorageResourcesExceededErr, for which the
// client has no name.
const errCodeInsufficientStorage = 10047

// OpenStream checks that the stream exists, has the settings that the promises
// rest on, and holds every position from the first to the last.
func OpenStream(ctx context.Context, js jetstream.JetStream) (StreamInfo, error) {
	stream, err := js.Stream(ctx, events.StreamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return StreamInfo{}, fmt.Errorf("open stream: %w", ErrNoStream)
	}
	if err != nil {
		return StreamInfo{}, fmt.Errorf("open stream: %w", err)
	}
	info := stream.CachedInfo() // js.Stream has just asked for it
	if info.Cluster != nil && info.Cluster.Leader == "" {
		return StreamInfo{}, fmt.Errorf("open stream %s: %w", events.StreamName, ErrNoLeader)
	}
	if diffs := logDrift(info.Config); len(diffs) > 0 {
		return StreamInfo{}, fmt.Errorf("open stream %s: %w: %s", events.StreamName, ErrDrifted, strings.Join(diffs, "; "))
	}
	if err := damageOf(info); err != nil {
		return StreamInfo{}, fmt.Errorf("open stream: %w", err)
	}
	return StreamInfo{
		Last:    events.Position(info.State.LastSeq),
		Epoch:   info.Config.Metadata[epochKey],
		Created: info.Created,
	}, nil
}

// logDrift names each setting of the log that is not as it must be.
func logDrift(have jetstream.StreamConfig) []string {
	diffs := drift(have, settings(StreamLimits{MaxBytes: have.MaxBytes, Replicas: have.Replicas}))
	if have.MaxBytes <= 0 {
		diffs = append(diffs, "max_bytes is not set, want a limit below the disk's size")
	}
	if have.Metadata[epochKey] == "" {
		diffs = append(diffs, "metadata has no "+epochKey)
	}
	return diffs
}

// drift names each setting that is not as wanted.
func drift(have, want jetstream.StreamConfig) []string {
	var diffs []string
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	for i := range h.NumField() {
		field := h.Type().Field(i)
		if freeSettings[field.Name] {
			continue
		}
		a, b := h.Field(i).Interface(), w.Field(i).Interface()
		if !reflect.DeepEqual(a, b) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			diffs = append(diffs, fmt.Sprintf("%s is %s, want %s", name, show(a), show(b)))
		}
	}
	return diffs
}

// show renders a setting as the nats command does.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// damageOf returns a DamageError if the stream lacks positions.
func damageOf(info *jetstream.StreamInfo) error {
	faults := damage(info.State)
	if len(faults) == 0 {
		return nil
	}
	err := &DamageError{Faults: faults}
	if info.Cluster != nil {
		err.Ledger = info.Cluster.Leader
	}
	return err
}

// damage names each way in which the stream does not hold every position from
// 1 to the last. An event is never removed, so each is a loss.
func damage(s jetstream.StreamState) []string {
	var faults []string
	if s.LastSeq > 0 && s.FirstSeq != 1 {
		faults = append(faults, fmt.Sprintf("the first position is %d, want 1", s.FirstSeq))
	}
	if s.NumDeleted > 0 {
		faults = append(faults, fmt.Sprintf("%d positions after the first are missing", s.NumDeleted))
	}
	if s.Lost != nil {
		faults = append(faults, fmt.Sprintf("the server could not read %d messages (%d bytes)", len(s.Lost.Msgs), s.Lost.Bytes))
	}
	if s.Msgs != s.LastSeq {
		faults = append(faults, fmt.Sprintf("there are %d messages up to position %d", s.Msgs, s.LastSeq))
	}
	return faults
}
