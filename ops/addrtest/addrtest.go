// Package addrtest finds free addresses for servers that cannot listen on port
// 0: nginx, and the servers of a cluster, which must know each other's
// addresses.
package addrtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Free returns an unused address on loopback. Its port is outside the kernel's
// ephemeral range, so the kernel does not give it to a test that runs in
// parallel.
func Free(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}
