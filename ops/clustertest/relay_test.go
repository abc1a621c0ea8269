package clustertest

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"
)

// testRelay is a relay with a door of its own.
type testRelay struct {
	*Relay
	addr string
}

func startRelay(t *testing.T, target string) testRelay {
	t.Helper()
	r := newRelay(target)
	d := openDoor(t, "127.0.0.1:0", func(net.Conn) *Relay { return r })
	t.Cleanup(func() {
		r.end()
		d.close()
	})
	return testRelay{r, d.listener.Addr().String()}
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

// caller is a connection that lines come back on.
type caller struct {
	conn  net.Conn
	lines chan string // closed when the other side is
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

// hear waits for a line.
func (c caller) hear(t *testing.T, want string) {
	t.Helper()
	select {
	case got, ok := <-c.lines:
		if !ok || got != want {
			t.Fatalf("heard %q, %t, want %q", got, ok, want)
		}
	case <-time.After(Patience):
		t.Fatalf("%q does not come", want)
	}
}

// TestRelayHolds closes each direction in turn: nothing goes through, nobody is
// told, and all of it arrives in the end.
func TestRelayHolds(t *testing.T) {
	for name, w := range map[string]Way{"forth": Forth, "back": Back} {
		t.Run(name, func(t *testing.T) {
			r := startRelay(t, echo(t))
			old := call(t, r.addr)
			old.say(t, "before")
			old.hear(t, "before")

			r.Hold(w)
			old.say(t, "held")
			young := call(t, r.addr)
			young.say(t, "young")
			closed := call(t, r.addr)
			_ = closed.conn.Close()
			// Another relay's traffic shows that time has passed for this one's.
			other := startRelay(t, echo(t))
			witness := call(t, other.addr)
			for i := range 200 {
				witness.say(t, fmt.Sprint(i))
				witness.hear(t, fmt.Sprint(i))
			}
			select {
			case got, ok := <-old.lines:
				t.Errorf("heard %q, %t through a closed gate", got, ok)
			case got, ok := <-young.lines:
				t.Errorf("heard %q, %t on a connection that cannot be", got, ok)
			default:
			}

			r.Pass(w)
			old.hear(t, "held")
			young.hear(t, "young")
			old.say(t, "after")
			old.hear(t, "after")
		})
	}
}

// TestRelayHoldsWhileFull closes a gate while a write waits for a reader that
// does not read: Hold returns, and no byte is lost or doubled.
func TestRelayHoldsWhileFull(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := startRelay(t, l.Addr().String())
	conn, err := net.Dial("tcp", r.addr)
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
	g := &r.gates[Forth]
	Eventually(t, "a write is under way", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.inside > 0
	})
	r.Hold(Forth)
	r.Pass(Forth)
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

// TestRelaySevers breaks connections, which both sides learn.
func TestRelaySevers(t *testing.T) {
	r := startRelay(t, echo(t))
	old := call(t, r.addr)
	old.say(t, "before")
	old.hear(t, "before")
	r.Sever()
	closed := func(c caller) {
		t.Helper()
		select {
		case got, ok := <-c.lines:
			if ok {
				t.Fatalf("heard %q, want the end", got)
			}
		case <-time.After(Patience):
			t.Fatal("it does not end")
		}
	}
	closed(old)
	closed(call(t, r.addr))
	r.Mend()
	young := call(t, r.addr)
	young.say(t, "after")
	young.hear(t, "after")
}

// TestRelayDelays has a line take its time in one direction.
func TestRelayDelays(t *testing.T) {
	r := startRelay(t, echo(t))
	c := call(t, r.addr)
	r.Delay(Back, 50*time.Millisecond)
	began := time.Now()
	c.say(t, "slow")
	c.hear(t, "slow")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("it took %s, want at least 50 ms", took)
	}
}

// TestRelayEndTravels holds back that a side is gone, as it does its bytes.
func TestRelayEndTravels(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := startRelay(t, l.Addr().String())
	conn := call(t, r.addr)
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r.Hold(Back)
	_ = far.Close()
	conn.say(t, "into nothing") // may break the far side's connection
	select {
	case got, ok := <-conn.lines:
		t.Errorf("heard %q, %t through a closed gate", got, ok)
	case <-time.After(50 * time.Millisecond): // that nothing comes can only be waited for
	}
	r.Pass(Back)
	select {
	case _, ok := <-conn.lines:
		if ok {
			t.Error("heard something")
		}
	case <-time.After(Patience):
		t.Error("the end does not arrive")
	}
}
