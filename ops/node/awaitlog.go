package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector/replica"
)

// This file makes a ledger of a replicated log wait until it may take part, and
// until the log exists. Package genesis decides. This file provides the
// connection, the store and the clock.

const (
	// askEvery is the time between two questions of a waiting ledger to the log
	// and to the other ledgers.
	askEvery = 500 * time.Millisecond
	// sayEvery is the time between two log lines about the wait.
	sayEvery = 5 * time.Second
	// goneAfter is how long a leader must report a known log as missing before it
	// counts as gone: the servers of a new cluster may still be reading their
	// stores.
	goneAfter = 10 * time.Second
	// wholeWithin is how long a ledger waits for its own copy to be whole.
	wholeWithin = time.Minute
	// missedFor is how long a ledger with a whole copy waits for ledgers that do
	// not answer. Then it takes part without knowing their copies.
	missedFor = 3 * time.Second
	// settledWithin is how long it waits for an answering majority to elect a
	// leader and to agree. The server elects within 4 to 9 seconds.
	settledWithin = 20 * time.Second
)

// awaitStream opens the stream of a replicated log. It creates the stream if all
// ledgers agree that there was none. It waits for a majority of the log's servers
// without limit.
func (n *Node) awaitStream(ctx context.Context) (embedded.StreamInfo, error) {
	js, err := jetstream.New(n.conn)
	if err != nil {
		return embedded.StreamInfo{}, err
	}
	if !n.cfg.replicated() {
		return embedded.OpenStream(ctx, js)
	}
	if n.answering, err = genesis.Answer(n.conn, n.logState); err != nil {
		return embedded.StreamInfo{}, err
	}
	if n.server != nil && n.server.held() {
		if err := n.checkCopy(ctx); err != nil {
			return embedded.StreamInfo{}, err
		}
	}
	w := logWaiter{n: n, js: js, logged: time.Now(), began: time.Now()}
	for n.server != nil && n.server.held() {
		if err := w.join(ctx); err != nil {
			return embedded.StreamInfo{}, err
		}
		if !clock.Sleep(ctx, askEvery) {
			return embedded.StreamInfo{}, ctx.Err()
		}
	}
	w.wrongSince, w.wrong = time.Time{}, nil
	for {
		info, done, err := w.once(ctx)
		if done || err != nil {
			return info, err
		}
		if !clock.Sleep(ctx, askEvery) {
			return info, ctx.Err()
		}
	}
}

// logWaiter is the state of a ledger that waits for its log.
type logWaiter struct {
	n      *Node
	js     jetstream.JetStream
	logged time.Time // time of the last log line

	wrongSince time.Time // since when the log is not the known one; zero if it is, or if none is known
	wrong      error     // the latest reason

	opened time.Time // when the log was first found good

	began     time.Time // when the ledger began to ask the others
	agreement genesis.Agreement
}

// join opens this ledger's store as soon as that cannot lose an event.
func (w *logWaiter) join(ctx context.Context) error {
	n := w.n
	own, ok, err := n.logState()
	if err != nil || !ok {
		return err
	}
	answers, err := genesis.Ask(ctx, n.conn, len(n.ledgers()))
	if err != nil {
		w.say("the other ledgers cannot be asked", "err", err)
		return nil
	}
	delete(answers, n.name)
	settled, why := w.agreement.Reached(slices.Collect(maps.Values(answers)), len(n.ledgers()))
	answers[n.name] = own
	open := settled
	if store, _ := n.server.stored(); store {
		open = open || w.mayOpen(answers, why)
	} else if open, err = w.mayFill(answers, settled, why); open {
		n.copy.set(ledger.CopyRefilling, embedded.Copy{}, "it is being filled from the other ledgers")
	}
	if err != nil || !open {
		return err
	}
	return n.server.openStore(ctx)
}

// mayOpen reports whether this ledger takes part with its whole copy before it is
// known whether the others have every event that this one has acknowledged. An
// older copy looks whole too. The ledger waits for that only while the others can
// answer and the log can work without this ledger.
func (w *logWaiter) mayOpen(answers map[string]genesis.Report, why string) bool {
	n, open := w.n, 0
	for name, a := range answers {
		if name != n.name && a.Open {
			open++
		}
	}
	missing, waited := genesis.Missing(answers, n.ledgers()), time.Since(w.began)
	switch {
	case open > len(n.ledgers())/2:
		if waited < settledWithin {
			w.say("waiting until the other ledgers have all that this one can have acknowledged", "why", why)
			return false
		}
		n.log.Warn("the other ledgers do not agree; this one takes part with its own copy of the log", "why", why)
	case len(missing) > 0 && waited < missedFor:
		return false
	case len(missing) > 0:
		n.log.Warn("ledgers are missing; this one takes part with its own copy of the log",
			"missing", strings.Join(missing, ","))
	}
	return true
}

// mayFill reports whether this ledger opens its empty store. See
// [genesis.DecideFill].
func (w *logWaiter) mayFill(answers map[string]genesis.Report, settled bool, why string) (bool, error) {
	n := w.n
	d := genesis.DecideFill(answers, n.ledgers(), settled)
	switch d.Kind {
	case genesis.Fill:
		w.wrongSince, w.wrong = time.Time{}, nil
		n.log.Info("this ledger's store is empty, and most ledgers have the log: copying theirs",
			"from", strings.Join(d.From, ","))
		return true, nil
	case genesis.WaitForAgreement:
		w.wrongSince, w.wrong = time.Time{}, nil
		w.say("waiting until the other ledgers have all that this one can have acknowledged",
			"to", "get a copy", "why", why)
		return false, nil
	case genesis.WaitForLedgers:
		if w.wrong != nil && time.Since(w.wrongSince) >= goneAfter {
			return false, w.wrong // a ledger that is missing now has refused
		}
		w.say("waiting for all ledgers, to create the log or to get a copy of it",
			"missing", strings.Join(d.Missing, ","))
		return false, nil
	case genesis.Gone:
		return false, w.lasting(d.Err)
	}
	return true, nil
}

// once tries to open the log, or to create it. It returns an error if waiting
// does not help.
func (w *logWaiter) once(ctx context.Context) (embedded.StreamInfo, bool, error) {
	n := w.n
	// Without a leader there is no answer.
	ask, cancelAsk := context.WithTimeout(ctx, time.Second)
	defer cancelAsk()
	info, err := embedded.OpenStream(ask, w.js)
	step, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	if err == nil {
		err = w.adopt(step, info)
		if err == nil {
			return info, w.whole(step), nil
		}
	}
	switch {
	case errors.Is(err, genesis.ErrLogGone),
		errors.Is(err, embedded.ErrDrifted),
		errors.Is(err, embedded.ErrOtherLease):
		return info, false, err
	case errors.Is(err, embedded.ErrDamaged):
		return info, false, w.damaged(err)
	case errors.Is(err, errLeaseStreamMissing):
		return info, false, nil // it was logged
	case !errors.Is(err, embedded.ErrNoStream):
		w.wrongSince = time.Time{}
		w.say("the log does not answer: a majority of its servers is needed", "err", err)
		return info, false, nil
	}

	own, known, err := n.logState()
	if err != nil || !known {
		return info, false, err
	}
	if own.Knows() {
		return info, false, w.lasting(n.logGone())
	}
	answers, err := genesis.Ask(step, n.conn, len(n.ledgers()))
	if err != nil {
		w.say("the other ledgers cannot be asked", "err", err)
		return info, false, nil
	}
	answers[n.name] = own
	d := genesis.DecideCreate(n.name, answers, n.ledgers())
	if d.Kind == genesis.Gone {
		return info, false, w.lasting(d.Err)
	}
	w.wrongSince = time.Time{}
	switch d.Kind {
	case genesis.WaitForLedgers:
		w.say("waiting for all ledgers, to create the log", "missing", strings.Join(d.Missing, ","))
		return info, false, nil
	case genesis.WaitForCreator:
		w.say("waiting for another ledger to create the log", "name", d.Creator)
		return info, false, nil
	}
	if own.Epoch == "" {
		own.Epoch = newEpoch()
		if err := n.dir.WriteNote(datadir.LogNote{Epoch: own.Epoch, Beginning: true}); err != nil {
			return info, false, err
		}
	}
	n.log.Info("creating the log", "epoch", own.Epoch, "replicas", n.cfg.replicas())
	// A creation that timed out may still succeed; then the next try opens it.
	if err := n.createStream(step, w.js, own.Epoch); err != nil {
		w.say("the log cannot be created yet", "err", err)
	}
	return info, false, nil
}

// damaged handles a log that lacks positions. The leader reports its own copy. If
// another ledger leads, this one waits: the other ledger finds its damage itself,
// or an operator reads the message and stops it.
func (w *logWaiter) damaged(err error) error {
	if w.n.othersDamage(err) {
		w.wrongSince = time.Time{}
		w.say("another ledger's copy of the log is damaged, and it leads", "err", err)
		return nil
	}
	if err = w.lasting(err); err != nil && w.n.server != nil {
		return w.n.loseCopy(err)
	}
	return err
}

// othersDamage reports whether an error is about the damaged copy of another
// ledger, while this one has its own copy.
func (n *Node) othersDamage(err error) bool {
	var damage *embedded.DamageError
	return errors.As(err, &damage) && n.server != nil && damage.Ledger != "" && damage.Ledger != n.name
}

// whole reports whether this ledger's own copy of the log is whole. A ledger that
// is ready can replace one that is stopped, so a rolling restart has to wait only
// until each ledger is ready. The wait is limited, because the log itself works.
func (w *logWaiter) whole(ctx context.Context) bool {
	if w.n.server == nil {
		return true
	}
	if w.opened.IsZero() {
		w.opened = time.Now()
	}
	current, err := embedded.Current(ctx, w.js, w.n.name)
	switch {
	case err == nil && current && w.n.copy.refilling():
		return w.filled(ctx)
	case err == nil && current:
		return true
	case w.n.copy.refilling():
		// The store does not hold a copy yet.
	case time.Since(w.opened) > wholeWithin:
		w.n.log.Warn("this ledger's copy of the log is not whole yet; stop no other ledger before it is", "err", err)
		return true
	}
	w.say("waiting until this ledger's copy of the log is whole", "err", err)
	return false
}

// filled reports whether a copy that was empty at first is whole now. The leader
// can still report the copy that was there before as current, so the range that
// the copy holds decides.
func (w *logWaiter) filled(ctx context.Context) bool {
	n, server := w.n, w.n.server.current()
	if server == nil {
		return false
	}
	stream, err := w.js.Stream(ctx, events.StreamName)
	if err != nil {
		w.say("waiting until this ledger's copy of the log is whole", "err", err)
		return false
	}
	end := events.Position(stream.CachedInfo().State.LastSeq)
	have, err := server.Held()
	if err == nil && have.Last < end {
		err = fmt.Errorf("it ends at position %d, and the log at %d", have.Last, end)
	}
	if err == nil {
		err = embedded.ScrubCopy(ctx, n.dir.File(datadir.Log), func(int) {})
	}
	if err != nil {
		w.say("waiting until this ledger's copy of the log is whole", "err", err)
		return false
	}
	n.copy.set(ledger.CopyWhole, have, "")
	n.log.Info("this ledger's copy of the log is whole", "first", have.First, "last", have.Last)
	return true
}

// adopt checks that the log is the one known here. If none was known, it notes
// this one.
func (w *logWaiter) adopt(ctx context.Context, info embedded.StreamInfo) error {
	own, known, err := w.n.logState()
	switch {
	case err != nil:
		return err
	case !known:
		return replica.ErrOpening
	case own.Epoch != "" && info.Epoch != own.Epoch:
		return w.n.otherLog(info.Epoch, own.Epoch)
	}
	if err := w.n.openLeases(ctx, w.js, info); err != nil {
		return err
	}
	if own.Beginning {
		return nil // noted once the first token is in the log
	}
	return w.n.dir.WriteNote(datadir.LogNote{Epoch: info.Epoch})
}

// lasting returns err once it has lasted for goneAfter, and nil before.
func (w *logWaiter) lasting(err error) error {
	if w.wrongSince.IsZero() {
		w.wrongSince = time.Now()
	}
	w.wrong = err
	if time.Since(w.wrongSince) < goneAfter {
		return nil
	}
	return err
}

// say logs the reason of the wait every sayEvery.
func (w *logWaiter) say(text string, args ...any) {
	if time.Since(w.logged) >= sayEvery {
		w.logged = time.Now()
		w.n.log.Info(text, args...)
	}
}

// ledgers returns the sorted names of all ledgers. Without a list of members this
// is the only one.
func (n *Node) ledgers() []string {
	if n.creds == nil {
		return []string{n.name}
	}
	return n.creds.Members.Ledgers()
}

// logState returns what this ledger knows of the log. It is unknown whether the
// ledger has a copy while the copy is being checked. It is unknown whether the
// index holds events of a log that ledger.json does not name while the index is
// not open.
func (n *Node) logState() (report genesis.Report, known bool, err error) {
	report.Name = n.name
	if n.server != nil {
		held := n.server.held()
		store, checked := n.server.stored()
		if held && !checked {
			return report, false, nil
		}
		report.Empty = held && !store
		if server := n.server.current(); server != nil && !held && n.copy.whole() {
			report.Open, report.Raft = true, server.RaftStates()
		}
	}
	note, err := n.dir.ReadNote()
	if err != nil {
		return report, false, err
	}
	if note.Epoch != "" {
		report.Epoch, report.Beginning = note.Epoch, note.Beginning
		return report, true, nil
	}
	if n.index.Err() != nil {
		return report, false, nil
	}
	if n.index.Position() > 0 {
		report.Epoch = n.index.Epoch()
	}
	return report, true, nil
}
