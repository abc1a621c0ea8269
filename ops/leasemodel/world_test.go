package leasemodel

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Time passes in ticks. A lease is two ticks, and the margin for slow clocks is
// at most one.
const (
	tick     = 103 * time.Millisecond
	leaseFor = 2 * tick
)

// Positions of the log: the start, which all nodes have applied, and the
// revocation.
const (
	before  = 1
	revoked = 2
)

// limits bound the events in a world.
type limits struct {
	Horizon  int // ticks
	Renewals int // sent, over all processes
	Barriers int // written, over all ledgers

	Slow           int  // ticks that the verifiers' clock may lose
	Lost           int  // gaps in a verifier's reading
	LedgerLost     int  // gaps in a ledger's reading
	Restarts       int  // of the verifier, which may return with an older index
	Twin           bool // after a restart, the old process also runs on
	GiveUps        int
	Rebuilds       int // of the index, in a process that runs on
	Failed         int // renewals that time out, and may be committed later
	Timeouts       int // barriers that time out, and may be committed later
	LedgerRestarts int
	Faults         int  // total of the faults above without slow ticks; 0 means no limit
	Second         bool // a second ledger, which knows nothing at first and lags
	Told           int  // processes with one name that a ledger distinguishes; 0 means the default
	Cold           bool // no process has a lease at first
	// Lazy lets a ledger notice later that a wait has ended, and lets the
	// caller ask for a receipt later than the revocation. Otherwise both are
	// immediate.
	Lazy bool

	// Broken is the rule that a node breaks.
	Broken rule
}

// rule is a rule that a node can break.
type rule int

const (
	none          rule = iota
	noRead             // a verifier does not read up to its renewal
	noFloor            // it ignores the floor of barriers
	fromAck            // its lease starts at the acknowledgement, not at the renewal
	noJoin             // it joins without a barrier after its renewal
	noLeast            // it answers below its minimum position
	lateStop           // it answers for a while after it has released its lease
	sameInstance       // it restarts with the instance of the previous process
	doneByRenewal      // a ledger takes a renewal after the barrier as proof
	unconditional      // barriers are written without a condition on the last one
	forgetHolders      // a ledger that starts assumes that it knows all holders
	noMargin           // a ledger waits for a lease without the margin
	leaveOut           // a ledger ignores processes that it does not distinguish
	readNotUpTo        // a ledger does not read the stream up to its barrier
	endedEarly         // a barrier lists leases as ended without the margin
	endedAll           // a ledger takes a listed lease for the end of later renewals, too
)

// kind is the kind of a message in the stream of leases.
type kind int8

const (
	renewal kind = iota
	givingUp
	barrierEntry
)

// message is a message in the stream of leases, or in flight to it.
type message struct {
	kind    kind
	who     int8 // instance, or ledger
	number  int8 // of a renewal; of a ledger's request
	joining bool
	at      int8 // position: applied, or floor
	after   int8 // a barrier's condition
	// ended maps an instance to the number of the renewal up to which its leases have
	// ended, as a barrier says; 0 for none.
	ended [instances]int8
}

// answer is the acknowledgement or refusal of a message.
type answer struct {
	kind    kind
	who     int8
	number  int8
	seq, at int8 // of the message; if it was refused, of the last barrier
}

// The lists are arrays, so a copy of a world shares nothing with the original.
type (
	messages struct {
		n int8
		a [12]message
	}
	answers struct {
		n int8
		a [8]answer
	}
)

func (l *messages) list() []message { return l.a[:l.n] }

// add adds a message. If sorted is true, the order has no meaning, and worlds
// that differ only in the order are equal.
func (l *messages) add(m message, sorted bool) {
	l.a[l.n] = m
	for i := l.n; sorted && i > 0 && compare(l.a[i], l.a[i-1]) < 0; i-- {
		l.a[i], l.a[i-1] = l.a[i-1], l.a[i]
	}
	l.n++
}

func (l *messages) remove(i int) message {
	m := l.a[i]
	copy(l.a[i:], l.a[i+1:l.n])
	l.n--
	l.a[l.n] = message{}
	return m
}

func (l *answers) list() []answer { return l.a[:l.n] }

func (l *answers) add(a answer) { l.a[l.n], l.n = a, l.n+1 }

func (l *answers) remove(i int) answer {
	a := l.a[i]
	copy(l.a[i:], l.a[i+1:l.n])
	l.n--
	l.a[l.n] = answer{}
	return a
}

type verifier struct {
	m        *node
	instance int8
	applied  int8 // by its index
	read     int8 // of the stream of leases
	alive    bool
	stopped  bool // it does not answer any more
	ending   bool // it released its lease and stops later (lateStop)
	unsent   int8 // renewals that the machine does not know of yet (fromAck)
	sent     int8 // time of its last renewal, by its clock
}

type ledger struct {
	m     *base
	w     *wait
	read  int8
	busy  bool
	ask   int8 // number of the last request
	heard [instances]bool
}

const instances = 3

// world is one state of the model.
type world struct {
	now, slow int8
	end       int8 // of the log
	leases    messages
	air       messages // published and not committed; lost messages stay here
	answers   answers
	v         [2]verifier
	l         [2]ledger
	said      [instances]int8 // instance -> its reported position
	receipt   bool
	used      used
}

type used struct {
	renewals, barriers, lost, ledgerLost, restarts, giveUps, rebuilds, failed, timeouts, ledgerRestarts int8
}

func (u *used) faults() int {
	return int(u.lost + u.ledgerLost + u.restarts + u.giveUps + u.rebuilds + u.failed + u.timeouts + u.ledgerRestarts)
}

func (w *world) time() time.Duration { return time.Duration(w.now) * tick }

// clock returns the time of the verifiers' clock, in ticks.
func (w *world) clock() int8 { return w.now - w.slow }

func holder(instance int8) events.Holder {
	return events.Holder{Node: "verifier", Instance: string('a' + rune(instance))}
}

// answering reports whether a verifier may still accept the revoked token.
func (w *world) answering(l *limits, v *verifier) bool {
	if !v.alive || v.stopped || v.applied >= revoked {
		return false
	}
	until, least, held := v.m.m.Lease()
	return held && time.Duration(w.clock())*tick < until && (events.Position(v.applied) >= least || l.Broken == noLeast)
}

func (w *world) wrong(l *limits) bool {
	return w.receipt && (w.answering(l, &w.v[0]) || w.answering(l, &w.v[1]))
}

// over reports whether no violation can follow any more, so that the states
// after it need not be explored.
func (w *world) over(l *limits) bool {
	return !w.mayReceive(l) || !w.mayAnswer(l)
}

// mayReceive reports whether a receipt exists or may follow.
func (w *world) mayReceive(l *limits) bool {
	if w.receipt || int(w.used.barriers) < l.Barriers || l.Broken == doneByRenewal {
		return true
	}
	covers := func(m message) bool { return m.kind == barrierEntry && m.at >= revoked }
	return slices.ContainsFunc(w.leases.list(), covers) || slices.ContainsFunc(w.air.list(), covers)
}

// mayAnswer reports whether a process may have a lease, now or later, without
// having applied the revocation.
func (w *world) mayAnswer(l *limits) bool {
	if int(w.used.restarts) < l.Restarts {
		return true
	}
	more := int(w.used.renewals) < l.Renewals || l.Broken == fromAck
	for i := range w.v {
		v := &w.v[i]
		lacks := v.applied < revoked || int(w.used.rebuilds) < l.Rebuilds
		if v.alive && !v.stopped && lacks && (more || w.clock() < v.sent+int8(leaseFor/tick)) {
			return true
		}
	}
	return false
}

// normalize clears what cannot matter any more, so that equivalent states are
// equal.
func (w *world) normalize(l *limits) {
	if w.receipt {
		for i := range w.l {
			w.l[i].w, w.l[i].heard = nil, [instances]bool{}
		}
		w.said = [instances]int8{}
	}
	for i := int(w.answers.n) - 1; i >= 0; i-- {
		a := w.answers.a[i]
		wanted := a.kind == barrierEntry && w.l[a.who].busy && w.l[a.who].ask == a.number
		for j := range w.v {
			v := &w.v[j]
			wanted = wanted || a.kind == renewal && v.alive && !v.stopped && v.instance == a.who
		}
		if !wanted {
			w.answers.remove(i)
		}
	}
}

// opcode names a step.
type opcode uint8

const (
	opTick opcode = iota
	opSlowTick
	opRevoke
	opSend
	opCommit
	opAnswer
	opFail
	opApply
	opRead
	opLose
	opRestart
	opRestartOlder
	opGiveUp
	opStop
	opRebuild
	opLedgerRead
	opLedgerLose
	opLedgerApply
	opBarrier
	opTimeout
	opReport
	opAsk
	opLook
	opLedgerRestart
	opLedgerRestartBack
)

var opNames = [...]string{
	"a tick passes", "a tick passes on all clocks but the verifiers'", "the revocation is committed",
	"verifier sends a renewal", "message is committed or refused", "answer arrives", "verifier's oldest renewal times out",
	"verifier applies the revocation", "verifier reads a message", "verifier reads on after a gap",
	"verifier restarts", "verifier restarts with an older index", "verifier releases its lease", "verifier stops",
	"verifier rebuilds its index", "ledger reads a message", "ledger reads on after a gap", "ledger applies the revocation",
	"ledger writes a barrier", "ledger's barrier times out", "ledger gets the position of an instance", "ledger is asked for a receipt",
	"ledger checks whether the wait has ended", "ledger restarts and reads on from the end", "ledger restarts and reads from the beginning",
}

// start returns the initial state.
func start(l *limits) *world {
	s := newStepper(l)
	w := &world{end: before}
	for i := range w.v {
		w.v[i] = verifier{m: s.tell(nil, act{verb: vApplied, a: before}), applied: before}
	}
	w.v[0].alive = true
	for i := range w.l {
		w.l[i].m = s.tellLedger(nil, act{verb: lApplied, a: before})
		w.l[i].m = s.tellLedger(w.l[i].m, act{verb: lBegin, a: 1, b: 1})
	}
	if l.Cold {
		return w
	}
	// The verifier gets its first lease without a fault.
	s.l = &limits{Horizon: 1, Renewals: 1, Barriers: 1}
	for _, at := range []step{
		{opSend, 0},
		{opCommit, 0},
		{opAnswer, 0},
		{opRead, 0},
		{opLedgerRead, 0},
		{opBarrier, 0},
		{opCommit, 0},
		{opAnswer, 0},
		{opRead, 0},
		{opLedgerRead, 0},
	} {
		if next := *w; !s.do(&next, at) {
			panic("the first lease: cannot " + at.String())
		} else {
			w = &next
		}
	}
	w.used = used{}
	if _, _, held := w.v[0].m.m.Lease(); !held {
		panic("the first lease: there is none")
	}
	return w
}

type step struct {
	op  opcode
	arg uint8
}

func (s step) String() string { return fmt.Sprintf("%s (%d)", opNames[s.op], s.arg) }

// all calls emit for every possible next state.
func (s *stepper) all(w *world) {
	if w.over(s.l) {
		return
	}
	s.try(w, opTick, 1)
	s.try(w, opSlowTick, 1)
	s.try(w, opRevoke, 1)
	s.try(w, opCommit, int(w.air.n))
	s.try(w, opAnswer, int(w.answers.n))
	verifiers := 1
	if s.l.Twin {
		verifiers = 2
	}
	for _, op := range []opcode{opSend, opFail, opApply, opRead, opLose, opRestart, opRestartOlder, opGiveUp, opStop, opRebuild} {
		s.try(w, op, verifiers)
	}
	ledgers := 1
	if s.l.Second {
		ledgers = 2
	}
	for _, op := range []opcode{opLedgerRead, opLedgerApply, opBarrier, opTimeout} {
		s.try(w, op, ledgers)
	}
	for _, op := range []opcode{opLedgerLose, opAsk, opLook, opLedgerRestart, opLedgerRestartBack} {
		s.try(w, op, 1)
	}
	s.try(w, opReport, instances)
}

func (s *stepper) try(w *world, op opcode, args int) {
	for arg := range args {
		s.next = *w
		if at := (step{op, uint8(arg)}); s.do(&s.next, at) {
			if !s.l.Lazy {
				s.look0(&s.next)
			}
			s.next.normalize(s.l)
			s.emit(at, &s.next)
		}
	}
}

// look0 checks at once whether the wait has ended.
func (s *stepper) look0(w *world) {
	if to := &w.l[0]; to.w != nil && !w.receipt {
		looked := s.look(to.m, to.w, w.now, s.l.Broken == noMargin)
		to.w, w.receipt = looked.w, looked.over
	}
}

// do applies a step to w. It returns false if the step is not possible.
func (s *stepper) do(w *world, at step) bool {
	l := s.l
	if l.Faults > 0 && w.used.faults() >= l.Faults {
		switch at.op {
		case opFail, opLose, opRestart, opRestartOlder, opGiveUp, opRebuild, opLedgerLose, opTimeout, opLedgerRestart, opLedgerRestartBack:
			return false
		}
	}
	switch at.op {
	case opTick, opSlowTick:
		w.now++
		if at.op == opSlowTick {
			w.slow++
		}
		return int(w.now) <= l.Horizon && int(w.slow) <= l.Slow
	case opRevoke:
		ok := w.end < revoked
		w.end = revoked
		if !l.Lazy {
			s.ledgerStep(w, opAsk, 0)
		}
		return ok
	case opCommit:
		s.commit(w, int(at.arg))
		return true
	case opAnswer:
		s.answer(w, int(at.arg))
		return true
	case opReport:
		i, to := at.arg, &w.l[0]
		if w.said[i] < revoked || to.heard[i] || w.receipt {
			return false
		}
		to.heard[i] = true
		to.m = s.tellLedger(to.m, act{verb: lReport, a: int8(i), b: w.said[i]})
		return true
	case opLedgerRead, opLedgerLose, opLedgerApply, opBarrier, opTimeout, opAsk, opLook, opLedgerRestart, opLedgerRestartBack:
		return s.ledgerStep(w, at.op, int(at.arg))
	}
	return s.verifierStep(w, at.op, int(at.arg))
}

func compare(a, b message) int {
	for _, d := range [...]int8{int8(a.kind) - int8(b.kind), a.who - b.who, a.number - b.number, a.at - b.at, a.after - b.after} {
		if d != 0 {
			return int(d)
		}
	}
	for i := range a.ended {
		if d := a.ended[i] - b.ended[i]; d != 0 {
			return int(d)
		}
	}
	return 0
}

func (w *world) lastBarrier() (seq, floor int8) {
	for i, m := range slices.Backward(w.leases.list()) {
		if m.kind == barrierEntry {
			return int8(i + 1), m.at
		}
	}
	return 0, 0
}

func (s *stepper) commit(w *world, i int) {
	m := w.air.remove(i)
	back := answer{kind: m.kind, who: m.who, number: m.number, at: m.at}
	last, floor := w.lastBarrier()
	if m.kind == barrierEntry && m.after != last && s.l.Broken != unconditional {
		back.seq, back.at = last, floor // refused; the last one is read
	} else {
		w.leases.add(m, false)
		back.seq = w.leases.n
	}
	if m.kind != givingUp {
		w.answers.add(back)
	}
}

func (s *stepper) answer(w *world, i int) {
	l := s.l
	a := w.answers.remove(i)
	if a.kind == barrierEntry {
		to := &w.l[a.who]
		if !to.busy || to.ask != a.number {
			return
		}
		to.busy = false
		to.m = s.tellLedger(to.m, act{verb: lKnown, a: a.seq, b: a.at, now: w.now})
		for ; l.Broken == readNotUpTo && to.read < a.seq; to.read++ {
			to.m = s.tellLedger(to.m, act{verb: lReadNothing, a: to.read + 1, now: w.now})
		}
		return
	}
	for i := range w.v {
		v := &w.v[i]
		if !v.alive || v.stopped || v.instance != a.who {
			continue
		}
		number := a.number
		if l.Broken == fromAck {
			v.m = s.tell(v.m, act{verb: vSend, now: w.clock()})
			number = v.m.number
		}
		_, reading := v.m.m.From()
		v.m = s.tell(v.m, act{verb: vAcked, a: number, b: a.seq})
		from, begun := v.m.m.From()
		if begun && !reading {
			v.read = int8(from) - 1
			if l.Broken == noJoin {
				v.read++
				v.m = s.tell(v.m, act{verb: vBarrier, a: v.read, b: 0})
			}
		}
		for ; l.Broken == noRead && begun && v.read < a.seq; v.read++ {
			v.m = s.tell(v.m, act{verb: vRead, a: v.read + 1})
		}
	}
}

func (s *stepper) verifierStep(w *world, op opcode, i int) bool {
	l, v, u := s.l, &w.v[i], &w.used
	if op == opStop {
		ok := v.ending && !v.stopped
		v.stopped = true
		return ok
	}
	if !v.alive || v.stopped || v.ending {
		return false
	}
	_, reading := v.m.m.From()
	switch op {
	case opSend:
		u.renewals++
		v.sent = w.clock()
		m := message{kind: renewal, who: v.instance, at: v.applied}
		told := s.tell(v.m, act{verb: vSend, now: w.clock()})
		m.number, m.joining = told.number, told.joining
		if l.Broken == fromAck {
			v.unsent++
			m.number = v.unsent
		} else {
			v.m = told
		}
		w.air.add(m, true)
		return int(u.renewals) <= l.Renewals
	case opFail:
		u.failed++
		number := w.oldestRenewal(v.instance)
		if number == 0 {
			return false
		}
		v.m = s.tell(v.m, act{verb: vFailed, a: number})
		return int(u.failed) <= l.Failed
	case opApply:
		if v.applied >= w.end {
			return false
		}
		v.applied++
		w.said[v.instance] = max(w.said[v.instance], v.applied)
		v.m = s.tell(v.m, act{verb: vApplied, a: v.applied})
		return true
	case opRead:
		if !reading || v.read >= w.leases.n {
			return false
		}
		v.read++
		at := act{verb: vRead, a: v.read}
		if m := w.leases.a[v.read-1]; m.kind == barrierEntry {
			at.verb, at.b = vBarrier, m.at
			if l.Broken == noFloor {
				at.b = 0
			}
		}
		v.m = s.tell(v.m, at)
		return true
	case opLose:
		u.lost++
		v.read = 0
		v.m = s.tell(v.m, act{verb: vLost})
		return reading && int(u.lost) <= l.Lost
	case opRestart, opRestartOlder:
		return s.restartVerifier(w, op, i)
	case opGiveUp:
		u.giveUps++
		if l.Broken == lateStop {
			v.ending = true
		} else {
			v.stopped = true
			v.m = s.tell(v.m, act{verb: vGiveUp})
		}
		w.air.add(message{kind: givingUp, who: v.instance, number: 100, at: v.applied}, true)
		return int(u.giveUps) <= l.GiveUps
	case opRebuild:
		u.rebuilds++
		if v.applied == before {
			return false
		}
		v.applied = before
		v.m = s.tell(v.m, act{verb: vApplied, a: before})
		return int(u.rebuilds) <= l.Rebuilds
	}
	panic("unknown step")
}

// oldestRenewal returns the number of an instance's oldest renewal without an
// answer, 0 for none.
func (w *world) oldestRenewal(instance int8) (number int8) {
	for _, m := range w.air.list() {
		if m.kind == renewal && m.who == instance && (number == 0 || m.number < number) {
			number = m.number
		}
	}
	for _, a := range w.answers.list() {
		if a.kind == renewal && a.who == instance && (number == 0 || a.number < number) {
			number = a.number
		}
	}
	return number
}

// restartVerifier restarts a verifier, with its index or an older one.
func (s *stepper) restartVerifier(w *world, op opcode, i int) bool {
	l, v, u := s.l, &w.v[i], &w.used
	u.restarts++
	if i != 0 || int(u.restarts) > l.Restarts {
		return false
	}
	applied, instance := v.applied, u.restarts
	if op == opRestartOlder {
		if applied == before {
			return false
		}
		applied = before // it was not on disk
	}
	if l.Broken == sameInstance {
		instance = v.instance
	}
	to := v
	if l.Twin {
		to = &w.v[1]
	}
	*to = verifier{m: s.tell(nil, act{verb: vApplied, a: applied}), alive: true, applied: applied, instance: instance}
	w.said[instance] = max(w.said[instance], applied)
	return true
}

// writeBarrier lets a ledger write a barrier that is due.
func (s *stepper) writeBarrier(w *world, i int) bool {
	l, to, u := s.l, &w.l[i], &w.used
	u.barriers++
	due, _ := to.m.m.Due(w.time())
	if to.busy || int(u.barriers) > l.Barriers || !due {
		return false
	}
	to.busy = true
	to.ask++
	floor, after := to.m.m.Next()
	m := message{kind: barrierEntry, who: int8(i), number: to.ask, at: int8(floor), after: int8(after)}
	now := w.time()
	if l.Broken == endedEarly {
		now += tick
	}
	for _, e := range to.m.m.Ended(now) {
		m.ended[e.Instance[0]-'a'] = int8(e.Number)
		if l.Broken == endedAll {
			m.ended[e.Instance[0]-'a'] = 100
		}
	}
	w.air.add(m, true)
	return true
}

func (s *stepper) ledgerStep(w *world, op opcode, i int) bool {
	l, to, u := s.l, &w.l[i], &w.used
	switch op {
	case opLedgerRead:
		// The second ledger learns of other barriers when its own is refused.
		if to.read >= w.leases.n || w.receipt || i > 0 && !l.Lazy {
			return false
		}
		to.read++
		m := w.leases.a[to.read-1]
		if m.kind == barrierEntry {
			to.m = s.tellLedger(to.m, act{verb: lBarrier, a: to.read, b: m.at, now: w.now, ended: m.ended})
			return true
		}
		at := act{verb: lRenewal, a: to.read, b: m.at, who: m.who, number: m.number, joining: m.joining, now: w.now}
		if m.kind == givingUp {
			at.verb = lGivenUp
		}
		to.m = s.tellLedger(to.m, at)
		if last, floor := w.lastBarrier(); l.Broken == doneByRenewal && last < to.read && floor >= revoked {
			to.m = s.tellLedger(to.m, act{verb: lReport, a: m.who, b: revoked})
		}
		return true
	case opLedgerLose:
		// It reads on after the end, and does not know the earlier messages.
		u.ledgerLost++
		if to.read >= w.leases.n || w.receipt {
			return false
		}
		to.read = w.leases.n
		to.m = s.tellLedger(to.m, act{verb: lLost})
		to.m = s.tellLedger(to.m, act{verb: lBegin, a: to.read + 1, now: w.now})
		return int(u.ledgerLost) <= l.LedgerLost
	case opLedgerApply:
		// The wait of the first ledger names the position itself. This is the
		// floor of the second ledger's barrier.
		if i == 0 || w.end < revoked {
			return false
		}
		to.m = s.tellLedger(to.m, act{verb: lApplied, a: revoked, now: w.now})
		return true
	case opBarrier:
		return s.writeBarrier(w, i)
	case opTimeout:
		u.timeouts++
		ok := to.busy && int(u.timeouts) <= l.Timeouts
		to.busy = false
		return ok
	case opAsk:
		if to.w != nil || w.end < revoked || w.receipt {
			return false
		}
		to.m, to.w = s.ask(to.m, w.now)
		return true
	case opLook:
		if to.w == nil || w.receipt || !l.Lazy {
			return false
		}
		looked := s.look(to.m, to.w, w.now, l.Broken == noMargin)
		if !looked.over && looked.w.sum == to.w.sum {
			return false
		}
		to.w, w.receipt = looked.w, looked.over
		return true
	case opLedgerRestart, opLedgerRestartBack:
		u.ledgerRestarts++
		if int(u.ledgerRestarts) > l.LedgerRestarts || w.receipt {
			return false
		}
		*to = ledger{m: s.tellLedger(nil, act{verb: lApplied, a: before, now: w.now}), read: w.leases.n, ask: to.ask}
		begin := act{verb: lBegin, now: w.now}
		if op == opLedgerRestartBack {
			to.read = 0
		}
		if op == opLedgerRestartBack || l.Broken == forgetHolders {
			begin.b = 1
		}
		begin.a = to.read + 1
		to.m = s.tellLedger(to.m, begin)
		return true
	}
	panic("unknown step")
}

// key appends an encoding that differs for any two different states.
func (w *world) key(b []byte) []byte {
	b = append(b, byte(w.now), byte(w.slow), byte(w.end), bit(w.receipt))
	u := w.used
	b = append(b, byte(u.renewals), byte(u.barriers), byte(u.lost), byte(u.ledgerLost), byte(u.restarts), byte(u.giveUps), byte(u.rebuilds), byte(u.failed), byte(u.timeouts), byte(u.ledgerRestarts))
	for _, list := range [][]message{w.leases.list(), w.air.list()} {
		b = append(b, byte(len(list)))
		for _, m := range list {
			b = append(b, byte(m.kind), byte(m.who), byte(m.number), bit(m.joining), byte(m.at), byte(m.after))
			for _, number := range m.ended {
				b = append(b, byte(number))
			}
		}
	}
	for _, a := range w.answers.list() {
		b = append(b, byte(a.kind), byte(a.who), byte(a.number), byte(a.seq), byte(a.at))
	}
	for i := range w.v {
		v := &w.v[i]
		b = append(b, 'v', byte(v.instance), byte(v.applied), byte(v.read), bit(v.alive), bit(v.stopped), bit(v.ending), byte(v.unsent), byte(v.sent))
		b = binary.LittleEndian.AppendUint64(b, v.m.sum)
	}
	for i := range w.l {
		l := &w.l[i]
		b = append(b, 'l', byte(l.read), bit(l.busy), byte(l.ask))
		for _, h := range l.heard {
			b = append(b, bit(h))
		}
		b = binary.LittleEndian.AppendUint64(b, l.m.sum)
		if l.w != nil {
			b = binary.LittleEndian.AppendUint64(b, l.w.sum)
		}
	}
	for _, p := range w.said {
		b = append(b, byte(p))
	}
	return b
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}
