package logsink_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenledger/tokenledger/ops/logsink"
)

// limited returns a logger that is limited to a line a minute, and what it wrote.
func limited() (*slog.Logger, *logsink.Repeats, func() []string) {
	var b bytes.Buffer
	h, repeats := logsink.Limit(slog.NewTextHandler(&b, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		},
	}), time.Minute)
	return slog.New(h), repeats, func() []string {
		synctest.Wait()
		return strings.Split(strings.TrimSpace(b.String()), "\n")
	}
}

func TestRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, repeats, written := limited()
		full := errors.New("no space left on device")
		for i := range 90 { // about one a second
			log.Error("cannot append", "position", i, "err", full)
			time.Sleep(990 * time.Millisecond)
		}
		want := []string{
			`level=ERROR msg="cannot append" position=0 err="no space left on device"`,
			`level=ERROR msg="cannot append" position=60 err="no space left on device" times=60`,
		}
		if got := written(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("after 89 s:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		repeats.Flush()
		if got := written(); len(got) != 3 || !strings.HasSuffix(got[2], "position=89 err=\"no space left on device\" times=29") {
			t.Errorf("after the flush: %q", got)
		}
		repeats.Flush()
		time.Sleep(2 * time.Minute) // it has ended, and is new after that
		log.Error("cannot append", "position", 91, "err", full)
		if got := written(); len(got) != 4 || strings.Contains(got[3], "times=") {
			t.Errorf("later: %q", got)
		}
		repeats.Flush()
	})
}

// TestSame tells which lines are the same.
func TestSame(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(*slog.Logger, int)
		want int // of three lines
	}{
		{"port in an error", func(l *slog.Logger, i int) { l.Warn("x", "err", fmt.Errorf("192.0.2.1:%d: EOF", i)) }, 1},
		{"request", func(l *slog.Logger, i int) { l.Warn("x", "request_id", fmt.Sprint("r", i)) }, 1},
		{"number", func(l *slog.Logger, i int) { l.Warn("x", "position", i) }, 1},
		{"error of information", func(l *slog.Logger, i int) { l.Info("x", "err", fmt.Sprint(i)) }, 1},
		{"login", func(l *slog.Logger, i int) { l.Warn("x", "login", fmt.Sprint("user", i)) }, 3},
		{"address", func(l *slog.Logger, i int) { l.Warn("x", "address", fmt.Sprint("192.0.2.", i)) }, 3},
		{"message", func(l *slog.Logger, i int) { l.Warn(fmt.Sprint("x", i)) }, 3},
		{"level", func(l *slog.Logger, i int) { l.Log(t.Context(), slog.LevelWarn+slog.Level(i), "x") }, 3},
		{"logger", func(l *slog.Logger, i int) { l.With("part", fmt.Sprint(i)).Warn("x") }, 3},
		{"group", func(l *slog.Logger, i int) { l.WithGroup(fmt.Sprint(i)).Warn("x", "a", 1) }, 3},
		{"information", func(l *slog.Logger, i int) { l.Info("x", "position", i) }, 3},
		{"debugging", func(l *slog.Logger, i int) { l.Debug("x", "err", i) }, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, repeats, written := limited()
				for i := range 3 {
					c.log(log, i)
				}
				if got := written(); len(got) != c.want {
					t.Errorf("%d lines, want %d:\n%s", len(got), c.want, strings.Join(got, "\n"))
				}
				repeats.Flush()
				repeats.Flush()
			})
		})
	}
}

// TestManyKinds keeps the memory bounded.
func TestManyKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, repeats, written := limited()
		for i := range 5000 {
			log.Warn("x", "login", fmt.Sprint("user", i))
		}
		if got := written(); len(got) != 5000 {
			t.Errorf("%d lines, want all", len(got))
		}
		repeats.Flush()
	})
}

func TestHTTPErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, repeats, written := limited()
		l := logsink.HTTPErrors(log)
		for port := range 3 {
			l.Printf("http: TLS handshake error from 192.0.2.%d:%d: EOF", port, 5000+port)
		}
		l.Printf("http: panic serving [::1]:999: boom\ngoroutine 1 [running]:\nmain.x()")
		l.Printf("http: Accept error: accept tcp 127.0.0.1:1: too many open files; retrying in 5ms")
		want := []string{
			`level=WARN msg="TLS handshake failed" remote=192.0.2.0 err=EOF`,
			`level=ERROR msg="a request made the program panic; it was given up" remote=::1 err=boom ` +
				`stack="goroutine 1 [running]:\nmain.x()"`,
			`level=WARN msg="HTTP server reports" err="Accept error: accept tcp 127.0.0.1:1: too many open files; retrying in 5ms"`,
		}
		if got := written(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		repeats.Flush()
		repeats.Flush()
	})
}
