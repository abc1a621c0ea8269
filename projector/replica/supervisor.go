package replica

import "github.com/tokenledger/tokenledger/events"

// supervisor decides what happens to an index that is open: when another is built
// beside it, when that takes its place, and when the index is given up. It has no
// clock and no I/O, so tests explore it in every order of events. [Replica.supervise]
// drives it.
//
// At most one index is built at a time, the candidate. A dispute with other nodes
// comes before everything else: its candidate is built from the log alone,
// because a snapshot is what some node made.
type supervisor struct {
	// logOnly says that snapshots are not used: one was of another log.
	logOnly bool
	// settles says that the index in use settles the dispute, once it has reached
	// the position in question.
	settles bool

	building bool
	build    request // the candidate's, while building
	retrying bool
	retry    request // the one that failed and waits for the timer, while retrying
}

// request asks for a new index.
type request struct {
	reason error
	origin origin
}

// origin says how an index without a folder begins.
type origin struct {
	snapshot bool            // it may begin with a snapshot
	keep     events.Position // where its digest will be asked for; 0 for nowhere
}

// input is one event that the supervisor decides on.
type input struct {
	kind inputKind
	// dispute is the one that stands, nil for none.
	dispute *dispute
	// reason is that of rebuildAsked.
	reason error
	// failure is that of buildFailed.
	failure failure
}

type inputKind int

const (
	looked       inputKind = iota // nothing happened, but a dispute may have begun
	stopped                       // the index in use has stopped
	reached                       // the index in use has come to the disputed position
	retryDue                      // the retry timer fired
	rebuildAsked                  // an operator or a scrub asked for a new index
	buildFailed                   // the candidate could not be built
	built                         // the candidate has taken the place of the index in use
	fellBehind                    // the candidate could not: the index in use is ahead again
)

// failure says why a candidate could not be built.
type failure int

const (
	otherFailure failure = iota
	noRoom               // the disk has no room for two indexes
	foreignLog           // its snapshot is of another log
)

// output is what to do, in the order of the fields.
type output struct {
	discard bool     // remove the candidate
	retry   bool     // start the retry timer
	settle  bool     // let the index in use settle the dispute, and answer
	retire  bool     // remove the index that was in use before
	catchUp bool     // let the candidate catch up with the index in use again
	dismiss bool     // end the dispute without a decision
	start   *request // begin to build a candidate
	giveUp  bool     // stop supervising: close the index in use
}

// next takes an input and returns what to do about it.
func (s *supervisor) next(in input) output {
	switch in.kind {
	case stopped:
		return output{giveUp: true}
	case looked:
		return s.look(in.dispute)
	case reached:
		s.settles = false
		return output{settle: true}
	case retryDue:
		r, due := s.retry, s.retrying
		s.retrying = false
		if due && !s.building && in.dispute == nil {
			return s.begin(r)
		}
	case rebuildAsked:
		if !s.building && in.dispute == nil {
			return s.begin(request{in.reason, origin{snapshot: !s.logOnly}})
		}
	case buildFailed:
		return s.failed(in)
	case built:
		s.building = false
		return output{settle: true, retire: true}
	case fellBehind:
		return output{catchUp: true}
	}
	return output{}
}

// look begins to build the candidate that settles a dispute, in place of any
// other. One that failed is tried again when the timer fires.
func (s *supervisor) look(d *dispute) output {
	if d == nil || s.settles {
		return output{}
	}
	r := d.request()
	if s.building && s.build == r || s.retrying && s.retry == r {
		return output{}
	}
	discard := s.building
	out := s.begin(r)
	out.discard = discard
	return out
}

// begin builds a candidate. What else waits to be tried again is forgotten.
func (s *supervisor) begin(r request) output {
	s.building, s.build, s.retrying = true, r, false
	return output{start: &r}
}

// failed deals with a candidate that could not be built. Without room for two
// indexes, a fenced one is given up: it answers nothing, and makes room.
func (s *supervisor) failed(in input) output {
	s.logOnly = s.logOnly || in.failure == foreignLog
	r := s.build
	r.origin.snapshot = r.origin.snapshot && !s.logOnly
	s.building = false
	out := output{discard: true}
	switch {
	case in.failure != noRoom:
		s.retrying, s.retry, out.retry = true, r, true
	case in.dispute != nil && !in.dispute.serving:
		out.giveUp = true
	case in.dispute != nil:
		out.dismiss = true
	}
	return out
}
