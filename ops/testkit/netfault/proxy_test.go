package netfault

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// testProxy is a proxy with its address.
type testProxy struct {
	*Proxy
	addr string
}

func startProxy(t *testing.T, target string) testProxy {
	t.Helper()
	p, addr := Start(t, To(target))
	return testProxy{p, addr}
}

// echo answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for in := bufio.NewScanner(conn); in.Scan(); {
					fmt.Fprintf(conn, "%s\n", in.Text())
				}
			}()
		}
	}()
	return l.Addr().String()
}

// caller is a client's connection, with the lines that it received.
type caller struct {
	conn  net.Conn
	lines chan string // closed when the server closes the connection
}

func call(t *testing.T, addr string) caller {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := caller{conn, make(chan string, 100)}
	go func() {
		defer close(c.lines)
		for in := bufio.NewScanner(conn); in.Scan(); {
			c.lines <- in.Text()
		}
	}()
	return c
}

func (c caller) say(t *testing.T, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.conn, line); err != nil {
		t.Fatal(err)
	}
}

// hear waits for the next line.
func (c caller) hear(t *testing.T, want string) {
	t.Helper()
	select {
	case got, ok := <-c.lines:
		if !ok || got != want {
			t.Fatalf("received %q, %t, want %q", got, ok, want)
		}
	case <-time.After(wait.Limit):
		t.Fatalf("%q does not arrive", want)
	}
}

// end waits until the server has closed the connection.
func (c caller) end(t *testing.T) {
	t.Helper()
	select {
	case got, ok := <-c.lines:
		if ok {
			t.Fatalf("received %q, want the end of the connection", got)
		}
	case <-time.After(wait.Limit):
		t.Fatal("the connection does not end")
	}
}

// TestHold holds each direction in turn: no byte arrives and no connection is
// closed. After Release, every byte arrives.
func TestHold(t *testing.T) {
	for name, d := range map[string]Direction{"forward": Forward, "backward": Backward} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, echo(t))
			old := call(t, p.addr)
			old.say(t, "before")
			old.hear(t, "before")

			p.Hold(d)
			old.say(t, "held")
			young := call(t, p.addr)
			young.say(t, "young")
			closed := call(t, p.addr)
			_ = closed.conn.Close()
			otherTraffic(t)
			select {
			case got, ok := <-old.lines:
				t.Errorf("received %q, %t while the direction is held", got, ok)
			case got, ok := <-young.lines:
				t.Errorf("received %q, %t on a connection that began while the direction is held", got, ok)
			default:
			}

			p.Release(d)
			old.hear(t, "held")
			young.hear(t, "young")
			old.say(t, "after")
			old.hear(t, "after")
		})
	}
}

// TestHoldDuringBlockedWrite holds a direction while a write waits for a reader
// that does not read. Hold returns, and no byte is lost or duplicated.
func TestHoldDuringBlockedWrite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := startProxy(t, l.Addr().String())
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	const size = 16 << 20
	sent := make(chan error, 1)
	go func() {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(i % 251)
		}
		_, err := conn.Write(b)
		sent <- err
	}()
	g := &p.gates[Forward]
	wait.Until(t, "a write is in progress", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.inside > 0
	})
	p.Hold(Forward)
	p.Release(Forward)
	in := bufio.NewReader(reader)
	for i := range size {
		b, err := in.ReadByte()
		if err != nil || b != byte(i%251) {
			t.Fatalf("byte %d is %d, %v, want %d", i, b, err, i%251)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// TestSever closes connections, and each new one until Restore.
func TestSever(t *testing.T) {
	p := startProxy(t, echo(t))
	old := call(t, p.addr)
	old.say(t, "before")
	old.hear(t, "before")
	p.Sever()
	old.end(t)
	call(t, p.addr).end(t)
	p.Restore()
	young := call(t, p.addr)
	young.say(t, "after")
	young.hear(t, "after")
}

// TestDelay delays the bytes of one direction.
func TestDelay(t *testing.T) {
	p := startProxy(t, echo(t))
	c := call(t, p.addr)
	p.Delay(Backward, 50*time.Millisecond)
	began := time.Now()
	c.say(t, "slow")
	c.hear(t, "slow")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("the line took %s, want at least 50 ms", took)
	}
}

// TestHoldKeepsEndBack checks that Hold keeps back the end of a connection
// also.
func TestHoldKeepsEndBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := startProxy(t, l.Addr().String())
	conn := call(t, p.addr)
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p.Hold(Backward)
	_ = far.Close()
	conn.say(t, "into nothing") // may break the far side's connection
	otherTraffic(t)
	select {
	case got, ok := <-conn.lines:
		t.Errorf("received %q, %t while the direction is held", got, ok)
	default:
	}
	p.Release(Backward)
	conn.end(t)
}

// TestCounts checks the numbers of open connections and of all connections.
func TestCounts(t *testing.T) {
	p := startProxy(t, echo(t))
	first := call(t, p.addr)
	first.say(t, "first")
	first.hear(t, "first")
	second := call(t, p.addr)
	second.say(t, "second")
	second.hear(t, "second")
	if got := p.Open(); got != 2 {
		t.Errorf("%d connections are open, want 2", got)
	}
	_ = first.conn.Close()
	wait.Until(t, "one connection is open", func() bool { return p.Open() == 1 })
	if got := p.Accepted(); got != 2 {
		t.Errorf("%d connections were accepted, want 2", got)
	}
}

// otherTraffic returns after another proxy has carried many lines. What this
// proxy does not hold back has arrived by then.
func otherTraffic(t *testing.T) {
	t.Helper()
	other := startProxy(t, echo(t))
	witness := call(t, other.addr)
	for i := range 200 {
		witness.say(t, fmt.Sprint(i))
		witness.hear(t, fmt.Sprint(i))
	}
}
