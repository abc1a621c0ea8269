package replica

import (
	"errors"
	"fmt"
	"testing"
)

// supervised is a supervisor and the effects of its outputs: everything on
// which a later decision can depend. Equal values have the same futures.
type supervised struct {
	s supervisor

	candidate bool    // one is being built
	build     request // the candidate's
	timer     bool    // the retry timer runs
	given     bool    // the index in use was given up

	dispute     int  // number of the one that stands, 0 for none
	serving     bool // the index keeps answering during it
	fenced      bool // the index does not answer
	settles     bool // the index in use can settle the dispute when it gets there
	usedForeign bool // a snapshot was found to be of another log
}

var errAsked = errors.New("asked")

// disputes are the possible disputes, by number. They differ in their
// positions.
var disputes = []*dispute{nil, {reason: errors.New("first"), at: 10}, {reason: errors.New("second"), at: 20}}

// current is the open dispute.
func (w *supervised) current() *dispute {
	if w.dispute == 0 {
		return nil
	}
	d := *disputes[w.dispute]
	d.serving = w.serving
	return &d
}

// step is one event.
type step struct {
	name string
	// can reports whether the event is possible.
	can func(w supervised) bool
	// input is the supervisor's input after the event.
	input func(w *supervised) input
}

// steps are all events. A dispute begins by itself, and the supervisor checks
// for one before each wait, as the driver does.
var steps = []step{
	{"a dispute fences the index", func(w supervised) bool { return w.dispute == 0 }, begin(1, false)},
	{"a dispute leaves the index serving", func(w supervised) bool { return w.dispute == 0 }, begin(1, true)},
	{"another dispute fences the index", func(w supervised) bool { return w.dispute == 0 }, begin(2, false)},
	{"another dispute leaves the index serving", func(w supervised) bool { return w.dispute == 0 }, begin(2, true)},
	{"the dispute gets worse", func(w supervised) bool { return w.dispute != 0 && w.serving }, func(w *supervised) input {
		w.serving, w.fenced = false, true
		return input{kind: looked}
	}},
	{"a rebuild is asked for", always, func(*supervised) input { return input{kind: rebuildAsked, reason: errAsked} }},
	{"the timer fires", func(w supervised) bool { return w.timer }, func(w *supervised) input {
		w.timer = false
		return input{kind: retryDue}
	}},
	{"the index reaches the disputed position", func(w supervised) bool { return w.settles }, func(w *supervised) input {
		return input{kind: reached}
	}},
	{"the candidate is finished", building, func(*supervised) input { return input{kind: built} }},
	{"the candidate falls behind", building, func(*supervised) input { return input{kind: fellBehind} }},
	{"the candidate fails", building, func(*supervised) input { return input{kind: buildFailed} }},
	{"the candidate finds no room", building, func(*supervised) input { return input{kind: buildFailed, failure: noRoom} }},
	{"the candidate's snapshot is foreign", func(w supervised) bool { return building(w) && w.build.origin.snapshot }, func(w *supervised) input {
		w.usedForeign = true
		return input{kind: buildFailed, failure: foreignLog}
	}},
	{"the index stops", always, func(*supervised) input { return input{kind: stopped} }},
}

func always(supervised) bool { return true }

func building(w supervised) bool { return w.candidate }

func begin(dispute int, serving bool) func(*supervised) input {
	return func(w *supervised) input {
		w.dispute, w.serving, w.fenced = dispute, serving, !serving
		return input{kind: looked}
	}
}

// decides passes the input to the supervisor, carries out the decision, and
// returns what is wrong with it.
func (w *supervised) decides(in input) error {
	d := w.current()
	in.dispute = d
	was := *w
	out := w.s.next(in)
	ends := in.kind == buildFailed || in.kind == built
	switch {
	case out.discard != (in.kind == buildFailed || out.start != nil && was.candidate):
		return fmt.Errorf("discard = %t", out.discard)
	case out.giveUp && in.kind != stopped && !(in.failure == noRoom && d != nil && !d.serving):
		return errors.New("the index is given up without need")
	case in.kind == stopped && !out.giveUp:
		return errors.New("an index that has stopped is kept")
	case in.failure == noRoom && d != nil && !out.giveUp && !out.dismiss:
		return errors.New("without room, the dispute's candidate is built again at once")
	case out.dismiss && (d == nil || !d.serving || in.failure != noRoom):
		return errors.New("a dispute is dismissed that is not to be")
	case out.settle != (in.kind == built || in.kind == reached), out.retire != (in.kind == built), out.catchUp != (in.kind == fellBehind):
		return fmt.Errorf("settle, retire, catchUp = %t, %t, %t", out.settle, out.retire, out.catchUp)
	case out.retry && out.start != nil:
		return errors.New("a candidate is built now and later")
	}
	if out.discard || ends {
		w.candidate, w.build = false, request{}
	}
	if out.retry {
		w.timer = true
	}
	if out.settle {
		// As in Replica.settle: the index answers without a dispute, or if it
		// can settle the dispute.
		if d == nil || in.kind == reached || was.build == d.request() {
			w.dispute, w.serving, w.fenced = 0, false, false
		}
		w.settles = false
	}
	if out.dismiss {
		w.dispute, w.serving = 0, false
	}
	if r := out.start; r != nil {
		switch {
		case w.candidate:
			return errors.New("two candidates are built at once")
		case d != nil && *r != d.request():
			return errors.New("a candidate is built that does not settle the dispute")
		case r.origin.snapshot && w.usedForeign:
			return errors.New("a snapshot is used after a foreign one")
		case r.origin.snapshot && r.origin.keep != 0:
			return errors.New("a dispute is to be settled by a snapshot")
		}
		w.candidate, w.build, w.timer = true, *r, false
	}
	w.given = out.giveUp
	return nil
}

// holds returns the invariant that is violated while the supervisor waits.
func (w supervised) holds() error {
	d := w.current()
	switch {
	case w.s.building != w.candidate || w.candidate && w.s.build != w.build:
		return errors.New("the supervisor is wrong about the candidate")
	case w.s.retrying != w.timer:
		return errors.New("the supervisor is wrong about the timer")
	case w.s.settles != w.settles:
		return errors.New("the supervisor is wrong about who settles the dispute")
	case d == nil && w.fenced:
		return errors.New("the index is fenced, and nothing will end that")
	// Every dispute is being settled: by the index in use, by a candidate, or
	// by a retry.
	case d != nil && !w.settles && !(w.candidate && w.build == d.request()) && !(w.timer && w.s.retry == d.request()):
		return errors.New("nothing settles the dispute")
	case w.candidate && w.timer:
		return errors.New("a candidate is built, and the timer runs for another")
	}
	return nil
}

// do carries out a step, and then the driver's check.
func (w supervised) do(s step) (supervised, error) {
	if err := w.decides(s.input(&w)); err != nil || w.given {
		return w, err
	}
	if err := w.decides(input{kind: looked}); err != nil {
		return w, err
	}
	return w, w.holds()
}

// TestSupervisor explores every order of events from every initial state, until
// there are no new states.
func TestSupervisor(t *testing.T) {
	type path struct {
		w      supervised
		before *path
		step   string
	}
	var queue []*path
	for _, logOnly := range []bool{false, true} {
		for dispute := range disputes {
			for _, settles := range []bool{false, true} {
				if settles && dispute == 0 {
					continue
				}
				w := supervised{s: supervisor{logOnly: logOnly, settles: settles}, usedForeign: logOnly, dispute: dispute, fenced: dispute != 0, settles: settles}
				if err := w.decides(input{kind: looked}); err != nil {
					t.Fatal(err)
				}
				if err := w.holds(); err != nil {
					t.Fatal(err)
				}
				queue = append(queue, &path{w: w, step: fmt.Sprintf("logOnly %t, dispute %d, settles %t", logOnly, dispute, settles)})
			}
		}
	}
	seen := map[supervised]bool{}
	taken := map[string]int{}
	ends := 0
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if seen[p.w] {
			continue
		}
		seen[p.w] = true
		for _, s := range steps {
			if !s.can(p.w) {
				continue
			}
			taken[s.name]++
			next, err := p.w.do(s)
			if err != nil {
				trace := s.name
				for q := p; q != nil; q = q.before {
					trace = q.step + "; " + trace
				}
				t.Fatalf("%v: %s\nbefore: %+v\nafter:  %+v", err, trace, p.w, next)
			}
			if next.given {
				ends++
				continue
			}
			queue = append(queue, &path{next, p, s.name})
		}
	}
	t.Logf("%d states; the index was given up %d times", len(seen), ends)
	for _, s := range steps {
		if taken[s.name] == 0 {
			t.Errorf("%q never happened", s.name)
		}
	}
	if len(seen) < 50 {
		t.Errorf("%d states are too few to prove anything", len(seen))
	}
}

// TestSupervisorEnds drives every dispute to its end: if candidates succeed from
// now on, the index answers again after at most one retry and two candidates.
func TestSupervisorEnds(t *testing.T) {
	for _, start := range reachable(t) {
		w := start
		for range 6 {
			if w.dispute == 0 && !w.fenced {
				break
			}
			var err error
			switch {
			case w.settles:
				w, err = w.do(named(t, "the index reaches the disputed position"))
			case w.candidate:
				w, err = w.do(named(t, "the candidate is finished"))
			case w.timer:
				w, err = w.do(named(t, "the timer fires"))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if w.dispute != 0 || w.fenced {
			t.Fatalf("the dispute does not end from %+v: %+v", start, w)
		}
	}
}

// reachable returns every state that can be reached from a new index.
func reachable(t *testing.T) []supervised {
	t.Helper()
	queue, seen := []supervised{{}}, map[supervised]bool{}
	var all []supervised
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		if seen[w] || w.given {
			continue
		}
		seen[w] = true
		all = append(all, w)
		for _, s := range steps {
			if s.can(w) {
				next, err := w.do(s)
				if err != nil {
					t.Fatal(err)
				}
				queue = append(queue, next)
			}
		}
	}
	return all
}

func named(t *testing.T, name string) step {
	t.Helper()
	for _, s := range steps {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("there is no step %q", name)
	return step{}
}
