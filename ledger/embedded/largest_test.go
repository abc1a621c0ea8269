package embedded

import (
	"bytes"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

// TestLargestEvent stores an event of the maximum size with the headers of an
// append, and reads it from the tail and from the stream.
func TestLargestEvent(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)
	tail, err := js.Conn().SubscribeSync(events.TailFilter)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("x"), events.MaxSize)
	m := newMsg("ledger.token.aa.created", nats.MsgIdHdr, "evt_01k5y8z3v0eventeventevente")
	m.Header.Set("Nats-Expected-Stream", events.StreamName)
	m.Header.Set("Nats-Expected-Last-Subject-Sequence", "0")
	m.Header.Set("Nats-Expected-Last-Subject-Sequence-Subject", "ledger.token.aa.*")
	m.Data = data
	if _, err := js.PublishMsg(testContext(t), m); err != nil {
		t.Fatal(err)
	}
	got, err := tail.NextMsgWithContext(testContext(t))
	if err != nil || !bytes.Equal(got.Data, data) {
		t.Errorf("the tail has another event: %v", err)
	}
	stream, err := js.Stream(testContext(t), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := stream.GetMsg(testContext(t), 1); err != nil || !bytes.Equal(stored.Data, data) {
		t.Errorf("the stream has another event: %v", err)
	}
}
