//go:build !linux

package disk

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// Disk needs Linux. No test gets one here.
type Disk struct{}

// New skips the test.
func New(t testing.TB, _ int64, shows string) *Disk {
	t.Helper()
	t.Skipf("NOT TESTED: %s. This needs Linux", shows)
	return nil
}

// Try returns an error.
func Try(testing.TB, int64) (*Disk, error) { return nil, errors.New("this needs Linux") }

// Image returns an empty path.
func (d *Disk) Image() string { return "" }

// Mount returns an empty path.
func (d *Disk) Mount() string { return "" }

// Wrap returns the command as it is.
func (d *Disk) Wrap(args []string) []string { return args }

// Fill does nothing.
func (d *Disk) Fill(testing.TB, string) {}

// Release does nothing.
func (d *Disk) Release(testing.TB) {}

// WaitUnmounted does nothing.
func (d *Disk) WaitUnmounted(testing.TB) {}

// FlushSome does nothing.
func FlushSome(testing.TB, *rand.Rand, string) {}

// CutPower does nothing.
func (d *Disk) CutPower(testing.TB) {}

// Extract does nothing.
func (d *Disk) Extract(testing.TB, string, string) {}
