package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestSignals sends a node several signals. The second one to stop cuts off the
// requests in flight, and the third one ends the program. Signals that come
// together count as one, and SIGHUP during a stop has no effect.
func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		abandoned := 0
		s := &nodeSignals{
			log: slog.New(slog.NewTextHandler(io.Discard, nil)), stop: cancel, abandon: func() { abandoned++ },
			reload: make(chan struct{}, 1), hurry: make(chan struct{}),
		}
		for _, step := range []struct {
			after                       time.Duration
			signal                      os.Signal
			reloads                     int
			stopped, hurried, abandoned bool
		}{
			{signal: syscall.SIGHUP, reloads: 1},
			{signal: syscall.SIGHUP, reloads: 1}, // one is due
			{signal: syscall.SIGTERM, reloads: 1, stopped: true},
			{signal: syscall.SIGTERM, reloads: 1, stopped: true},
			{after: sameStop - 1, signal: os.Interrupt, reloads: 1, stopped: true},
			{after: 1, signal: syscall.SIGHUP, reloads: 1, stopped: true},
			{signal: os.Interrupt, reloads: 1, stopped: true, hurried: true},
			{signal: syscall.SIGHUP, reloads: 1, stopped: true, hurried: true},
			{signal: syscall.SIGTERM, reloads: 1, stopped: true, hurried: true, abandoned: true},
		} {
			time.Sleep(step.after)
			s.handle(step.signal)
			hurried := false
			select {
			case <-s.hurry:
				hurried = true
			default:
			}
			if len(s.reload) != step.reloads || (ctx.Err() != nil) != step.stopped || hurried != step.hurried ||
				(abandoned > 0) != step.abandoned {
				t.Errorf("after %s: %d reloads due, stopped %t, hurried %t, abandoned %d times; want %+v",
					step.signal, len(s.reload), ctx.Err() != nil, hurried, abandoned, step)
			}
		}
	})
}
