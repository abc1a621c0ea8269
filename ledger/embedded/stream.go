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
	// ErrStreamExists reports that the stream LEDGER exists.
	ErrStreamExists = errors.New("stream " + events.StreamName + " exists")
	// ErrNoStream reports that the stream LEDGER does not exist.
	ErrNoStream = errors.New("there is no stream " + events.StreamName)
	// ErrDrifted reports that a stream does not have the required settings.
	ErrDrifted = errors.New("the stream has other settings than it must have")
	// ErrNoLeader reports that a replicated stream has no leader: appends fail, and
	// reads may be stale.
	ErrNoLeader = errors.New("the stream has no leader: a majority of its servers is needed")
	// ErrDamaged reports that positions of the stream are missing.
	ErrDamaged = errors.New("stream " + events.StreamName + " is damaged")
)

// DamageError is an [ErrDamaged]. A stream's leader reports the state of its own copy;
// those of the other ledgers may be complete.
type DamageError struct {
	Ledger string // the ledger with the damaged copy; empty if there is only one
	Faults []string
}

func (e *DamageError) Error() string {
	faults := strings.Join(e.Faults, "; ")
	if e.Ledger == "" {
		return ErrDamaged.Error() + ": " + faults
	}
	return fmt.Sprintf(
		"%s: the copy of ledger %s, which leads, is not whole: %s; the copies of the other ledgers may be whole: wipe none of them",
		ErrDamaged,
		e.Ledger,
		faults,
	)
}

// Is makes it an ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

const (
	// DefaultMaxBytes is the default size of the stream in bytes.
	DefaultMaxBytes = 48 << 30

	maxMsgSize      = events.MaxSize + 16<<10 // with the headers of an append
	duplicateWindow = 2 * time.Minute
	epochKey        = "tokenledger-epoch"
)

// StreamLimits are the settings of the stream that may differ by deployment.
type StreamLimits struct {
	// MaxBytes is the size at which appends are refused; nothing is dropped.
	// Zero means DefaultMaxBytes.
	MaxBytes int64
	// Replicas is 1, or 3 or 5 in a cluster. Zero means 1.
	Replicas int
	// Epoch identifies the stream; a restore from a backup starts a new one. Required.
	Epoch string
	// Lease is the lease of the stream LEASES, see [LeaseLimits]. Zero means
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

// StreamInfo describes the stream.
type StreamInfo struct {
	Last    events.Position // 0 when the stream is empty
	Epoch   string
	Created time.Time
}

// settings returns the required settings of the stream. It states the server's defaults
// too, so that the settings can be compared with what the server reports.
func settings(l StreamLimits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:      events.StreamName,
		Subjects:  []string{events.SubjectFilter},
		Storage:   jetstream.FileStorage,
		Replicas:  l.Replicas,
		Retention: jetstream.LimitsPolicy,
		Metadata:  map[string]string{epochKey: l.Epoch},

		// A full stream refuses new messages and drops no old ones.
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

// freeSettings are the settings that may have any value. All others are compared, also
// those that a later version of the client adds.
var freeSettings = map[string]bool{
	"Description":    true,
	"MaxConsumers":   true,
	"ConsumerLimits": true,
	"Placement":      true,
	"Compression":    true,
	"Template":       true,
	"Metadata":       true, // the epoch is checked separately, and the server adds to it
}

// CreateStream creates the empty stream and its lease stream. The stream must not exist:
// a log that starts empty by accident has forgotten its revocations.
func CreateStream(ctx context.Context, js jetstream.JetStream, limits StreamLimits) (StreamInfo, error) {
	limits = limits.withDefaults()
	if err := limits.validate(); err != nil {
		return StreamInfo{}, fmt.Errorf("create stream: %w", err)
	}
	// The server accepts the creation of a stream that exists with the same
	// settings. If two creators pass this check, their epochs differ, and the server
	// refuses the second one.
	switch _, err := js.Stream(ctx, events.StreamName); {
	case err == nil:
		return StreamInfo{}, fmt.Errorf("create stream: %w", ErrStreamExists)
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return StreamInfo{}, fmt.Errorf("create stream: check whether it exists: %w", err)
	}
	_, err := js.CreateStream(ctx, settings(limits))
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
		return StreamInfo{}, fmt.Errorf("create stream: %w", ErrStreamExists)
	case errors.As(err, &api) && api.ErrorCode == errCodeInsufficientStorage:
		return StreamInfo{}, fmt.Errorf(
			"create stream: the server cannot reserve %d bytes for it: raise MaxStore or lower MaxBytes: %w",
			limits.MaxBytes,
			err,
		)
	case err != nil:
		return StreamInfo{}, fmt.Errorf("create stream: %w", err)
	}
	// After a crash here, the next ledger that opens the log creates its lease
	// stream.
	leases := LeaseLimits{Epoch: limits.Epoch, Lease: limits.Lease, Replicas: limits.Replicas}
	if _, err := EnsureLeases(ctx, js, leases); err != nil {
		return StreamInfo{}, fmt.Errorf("create stream: %w", err)
	}
	return OpenStream(ctx, js)
}

// errCodeInsufficientStorage is the server's JSStorageResourcesExceededErr. The client
// has no name for it.
const errCodeInsufficientStorage = 10047

// OpenStream checks that the stream exists, has the required settings, and holds every
// position from the first to the last.
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
		return StreamInfo{}, fmt.Errorf(
			"open stream %s: %w: %s",
			events.StreamName,
			ErrDrifted,
			strings.Join(diffs, "; "),
		)
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

// logDrift names each setting of the log that differs from the required one.
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

// drift names each setting that differs from the wanted one.
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

// show formats a setting as the nats command does.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// damageOf returns a DamageError if positions of the stream are missing.
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

// damage names each sign that the stream does not hold every position from 1 to the
// last. An event is never removed, so each one is a loss.
func damage(s jetstream.StreamState) []string {
	var faults []string
	if s.LastSeq > 0 && s.FirstSeq != 1 {
		faults = append(faults, fmt.Sprintf("the first position is %d, want 1", s.FirstSeq))
	}
	if s.NumDeleted > 0 {
		faults = append(faults, fmt.Sprintf("%d positions after the first are missing", s.NumDeleted))
	}
	if s.Lost != nil {
		faults = append(
			faults,
			fmt.Sprintf("the server could not read %d messages (%d bytes)", len(s.Lost.Msgs), s.Lost.Bytes),
		)
	}
	if s.Msgs != s.LastSeq {
		faults = append(faults, fmt.Sprintf("there are %d messages up to position %d", s.Msgs, s.LastSeq))
	}
	return faults
}
