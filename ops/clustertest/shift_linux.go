package clustertest

import (
	"fmt"
	"time"
)

// shifted returns a command that runs another one with its boot time shifted.
func shifted(by time.Duration, args []string) []string {
	s := fmt.Sprint(int64(by / time.Second))
	return append([]string{"unshare", "--time", "--boottime", s, "--monotonic", s, "--"}, args...)
}
