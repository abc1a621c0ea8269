package logsink

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// DefaultEvery is how often the same warning is let through.
const DefaultEvery = time.Minute

// maxKinds is how many different lines are told apart at a time.
const maxKinds = 1024

// Repeats is the state of a [slog.Handler] that [Limit] returned.
type Repeats struct {
	every time.Duration

	mu    sync.Mutex
	kinds map[string]*kind // guarded by mu
}

// kind is a line that was let through lately.
type kind struct {
	held  uint64      // how many came since
	last  slog.Record // the last of them
	next  slog.Handler
	timer *time.Timer
}

// Limit returns a handler that lets the same warning or error through once in a
// while: at once, and then at most every so often, with the number of times that it
// was logged since (times). Lines are the same if their level, message and
// attributes are, apart from numbers, times, the client's port and the request.
// Information is limited only if it has an error. Debugging is not limited.
func Limit(next slog.Handler, every time.Duration) (slog.Handler, *Repeats) {
	r := &Repeats{every: every, kinds: map[string]*kind{}}
	return &limiter{next: next, repeats: r}, r
}

// Flush lets through what is held back.
func (r *Repeats) Flush() {
	r.mu.Lock()
	var keys []string
	for key := range r.kinds {
		keys = append(keys, key)
	}
	r.mu.Unlock()
	for _, key := range keys {
		r.end(key)
	}
}

// end ends the time in which a line is held back, and lets through what was.
func (r *Repeats) end(key string) {
	r.mu.Lock()
	k := r.kinds[key]
	if k == nil {
		r.mu.Unlock()
		return
	}
	k.timer.Stop()
	held, last, next := k.held, k.last, k.next
	if held == 0 {
		delete(r.kinds, key)
	} else {
		k.held = 0
		k.timer = time.AfterFunc(r.every, func() { r.end(key) })
	}
	r.mu.Unlock()
	if held > 0 {
		last.AddAttrs(slog.Uint64("times", held))
		_ = next.Handle(context.Background(), last) // a sink never fails
	}
}

// hold reports whether a line is held back, because the same one was let through
// lately.
func (r *Repeats) hold(key string, rec slog.Record, next slog.Handler) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.kinds[key]; k != nil {
		k.held++
		k.last, k.next = rec.Clone(), next
		return true
	}
	if len(r.kinds) < maxKinds {
		r.kinds[key] = &kind{timer: time.AfterFunc(r.every, func() { r.end(key) })}
	}
	return false
}

type limiter struct {
	next    slog.Handler
	repeats *Repeats
	prefix  string // of the key: attributes and groups of the logger
}

func (l *limiter) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

type alwaysKey struct{}

// Always returns a context with which no line is held back: for the answer to
// something that an operator asked for.
func Always(ctx context.Context) context.Context { return context.WithValue(ctx, alwaysKey{}, true) }

func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	if key, limited := l.key(r); limited && ctx.Value(alwaysKey{}) == nil && l.repeats.hold(key, r, l.next) {
		return nil
	}
	return l.next.Handle(ctx, r)
}

func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		appendAttr(&b, a)
	}
	return &limiter{next: l.next.WithAttrs(attrs), repeats: l.repeats, prefix: l.prefix + b.String()}
}

func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{next: l.next.WithGroup(name), repeats: l.repeats, prefix: l.prefix + name + "\x00"}
}

// key returns what the same lines have in common.
func (l *limiter) key(r slog.Record) (key string, limited bool) {
	if r.Level < slog.LevelInfo {
		return "", false
	}
	failed := false
	var b strings.Builder
	fmt.Fprintf(&b, "%s%d\x00%s\x00", l.prefix, r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		failed = failed || a.Key == "err"
		appendAttr(&b, a)
		return true
	})
	return b.String(), failed || r.Level >= slog.LevelWarn
}

// numbers are parts of an error that differ from one time to the next: ports,
// connections, positions, durations.
var numbers = regexp.MustCompile(`[0-9]+`)

// appendAttr appends to a key what tells an attribute apart.
func appendAttr(b *strings.Builder, a slog.Attr) {
	switch a.Key {
	case "remote", "request", "request_id", "stack":
		return
	}
	v := a.Value.Resolve()
	text := ""
	switch v.Kind() {
	case slog.KindString, slog.KindBool:
		text = v.String()
	case slog.KindAny:
		text = numbers.ReplaceAllString(fmt.Sprint(v.Any()), "#")
	case slog.KindGroup:
		for _, member := range v.Group() {
			appendAttr(b, member)
		}
	}
	if a.Key == "err" {
		text = numbers.ReplaceAllString(text, "#")
	}
	b.WriteString(a.Key + "\x00" + text + "\x00")
}
