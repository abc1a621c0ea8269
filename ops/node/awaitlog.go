package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector/replica"
)

// A ledger of a replicated log waits here until it may take part, and until the
// log is there. Package genesis decides; this is what it decides on: the
// connection, the store, and the time.

const (
	// askEvery is how often a ledger that waits asks for the log, and for the other
	// ledgers.
	askEvery = 500 * time.Millisecond
	// sayEvery is how often a ledger logs what it waits for.
	sayEvery = 5 * time.Second
	// goneAfter is how long a known log has to be missing, as a leader says, before
	// it counts as gone: servers that have just formed a cluster may not have read
	// all of their stores.
	goneAfter = 10 * time.Second
	// wholeWithin is how long a ledger waits for its own copy to be whole.
	wholeWithin = time.Minute
	// missedFor is how long a ledger with a whole copy waits for ledgers that do
	// not answer, before it takes part without knowing what they have.
	missedFor = 3 * time.Second
	// settledWithin is how long it waits for an answering majority to have a leader
	// and to agree. The server elects within 4 to 9 seconds.
	settledWithin = 20 * time.Second
)

// awaitStream opens the stream of a log that other ledgers keep too, and creates it
// if all ledgers agree that there was none. It waits for a majority of the log's
// servers without limit.
func (n *Node) awaitStream(ctx context.Context) (embedded.StreamInfo, error) {
	js, err := jetstream.New(n.conn)
	if err != nil {
		return embedded.StreamInfo{}, err
	}
	if !n.cfg.replicated() {
		return embedded.OpenStream(ctx, js)
	}
	if n.answering, err = genesis.Answer(n.conn, n.began); err != nil {
		return embedded.StreamInfo{}, err
	}
	if n.server != nil && n.server.held() {
		if err := n.checkCopy(ctx); err != nil {
			return embedded.StreamInfo{}, err
		}
	}
	w := waiting{n: n, js: js, said: time.Now(), began: time.Now()}
	for n.server != nil && n.server.held() {
		if err := w.join(ctx); err != nil {
			return embedded.StreamInfo{}, err
		}
		if !clock.Sleep(ctx, askEvery) {
			return embedded.StreamInfo{}, ctx.Err()
		}
	}
	w.wrong, w.why = time.Time{}, nil
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

// waiting is the state of a ledger that waits for its log.
type waiting struct {
	n     *Node
	js    jetstream.JetStream
	said  time.Time
	wrong time.Time // since when the log is not as it was known; zero while it is, or nothing is known
	why   error     // what was last found wrong

	opened time.Time // when the log first was as it has to be

	began     time.Time // when it began to ask the others
	agreement genesis.Agreement
}

// join opens this ledger's store once that loses nothing.
func (w *waiting) join(ctx context.Context) error {
	n := w.n
	own, ok, err := n.began()
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
		n.copy.set(ledger.CopyRefilling, embedded.Copy{}, "it is filled from the other ledgers")
	}
	if err != nil || !open {
		return err
	}
	return n.server.openStore(ctx)
}

// mayOpen reports whether this ledger takes part with a copy that is whole though
// it is not known whether the others have all that this one has acknowledged: a
// copy from an earlier time looks whole too. It waits for that only while the
// others can tell and the log can go on without it.
func (w *waiting) mayOpen(answers map[string]genesis.Report, why string) bool {
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
		n.log.Warn(
			"ledgers are missing; this one takes part with its own copy of the log",
			"missing",
			strings.Join(missing, ","),
		)
	}
	return true
}

// mayFill reports whether this ledger opens its empty store. See
// [genesis.DecideFill].
func (w *waiting) mayFill(answers map[string]genesis.Report, settled bool, why string) (bool, error) {
	n := w.n
	d := genesis.DecideFill(answers, n.ledgers(), settled)
	switch d.Kind {
	case genesis.Fill:
		w.wrong, w.why = time.Time{}, nil
		n.log.Info(
			"this ledger's store is empty, and most ledgers have the log: copying theirs",
			"from",
			strings.Join(d.From, ","),
		)
		return true, nil
	case genesis.WaitForAgreement:
		w.wrong, w.why = time.Time{}, nil
		w.say(
			"waiting until the other ledgers have all that this one can have acknowledged",
			"to",
			"get a copy",
			"why",
			why,
		)
		return false, nil
	case genesis.WaitForLedgers:
		if w.why != nil && time.Since(w.wrong) >= goneAfter {
			return false, w.why // a ledger that is missing now has refused
		}
		w.say(
			"waiting for all ledgers, to create the log or to get a copy of it",
			"missing",
			strings.Join(d.Missing, ","),
		)
		return false, nil
	case genesis.Gone:
		return false, w.lasting(d.Err)
	}
	return true, nil
}

// once tries to open the log, and to begin it. An error is one that waiting
// does not mend.
func (w *waiting) once(ctx context.Context) (embedded.StreamInfo, bool, error) {
	n := w.n
	// Without a leader there is nobody to answer.
	ask, cancelAsk := context.WithTimeout(ctx, time.Second)
	defer cancelAsk()
	info, err := embedded.OpenStream(ask, w.js)
	step, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	if err == nil {
		err = w.adopt(step, info)
		if err == nil {
			return info, w.whole(ask), nil
		}
	}
	switch {
	case errors.Is(err, genesis.ErrLogGone),
		errors.Is(err, embedded.ErrDrifted),
		errors.Is(err, embedded.ErrOtherLease):
		return info, false, err
	case errors.Is(err, embedded.ErrDamaged):
		return info, false, w.damaged(err)
	case errors.Is(err, errLeasesGone):
		return info, false, nil // it was said
	case !errors.Is(err, embedded.ErrNoStream):
		w.wrong = time.Time{}
		w.say("the log does not answer: a majority of its servers is needed", "err", err)
		return info, false, nil
	}

	own, known, err := n.began()
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
	w.wrong = time.Time{}
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
	n.log.Info("beginning the log", "epoch", own.Epoch, "replicas", n.cfg.replicas())
	// A creation that timed out may still happen; then the next try opens it.
	if err := n.createStream(step, w.js, own.Epoch); err != nil {
		w.say("the log cannot be begun yet", "err", err)
	}
	return info, false, nil
}

// damaged deals with a log that lacks positions. Its leader speaks of its own
// copy. If that is another ledger's, this one waits: that ledger finds its damage
// itself, or an operator who reads the message stops it.
func (w *waiting) damaged(err error) error {
	if w.n.othersDamage(err) {
		w.wrong = time.Time{}
		w.say("another ledger's copy of the log is damaged, and it leads", "err", err)
		return nil
	}
	if err = w.lasting(err); err != nil && w.n.server != nil {
		return w.n.loseCopy(err)
	}
	return err
}

// othersDamage reports whether an error says that the copy of another ledger is
// damaged, while this one has one of its own.
func (n *Node) othersDamage(err error) bool {
	var damage *embedded.DamageError
	return errors.As(err, &damage) && n.server != nil && damage.Ledger != "" && damage.Ledger != n.name
}

// whole reports whether this ledger's own copy of the log is. One that is ready
// makes up for another one that is stopped: whoever restarts ledgers one after
// the other has to wait for that only. It is not waited for without end, because
// the log itself is there.
func (w *waiting) whole(ctx context.Context) bool {
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
		// What it holds is not a copy yet.
	case time.Since(w.opened) > wholeWithin:
		w.n.log.Warn("this ledger's copy of the log is not whole yet; stop no other ledger before it is", "err", err)
		return true
	}
	w.say("waiting until this ledger's copy of the log is whole", "err", err)
	return false
}

// filled reports whether a copy that began empty is whole now, and says so.
func (w *waiting) filled(ctx context.Context) bool {
	n, server := w.n, w.n.server.current()
	if server == nil {
		return false
	}
	have, err := server.Held()
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

// adopt checks that the log is the one that was known here, or notes it where
// none was.
func (w *waiting) adopt(ctx context.Context, info embedded.StreamInfo) error {
	own, known, err := w.n.began()
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
		return nil // it is noted when the first token is in the log
	}
	return w.n.dir.WriteNote(datadir.LogNote{Epoch: info.Epoch})
}

// lasting returns err once it has held for a while, nil before.
func (w *waiting) lasting(err error) error {
	if w.wrong.IsZero() {
		w.wrong = time.Now()
	}
	w.why = err
	if time.Since(w.wrong) < goneAfter {
		return nil
	}
	return err
}

// say tells what is waited for, now and then.
func (w *waiting) say(text string, args ...any) {
	if time.Since(w.said) >= sayEvery {
		w.said = time.Now()
		w.n.log.Info(text, args...)
	}
}

// ledgers are the names of all ledgers, sorted. Without a list of members this
// is the only one.
func (n *Node) ledgers() []string {
	if n.creds == nil {
		return []string{n.name}
	}
	return n.creds.Members.Ledgers()
}

// began returns what was begun here. While this ledger's copy is being checked,
// it is not known whether it has one. While the index is not open, it is not
// known whether it holds events of a log that ledger.json does not name.
func (n *Node) began() (report genesis.Report, known bool, err error) {
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
