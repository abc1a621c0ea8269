package ledgertest

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"

	"github.com/tokenledger/tokenledger/events"
)

// Fill appends n events in batches of a thousand, so that the server syncs once
// a batch. It makes a large log quickly. No ledger checks the events.
func (l *Log) Fill(n int, event func(i int) *events.Event) {
	l.t.Helper()
	nc := l.Conn()
	const batch = 1000
	for from := 0; from < n; from += batch {
		id := ulid.Make().String()
		size := min(batch, n-from)
		for i := range size {
			e := event(from + i)
			data, err := events.Encode(e)
			if err != nil {
				l.t.Fatal(err)
			}
			m := &nats.Msg{Subject: e.Subject(), Data: data, Header: nats.Header{
				"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {strconv.Itoa(i + 1)},
			}}
			if i < size-1 {
				if err := nc.PublishMsg(m); err != nil {
					l.t.Fatal(err)
				}
				continue
			}
			m.Header.Set("Nats-Batch-Commit", "1")
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			answer, err := nc.RequestMsgWithContext(ctx, m)
			if err != nil {
				l.t.Fatal(err)
			}
			var ack struct {
				Error json.RawMessage `json:"error"`
				Count int             `json:"count"`
			}
			if err := json.Unmarshal(answer.Data, &ack); err != nil || ack.Error != nil || ack.Count != size {
				l.t.Fatalf("the batch was not stored: %s %v", answer.Data, err)
			}
		}
	}
}
