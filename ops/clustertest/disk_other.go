//go:build !linux

package clustertest

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// Disk is a small file system in a file. There is none here.
type Disk struct{ mount string }

// NewDisk skips the test.
func NewDisk(t testing.TB, _ int64, shows string) *Disk {
	t.Helper()
	t.Skipf("NOT TESTED: %s. This needs Linux", shows)
	return nil
}

func tryDisk(testing.TB, int64) (*Disk, error) { return nil, errors.New("this needs Linux") }

func (d *Disk) wrap(args []string) []string { return args }

// Fill does nothing.
func (d *Disk) Fill(testing.TB, *Process) {}

// Release does nothing.
func (d *Disk) Release(testing.TB) {}

func (d *Disk) free(testing.TB) {}

func (d *Disk) flushSome(testing.TB, *rand.Rand, *Process) {}

func (d *Disk) cut(testing.TB) {}

func (d *Disk) extract(testing.TB, string, string) {}
