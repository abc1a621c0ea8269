package clustertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Journal records the output of processes and the faults, in order.
type Journal struct {
	began time.Time

	mu    sync.Mutex
	lines []entry // guarded by mu
}

// entry is a line of the journal.
type entry struct {
	at   time.Duration // since the journal began
	who  string
	text string
}

// NewJournal returns an empty journal that begins now.
func NewJournal() *Journal { return &Journal{began: time.Now()} }

// Since returns the time since the journal began, by a monotonic clock.
func (j *Journal) Since() time.Duration { return time.Since(j.began) }

// Note adds a line.
func (j *Journal) Note(who, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, entry{j.Since(), who, fmt.Sprintf(format, args...)})
}

// log returns a function that adds lines of a process.
func (j *Journal) log(who string) func(line string) {
	return func(line string) { j.Note(who, "%s", line) }
}

// tail returns the last lines of the journal, or all if limit is 0.
func (j *Journal) tail(limit int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	if limit > 0 {
		lines = lines[max(0, len(lines)-limit):]
	}
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%9.3fs %-4s %s\n", l.at.Seconds(), l.who, l.text)
	}
	return b.String()
}

func (j *Journal) len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.lines)
}

// has reports whether who wrote a text at or after a line.
func (j *Journal) has(who string, from int, text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(
		j.lines[from:],
		func(l entry) bool { return l.who == who && strings.Contains(l.text, text) },
	)
}
