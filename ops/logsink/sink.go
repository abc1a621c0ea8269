// Package logsink writes a node's log without ever holding the node up.
//
// # Promise
//
// [Sink.Write] returns at once, whatever the file behind it does: a pipe that
// nobody reads, a full disk, a reader that has gone. Lines wait in memory up to a
// limit. Lines beyond it are dropped and counted, and once the file takes lines
// again, a line says how many are missing.
//
// [Limit] lets the same warning through once a minute, with the number of times
// that it was logged.
package logsink

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// MaxWaiting is how many bytes of lines may wait to be written.
const MaxWaiting = 1 << 20

// How long to wait before a failed write is tried again.
const (
	minRetry = 20 * time.Millisecond
	maxRetry = time.Second
)

// Sink is an [io.Writer] that takes one line for each Write.
type Sink struct {
	out    io.Writer
	notice func(dropped uint64) []byte
	wake   chan struct{} // has room for one
	done   chan struct{} // closed when nothing is written any more

	mu      sync.Mutex
	waiting [][]byte // guarded by mu
	size    int      // guarded by mu; bytes in waiting
	closed  bool     // guarded by mu
	dropped uint64   // guarded by mu; in total
	untold  uint64   // guarded by mu; dropped, and no line has said so yet
	since   time.Time
	// since is when the oldest line that is not written was logged, zero if there
	// is none. Guarded by mu.
}

// New returns a sink that writes to out. The format makes the handler of the line
// that reports dropped lines. Close ends the sink.
func New(out io.Writer, format func(io.Writer) slog.Handler) *Sink {
	s := &Sink{out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.notice = func(dropped uint64) []byte {
		var b bytes.Buffer
		slog.New(format(&b)).Warn("log lines were dropped, because they could not be written in time", "count", dropped)
		return b.Bytes()
	}
	go s.run()
	return s
}

// Write takes a line, or drops it. It never fails and never waits for the file.
func (s *Sink) Write(line []byte) (int, error) {
	s.mu.Lock()
	if s.closed || s.size+len(line) > MaxWaiting {
		s.dropped++
		s.untold++
		s.mu.Unlock()
		return len(line), nil
	}
	if s.since.IsZero() {
		s.since = time.Now()
	}
	s.waiting = append(s.waiting, bytes.Clone(line))
	s.size += len(line)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return len(line), nil
}

// Dropped returns how many lines were dropped.
func (s *Sink) Dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Waiting returns how long the oldest line that is not written has been waiting,
// 0 if all are written.
func (s *Sink) Waiting() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return 0
	}
	return time.Since(s.since)
}

// Close writes what waits, for at most the given time, and ends the sink. Lines
// that come later are dropped. A write that hangs is left behind.
func (s *Sink) Close(patience time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	}
}

// run writes lines until the sink is closed and none waits.
func (s *Sink) run() {
	defer close(s.done)
	for {
		lines, untold, closed := s.take()
		for i, line := range lines {
			if !s.write(line) {
				s.lose(len(lines) - i)
				return
			}
		}
		if untold > 0 && !s.write(s.notice(untold)) {
			return
		}
		if len(lines) > 0 || untold > 0 {
			continue
		}
		if closed {
			return
		}
		<-s.wake
	}
}

// take removes what waits. Lines that were dropped until now come behind it.
func (s *Sink) take() (lines [][]byte, untold uint64, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, untold = s.waiting, s.untold
	s.waiting, s.size, s.untold = nil, 0, 0
	if len(lines) == 0 {
		s.since = time.Time{}
	} else {
		s.since = time.Now()
	}
	return lines, untold, s.closed
}

// lose counts lines that were not written before the sink was closed.
func (s *Sink) lose(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped += uint64(n)
}

// write writes a line, and tries again as long as that fails. It reports false if
// the sink was closed meanwhile.
func (s *Sink) write(line []byte) bool {
	for retry := minRetry; ; retry = min(2*retry, maxRetry) {
		n, err := s.out.Write(line)
		line = line[min(max(n, 0), len(line)):]
		switch {
		case len(line) == 0:
			return true
		case n > 0, errors.Is(err, syscall.EAGAIN):
			retry = minRetry // the file is slow, and not gone
		}
		if s.ended(err) {
			return false
		}
		time.Sleep(retry)
	}
}

// ended reports whether a failed write is not to be tried again: the sink was
// closed, and the file is not merely slow.
func (s *Sink) ended(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && !errors.Is(err, syscall.EAGAIN)
}
