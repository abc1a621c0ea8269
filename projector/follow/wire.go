package follow

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

const (
	infoSubject = "$JS.API.STREAM.INFO." + events.StreamName

	// maxBytes is the size at which the server ends a batch. Without a limit it
	// would send as much as it holds for a slow connection, and then close that.
	maxBytes = 8 << 20
)

// Headers that the server adds to messages that it republishes or fetches, and
// headers of its other answers.
const (
	streamHeader      = "Nats-Stream"
	subjectHeader     = "Nats-Subject"
	sequenceHeader    = "Nats-Sequence"
	sizeHeader        = "Nats-Msg-Size"
	pendingHeader     = "Nats-Num-Pending"
	statusHeader      = "Status"
	descriptionHeader = "Description"
)

// lastValue returns the last value of a header. A stored message may carry
// headers with these names; the server adds its own behind them.
func lastValue(h nats.Header, key string) string {
	v := h[key]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

// stream names a stream that is read.
type stream struct{ name, subjectPrefix, tailFilter, getSubject string }

var (
	logStream = stream{
		name:          events.StreamName,
		subjectPrefix: events.SubjectRoot + ".",
		tailFilter:    events.TailFilter,
		getSubject:    "$JS.API.DIRECT.GET." + events.StreamName,
	}
	leaseStream = stream{
		name:          events.LeaseStreamName,
		subjectPrefix: strings.TrimSuffix(events.LeaseFilter, ">"),
		tailFilter:    events.LeaseTailFilter,
		getSubject:    "$JS.API.DIRECT.GET." + events.LeaseStreamName,
	}
)

// message is a stored message.
type message struct {
	seq     uint64
	subject string
	data    []byte
}

func (m message) hash() [sha256.Size]byte { return sha256.Sum256(m.data) }

// parse returns the message of the stream in m. The error wraps ErrForeign.
func (s stream) parse(m *nats.Msg) (message, error) {
	if name := lastValue(m.Header, streamHeader); name != s.name {
		return message{}, fmt.Errorf("%w: it comes from stream %.40q, want %s", ErrForeign, name, s.name)
	}
	seq := lastValue(m.Header, sequenceHeader)
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || n == 0 {
		return message{}, fmt.Errorf("%w: its position in %s is %.40q", ErrForeign, s.name, seq)
	}
	subject := lastValue(m.Header, subjectHeader)
	if !strings.HasPrefix(subject, s.subjectPrefix) {
		return message{}, fmt.Errorf("%w: position %d of %s is on subject %.80q", ErrForeign, n, s.name, subject)
	}
	return message{seq: n, subject: subject, data: m.Data}, nil
}

// parseTail is parse for messages of the tail, on which anything may arrive.
func (s stream) parseTail(m *nats.Msg) (message, error) {
	msg, err := s.parse(m)
	if err != nil {
		return msg, err
	}
	if m.Subject != events.TailPrefix+msg.subject {
		return msg, fmt.Errorf("%w: tail subject %.80q carries subject %.80q", ErrForeign, m.Subject, msg.subject)
	}
	if len(m.Header[sizeHeader]) > 0 {
		// A stream that republishes headers alone would have us hand over
		// empty messages.
		return msg, fmt.Errorf("%w: tail message at position %d of %s has no body", ErrForeign, msg.seq, s.name)
	}
	return msg, nil
}

// fetch is one direct get of a batch of messages.
type fetch struct {
	id       uint64
	from     uint64
	count    int
	overlap  bool              // from was read before
	hash     [sha256.Size]byte // of the data that was read there
	got      []message         // with rising positions
	pending  uint64            // messages in the stream behind the first of got
	failure  error             // why it ended early
	deadline time.Time
}

func (f *fetch) request() []byte {
	return fmt.Appendf(nil, `{"seq":%d,"batch":%d,"max_bytes":%d}`, f.from, f.count, maxBytes)
}

// take takes one message of the answer and reports whether it is the last.
func (f *fetch) take(s stream, m *nats.Msg) (ended bool, err error) {
	// A stored message is told by the stream's header. A status proves nothing:
	// a stored message may carry a header of that name.
	if len(m.Header[streamHeader]) == 0 {
		switch status := lastValue(m.Header, statusHeader); status {
		case "204", "404": // the end of the batch, or no message from there on
		default:
			f.failure = statusError(status, lastValue(m.Header, descriptionHeader))
		}
		return true, nil
	}
	msg, err := s.parse(m)
	if err != nil {
		return false, err
	}
	if f.got == nil {
		f.pending, _ = strconv.ParseUint(lastValue(m.Header, pendingHeader), 10, 64)
		f.got = make([]message, 0, 1+min(uint64(f.count), f.pending))
	}
	if len(f.got) < f.count {
		f.got = append(f.got, msg)
	}
	return false, nil
}

// consecutive returns the messages up to the first one that is missing.
func (f *fetch) consecutive() []message {
	for i, m := range f.got {
		if m.seq != f.from+uint64(i) {
			return f.got[:i]
		}
	}
	return f.got
}

// information is the part of the stream's information that is used.
type information struct {
	created  time.Time
	end      uint64
	replicas int
}

// parseInfo returns an error for every answer that says nothing about the log.
func parseInfo(m *nats.Msg) (information, error) {
	if status := lastValue(m.Header, statusHeader); status != "" {
		return information{}, statusError(status, lastValue(m.Header, descriptionHeader))
	}
	var answer struct {
		Error *struct {
			Code        int    `json:"code"`
			Description string `json:"description"`
		} `json:"error"`
		Created time.Time `json:"created"`
		Config  struct {
			Name     string `json:"name"`
			Replicas int    `json:"num_replicas"`
		} `json:"config"`
		State *struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"state"`
		Cluster *struct {
			Leader string `json:"leader"`
		} `json:"cluster"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return information{}, fmt.Errorf("decode stream information: %w", err)
	}
	switch {
	case answer.Error != nil:
		return information{}, fmt.Errorf("stream information: %s (%d)", answer.Error.Description, answer.Error.Code)
	case answer.State == nil || answer.Config.Name != events.StreamName:
		return information{}, errors.New("stream information is not the log's")
	case answer.Cluster != nil && answer.Cluster.Leader == "":
		// A server that lost the others answers like this, with an old end.
		return information{}, errors.New("log has no leader")
	}
	return information{created: answer.Created, end: answer.State.LastSeq, replicas: answer.Config.Replicas}, nil
}

// statusError is the error for an answer that is only a status.
func statusError(status, description string) error {
	if status == "503" {
		return nats.ErrNoResponders
	}
	return fmt.Errorf("log answered %s %s", status, description)
}
