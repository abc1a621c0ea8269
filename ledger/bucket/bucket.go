// Package bucket keeps small records that can be erased, in a key-value bucket
// of the log's server.
//
// # Promise
//
// [Bucket.Get] asks the bucket's leader, never a copy that may lag. [Bucket.Put]
// writes only if the record is still the one that was read, and needs a majority
// of the servers. A leader that was cut off a moment ago may still answer Get;
// what must not rest on a stale read follows from a Put.
//
// A removed record does not come back, and neither does an older revision of a
// record: not after kill -9, not after a power cut, not on another server.
// [Bucket.Remove] first writes a tombstone, which ends the record. The older
// revisions are erased after that, and the tombstone last. A crash in between
// leaves the tombstone, and the next start goes on from there.
//
// Superseded and removed revisions are erased: the server replaces their bytes
// in its files by random ones. See ops/design/0016-buckets.md for what that
// covers with several servers.
//
// # Why the server does not remove anything by itself
//
// The server's limits and purges only take a message off its list. The list is
// lost with kill -9, and the server then makes a new one from its files. A
// message that a limit has removed leaves no mark in the files. It counts again
// when the newer one that pushed it out was purged. So a bucket has no limit on
// revisions or age, and nothing is ever purged: each revision is erased by its
// sequence, which leaves neither the bytes nor a way back.
//
// # Stored form
//
// Stream KV_<name>, subjects $KV.<name>.<key>, as other clients of key-value
// buckets have it. The newest revision of a key counts. A tombstone has no value
// and the header KV-Operation: DEL.
package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events/clock"
)

var (
	// ErrNotFound reports a key without a value.
	ErrNotFound = errors.New("no such record")
	// ErrChanged reports a record that is not the one that was read.
	ErrChanged = errors.New("record changed since it was read")
	// ErrLost reports a bucket that was created once and does not exist now.
	ErrLost = errors.New("bucket is lost")
	// ErrOtherSettings reports a bucket whose settings break the promises.
	ErrOtherSettings = errors.New("bucket has other settings")
)

// defaultTimeout is how long one request may take.
const defaultTimeout = 2 * time.Second

// lostAfter is for how long the servers have to say that there is no bucket
// before it counts as lost. Servers of a cluster that have just started may not
// know all of their streams yet.
const lostAfter = 5 * time.Second

// mostRevisions is more than a key ever has. If it were the server's default of
// one, the server would remove superseded revisions by itself, without erasing
// them.
const mostRevisions = 1 << 30

// Config names a bucket and says how it is created.
type Config struct {
	Name        string // required
	Description string
	Replicas    int // zero means one
	// Timeout is how long one request may take. Zero means two seconds.
	Timeout time.Duration
}

// Bucket is a key-value bucket. Several goroutines and processes may use it at
// once.
type Bucket struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	conn   *nats.Conn
	name   string
	// timeout is how long one request may take.
	timeout time.Duration

	mu sync.Mutex
	// left are keys whose older revisions could not be erased yet.
	left map[string]bool // guarded by mu
}

// Entry is a record with its place in the bucket.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
}

// Create opens a bucket, and creates it if it does not exist. It is for the
// beginning of a log only: see [Load].
func Create(ctx context.Context, js jetstream.JetStream, cfg Config) (*Bucket, error) {
	return open(ctx, js, cfg, func(ctx context.Context) (jetstream.Stream, error) {
		stream, err := js.Stream(ctx, streamOf(cfg.Name))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return js.CreateStream(ctx, settings(cfg))
		}
		return stream, err
	})
}

// Load opens a bucket that exists. A bucket that does not is [ErrLost]: a new,
// empty one in its place would have forgotten what the old one knew.
func Load(ctx context.Context, js jetstream.JetStream, cfg Config) (*Bucket, error) {
	var since time.Time // when it was first missing
	return open(ctx, js, cfg, func(ctx context.Context) (jetstream.Stream, error) {
		stream, err := js.Stream(ctx, streamOf(cfg.Name))
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			since = time.Time{}
			return stream, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if cfg.Replicas > 1 && time.Since(since) < lostAfter {
			return nil, errAgain
		}
		return nil, fmt.Errorf("%w: the log has events, so the bucket was created, and its server has no stream %s; "+
			"nothing was created in its place: stop all ledgers and restore the folder of that stream from a backup",
			ErrLost, streamOf(cfg.Name))
	})
}

// errAgain is for an answer that may change soon.
var errAgain = errors.New("asking again")

// finder looks for the stream of a bucket, or creates it.
type finder func(context.Context) (jetstream.Stream, error)

func open(ctx context.Context, js jetstream.JetStream, cfg Config, find finder) (*Bucket, error) {
	b := &Bucket{js: js, conn: js.Conn(), name: cfg.Name, timeout: cfg.Timeout, left: map[string]bool{}}
	if b.timeout == 0 {
		b.timeout = defaultTimeout
	}
	try := func() error {
		ctx, cancel := context.WithTimeout(ctx, b.timeout)
		defer cancel()
		stream, err := find(ctx)
		if err != nil {
			return err
		}
		b.stream = stream
		return check(stream.CachedInfo().Config)
	}
	for {
		err := try()
		if err == nil {
			err = b.sweep(ctx)
		}
		if err == nil {
			return b, nil
		}
		// Several ledgers may create it at the same time: the server leaves some
		// of them without an answer, as it does while the bucket has no leader.
		again := errors.Is(err, errAgain) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
			errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) ||
			// Another server may not know yet of a bucket that was just created.
			errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
		if !again || !clock.Sleep(ctx, retryPause) {
			return nil, fmt.Errorf("open bucket %s: %w", cfg.Name, err)
		}
	}
}

// retryPause is the pause between two attempts to open a bucket.
const retryPause = 50 * time.Millisecond

func settings(cfg Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: streamOf(cfg.Name), Description: cfg.Description, Subjects: []string{"$KV." + cfg.Name + ".>"},
		Storage: jetstream.FileStorage, Replicas: max(1, cfg.Replicas),
		MaxMsgsPerSubject: mostRevisions, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
		// A full bucket refuses the new; it does not drop the old.
		Discard: jetstream.DiscardNew,
		// AllowDirect would let copies that lag answer.
	}
}

// check reports settings by which the server would remove something itself, or
// refuse to erase it.
func check(have jetstream.StreamConfig) error {
	switch {
	case have.MaxMsgsPerSubject != mostRevisions, have.MaxMsgs > 0, have.MaxBytes > 0, have.MaxAge != 0:
		return fmt.Errorf("%w: the server must not remove records by itself, want max_msgs_per_subject %d and no other limit",
			ErrOtherSettings, mostRevisions)
	case have.DenyDelete, have.Storage != jetstream.FileStorage:
		return fmt.Errorf("%w: want file storage and deletes allowed", ErrOtherSettings)
	}
	return nil
}

// Get returns the record of a key, or the newest of several if the key has "*"
// in place of some of its parts. It returns [ErrNotFound] if there is none.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	r, err := b.newest(ctx, key)
	switch {
	case err != nil:
		return Entry{}, err
	case r.tombstone:
		return Entry{}, ErrNotFound
	}
	return r.Entry, nil
}

// revision is a message of the bucket.
type revision struct {
	Entry
	tombstone bool
}

// newest returns the newest revision, [ErrNotFound] if there is none.
func (b *Bucket) newest(ctx context.Context, key string) (revision, error) {
	return b.read(ctx, map[string]any{"last_by_subj": b.subject(key)})
}

// Codes of the server that the client has no names for.
const (
	codeNoMessage    = 10037 // JSNoMessageFoundErr
	codeNoSequence   = 10043 // JSSequenceNotFoundErrF
	codeDeleteFailed = 10057 // JSStreamMsgDeleteFailedF
)

// read asks the bucket's leader for a message.
func (b *Bucket) read(ctx context.Context, what map[string]any) (revision, error) {
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject  string `json:"subject"`
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	if err := b.ask(ctx, "GET", what, &got); err != nil {
		return revision{}, fmt.Errorf("read bucket %s: %w", b.name, err)
	}
	switch {
	case got.Error != nil && got.Error.ErrorCode == codeNoMessage:
		return revision{}, ErrNotFound
	case got.Error != nil:
		return revision{}, fmt.Errorf("read bucket %s: %w", b.name, got.Error)
	}
	return revision{
		Entry:     Entry{Key: b.key(got.Message.Subject), Value: got.Message.Data, Revision: got.Message.Sequence},
		tombstone: strings.Contains(string(got.Message.Header), "KV-Operation"),
	}, nil
}

// ask sends a request about one message to the bucket's leader.
func (b *Bucket) ask(ctx context.Context, verb string, question, answer any) error {
	raw, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	m, err := b.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG."+verb+"."+streamOf(b.name), raw)
	if err != nil {
		return err
	}
	return json.Unmarshal(m.Data, answer)
}

// Put writes a record if its revision is still the one that was read, zero for
// none, and returns the new one. Otherwise it returns [ErrChanged]. After any
// other error it is unknown whether the record was written.
//
// The revision that was read is erased before Put returns. If that fails, the
// record is written all the same, and the next write of this process or its next
// start erases it.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	none := revision == 0
	rev, err := b.write(ctx, key, value, revision)
	for none && errors.Is(err, ErrChanged) {
		// A tombstone is the newest revision of a record that does not exist. It
		// may be erased at any moment.
		last, gone := b.newest(ctx, key)
		switch {
		case gone == nil && last.tombstone:
			revision = last.Revision
		case errors.Is(gone, ErrNotFound):
			revision = 0
		case gone == nil:
			return 0, ErrChanged
		default:
			return 0, gone
		}
		rev, err = b.write(ctx, key, value, revision)
	}
	if err != nil {
		if !errors.Is(err, ErrChanged) {
			b.leave(key)
		}
		return 0, err
	}
	b.finish(ctx)
	if revision != 0 && b.erase(ctx, revision) != nil {
		b.leave(key)
	}
	return rev, nil
}

// write appends a revision if the newest one is the one that was read.
func (b *Bucket) write(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	m := nats.NewMsg(b.subject(key))
	m.Data = value
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
	ack, err := b.js.PublishMsg(ctx, m)
	var api *jetstream.APIError
	switch {
	case err == nil:
		return ack.Sequence, nil
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return 0, ErrChanged
	}
	return 0, fmt.Errorf("write bucket %s: %w", b.name, err)
}

// Remove removes all records whose keys match, "*" standing for any part. When it
// returns nil, the records have ended, their bytes are erased, and a Put that
// rests on one of them is refused. After an error some of them may be left, or
// have ended and not be erased yet: call it again.
func (b *Bucket) Remove(ctx context.Context, keys string) error {
	list, err := b.subjects(ctx, keys)
	if err != nil {
		return err
	}
	b.finish(ctx)
	for _, key := range list {
		if err := b.remove(ctx, key); err != nil {
			return fmt.Errorf("remove from bucket %s: %w", b.name, err)
		}
	}
	return nil
}

func (b *Bucket) remove(ctx context.Context, key string) error {
	last, err := b.newest(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !last.tombstone {
		m := nats.NewMsg(b.subject(key))
		m.Header.Set("KV-Operation", "DEL")
		// It has no condition: the record ends, whatever it has become.
		if _, err := b.js.PublishMsg(ctx, m); err != nil {
			b.leave(key)
			return err
		}
	}
	if err := b.clean(ctx, key); err != nil {
		b.leave(key)
		return err
	}
	return nil
}

// clean erases all revisions of a key but the newest, and that one too if it is a
// tombstone. They go from the oldest to the newest, and the first that cannot be
// erased ends it: a revision goes only when no older one is left that could take
// its place.
func (b *Bucket) clean(ctx context.Context, key string) error {
	var all []revision
	for next := uint64(1); ; {
		r, err := b.read(ctx, map[string]any{"next_by_subj": b.subject(key), "seq": next})
		if errors.Is(err, ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		all, next = append(all, r), r.Revision+1
	}
	for i, r := range all {
		if i == len(all)-1 && !r.tombstone {
			break
		}
		if err := b.erase(ctx, r.Revision); err != nil {
			return err
		}
	}
	return nil
}

// erase overwrites a revision in the server's files. One that is gone already is
// no error. It goes on if the caller has hung up: what supersedes the revision is
// written.
func (b *Bucket) erase(ctx context.Context, revision uint64) error {
	ctx = context.WithoutCancel(ctx)
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Success bool                `json:"success"`
	}
	// no_erase is absent, so the server overwrites the message.
	if err := b.ask(ctx, "DELETE", map[string]any{"seq": revision}, &got); err != nil {
		return fmt.Errorf("erase from bucket %s: %w", b.name, err)
	}
	switch {
	case got.Error == nil && got.Success:
		return nil
	case got.Error != nil && got.Error.ErrorCode == codeNoSequence:
		return nil
	case got.Error != nil && got.Error.ErrorCode == codeDeleteFailed:
		// Either it is gone or the server could not write.
		if _, err := b.read(ctx, map[string]any{"seq": revision}); errors.Is(err, ErrNotFound) {
			return nil
		}
	}
	return fmt.Errorf("erase revision %d from bucket %s: %w", revision, b.name, got.Error)
}

// leave notes that a key has revisions that are to be erased.
func (b *Bucket) leave(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left[key] = true
}

// finish erases what could not be erased before, as far as it goes now.
func (b *Bucket) finish(ctx context.Context) {
	for {
		b.mu.Lock()
		key, some := "", false
		for key = range b.left {
			some = true
			break
		}
		delete(b.left, key)
		b.mu.Unlock()
		if !some {
			return
		}
		if b.clean(ctx, key) != nil {
			b.leave(key)
			return
		}
	}
}

// sweep erases what earlier processes have left: superseded revisions and
// tombstones.
func (b *Bucket) sweep(ctx context.Context) error {
	kv, err := b.js.KeyValue(ctx, b.name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all, err := kv.WatchAll(ctx, jetstream.IncludeHistory(), jetstream.MetaOnly())
	if err != nil {
		return err
	}
	defer func() { _ = all.Stop() }() // at worst the server ends it by itself
	type found struct {
		revisions int
		tombstone bool // the newest
	}
	keys := map[string]found{}
	for done := false; !done; {
		select {
		case e, ok := <-all.Updates():
			if !ok {
				return context.DeadlineExceeded // the connection is lost
			}
			if e == nil {
				done = true // it has seen all that there was
				break
			}
			keys[e.Key()] = found{revisions: keys[e.Key()].revisions + 1, tombstone: e.Operation() != jetstream.KeyValuePut}
		case <-time.After(b.timeout):
			return context.DeadlineExceeded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for key, f := range keys {
		if f.revisions > 1 || f.tombstone {
			if err := b.clean(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Keys lists the keys of records that match, "*" standing for any part, as the
// bucket's leader has them, in no order. It may name a record that is being
// removed, which Get does not find.
func (b *Bucket) Keys(ctx context.Context, keys string) ([]string, error) {
	return b.subjects(ctx, keys)
}

func (b *Bucket) subjects(ctx context.Context, keys string) ([]string, error) {
	info, err := b.stream.Info(ctx, jetstream.WithSubjectFilter(b.subject(keys)))
	if err != nil {
		return nil, fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	out := make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		out = append(out, b.key(subject))
	}
	return out, nil
}

func streamOf(name string) string           { return "KV_" + name }
func (b *Bucket) subject(key string) string { return "$KV." + b.name + "." + key }
func (b *Bucket) key(subject string) string { return strings.TrimPrefix(subject, b.subject("")) }
