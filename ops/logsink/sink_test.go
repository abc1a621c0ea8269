package logsink_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenledger/tokenledger/ops/logsink"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

func jsonLines(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }

// file is a file that can hang and fail.
type file struct {
	mu   sync.Mutex
	got  bytes.Buffer // guarded by mu
	err  error        // guarded by mu
	open chan struct{}
}

func (f *file) Write(p []byte) (int, error) {
	<-f.open
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	return f.got.Write(p)
}

func (f *file) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *file) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got.String()
}

func TestHangingFile(t *testing.T) {
	f := &file{open: make(chan struct{})}
	s := logsink.New(f, jsonLines)
	log := slog.New(jsonLines(s))
	long := strings.Repeat("x", 1000)
	const lines = 4 * logsink.MaxWaiting / 1000
	for i := range lines { // would hang if a line waited for the file
		log.Info("line", "i", i, "text", long)
	}
	dropped := s.Dropped()
	if dropped == 0 || dropped >= lines {
		t.Fatalf("%d of %d lines were dropped, want some of them", dropped, lines)
	}
	if s.Waiting() == 0 {
		t.Error("nothing waits, though the file hangs")
	}
	close(f.open)
	want := fmt.Sprintf(`"msg":"log lines were dropped, because they could not be written in time","count":%d`, dropped)
	wait.Until(t, "the line that counts the dropped ones", func() bool { return strings.Contains(f.text(), want) })
	log.Info("the last one")
	s.Close(wait.Limit)
	got := strings.Split(strings.TrimSpace(f.text()), "\n")
	if n := uint64(len(got)); n != lines-dropped+2 {
		t.Errorf("%d lines were written, want %d and two more", n, lines-dropped)
	}
	for _, line := range got {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not one line of JSON: %q", line)
		}
	}
	if last := got[len(got)-1]; !strings.Contains(last, "the last one") {
		t.Errorf("last line %s", last)
	}
}

func TestFailingFile(t *testing.T) {
	f := &file{open: make(chan struct{}), err: errors.New("no space left on device")}
	close(f.open)
	s := logsink.New(f, jsonLines)
	log := slog.New(jsonLines(s))
	log.Info("while it fails")
	wait.Until(t, "the line waits", func() bool { return s.Waiting() > 0 })
	f.set(nil)
	wait.Until(t, "the line is written", func() bool { return strings.Contains(f.text(), "while it fails") })
	s.Close(wait.Limit)
	if n := s.Dropped(); n != 0 {
		t.Errorf("%d lines were dropped, want none", n)
	}
}

// TestCloseWhileHanging ends a sink whose file never comes back.
func TestCloseWhileHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{open: make(chan struct{})}
		s := logsink.New(f, jsonLines)
		slog.New(jsonLines(s)).Info("never written")
		began := time.Now()
		s.Close(time.Second)
		if took := time.Since(began); took != time.Second {
			t.Errorf("Close took %s, want its whole patience", took)
		}
		slog.New(jsonLines(s)).Info("after the end")
		if n := s.Dropped(); n != 1 {
			t.Errorf("%d lines were dropped, want the one after the end", n)
		}
		close(f.open)
	})
}

// TestSlowPipe writes to a real pipe that nobody reads at first.
func TestSlowPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := logsink.New(w, jsonLines)
	log := slog.New(jsonLines(s))
	for i := range 3000 { // more than a pipe holds
		log.Info("line", "i", i)
	}
	var got []byte
	done := make(chan error, 1)
	go func() {
		var err error
		got, err = io.ReadAll(r)
		done <- err
	}()
	s.Close(wait.Limit)
	_ = w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(got, []byte("\n")); n != 3000 {
		t.Errorf("%d lines, want 3000", n)
	}
}
