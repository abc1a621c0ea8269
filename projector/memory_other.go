//go:build !linux

package projector

// machineMemory returns 0, for not known.
func machineMemory() int64 { return 0 }
