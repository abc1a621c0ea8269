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
// two, so that one who reads the newer is not disturbed.
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
	// ErrDamaged reports a snapshot that is not what its description says.
	ErrDamaged = errors.New("stored snapshot is damaged")
)

// Info describes a stored snapshot. It is not signed: what counts is in the
// snapshot's header.
type Info struct {
	Name     string
	NUID     string // of its chunks
	Size     int64
	Chunks   int
	Digest   string // SHA-256, as object stores write it
	Epoch    string
	Position events.Position
}

// Source is where snapshots come from.
type Source interface {
	// Latest describes the newest one; it returns [ErrNone] where there is
	// none.
	Latest(ctx context.Context) (Info, error)
	// Fetch writes it to w. It may have written a part where it returns an
	// error, which is [ErrGone] where the snapshot was replaced.
	Fetch(ctx context.Context, i Info, w io.Writer) error
}

// Store reads the object store by direct gets: it needs leave to publish to
// $JS.API.DIRECT.GET.OBJ_SNAPSHOTS and an inbox, and nothing else.
type Store struct {
	// Conn reaches the object store. Required.
	Conn *nats.Conn
	// Epoch is that of the log. Snapshots of another are passed over. Empty
	// means any.
	Epoch string
	// Timeout is how long one answer may take. Zero means two seconds.
	Timeout time.Duration
	// Tries is how many requests in a row may bring nothing before Fetch gives
	// up. Zero means 5.
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
		return Info{}, fmt.Errorf("look for a snapshot: %w", err)
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

// all describes what the slots hold, with nothing where one is empty.
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
			return Info{}, nil // there is no such stream
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

// parseInfo reads an object's description. One that was deleted is none.
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
		return Info{}, fmt.Errorf("%w: description of %s", ErrDamaged, name)
	}
	return i, nil
}

// isNUID reports whether s can be a part of a subject, as these ids are.
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

// Fetch implements [Source]. It asks for some chunks at a time, takes them only
// in order and without a gap, and compares number, size and SHA-256 in the end.
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

	next  uint64 // sequence in the stream, from which on to look
	got   int    // chunks
	bytes int64
}

func (f *fetch) run(ctx context.Context) error {
	if !isNUID(f.info.NUID) {
		return fmt.Errorf("%w: %s names no chunks", ErrDamaged, f.info.Name)
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
		// A replica may lag, or the others may be electing a leader.
		if !clock.Sleep(ctx, f.s.timeout()/8) {
			return ctx.Err()
		}
	}
	digest := "SHA-256=" + base64.URLEncoding.EncodeToString(sum.Sum(nil))
	if f.bytes != f.info.Size || digest != f.info.Digest {
		return fmt.Errorf("%w: its %d bytes are not the %d that were stored", ErrDamaged, f.bytes, f.info.Size)
	}
	return nil
}

// errRetry marks a problem that may pass.
var errRetry = errors.New("asking again")

func retry(err error) error { return fmt.Errorf("%w: %w", errRetry, err) }

// some asks for the next chunks and writes those that come. An error that is
// errRetry may pass.
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
		return again(err)
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
			return fmt.Errorf("%w: chunk without a place", ErrDamaged)
		}
		// The first has to be the next of all that are left, and each other
		// one the next after it: answers can be lost.
		if left != f.info.Chunks-f.got-1 || pending >= 0 && left != pending-1 {
			return retry(fmt.Errorf("chunk %d of %d is missing", f.got+1, f.info.Chunks))
		}
		pending = left
		if f.bytes += int64(len(m.Data)); f.bytes > f.info.Size {
			return fmt.Errorf("%w: it is larger than it says", ErrDamaged)
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
		return nil, again(err)
	}
	return m, nil
}

// again marks an error of the connection that may pass.
func again(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return retry(err)
}

// ended takes the end of an answer.
func (f *fetch) ended(status, description string) error {
	switch status {
	case "204": // there is more behind it
		return retry(errors.New("answer without a chunk"))
	case "404":
		return retry(fmt.Errorf("%w: %d of its %d chunks are there", ErrGone, f.got, f.info.Chunks))
	case "503":
		return retry(nats.ErrNoResponders)
	}
	return fmt.Errorf("object store answered %.40q %.80q", status, description)
}

// isMessage tells a stored message from the server's other answers.
func isMessage(m *nats.Msg) bool { return len(m.Header["Nats-Stream"]) > 0 }

// stored reports a message that is not the object store's under a subject.
func stored(m *nats.Msg, subject string) error {
	if stream, on := last(m, "Nats-Stream"), last(m, "Nats-Subject"); stream != StreamName || on != subject {
		return fmt.Errorf("%w: got a message of stream %.40q on %.80q", ErrDamaged, stream, on)
	}
	return nil
}

// last returns the last value of a header: the server adds its own behind those
// of the stored message.
func last(m *nats.Msg, key string) string {
	v := m.Header[key]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

// InstallLatest installs the newest snapshot in the folder dir, which must not
// exist. One that is replaced meanwhile is tried anew.
func InstallLatest(ctx context.Context, from Source, dir string, o Options) (Header, error) {
	var problem error
	for range 3 {
		i, err := from.Latest(ctx)
		if err != nil {
			return Header{}, err
		}
		if i.Position < o.AtLeast {
			return Header{}, fmt.Errorf(
				"%w: the newest is of position %d, and %d is needed",
				ErrUnwanted,
				i.Position,
				o.AtLeast,
			)
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
		_ = r.CloseWithError(errors.New("nobody reads on")) // likewise
		fetchErr := <-fetched
		if err == nil {
			// Whatever the store says of it now, it was whole and signed.
			return h, nil
		}
		if problem = err; !errors.Is(fetchErr, ErrGone) {
			break
		}
	}
	return Header{}, problem
}
