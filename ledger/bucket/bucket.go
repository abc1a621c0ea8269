// Package bucket keeps small records in a key-value bucket of the log's server,
// read from whoever leads it.
//
// # Promise
//
// [Bucket.Get] asks the bucket's leader, never a copy that may lag: a record that
// was changed or removed does not come back. [Bucket.Put] writes only where the
// record is still the one that was read, and needs a majority of the servers, so
// that one that has been cut off cannot. A leader that was cut off a moment ago
// may still answer Get; what must not rest on that follows from a Put.
//
// # Stores
//
// One value a key, the newest. What was removed is gone and leaves no mark.
package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrNotFound reports a key without a value.
	ErrNotFound = errors.New("no such record")
	// ErrChanged reports a record that is not the one that was read.
	ErrChanged = errors.New("record changed since it was read")
)

// tryTimeout is how long one question may take.
const tryTimeout = 2 * time.Second

// Config says which bucket, and how it is made where there is none.
type Config struct {
	Name        string // required
	Description string
	Replicas    int           // zero means one
	TTL         time.Duration // after which a record that nobody writes goes; zero means never
}

// Bucket is a key-value bucket.
type Bucket struct {
	// KV is the bucket as the client library has it. Its Get may be answered by
	// a copy that lags.
	KV jetstream.KeyValue

	js   jetstream.JetStream
	conn *nats.Conn
	name string
}

// Entry is a record with its place in the bucket.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
}

// Open opens a bucket, and makes it where it is missing.
func Open(ctx context.Context, js jetstream.JetStream, cfg Config) (*Bucket, error) {
	for {
		kv, err := tryOpen(ctx, js, cfg)
		if err == nil {
			return &Bucket{KV: kv, js: js, conn: js.Conn(), name: cfg.Name}, nil
		}
		// Of several ledgers that make it at once, the server leaves some without
		// an answer, as it does while a replicated log has no leader.
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, jetstream.ErrBucketExists) {
			return nil, fmt.Errorf("open bucket %s: %w", cfg.Name, err)
		}
	}
}

func tryOpen(ctx context.Context, js jetstream.JetStream, cfg Config) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	kv, err := js.KeyValue(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: cfg.Name, Description: cfg.Description, TTL: cfg.TTL,
			History: 1, Storage: jetstream.FileStorage, Replicas: max(1, cfg.Replicas),
		})
	}
	return kv, err
}

// Get returns the record of a key, or the newest of several where the key has
// "*" in place of some of its parts. It returns [ErrNotFound] where there is
// none.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	question, err := json.Marshal(map[string]string{"last_by_subj": b.subject(key)})
	if err != nil {
		return Entry{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	m, err := b.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+b.stream(), question)
	if err != nil {
		return Entry{}, fmt.Errorf("read bucket %s: %w", b.name, err)
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject  string `json:"subject"`
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &got); err != nil {
		return Entry{}, fmt.Errorf("read bucket %s: %w", b.name, err)
	}
	const noMessage = 10037 // JSNoMessageFoundErr, for which the client has no name
	switch {
	case got.Error != nil && got.Error.ErrorCode == noMessage:
		return Entry{}, ErrNotFound
	case got.Error != nil:
		return Entry{}, fmt.Errorf("read bucket %s: %w", b.name, got.Error)
	case strings.Contains(string(got.Message.Header), "KV-Operation"): // the mark of a deletion, as other clients leave it
		return Entry{}, ErrNotFound
	}
	return Entry{Key: b.key(got.Message.Subject), Value: got.Message.Data, Revision: got.Message.Sequence}, nil
}

// Put writes a record where its revision is still the one that was read, zero
// for none, and returns the new one. Otherwise it returns [ErrChanged]. After
// any other error it is unknown whether the record was written.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	rev, err := b.KV.Update(ctx, key, value, revision)
	var api *jetstream.APIError
	switch {
	case err == nil:
		return rev, nil
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return 0, ErrChanged
	}
	return 0, fmt.Errorf("write bucket %s: %w", b.name, err)
}

// Remove removes all records whose keys match, "*" standing for any part. It is
// done when it returns nil: a Put that rests on what was removed is refused.
func (b *Bucket) Remove(ctx context.Context, keys string) error {
	stream, err := b.js.Stream(ctx, b.stream())
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(b.subject(keys)))
	}
	if err != nil {
		return fmt.Errorf("remove from bucket %s: %w", b.name, err)
	}
	return nil
}

// Keys lists the keys that match, "*" standing for any part, as the bucket's
// leader has them, in no order.
func (b *Bucket) Keys(ctx context.Context, keys string) ([]string, error) {
	stream, err := b.js.Stream(ctx, b.stream())
	if err != nil {
		return nil, fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(b.subject(keys)))
	if err != nil {
		return nil, fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	out := make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		out = append(out, b.key(subject))
	}
	return out, nil
}

func (b *Bucket) stream() string            { return "KV_" + b.name }
func (b *Bucket) subject(key string) string { return "$KV." + b.name + "." + key }
func (b *Bucket) key(subject string) string { return strings.TrimPrefix(subject, b.subject("")) }
