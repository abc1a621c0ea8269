package clock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestSleep runs on a synthetic clock, so that each duration is exact.
func TestSleep(t *testing.T) {
	tests := []struct {
		name   string
		sleep  time.Duration
		cancel time.Duration // when ctx ends; negative: before the call
		full   bool
		took   time.Duration
	}{
		{"the duration passes", time.Minute, time.Hour, true, time.Minute},
		{"the context ends first", time.Hour, time.Minute, false, time.Minute},
		{"the context has ended", time.Hour, -1, false, 0},
		{"the context has ended and nothing is to wait for", 0, -1, false, 0},
		{"nothing to wait for", 0, time.Hour, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancel < 0 {
					cancel()
				} else {
					stop := time.AfterFunc(tt.cancel, cancel)
					defer stop.Stop()
				}
				start := time.Now()
				full := Sleep(ctx, tt.sleep)
				if took := time.Since(start); full != tt.full || took != tt.took {
					t.Errorf("Sleep = %t after %s, want %t after %s", full, took, tt.full, tt.took)
				}
			})
		})
	}
}
