package barrier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

// ErrConflict reports that the last barrier is not the expected one.
var ErrConflict = errors.New("another barrier was written first")

// Stream stores barriers.
type Stream interface {
	// Publish writes a barrier if the last one is at the sequence after, 0 for none.
	// Otherwise the error is [ErrConflict]. After any other error the outcome is
	// unknown: the barrier may be written, or be written later.
	Publish(ctx context.Context, b *events.Barrier, after events.LeaseSeq) (events.LeaseSeq, error)
	// Last returns the last barrier, read from the stream's leader, or 0 and nil if
	// there is none.
	Last(ctx context.Context) (events.LeaseSeq, *events.Barrier, error)
}

// jetStream is a [Stream] in JetStream.
type jetStream struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	timeout time.Duration
}

// NewStream returns the stream of leases. timeout bounds each request; zero means
// five seconds.
func NewStream(conn *nats.Conn, timeout time.Duration) (Stream, error) {
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(timeout))
	if err != nil {
		return nil, fmt.Errorf("barriers: %w", err)
	}
	return &jetStream{conn: conn, js: js, timeout: timeout}, nil
}

func (s *jetStream) Publish(ctx context.Context, b *events.Barrier, after events.LeaseSeq) (events.LeaseSeq, error) {
	data, err := b.Encode()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: events.BarrierSubject, Data: data},
		jetstream.WithExpectStream(events.LeaseStreamName),
		jetstream.WithExpectLastSequencePerSubject(uint64(after)),
		jetstream.WithRetryAttempts(0))
	var refused *jetstream.APIError
	switch {
	case err == nil:
		return events.LeaseSeq(ack.Sequence), nil
	case errors.As(err, &refused) &&
		(refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return 0, fmt.Errorf("write barrier: %w: %w", ErrConflict, err)
	}
	return 0, fmt.Errorf("write barrier: %w", err)
}

// errCodeNoMessage is JSNoMessageFoundErr.
const errCodeNoMessage = 10037

// Last reads from the leader, because a replica may lag and return an older barrier.
func (s *jetStream) Last(ctx context.Context) (events.LeaseSeq, *events.Barrier, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	m, err := s.conn.RequestWithContext(
		ctx,
		"$JS.API.STREAM.MSG.GET."+events.LeaseStreamName,
		[]byte(`{"last_by_subj":"`+events.BarrierSubject+`"}`),
	)
	if err != nil {
		return 0, nil, fmt.Errorf("read the last barrier: %w", err)
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Seq  events.LeaseSeq `json:"seq"`
			Data []byte          `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &got); err != nil {
		return 0, nil, fmt.Errorf("read the last barrier: %w", err)
	}
	switch {
	case got.Error != nil && got.Error.ErrorCode == errCodeNoMessage:
		return 0, nil, nil
	case got.Error != nil:
		return 0, nil, fmt.Errorf("read the last barrier: %w", got.Error)
	}
	_, b, err := events.DecodeLease(
		events.LeaseMessage{Seq: got.Message.Seq, Subject: events.BarrierSubject, Data: got.Message.Data},
	)
	if err != nil {
		return 0, nil, fmt.Errorf("read the last barrier: %w", err)
	}
	return got.Message.Seq, b, nil
}
