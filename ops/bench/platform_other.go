//go:build !linux

package bench

import (
	"io/fs"
	"runtime"
	"syscall"
	"time"
)

func procAttr(user) *syscall.SysProcAttr { return nil }

// processorTime returns 0: it is unknown on this system.
func processorTime([]int) time.Duration { return 0 }

func family(pid int) []int { return []int{pid} }

// residentBytes returns the heap's size, the best approximation on this system.
func residentBytes() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func allocated(info fs.FileInfo) int64 { return info.Size() }

// stolen returns 0: it is unknown on this system.
func stolen() (all, others float64) { return 0, 0 }

func machine() Machine { return baseMachine() }
