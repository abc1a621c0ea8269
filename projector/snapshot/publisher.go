package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/projector"
)

// PublisherConfig configures a [Publisher].
type PublisherConfig struct {
	// Conn is a connection with a ledger's permissions. Required.
	Conn *nats.Conn
	// Index returns the index, nil while there is none. Required.
	Index func() *projector.Projector
	// Sign signs with the ledger's nkey. Required.
	Sign func([]byte) ([]byte, error)
	// Replicas is the number of replicas of the object store. Zero means 1.
	Replicas int

	// Events is the number of events between two snapshots. Zero means 20,000.
	Events events.Position
	// Every is the interval of checks whether a snapshot is due. Zero means a
	// minute.
	Every time.Duration
	// Rate limits the writing, in bytes a second, because the object store
	// shares a disk with the log. Zero means 16 MiB.
	Rate int
	// Orphans is the time after which chunks are deleted that belong to no
	// snapshot. Another ledger may still be writing that snapshot, or may have
	// crashed. Zero means a quarter of an hour.
	Orphans time.Duration
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

func (c PublisherConfig) withDefaults() PublisherConfig {
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Events == 0 {
		c.Events = 20_000
	}
	if c.Every == 0 {
		c.Every = time.Minute
	}
	if c.Rate == 0 {
		c.Rate = 16 << 20
	}
	if c.Orphans == 0 {
		c.Orphans = 15 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c PublisherConfig) validate() error {
	var problems []error
	if c.Conn == nil || c.Index == nil || c.Sign == nil {
		problems = append(problems, errors.New("snapshot: Conn, Index and Sign are required"))
	}
	if c.Every < 0 || c.Rate < 0 || c.Orphans < 0 || c.Replicas < 0 {
		problems = append(problems, errors.New("snapshot: Replicas, Every, Rate and Orphans must not be negative"))
	}
	return errors.Join(problems...)
}

// Publisher writes snapshots to the object store as the log grows, and keeps
// the two newest. Several ledgers may each run a Publisher: the first to find a
// snapshot due writes it.
type Publisher struct {
	cfg   PublisherConfig
	js    jetstream.JetStream
	store *Store
	// orphans maps the subjects of chunks without a snapshot to the time at
	// which the Publisher first saw them.
	orphans map[string]time.Time
}

// NewPublisher returns a Publisher. It does no I/O.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return &Publisher{cfg: cfg, js: js, store: &Store{Conn: cfg.Conn}, orphans: map[string]time.Time{}}, nil
}

// Run writes snapshots until ctx ends, and then returns nil. It retries after
// errors, and logs each only once in a row.
func (p *Publisher) Run(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.Every)
	defer tick.Stop()
	logged := ""
	for {
		_, err := p.Once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			logged = ""
		case err.Error() != logged:
			logged = err.Error()
			p.cfg.Logger.WarnContext(ctx,
				"snapshot of the index not published; new nodes must read more of the log", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Once writes a snapshot if one is due, and reports whether it did.
func (p *Publisher) Once(ctx context.Context) (bool, error) {
	index := p.cfg.Index()
	if index == nil || index.Err() != nil {
		return false, nil // the node has logged why
	}
	pos, epoch := index.Position(), index.Epoch()
	if pos < p.cfg.Events {
		return false, nil
	}
	bucket, err := p.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: Bucket, Description: "signed snapshots of the index",
		Storage: jetstream.FileStorage, Replicas: p.cfg.Replicas,
	})
	if err != nil {
		return false, fmt.Errorf("object store %s: %w", Bucket, err)
	}
	all, err := p.store.all(ctx)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return false, err
	}
	if err := p.sweep(ctx, all); err != nil {
		return false, err
	}
	slot, newestPos := 0, events.Position(0)
	for n, i := range all {
		if i.Epoch != epoch {
			i.Position = 0 // from before the log was restored
		}
		all[n].Position = i.Position
		if i.Position < all[slot].Position {
			slot = n
		}
		newestPos = max(newestPos, i.Position)
	}
	if newestPos+p.cfg.Events > pos {
		return false, nil
	}
	began := time.Now()
	info, err := p.put(ctx, bucket, slots[slot], index)
	if err != nil {
		return false, err
	}
	p.cfg.Logger.InfoContext(ctx, "snapshot of the index published",
		"position", info.Metadata[metaPosition], "bytes", info.Size, "took", time.Since(began).Round(time.Millisecond))
	return true, nil
}

// chunkSize is small enough for a chunk with headers to fit into a message of
// the embedded server.
const chunkSize = 96 << 10

// put writes a snapshot into a slot. When it is complete, it replaces the
// snapshot there.
func (p *Publisher) put(
	ctx context.Context,
	bucket jetstream.ObjectStore,
	slot string,
	index *projector.Projector,
) (*jetstream.ObjectInfo, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	begun, wrote := make(chan Header, 1), make(chan error, 1)
	go func() {
		err := write(ctx, index, w, p.cfg.Sign, func(h Header) { begun <- h })
		_ = w.CloseWithError(err) // never fails; nil is the end of the file
		wrote <- err
	}()
	defer func() { // wait for the writer
		_ = r.CloseWithError(errors.New("upload has ended"))
		<-wrote
	}()
	var h Header
	select {
	case h = <-begun:
	case err := <-wrote:
		wrote <- nil
		return nil, err
	}
	info, err := bucket.Put(ctx, jetstream.ObjectMeta{
		Name: slot, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize},
		Metadata: map[string]string{metaEpoch: h.Epoch, metaPosition: strconv.FormatUint(uint64(h.Position), 10)},
	}, &throttledReader{ctx: ctx, r: r, rate: p.cfg.Rate, began: time.Now()})
	if err != nil {
		return nil, fmt.Errorf("store snapshot of position %d: %w", h.Position, err)
	}
	return info, nil
}

// throttledReader limits the bytes a second. It fills each buffer, because
// nats.go makes each read a message.
type throttledReader struct {
	ctx   context.Context
	r     io.Reader
	rate  int // bytes a second
	began time.Time
	bytes int // read so far
}

func (t *throttledReader) Read(b []byte) (int, error) {
	due := time.Duration(float64(t.bytes) / float64(t.rate) * float64(time.Second))
	if wait := due - time.Since(t.began); wait > 0 {
		if !clock.Sleep(t.ctx, wait) {
			return 0, t.ctx.Err()
		}
	}
	n, err := io.ReadFull(t.r, b)
	t.bytes += n
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// sweep deletes chunks that have belonged to no snapshot for cfg.Orphans.
func (p *Publisher) sweep(ctx context.Context, all [len(slots)]Info) error {
	stream, err := p.js.Stream(ctx, StreamName)
	if err != nil {
		return err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(chunkSubject+">"))
	if err != nil {
		return err
	}
	belongs := map[string]bool{}
	for _, i := range all {
		belongs[chunkSubject+i.NUID] = true
	}
	now := time.Now()
	for subject := range p.orphans {
		if _, stored := info.State.Subjects[subject]; !stored || belongs[subject] {
			delete(p.orphans, subject)
		}
	}
	for subject, chunks := range info.State.Subjects {
		if belongs[subject] {
			continue
		}
		since, seen := p.orphans[subject]
		switch {
		case !seen:
			p.orphans[subject] = now
		case now.Sub(since) >= p.cfg.Orphans:
			if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
				return err
			}
			delete(p.orphans, subject)
			p.cfg.Logger.InfoContext(ctx, "deleted the chunks of an unfinished snapshot", "chunks", chunks)
		}
	}
	return nil
}
