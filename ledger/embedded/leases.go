package embedded

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

var (
	// ErrNoLeases reports that there is no stream LEASES.
	ErrNoLeases = errors.New("there is no stream " + events.LeaseStreamName)
	// ErrOtherLease reports that the log was begun with another lease than the
	// one that was asked for.
	ErrOtherLease = errors.New("the log has another lease")
)

const (
	// DefaultLease is the lease of a log where LeaseLimits names none.
	DefaultLease = 30 * time.Second

	leaseKey = "tokenledger-lease" // in milliseconds

	// maxLeaseMsgs is how many renewals and barriers are kept: with a hundred
	// nodes and two ledgers' barriers, some hours. They go by count alone,
	// because no clock may decide what is forgotten.
	maxLeaseMsgs    = 1 << 18
	maxLeaseMsgSize = 4 << 10
)

// LeaseLimits is what may differ between one log's leases and another's.
type LeaseLimits struct {
	// Epoch is the log's. Required.
	Epoch string
	// Lease is the longest time that a verifier may answer without hearing from
	// the log, in whole milliseconds. It is fixed for the log's life: a ledger
	// that waits for a shorter one than some verifier goes by would call a
	// revocation done too early. Zero means DefaultLease.
	Lease time.Duration
	// Replicas is 1, or 3 or 5 in a cluster. Zero means 1.
	Replicas int
}

func (l LeaseLimits) withDefaults() LeaseLimits {
	if l.Lease == 0 {
		l.Lease = DefaultLease
	}
	if l.Replicas == 0 {
		l.Replicas = 1
	}
	return l
}

// LeasesInfo is what a caller needs to know of the stream of leases.
type LeasesInfo struct {
	Last    events.LeaseSeq // 0 while it is empty
	Epoch   string          // of the log that it belongs to
	Lease   time.Duration
	Created time.Time
}

// leaseSettings is the stream of leases. It is kept by count, and the oldest
// makes room for the newest: what it holds is of use for about one lease.
func leaseSettings(l LeaseLimits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:      events.LeaseStreamName,
		Subjects:  []string{events.LeaseFilter},
		Storage:   jetstream.FileStorage,
		Replicas:  l.Replicas,
		Retention: jetstream.LimitsPolicy,
		Metadata: map[string]string{
			epochKey: l.Epoch,
			leaseKey: strconv.FormatInt(l.Lease.Milliseconds(), 10),
		},

		Discard:           jetstream.DiscardOld,
		MaxMsgs:           maxLeaseMsgs,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		MaxMsgSize:        maxLeaseMsgSize,

		DenyDelete:  true,
		DenyPurge:   true,
		AllowDirect: true,
		Duplicates:  duplicateWindow,
		RePublish:   &jetstream.RePublish{Source: events.LeaseFilter, Destination: events.LeaseTailFilter},
	}
}

// EnsureLeases opens the stream of leases, and makes it where it is missing: a
// log from before there were leases has none, and one that is lost holds
// nothing that is not said again within a lease. It returns ErrOtherLease where
// the stream has another lease than limits names.
func EnsureLeases(ctx context.Context, js jetstream.JetStream, limits LeaseLimits) (LeasesInfo, error) {
	limits = limits.withDefaults()
	if limits.Epoch == "" {
		return LeasesInfo{}, errors.New("leases: Epoch is required")
	}
	if limits.Lease < time.Millisecond || limits.Lease%time.Millisecond != 0 {
		return LeasesInfo{}, fmt.Errorf("leases: Lease is %s, want whole milliseconds", limits.Lease)
	}
	info, err := OpenLeases(ctx, js)
	if errors.Is(err, ErrNoLeases) {
		// Of several ledgers that come here at once, one makes it; to the others
		// the same settings are a success and other ones a refusal.
		_, err = js.CreateStream(ctx, leaseSettings(limits))
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return LeasesInfo{}, fmt.Errorf("create stream %s: %w", events.LeaseStreamName, err)
		}
		info, err = OpenLeases(ctx, js)
	}
	switch {
	case err != nil:
		return LeasesInfo{}, err
	case info.Epoch != limits.Epoch:
		return LeasesInfo{}, fmt.Errorf("open stream %s: %w: it belongs to a log with epoch %s, and the log has %s: delete the stream %[1]s, a ledger makes it anew",
			events.LeaseStreamName, ErrDrifted, info.Epoch, limits.Epoch)
	case info.Lease != limits.Lease:
		return LeasesInfo{}, fmt.Errorf("%w: it is fixed for the log's life at %s, and not %s: start with --lease %[2]s", ErrOtherLease, info.Lease, limits.Lease)
	}
	return info, nil
}

// OpenLeases checks that the stream of leases exists and has the settings that
// it must have.
func OpenLeases(ctx context.Context, js jetstream.JetStream) (LeasesInfo, error) {
	stream, err := js.Stream(ctx, events.LeaseStreamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return LeasesInfo{}, ErrNoLeases
	}
	if err != nil {
		return LeasesInfo{}, fmt.Errorf("open stream %s: %w", events.LeaseStreamName, err)
	}
	info := stream.CachedInfo()
	have := info.Config
	diffs := drift(have, leaseSettings(LeaseLimits{Replicas: have.Replicas}))
	ms, err := strconv.ParseInt(have.Metadata[leaseKey], 10, 64)
	if err != nil || ms <= 0 {
		diffs = append(diffs, "metadata has no "+leaseKey+" in milliseconds")
	}
	if have.Metadata[epochKey] == "" {
		diffs = append(diffs, "metadata has no "+epochKey)
	}
	if len(diffs) > 0 {
		return LeasesInfo{}, fmt.Errorf("open stream %s: %w: %s", events.LeaseStreamName, ErrDrifted, strings.Join(diffs, "; "))
	}
	return LeasesInfo{
		Last:    events.LeaseSeq(info.State.LastSeq),
		Epoch:   have.Metadata[epochKey],
		Lease:   time.Duration(ms) * time.Millisecond,
		Created: info.Created,
	}, nil
}
