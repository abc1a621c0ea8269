package main

import (
	"errors"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

// TestLateAnswers discards answers of a verifier that took too long, and asks
// again a few times.
func TestLateAnswers(t *testing.T) {
	for _, tt := range []struct {
		name string
		took []time.Duration
		asks int
		ok   bool
	}{
		{"at once", []time.Duration{time.Millisecond}, 1, true},
		{"in time", []time.Duration{answerWithin}, 1, true},
		{"late, then in time", []time.Duration{answerWithin + 1, time.Hour, 0}, 3, true},
		{"always late", []time.Duration{time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, 0}, maxAsks, false},
	} {
		var now time.Duration
		asks := 0
		want := &client.Answer{}
		got, err := askInTime(func() time.Duration { return now }, func() (*client.Answer, error) {
			now += tt.took[asks]
			asks++
			return want, nil
		})
		var failed *exit.Failure
		switch {
		case asks != tt.asks:
			t.Errorf("%s: asked %d times, want %d", tt.name, asks, tt.asks)
		case tt.ok && (err != nil || got != want):
			t.Errorf("%s: %v, %v", tt.name, got, err)
		case !tt.ok && (!errors.As(err, &failed) || failed.Code != exit.Unavailable || got != nil):
			t.Errorf("%s: %v, %v, want exit %d and no answer", tt.name, got, err, exit.Unavailable)
		}
	}
	refused := errors.New("refused")
	if _, err := askInTime(func() time.Duration { return 0 }, func() (*client.Answer, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("%v, want the error of the request", err)
	}
}
