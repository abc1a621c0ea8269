package follow

import (
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
	getSubject  = "$JS.API.DIRECT.GET." + events.StreamName
	infoSubject = "$JS.API.STREAM.INFO." + events.StreamName

	// maxBytes is where the server ends a batch. Left alone it would send as
	// much as it holds for a slow connection before it cuts that off.
	maxBytes = 8 << 20
)

// Headers that the server adds to messages that it republishes or fetches, and
// those of its other answers.
const (
	streamHeader      = "Nats-Stream"
	subjectHeader     = "Nats-Subject"
	sequenceHeader    = "Nats-Sequence"
	sizeHeader        = "Nats-Msg-Size"
	pendingHeader     = "Nats-Num-Pending"
	statusHeader      = "Status"
	descriptionHeader = "Description"
)

// lastValue returns the last value of a header. A stored message may carry headers
// of its own by these names; the server adds its own behind them.
func lastValue(h nats.Header, key string) string {
	v := h[key]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

// isMessage tells a stored message from the server's other answers to a direct
// get. A status proves nothing: a stored message may carry a header of that
// name.
func isMessage(m *nats.Msg) bool { return len(m.Header[streamHeader]) > 0 }

// parse returns the message of the log in m. The error wraps ErrForeign.
func parse(m *nats.Msg) (events.Message, error) {
	if stream := lastValue(m.Header, streamHeader); stream != events.StreamName {
		return events.Message{}, fmt.Errorf("%w: it comes from stream %.40q", ErrForeign, stream)
	}
	seq := lastValue(m.Header, sequenceHeader)
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || n == 0 {
		return events.Message{}, fmt.Errorf("%w: its position is %.40q", ErrForeign, seq)
	}
	subject := lastValue(m.Header, subjectHeader)
	if !strings.HasPrefix(subject, events.SubjectRoot+".") {
		return events.Message{}, fmt.Errorf("%w: position %d is on subject %.80q", ErrForeign, n, subject)
	}
	return events.Message{Position: events.Position(n), Subject: subject, Data: m.Data}, nil
}

// parseTail is parse for what came by the tail, where anything may come.
func parseTail(m *nats.Msg) (events.Message, error) {
	msg, err := parse(m)
	if err != nil {
		return msg, err
	}
	if m.Subject != events.TailPrefix+msg.Subject {
		return msg, fmt.Errorf("%w: tail subject %.80q carries subject %.80q", ErrForeign, m.Subject, msg.Subject)
	}
	if len(m.Header[sizeHeader]) > 0 {
		// A stream that republishes headers alone would have us hand over
		// empty messages.
		return msg, fmt.Errorf("%w: tail message at position %d has no body", ErrForeign, msg.Position)
	}
	return msg, nil
}

// getRequest asks for count messages from a position on.
func getRequest(from events.Position, count int) []byte {
	return fmt.Appendf(nil, `{"seq":%d,"batch":%d,"max_bytes":%d}`, from, count, maxBytes)
}

// information is what is used of the stream's information.
type information struct {
	created  time.Time
	end      events.Position
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
			LastSeq events.Position `json:"last_seq"`
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

// statusError is the error for an answer that is a status alone.
func statusError(status, description string) error {
	if status == "503" {
		return nats.ErrNoResponders
	}
	return fmt.Errorf("log answered %s %s", status, description)
}
