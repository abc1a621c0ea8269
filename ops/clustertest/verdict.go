package clustertest

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Violation is a part of a history that breaks an invariant.
type Violation struct {
	// Invariant is the name of the invariant, such as I3.
	Invariant string
	Text      string
}

func (v Violation) String() string { return v.Invariant + ": " + v.Text }

// violations collects them.
type violations []Violation

func (v *violations) add(invariant, format string, args ...any) {
	*v = append(*v, Violation{invariant, fmt.Sprintf(format, args...)})
}

// Violations returns the violations that the record shows without the log:
//
//   - I3: a check that began after the receipt of a command, and was answered as if
//     the command had not happened: allowed although the command forbids it, or
//     from a position before the receipt's.
//   - I5: a node that answered from a position, and later from an earlier one, also
//     after restarts.
//   - I11: a node that answered after it had been cut off from the log for longer
//     than its lease.
//   - I15: a ledger that answered a command while it was cut off from the others.
func (r Record) Violations() []Violation {
	var found violations
	r.checkForbidden(&found)
	r.checkProved(&found)
	r.checkBackwards(&found)
	r.checkOutages(&found)
	r.checkMinority(&found)
	return found
}

// checkForbidden reports checks that were allowed although a command with a
// receipt had forbidden them before they began. It uses only the commands, not
// the positions that nodes report.
func (r Record) checkForbidden(found *violations) {
	about := map[string][]Change{} // token or account -> its commands
	for _, c := range r.Changes {
		if c.About != "" {
			about[c.About] = append(about[c.About], c)
		}
	}
	for _, check := range r.Checks {
		if check.Verdict != Allowed {
			continue
		}
		for _, id := range []string{check.Token.ID, check.Token.Account} {
			for _, c := range about[id] {
				if c.Proved == 0 || c.Ended >= check.Began || !c.forbids(check) || undone(about[id], c, check) {
					continue
				}
				found.add("I3", "%s; before it began, this was proved: %s", check, c)
			}
		}
	}
}

// forbids reports whether a check must not be allowed after the command, until
// another command allows it again.
func (c Change) forbids(check Check) bool {
	switch c.Kind {
	case events.KindTokenRevoked, events.KindTokenSuspended, events.KindAccountSuspended, events.KindAccountErased:
		return true
	case events.KindTokenScoped, events.KindAccountGranted:
		return !events.Matomo.AnyCovers(c.Scopes, check.Need)
	}
	return c.Ends != nil && c.Ends == check.Token
}

// undone reports whether a later command may have allowed again what c forbids,
// by the time that the check ended.
func undone(all []Change, c Change, check Check) bool {
	for _, later := range all {
		var allows bool
		switch c.Kind {
		case events.KindTokenSuspended:
			allows = later.Kind == events.KindTokenResumed
		case events.KindAccountSuspended:
			allows = later.Kind == events.KindAccountResumed
		case events.KindTokenScoped, events.KindAccountGranted:
			allows = later.Kind == c.Kind && !later.forbids(check)
		}
		if !allows || later.Began > check.Ended || later.Outcome == Refused {
			continue
		}
		if later.Outcome == Unknown || later.Position > c.Position {
			return true
		}
	}
	return false
}

// checkProved reports answers from a position before one that a receipt covered
// when the check began. This applies to every answer, for any command and any
// check.
func (r Record) checkProved(found *violations) {
	proofs := slices.DeleteFunc(slices.Clone(r.Changes), func(c Change) bool { return c.Proved == 0 })
	slices.SortFunc(proofs, func(a, b Change) int { return cmp.Compare(a.Ended, b.Ended) })
	highest := make([]Change, len(proofs)) // of the proofs up to each
	for i, p := range proofs {
		highest[i] = p
		if i > 0 && highest[i-1].Proved > p.Proved {
			highest[i] = highest[i-1]
		}
	}
	for _, check := range r.Checks {
		if !check.Verdict.answered() {
			continue
		}
		n := sort.Search(len(proofs), func(i int) bool { return proofs[i].Ended >= check.Began })
		if n > 0 && check.Position < highest[n-1].Proved {
			found.add("I3", "%s; before it began, position %d was proved: %s", check, highest[n-1].Proved, highest[n-1])
		}
	}
}

func (v Verdict) answered() bool { return v == Allowed || v == Denied }

// checkBackwards reports a node that answered from an earlier position in a
// check that began after another had ended.
func (r Record) checkBackwards(found *violations) {
	nodes := map[string][]Check{}
	for _, c := range r.Checks {
		if c.Verdict.answered() {
			nodes[c.Node] = append(nodes[c.Node], c)
		}
	}
	for _, name := range slices.Sorted(mapKeys(nodes)) {
		begun := nodes[name]
		slices.SortFunc(begun, func(a, b Check) int { return cmp.Compare(a.Began, b.Began) })
		ended := slices.Clone(begun)
		slices.SortFunc(ended, func(a, b Check) int { return cmp.Compare(a.Ended, b.Ended) })
		var highest Check // of the checks that ended before the current one began
		next := 0
		for _, c := range begun {
			for ; next < len(ended) && ended[next].Ended < c.Began; next++ {
				if ended[next].Position > highest.Position {
					highest = ended[next]
				}
			}
			if c.Position < highest.Position {
				found.add("I5", "%s; before that, %s", c, highest)
			}
		}
	}
}

func mapKeys[K comparable, V any](m map[K]V) func(yield func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// checkOutages reports checks that a node answered past its lease while it was
// cut off. The last renewal was before the cut, so the lease ends at most one
// lease after the cut.
func (r Record) checkOutages(found *violations) {
	for _, o := range r.Outages {
		for _, c := range r.Checks {
			if c.Node == o.Node && c.Verdict.answered() && c.Began > o.From+o.Lease && c.Ended < o.To {
				found.add(
					"I11",
					"%s; it was cut off at %s, and its lease is %s",
					c,
					o.From.Round(time.Millisecond),
					o.Lease,
				)
			}
		}
	}
}

// LogViolations compares a record with the final log, and checks the log
// itself. root is the account that sent the commands without a token of their
// own.
//
//   - I1: an acknowledged command is in the log, at its position.
//   - I2: no command is in the log twice, and no refused command is in it.
//   - I4: an answer follows from the log up to the position that it names.
//   - I14: nothing that an actor does takes effect after the actor's end.
//   - I15: commands on a record are linearizable.
func (r Record) LogViolations(log []events.Message, root events.AccountID) []Violation {
	var found violations
	j := newReference(log)
	r.checkCommands(&found, j, root)
	r.checkAnswers(&found, j)
	r.checkActors(&found, j, root)
	r.checkOrder(&found, j, root)
	return found
}

// checkCommands compares each command with its event.
func (r Record) checkCommands(found *violations, j *reference, root events.AccountID) {
	first := map[events.CommandKey]logged{}
	for i, m := range j.messages {
		if m.Position != events.Position(i+1) {
			found.add("I7", "message %d of the log is at position %d", i+1, m.Position)
		}
		e := j.entries[m.Position]
		if e.Event == nil || e.Key == "" || j.void(m.Position) {
			continue // a command whose event is void is decided again
		}
		if twin, ok := first[e.Key]; ok {
			found.add("I2", "positions %d and %d are one command, a doubled %s of %s",
				twin.at(), m.Position, e.Change.Kind(), e.About)
			continue
		}
		first[e.Key] = e
	}
	for _, at := range j.broken {
		found.add("I1", "position %d of the log cannot be read", at)
	}
	for _, c := range r.Changes {
		if c.Many != nil {
			continue // the check of I15 compares it with the events of its tokens
		}
		key := events.NewCommandKey(c.account(root), c.Key)
		p, there := first[key]
		at := j.entries[c.Position]
		switch {
		case c.Outcome == Refused && there:
			found.add("I2", "%s; it stands at position %d", c, p.at())
		case c.Outcome == Unknown && there && !c.does(p):
			found.add("I2", "%s; at position %d it became a %s", c, p.at(), p.Change.Kind())
		case c.Outcome != Done:
		case at.Event == nil:
			found.add("I1", "%s; the log ends at position %d", c, len(j.messages))
		case at.Key != key:
			stands := "its own is nowhere"
			if there {
				stands = fmt.Sprintf("its own is %d", p.at())
			}
			found.add("I1", "%s; that position holds a %s of %s, and %s", c, at.Change.Kind(), at.About, stands)
		case !c.does(at) || at.About != c.About:
			found.add("I1", "%s; that position holds a %s of %s", c, at.Change.Kind(), at.About)
		}
	}
}

// does reports whether an event is the change that the command asks for, or
// records that the command changed nothing.
func (c Change) does(l logged) bool {
	kind := l.Change.Kind()
	return kind == c.Kind || kind.Noun() == c.Kind.Noun() && kind.Verb() == unchangedVerb
}

// checkAnswers compares each answer with the reference at the answer's
// position.
func (r Record) checkAnswers(found *violations, j *reference) {
	type question struct {
		token *Token
		need  string
	}
	asked := map[question][]Check{}
	for _, c := range r.Checks {
		if c.Verdict.answered() {
			q := question{c.Token, c.Need.String()}
			asked[q] = append(asked[q], c)
		}
	}
	now := time.Now() // no token of a history expires
	for q, checks := range asked {
		state := j.state(q.token.ID)
		turns := j.turns(q.token.ID, q.token.Account)
		allowed := make([]bool, len(turns)+1) // after so many turns
		for i, at := range turns {
			use, ok := state.Until(at).Use(q.token.Digest, now)
			allowed[i+1] = ok && use.Covers(events.Matomo, checks[0].Need)
		}
		for _, c := range checks {
			if int(c.Position) > len(j.messages) {
				found.add("I4", "%s; the log ends at position %d", c, len(j.messages))
				continue
			}
			n := sort.Search(len(turns), func(i int) bool { return turns[i] > c.Position })
			if (c.Verdict == Allowed) != allowed[n] {
				found.add("I4", "%s; the log up to there says allowed: %t", c, allowed[n])
			}
		}
	}
}
