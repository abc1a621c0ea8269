package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

// Names of the object store.
const (
	Bucket     = "SNAPSHOTS"
	StreamName = "OBJ_" + Bucket

	getSubject   = "$JS.API.DIRECT.GET." + StreamName
	chunkSubject = "$O." + Bucket + ".C."
	metaSubject  = "$O." + Bucket + ".M."
)

// slots are the names of the objects. A new snapshot replaces the older of the
// two, so nodes can still read the newer.
var slots = [...]string{"index-a", "index-b"}

// Keys of an object's metadata.
const (
	metaEpoch    = "tokenledger-epoch"
	metaPosition = "tokenledger-position"
)

var (
	// ErrNone reports that there is no snapshot.
	ErrNone = errors.New("there is no snapshot")
	// ErrGone reports a snapshot that was replaced while it was read.
	ErrGone = errors.New("snapshot was replaced")
	// ErrDamaged reports a snapshot that does not match its description.
	ErrDamaged = errors.New("stored snapshot is damaged")
)

// Info describes a stored snapshot. It is not signed; the snapshot's header is.
type Info struct {
	Name     string
	NUID     string // in the subject of its chunks
	Size     int64
	Chunks   int
	Digest   string // SHA-256, in the format of object stores
	Epoch    string
	Position events.Position
}

// Source provides snapshots.
type Source interface {
	// Latest describes the newest snapshot. It returns [ErrNone] if there is
	// none.
	Latest(ctx context.Context) (Info, error)
	// Fetch writes a snapshot to w. It returns [ErrGone] if the snapshot was
	// replaced. Before any error, it may have written a part.
	Fetch(ctx context.Context, i Info, w io.Writer) error
}

// Store reads the object store with direct gets. It needs only the permissions
// to publish to $JS.API.DIRECT.GET.OBJ_SNAPSHOTS and to subscribe to an inbox.
type Store struct {
	// Conn is a connection to the object store's account. Required.
	Conn *nats.Conn
	// Epoch is the epoch of the log. Latest ignores snapshots of other epochs.
	// Empty means any.
	Epoch string
	// Timeout is the timeout of one answer. Zero means two seconds.
	Timeout time.Duration
	// Tries is the number of consecutive requests without a chunk after which
	// Fetch gives up. Zero means 5.
	Tries int
}

var _ Source = (*Store)(nil)

func (s *Store) timeout() time.Duration {
	if s.Timeout == 0 {
		return 2 * time.Second
	}
	return s.Timeout
}

func (s *Store) tries() int {
	if s.Tries == 0 {
		return 5
	}
	return s.Tries
}

// Latest implements [Source].
func (s *Store) Latest(ctx context.Context) (Info, error) {
	all, err := s.all(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("find the latest snapshot: %w", err)
	}
	best := Info{}
	for _, i := range all {
		if (s.Epoch == "" || i.Epoch == s.Epoch) && i.Position > best.Position {
			best = i
		}
	}
	if best.Position == 0 {
		return Info{}, ErrNone
	}
	return best, nil
}

// all describes the snapshots in the slots. The Info of an empty slot is zero.
func (s *Store) all(ctx context.Context) (all [len(slots)]Info, err error) {
	for n, name := range slots {
		if all[n], err = s.describe(ctx, name); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (s *Store) describe(ctx context.Context, name string) (Info, error) {
	subject := metaSubject + base64.URLEncoding.EncodeToString([]byte(name))
	request, err := json.Marshal(map[string]any{"last_by_subj": subject})
	if err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	m, err := s.Conn.RequestWithContext(ctx, getSubject, request)
	if err != nil {
		if errors.Is(err, nats.ErrNoResponders) {
			return Info{}, nil // the stream does not exist
		}
		return Info{}, err
	}
	if !isMessage(m) {
		if status := last(m, "Status"); status != "404" {
			return Info{}, fmt.Errorf("object store answered %.40q", status)
		}
		return Info{}, nil
	}
	if err := stored(m, subject); err != nil {
		return Info{}, err
	}
	return parseInfo(name, m.Data)
}

// parseInfo parses the description of an object. It returns the zero Info for a
// deleted object.
func parseInfo(name string, data []byte) (Info, error) {
	var o jetstream.ObjectInfo
	if err := json.Unmarshal(data, &o); err != nil {
		return Info{}, fmt.Errorf("%w: description of %s: %w", ErrDamaged, name, err)
	}
	if o.Deleted {
		return Info{}, nil
	}
	position, err := strconv.ParseUint(o.Metadata[metaPosition], 10, 64)
	i := Info{
		Name: name, NUID: o.NUID, Size: int64(o.Size), Chunks: int(o.Chunks), Digest: o.Digest,
		Epoch: o.Metadata[metaEpoch], Position: events.Position(position),
	}
	if err != nil || o.Name != name || i.Size < 0 || i.Chunks < 1 || o.Size < uint64(o.Chunks) || !isNUID(o.NUID) {
		return Info{}, fmt.Errorf("%w: description of %s is invalid", ErrDamaged, name)
	}
	return i, nil
}

// isNUID reports whether s can be a token of a subject, as a NUID can.
func isNUID(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// Bounds of one request for chunks.
const (
	fetchChunks = 64
	fetchBytes  = 4 << 20
)

// Fetch implements [Source]. It requests several chunks at a time, accepts them
// only in order and without gaps, and verifies number, size and SHA-256.
func (s *Store) Fetch(ctx context.Context, i Info, w io.Writer) error {
	f := &fetch{s: s, info: i, subject: chunkSubject + i.NUID, w: w}
	if err := f.run(ctx); err != nil {
		return fmt.Errorf("fetch snapshot of position %d: %w", i.Position, err)
	}
	return nil
}

type fetch struct {
	s       *Store
	info    Info
	subject string
	w       io.Writer

	next  uint64 // lowest stream sequence of the next chunk
	got   int    // chunks so far
	bytes int64  // bytes so far
}

func (f *fetch) run(ctx context.Context) error {
	if !isNUID(f.info.NUID) {
		return fmt.Errorf("%w: description of %s has an invalid NUID", ErrDamaged, f.info.Name)
	}
	sum := sha256.New()
	f.w = io.MultiWriter(f.w, sum)
	f.next = 1
	var problem error
	for tries := 0; f.got < f.info.Chunks; {
		before := f.got
		if problem = f.some(ctx); problem != nil && !errors.Is(problem, errRetry) {
			return problem
		}
		if f.got > before {
			tries = 0
			continue
		}
		if tries++; tries == f.s.tries() {
			return problem
		}
		// A replica may lag, or the servers may be electing a leader.
		if !clock.Sleep(ctx, f.s.timeout()/8) {
			return ctx.Err()
		}
	}
	digest := "SHA-256=" + base64.URLEncoding.EncodeToString(sum.Sum(nil))
	if f.bytes != f.info.Size || digest != f.info.Digest {
		return fmt.Errorf("%w: size or SHA-256 of its %d bytes is wrong", ErrDamaged, f.bytes)
	}
	return nil
}

// errRetry marks an error that may be temporary.
var errRetry = errors.New("retry")

func retry(err error) error { return fmt.Errorf("%w: %w", errRetry, err) }

// some requests the next chunks and writes those that arrive. It returns
// errRetry if the error may be temporary.
func (f *fetch) some(ctx context.Context) error {
	request, err := json.Marshal(map[string]any{
		"seq": f.next, "next_by_subj": f.subject, "batch": fetchChunks, "max_bytes": fetchBytes,
	})
	if err != nil {
		return err
	}
	conn := f.s.Conn
	inbox, err := conn.SubscribeSync(conn.NewInbox())
	if err != nil {
		return err
	}
	defer func() { _ = inbox.Unsubscribe() }()
	if err := conn.PublishRequest(getSubject, inbox.Subject, request); err != nil {
		return retryUnlessClosed(err)
	}
	for pending := -1; ; {
		m, err := f.receive(ctx, inbox)
		if err != nil {
			return err
		}
		if !isMessage(m) {
			return f.ended(last(m, "Status"), last(m, "Description"))
		}
		if err := stored(m, f.subject); err != nil {
			return err
		}
		seq, err := strconv.ParseUint(last(m, "Nats-Sequence"), 10, 64)
		left, err2 := strconv.Atoi(last(m, "Nats-Num-Pending"))
		if err != nil || err2 != nil || seq < f.next {
			return fmt.Errorf("%w: a chunk has an invalid sequence", ErrDamaged)
		}
		// Messages can be lost. The number of pending chunks shows whether this
		// chunk follows the last one.
		if left != f.info.Chunks-f.got-1 || pending >= 0 && left != pending-1 {
			return retry(fmt.Errorf("chunk %d of %d is missing", f.got+1, f.info.Chunks))
		}
		pending = left
		if f.bytes += int64(len(m.Data)); f.bytes > f.info.Size {
			return fmt.Errorf("%w: it is larger than its description says", ErrDamaged)
		}
		if _, err := f.w.Write(m.Data); err != nil {
			return err
		}
		f.got, f.next = f.got+1, seq+1
		if f.got == f.info.Chunks {
			return nil
		}
	}
}

func (f *fetch) receive(ctx context.Context, inbox *nats.Subscription) (*nats.Msg, error) {
	limited, cancel := context.WithTimeout(ctx, f.s.timeout())
	defer cancel()
	m, err := inbox.NextMsgWithContext(limited)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, retryUnlessClosed(err)
	}
	return m, nil
}

// retryUnlessClosed marks an error of an open connection as temporary.
func retryUnlessClosed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return retry(err)
}

// ended handles the status message at the end of an answer.
func (f *fetch) ended(status, description string) error {
	switch status {
	case "204": // end of the batch, but there are more chunks
		return retry(errors.New("answer without a chunk"))
	case "404":
		return retry(fmt.Errorf("%w: only %d of its %d chunks were found", ErrGone, f.got, f.info.Chunks))
	case "503":
		return retry(nats.ErrNoResponders)
	}
	return fmt.Errorf("object store answered %.40q %.80q", status, description)
}

// isMessage reports whether m is a stored message and not a status of the
// server.
func isMessage(m *nats.Msg) bool { return len(m.Header["Nats-Stream"]) > 0 }

// stored returns an error unless m is a message of the object store with the
// subject.
func stored(m *nats.Msg, subject string) error {
	if stream, on := last(m, "Nats-Stream"), last(m, "Nats-Subject"); stream != StreamName || on != subject {
		return fmt.Errorf("%w: got a message of stream %.40q on %.80q", ErrDamaged, stream, on)
	}
	return nil
}

// last returns the last value of a header. The server's own values follow those
// of the stored message.
func last(m *nats.Msg, key string) string {
	v := m.Header[key]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

// InstallLatest installs the newest snapshot in the folder dir, which must not
// exist. It retries twice if the snapshot is replaced meanwhile.
func InstallLatest(ctx context.Context, from Source, dir string, o Options) (Header, error) {
	var problem error
	for range 3 {
		i, err := from.Latest(ctx)
		if err != nil {
			return Header{}, err
		}
		if i.Position < o.AtLeast {
			return Header{}, fmt.Errorf("%w: the newest has position %d; at least %d is needed",
				ErrUnwanted, i.Position, o.AtLeast)
		}
		o.Size = i.Size
		r, w := io.Pipe()
		fetched := make(chan error, 1)
		go func() {
			err := from.Fetch(ctx, i, w)
			_ = w.CloseWithError(err) // never fails; nil is the end of the file
			fetched <- err
		}()
		h, err := Install(ctx, dir, r, o)
		_ = r.CloseWithError(errInstallEnded) // never fails
		fetchErr := <-fetched
		if err == nil {
			return h, nil // even if Fetch failed: the snapshot was complete and signed
		}
		if problem = err; !errors.Is(fetchErr, ErrGone) {
			break
		}
	}
	return Header{}, problem
}

var errInstallEnded = errors.New("installation has ended")
