package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

// sameStop is how long signals count as the one that began a stop: a shell sends
// one to the whole group, and a wrapper passes it on.
const sameStop = time.Second

// nodeSignals are the signals of a node. Each one that asks for an end ends in an
// orderly stop, in which the node gives its lease up.
//
//   - SIGINT, SIGTERM, SIGQUIT and SIGABRT stop the node. The latter two log what
//     the program is doing first.
//   - SIGHUP reloads the configuration, or stops the node if its terminal is gone.
//   - SIGPIPE is ignored: a log without a reader is not a reason to end.
//
// A second signal to stop, after a moment, cuts off requests in flight. A third
// ends the program at once.
type nodeSignals struct {
	log      *slog.Logger
	terminal *os.File // standard error or input if that is a terminal, else nil
	stop     context.CancelFunc
	reload   chan struct{} // has room for one
	hurry    chan struct{} // closed by the second signal to stop
	abandon  func()        // ends the program

	received chan os.Signal
	began    time.Time // of the stop; zero before it
	stops    int
}

// watchSignals handles the process's signals until done is called. The returned
// context ends when the node has to stop.
func watchSignals(
	ctx context.Context, log *slog.Logger, abandon func(),
) (_ context.Context, s *nodeSignals, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	s = &nodeSignals{
		log: log, terminal: terminalOf(os.Stdin, os.Stderr), stop: cancel, abandon: abandon,
		reload: make(chan struct{}, 1), hurry: make(chan struct{}), received: make(chan os.Signal, 8),
	}
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(s.received, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGHUP)
	go func() {
		for sig := range s.received {
			s.handle(sig)
		}
	}()
	return ctx, s, func() {
		signal.Stop(s.received)
		close(s.received)
		cancel()
	}
}

func (s *nodeSignals) handle(sig os.Signal) {
	hangup := sig == syscall.SIGHUP
	switch {
	case hangup && s.stops > 0:
		return
	case hangup && !gone(s.terminal):
		s.log.Info("reloading the configuration", "signal", sig.String())
		select {
		case s.reload <- struct{}{}:
		default: // one is due
		}
		return
	case s.stops > 0 && time.Since(s.began) < sameStop:
		return
	}
	switch s.stops++; s.stops {
	case 1:
		s.began = time.Now()
		attrs := []any{"signal", sig.String()}
		if sig == syscall.SIGQUIT || sig == syscall.SIGABRT {
			attrs = append(attrs, "goroutines", goroutines())
		}
		s.log.Info("stopping", attrs...)
		s.stop()
	case 2:
		s.log.Warn("stopping at once: requests in flight are cut off", "signal", sig.String())
		close(s.hurry)
	default:
		s.log.Error("ended by a third signal; the lease may not have been given up", "signal", sig.String())
		s.abandon()
	}
}

// overdue ends a node whose stop takes too long.
func (s *nodeSignals) overdue() {
	s.log.Error("the node does not stop; the program ends", "goroutines", goroutines())
	s.abandon()
}

// goroutines returns the stacks of the program's goroutines, up to 256 KiB.
func goroutines() string {
	b := make([]byte, 256<<10)
	return string(b[:runtime.Stack(b, true)])
}

// abandonNode returns what ends the program without an orderly stop, after the log
// was written.
func (e *env) abandonNode() func() {
	return func() {
		e.closeLog()
		os.Exit(int(exit.Error))
	}
}
