// Package bucket stores small erasable records in a key-value bucket on the log's
// server.
//
// # Promise
//
// [Bucket.Get] asks the bucket's leader, not a replica that may lag. [Bucket.Put] writes
// only if the record has not changed since it was read, and needs a majority of the
// servers. A leader that was cut off a moment ago may still answer Get, so a decision
// that must not depend on a stale read has to depend on a Put.
//
// A removed record never comes back, and neither does an older revision of a record:
// not after kill -9, not after a power cut, not on another server. [Bucket.Remove]
// first writes a tombstone, which ends the record. Then it erases the older revisions,
// and the tombstone last. After a crash in between, the next start continues from the
// tombstone.
//
// Superseded and removed revisions are erased: the server overwrites their bytes in
// its files with random ones. ops/design/0016-buckets.md describes what that covers
// with several servers.
//
// # No limits and no purges
//
// The server's limits and purges only remove a message from the server's index. The
// index is lost with kill -9, and the server then rebuilds it from its files. A message
// that a limit has removed has no mark in the files. It is valid again if the newer
// message that replaced it was purged. So a bucket has no limit on revisions or age, and
// nothing is purged: each revision is erased by its sequence, which also removes its
// bytes.
//
// # Stored form
//
// The stream is KV_<name> with the subjects $KV.<name>.<key>, as for other clients of
// key-value buckets. The latest revision of a key is the record. A tombstone has no
// value and the header KV-Operation: DEL.
package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	// ErrChanged reports a record that has changed since it was read.
	ErrChanged = errors.New("record changed since it was read")
	// ErrLost reports a bucket that was created and does not exist any more.
	ErrLost = errors.New("bucket is lost")
	// ErrOtherSettings reports a bucket whose settings break the promise.
	ErrOtherSettings = errors.New("bucket has other settings")
)

// defaultTimeout limits one request.
const defaultTimeout = 2 * time.Second

// lostTimeout is how long the servers must report that a bucket does not exist before it
// counts as lost. Servers of a cluster that have just started may not know all of their
// streams yet.
const lostTimeout = 5 * time.Second

// maxRevisions is more revisions than a key ever has. With the server's default of one,
// the server would remove superseded revisions without erasing them.
const maxRevisions = 1 << 30

// Config configures a bucket.
type Config struct {
	Name        string // required
	Description string
	Replicas    int // zero means one
	// Timeout limits one request. Zero means two seconds.
	Timeout time.Duration
}

// Bucket is a key-value bucket. Several goroutines and processes may use it at
// once.
type Bucket struct {
	js      jetstream.JetStream
	stream  jetstream.Stream
	conn    *nats.Conn
	name    string
	timeout time.Duration // of one request

	mu sync.Mutex
	// uncleaned are keys with older revisions that could not be erased yet.
	uncleaned map[string]bool // guarded by mu
}

// Entry is a record with its place in the bucket.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
}

// Create opens a bucket, and creates it if it does not exist. Use it only when the log
// is created; see [Load].
func Create(ctx context.Context, js jetstream.JetStream, cfg Config) (*Bucket, error) {
	return open(ctx, js, cfg, func(ctx context.Context) (jetstream.Stream, error) {
		stream, err := js.Stream(ctx, streamName(cfg.Name))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return js.CreateStream(ctx, settings(cfg))
		}
		return stream, err
	})
}

// Load opens an existing bucket. If the bucket does not exist, the error is [ErrLost]: a
// new, empty bucket in its place would have lost the records of the old one.
func Load(ctx context.Context, js jetstream.JetStream, cfg Config) (*Bucket, error) {
	var since time.Time // when it was first missing
	return open(ctx, js, cfg, func(ctx context.Context) (jetstream.Stream, error) {
		stream, err := js.Stream(ctx, streamName(cfg.Name))
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			since = time.Time{}
			return stream, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if cfg.Replicas > 1 && time.Since(since) < lostTimeout {
			return nil, errRetry
		}
		return nil, fmt.Errorf("%w: the log has events, so the bucket was created, and its server has no stream %s; "+
			"nothing was created in its place: stop all ledgers and restore the folder of that stream from a backup",
			ErrLost, streamName(cfg.Name))
	})
}

// errRetry reports an answer that may change soon.
var errRetry = errors.New("asking again")

// finder looks for the stream of a bucket, or creates it.
type finder func(context.Context) (jetstream.Stream, error)

func open(ctx context.Context, js jetstream.JetStream, cfg Config, find finder) (*Bucket, error) {
	b := &Bucket{js: js, conn: js.Conn(), name: cfg.Name, timeout: cfg.Timeout, uncleaned: map[string]bool{}}
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
			err = b.cleanAll(ctx)
		}
		if err == nil {
			return b, nil
		}
		// If several ledgers create the bucket at the same time, the server does not
		// answer some of them.
		again := errors.Is(err, errRetry) || unanswered(err) || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) ||
			// Another server may not know a new bucket yet.
			errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
		if !again || !clock.Sleep(ctx, retryPause) {
			return nil, fmt.Errorf("open bucket %s: %w", cfg.Name, err)
		}
	}
}

// retryPause is the pause between two attempts to open a bucket, or to find a stream.
const retryPause = 50 * time.Millisecond

// unanswered reports whether the servers gave no answer, or none yet. While a stream
// elects its leader, and while a server joins the others, a request may be lost: it is
// never answered, however long one waits. So each request has a limit of its own.
func unanswered(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) ||
		errors.As(err, &api) && api.Code == http.StatusServiceUnavailable
}

// FindStream returns a stream that exists. It asks again until ctx ends if the servers
// do not answer within timeout, which is two seconds if it is zero.
func FindStream(
	ctx context.Context,
	js jetstream.JetStream,
	name string,
	timeout time.Duration,
) (jetstream.Stream, error) {
	if timeout == 0 {
		timeout = defaultTimeout
	}
	for {
		stream, err := func() (jetstream.Stream, error) {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return js.Stream(ctx, name)
		}()
		if err == nil || !unanswered(err) || !clock.Sleep(ctx, retryPause) {
			return stream, err
		}
	}
}

func settings(cfg Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: streamName(cfg.Name), Description: cfg.Description, Subjects: []string{"$KV." + cfg.Name + ".>"},
		Storage: jetstream.FileStorage, Replicas: max(1, cfg.Replicas),
		MaxMsgsPerSubject: maxRevisions, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
		// A full bucket refuses new messages and drops no old ones.
		Discard: jetstream.DiscardNew,
		// AllowDirect would let copies that lag answer.
	}
}

// check reports settings that let the server remove messages, or refuse to erase them.
func check(have jetstream.StreamConfig) error {
	switch {
	case have.MaxMsgsPerSubject != maxRevisions, have.MaxMsgs > 0, have.MaxBytes > 0, have.MaxAge != 0:
		return fmt.Errorf(
			"%w: the server must not remove records by itself, want max_msgs_per_subject %d and no other limit",
			ErrOtherSettings,
			maxRevisions,
		)
	case have.DenyDelete, have.Storage != jetstream.FileStorage:
		return fmt.Errorf("%w: want file storage and deletes allowed", ErrOtherSettings)
	}
	return nil
}

// Get returns the record of a key. If some parts of the key are "*", it returns the
// latest of the records that match. It returns [ErrNotFound] if there is none.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	r, err := b.latest(ctx, key)
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

// latest returns the latest revision, [ErrNotFound] if there is none.
func (b *Bucket) latest(ctx context.Context, key string) (revision, error) {
	return b.read(ctx, map[string]any{"last_by_subj": b.subject(key)})
}

// Error codes of the server that the client does not name.
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
	m, err := b.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG."+verb+"."+streamName(b.name), raw)
	if err != nil {
		return err
	}
	return json.Unmarshal(m.Data, answer)
}

// Put writes a record if its revision is the one that was read (zero for none), and
// returns the new revision. Otherwise it returns [ErrChanged]. After any other error it
// is unknown whether the record was written.
//
// Put erases the previous revision before it returns. If that fails, the record is
// written nevertheless, and the next write of this process or the next start erases the
// previous revision.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	none := revision == 0
	rev, err := b.write(ctx, key, value, revision)
	for none && errors.Is(err, ErrChanged) {
		// The latest revision of a removed record is a tombstone, which may be
		// erased at any moment.
		last, gone := b.latest(ctx, key)
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
			b.markUncleaned(key)
		}
		return 0, err
	}
	b.cleanMarked(ctx)
	if revision != 0 && b.erase(ctx, revision) != nil {
		b.markUncleaned(key)
	}
	return rev, nil
}

// write appends a revision if the latest one is the one that was read.
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

// Remove removes all records whose keys match; "*" matches any part of a key. If it
// returns nil, the records are removed, their bytes are erased, and a Put with one of
// their revisions is refused. After an error some of them may still exist, or be removed
// but not erased: call Remove again.
func (b *Bucket) Remove(ctx context.Context, keys string) error {
	list, err := b.subjects(ctx, keys)
	if err != nil {
		return err
	}
	b.cleanMarked(ctx)
	for _, key := range list {
		if err := b.remove(ctx, key); err != nil {
			return fmt.Errorf("remove from bucket %s: %w", b.name, err)
		}
	}
	return nil
}

func (b *Bucket) remove(ctx context.Context, key string) error {
	last, err := b.latest(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !last.tombstone {
		m := nats.NewMsg(b.subject(key))
		m.Header.Set("KV-Operation", "DEL")
		// There is no precondition: the record ends also if it has changed.
		if _, err := b.js.PublishMsg(ctx, m); err != nil {
			b.markUncleaned(key)
			return err
		}
	}
	if err := b.clean(ctx, key); err != nil {
		b.markUncleaned(key)
		return err
	}
	return nil
}

// clean erases all revisions of a key except the latest, and that one too if it is a
// tombstone. It goes from the oldest to the latest and stops at the first that cannot be
// erased: a revision is erased only if no older one is left that could replace it.
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

// erase overwrites a revision in the server's files. It succeeds if the revision does not
// exist. It continues if ctx ends, because the revision is already superseded.
func (b *Bucket) erase(ctx context.Context, revision uint64) error {
	ctx = context.WithoutCancel(ctx)
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Success bool                `json:"success"`
	}
	// Without no_erase the server overwrites the message.
	if err := b.ask(ctx, "DELETE", map[string]any{"seq": revision}, &got); err != nil {
		return fmt.Errorf("erase from bucket %s: %w", b.name, err)
	}
	switch {
	case got.Error == nil && got.Success:
		return nil
	case got.Error != nil && got.Error.ErrorCode == codeNoSequence:
		return nil
	case got.Error != nil && got.Error.ErrorCode == codeDeleteFailed:
		// The revision does not exist, or the server could not write.
		if _, err := b.read(ctx, map[string]any{"seq": revision}); errors.Is(err, ErrNotFound) {
			return nil
		}
	}
	return fmt.Errorf("erase revision %d from bucket %s: %w", revision, b.name, got.Error)
}

// markUncleaned notes that a key has revisions to be erased.
func (b *Bucket) markUncleaned(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uncleaned[key] = true
}

// cleanMarked erases the revisions that could not be erased before, until one fails.
func (b *Bucket) cleanMarked(ctx context.Context) {
	for {
		b.mu.Lock()
		key, some := "", false
		for key = range b.uncleaned {
			some = true
			break
		}
		delete(b.uncleaned, key)
		b.mu.Unlock()
		if !some {
			return
		}
		if b.clean(ctx, key) != nil {
			b.markUncleaned(key)
			return
		}
	}
}

// cleanAll erases the superseded revisions and tombstones of earlier processes.
func (b *Bucket) cleanAll(ctx context.Context) error {
	all, err := b.watchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = all.Stop() }() // otherwise the server ends it later
	type found struct {
		revisions int
		tombstone bool // the latest revision
	}
	keys := map[string]found{}
	for done := false; !done; {
		select {
		case e, ok := <-all.Updates():
			if !ok {
				return context.DeadlineExceeded // the connection is lost
			}
			if e == nil {
				done = true // all existing messages have been delivered
				break
			}
			keys[e.Key()] = found{
				revisions: keys[e.Key()].revisions + 1,
				tombstone: e.Operation() != jetstream.KeyValuePut,
			}
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

// watchAll begins to read all revisions, without their values. ctx limits only the
// requests by which it begins.
func (b *Bucket) watchAll(ctx context.Context) (jetstream.KeyWatcher, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	kv, err := b.js.KeyValue(ctx, b.name)
	if err != nil {
		return nil, err
	}
	return kv.WatchAll(ctx, jetstream.IncludeHistory(), jetstream.MetaOnly())
}

// Keys lists the keys that match, in no order, from the bucket's leader; "*" matches any
// part of a key. It may list a record that is being removed, which Get does not find.
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

func streamName(name string) string         { return "KV_" + name }
func (b *Bucket) subject(key string) string { return "$KV." + b.name + "." + key }
func (b *Bucket) key(subject string) string { return strings.TrimPrefix(subject, b.subject("")) }
