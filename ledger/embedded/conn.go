package embedded

import (
	"net"
	"slices"
	"sync/atomic"
)

// pipeConn is the client's end of a connection in process. Underneath is a
// pipe without a buffer, over which a refusal would hang: a client writes
// CONNECT, then PING, then reads; a server that refuses writes an error
// after CONNECT and waits for it to be read. So the PING is written aside.
type pipeConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *pipeConn) Write(b []byte) (int, error) {
	if c.writes.Add(1) == 2 && string(b) == "PING\r\n" {
		// The client writes nothing more before this is answered. It ends
		// when the other side reads or the connection closes.
		go c.Conn.Write(slices.Clone(b))
		return len(b), nil
	}
	return c.Conn.Write(b)
}
