// Package addrtest finds addresses for what a test cannot have listen on a port
// of the kernel's choice: nginx, or the servers of a cluster, which have to know
// each other's.
package addrtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Free returns an address on loopback that nobody listens on. It is outside of
// the range that the kernel chooses from, so that no test that runs beside this
// one is given it in the meantime.
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
