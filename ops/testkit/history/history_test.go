package history_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/testkit/history"
)

func TestRead(t *testing.T) {
	log := ledgertest.Start(t)
	conn := log.Conn()
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	const last = 50
	for i := range last {
		if _, err := js.Publish(t.Context(), "ledger.account.x", fmt.Append(nil, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := js.Stream(t.Context(), events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	got, err := history.Read(t.Context(), stream, last)
	if err != nil || len(got) != last {
		t.Fatalf("%d messages, %v, want %d", len(got), err, last)
	}
	for i, m := range got {
		if m.Position != events.Position(i+1) || string(m.Data) != fmt.Sprint(i+1) || m.Subject != "ledger.account.x" {
			t.Errorf("message %d is at position %d and holds %s %q", i+1, m.Position, m.Subject, m.Data)
		}
	}
	if _, err := history.Read(t.Context(), stream, last+1); err == nil || !strings.Contains(err.Error(), "position 51 of 51") {
		t.Errorf("a log without its last message: %v, want an error that names position 51", err)
	}
}

func TestFirstDifference(t *testing.T) {
	for _, tt := range []struct{ got, want, difference string }{
		{"a\nb", "a\nb", ""},
		{"a\nx", "a\nb", "line 2 is x, want b"},
		{"a", "a\nb", "line 2 is missing: b"},
		{"a\nb", "a", "line 2 is not expected: b"},
	} {
		if got := history.FirstDifference([]byte(tt.got), []byte(tt.want)); got != tt.difference {
			t.Errorf("FirstDifference(%q, %q) = %q, want %q", tt.got, tt.want, got, tt.difference)
		}
	}
}
