package clock

import (
	"context"
	"time"
)

// Sleep waits for d, or until ctx ends. It reports whether d passed: false
// means that ctx ended first. If ctx has already ended, it returns false
// immediately.
func Sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
