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
	// ErrNoLeases reports that the stream LEASES does not exist.
	ErrNoLeases = errors.New("there is no stream " + events.LeaseStreamName)
	// ErrOtherLease reports that the log was created with another lease than the
	// requested one.
	ErrOtherLease = errors.New("the log has another lease")
)

const (
	// DefaultLease is the default lease of a log.
	DefaultLease = 30 * time.Second

	leaseKey = "tokenledger-lease" // in milliseconds

	// maxLeaseMsgs is the number of renewals and barriers that are kept: some hours
	// with a hundred nodes and two ledgers. The limit is a count, because no clock
	// may decide what is forgotten.
	maxLeaseMsgs    = 1 << 18
	maxLeaseMsgSize = 4 << 10
)

// LeaseLimits are the settings of the lease stream that may differ by log.
type LeaseLimits struct {
	// Epoch is the log's. Required.
	Epoch string
	// Lease is the longest time that a verifier may answer without contact to the
	// log, in whole milliseconds. It is fixed when the log is created: a ledger with
	// a shorter lease than some verifier would report a revocation as complete too
	// early. Zero means DefaultLease.
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

// LeasesInfo describes the lease stream.
type LeasesInfo struct {
	Last    events.LeaseSeq // 0 while it is empty
	Epoch   string          // of the log that it belongs to
	Lease   time.Duration
	Created time.Time
}

// leaseSettings returns the required settings of the lease stream. New messages replace
// the oldest: a message is of use for about one lease.
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

// EnsureLeases opens the lease stream, and creates it if it does not exist. A lost lease
// stream can be created again, because everything in it is repeated within one lease.
// It returns ErrOtherLease if the stream has another lease than limits.
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
		// If several ledgers create it at once, one succeeds. For the others, equal
		// settings succeed too and other settings are refused.
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
		return LeasesInfo{}, fmt.Errorf(
			"open stream %s: %w: it belongs to the log with epoch %s, not to this one with %s: delete the stream %[1]s; a ledger creates it again",
			events.LeaseStreamName,
			ErrDrifted,
			info.Epoch,
			limits.Epoch,
		)
	case info.Lease != limits.Lease:
		return LeasesInfo{}, fmt.Errorf(
			"%w: the log was created with %s, not %s: start with --lease %[2]s",
			ErrOtherLease,
			info.Lease,
			limits.Lease,
		)
	}
	return info, nil
}

// OpenLeases checks that the lease stream exists and has the required settings.
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
		return LeasesInfo{}, fmt.Errorf(
			"open stream %s: %w: %s",
			events.LeaseStreamName,
			ErrDrifted,
			strings.Join(diffs, "; "),
		)
	}
	return LeasesInfo{
		Last:    events.LeaseSeq(info.State.LastSeq),
		Epoch:   have.Metadata[epochKey],
		Lease:   time.Duration(ms) * time.Millisecond,
		Created: info.Created,
	}, nil
}
