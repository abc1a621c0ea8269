package clustertest

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Codes of problems that depend on the state of the log.
const (
	codeNotFound        = "not_found"
	codeEnded           = "ended"
	codeConflict        = "conflict"
	codeForbidden       = "forbidden"
	codeUnauthenticated = "unauthenticated"
)

// checkOrder reports answers that no order of the commands explains (I15).
// Commands on a record are linearizable: each takes effect, or is decided, at
// one moment between its request and its answer.
//
// The log is the order of all commands that changed something, so the check is
// exact and needs no search. A command that changed something is at the
// position of its event. For a command that changed nothing, the check looks
// for a position:
//
//   - not before anything that was acknowledged before its request was sent,
//   - before the event of every command that began after its answer,
//   - not before the position of an answer about the same record that came
//     before its request was sent,
//   - at its event that records that nothing had to change, if there is one,
//   - where the answer is right for the state of the record.
//
// The smallest such position leaves the most room for the answers that follow,
// so taking it is enough.
func (r Record) checkOrder(found *violations, j *reference, root events.AccountID) {
	o := newOrder(r.Changes, j, root)
	for _, s := range o.stands {
		if floor := o.floor(s.change.Began); s.at <= floor {
			found.add("I15", "%s; it stands at position %d, and before it began position %d was acknowledged",
				s.change, s.at, floor)
		}
	}
	answers := map[[2]string][]Change{} // token, account -> answers that changed nothing there
	for _, c := range r.Changes {
		if c.By != nil || !c.answered() || c.Code == codeForbidden {
			continue
		}
		if c.Many != nil {
			o.checkMatched(found, c)
		}
		for _, about := range o.unchanged(c) {
			answers[about] = append(answers[about], c)
		}
	}
	inOrder := func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }
	for _, about := range slices.SortedFunc(mapKeys(answers), inOrder) {
		o.checkAbout(found, about[0], about[1], answers[about])
	}
}

// order is the evidence of the log and the clients' clocks about the order of
// commands.
type order struct {
	*reference
	root   events.AccountID
	stands []stand  // commands that changed something, each with its event
	tokens []*Token // whose creation was acknowledged

	byEnd   []Change          // commands that were acknowledged, by their end
	highest []events.Position // that the first n of byEnd name
	byBegin []stand           // stands by their begin
	lowest  []events.Position // events of the last n of byBegin
}

// stand is a command that changed something, and its event.
type stand struct {
	change Change
	at     events.Position
}

func newOrder(changes []Change, j *reference, root events.AccountID) *order {
	o := &order{reference: j, root: root}
	for _, c := range changes {
		if c.Late {
			continue // its event is the one of the command that it repeats
		}
		if l, ok := j.effect(events.NewCommandKey(c.account(root), c.Key)); ok {
			o.stands = append(o.stands, stand{c, l.at()})
		}
		if c.Kind == events.KindTokenCreated && c.Outcome == Done && c.Made != nil {
			o.tokens = append(o.tokens, c.Made)
		}
	}
	for _, c := range changes {
		for _, t := range o.meant(c) {
			if l, ok := j.effect(c.keyOf(t, root)); ok {
				o.stands = append(o.stands, stand{c, l.at()})
			}
		}
		if c.Outcome == Done {
			o.byEnd = append(o.byEnd, c)
		}
	}
	slices.SortFunc(o.byEnd, func(a, b Change) int { return cmp.Compare(a.Ended, b.Ended) })
	var highest events.Position
	for _, c := range o.byEnd {
		highest = max(highest, c.Position, c.Proved)
		o.highest = append(o.highest, highest)
	}
	o.byBegin = slices.Clone(o.stands)
	slices.SortFunc(o.byBegin, func(a, b stand) int { return cmp.Compare(a.change.Began, b.change.Began) })
	o.lowest = make([]events.Position, len(o.byBegin)+1)
	o.lowest[len(o.byBegin)] = math.MaxInt64
	for i, s := range slices.Backward(o.byBegin) {
		o.lowest[i] = min(s.at, o.lowest[i+1])
	}
	return o
}

// keyOf returns the key of the event that revokes one token of a bulk
// revocation.
func (c Change) keyOf(t *Token, root events.AccountID) events.CommandKey {
	return events.NewCommandKey(c.account(root), c.Key+"\x00"+t.ID)
}

// floor returns the highest position that was acknowledged before a time. The
// log up to that position was stored then.
func (o *order) floor(t time.Duration) events.Position {
	n := sort.Search(len(o.byEnd), func(i int) bool { return o.byEnd[i].Ended >= t })
	if n == 0 {
		return 0
	}
	return o.highest[n-1]
}

// ceiling returns the last position before the events of all commands that
// began after a time.
func (o *order) ceiling(t time.Duration) events.Position {
	n := sort.Search(len(o.byBegin), func(i int) bool { return o.byBegin[i].change.Began > t })
	return o.lowest[n] - 1
}

// meant returns the tokens that a bulk revocation covers.
func (o *order) meant(c Change) (list []*Token) {
	if c.Many == nil {
		return nil
	}
	for _, t := range o.tokens {
		if c.Many.means(t) {
			list = append(list, t)
		}
	}
	return list
}

// unchanged returns the records that an answer describes and that its command
// did not change: each the ids of a token and its account, or of an account
// alone.
func (o *order) unchanged(c Change) (about [][2]string) {
	if c.Many != nil {
		if c.Outcome != Done {
			return nil
		}
		for _, t := range o.meant(c) {
			if _, ok := o.effect(c.keyOf(t, o.root)); !ok {
				about = append(about, [2]string{t.ID, t.Account})
			}
		}
		return about
	}
	if _, ok := o.effect(events.NewCommandKey(o.root, c.Key)); ok || c.Late && o.own(c) {
		return nil // a duplicate gets the answer of the command that it repeats
	}
	switch {
	case c.Kind == events.KindAccountCreated, c.Kind == events.KindTokenCreated && c.Outcome == Done:
		return nil // the check of I1 compares it with its event
	case c.Kind.Noun() == events.NounAccount:
		return [][2]string{{"", c.About}}
	}
	return [][2]string{{c.About, c.Account}}
}

// own reports whether the answer's position is that of an event of the command.
func (o *order) own(c Change) bool {
	l, ok := o.entries[c.Position]
	return ok && c.Outcome == Done && c.Key != "" && l.Key == events.NewCommandKey(c.account(o.root), c.Key)
}

// checkAbout finds positions for the answers about one record.
func (o *order) checkAbout(found *violations, token, account string, answers []Change) {
	turns := o.turns(slices.DeleteFunc([]string{token, account}, func(id string) bool { return id == "" })...)
	slices.SortStableFunc(answers, func(a, b Change) int { return cmp.Compare(a.Sent, b.Sent) })
	type placed struct {
		ended time.Duration
		at    events.Position
	}
	var before []placed
	for _, c := range answers {
		sent, to := c.Sent, o.ceiling(c.Ended)
		if o.own(c) {
			// An event records that nothing had to change. The command was
			// decided there, perhaps for an earlier request whose answer was
			// lost.
			sent, to = c.Began, min(to, c.Position)
		}
		from := o.floor(sent)
		for _, p := range before {
			if p.ended < sent {
				from = max(from, p.at)
			}
		}
		if o.own(c) {
			from = max(from, c.Position)
		}
		at, ok := from, false
		for i := sort.Search(len(turns), func(i int) bool { return turns[i] > from }); at <= to; i++ {
			if ok = c.fits(o.look(token, account, at)); ok || i == len(turns) {
				break
			}
			at = turns[i]
		}
		if !ok {
			found.add(
				"I15",
				"%s; no state of %s since position %d, which was known before it was sent, explains the answer%s",
				c,
				cmp.Or(token, account),
				from,
				o.describe(token, account, from),
			)
			continue
		}
		before = append(before, placed{c.Ended, at})
	}
}

// describe describes a record.
func (o *order) describe(token, account string, at events.Position) string {
	r := o.look(token, account, at)
	switch {
	case r.cut:
		return ": all tokens of the account had been revoked"
	case r.made:
		return ": the token was " + string(r.token.State)
	case token != "":
		return ": the token did not exist"
	case r.account.Suspended:
		return ": the account was suspended"
	}
	return ""
}

// needsAccount are the commands on tokens that a suspended account refuses.
var needsAccount = []events.Kind{events.KindTokenCreated, events.KindTokenRotated, events.KindTokenScoped}

// fits reports whether the answer of a command that changed nothing is right
// for a state.
func (c Change) fits(r record) bool {
	account := c.Kind.Noun() == events.NounAccount && c.Many == nil
	switch c.Code {
	case codeNotFound:
		return account && !r.known || !account && !r.made
	case codeEnded:
		stopped := r.account.Suspended && slices.Contains(needsAccount, c.Kind)
		return account && r.account.Erased || !account && (stopped || r.ended())
	case codeConflict:
		return account && r.account.Version == c.Version || !account && r.token.Version == c.Version
	case "":
	default:
		return false
	}
	switch {
	case c.Many != nil:
		return !r.made || r.ended()
	case c.Kind == events.KindTokenSuspended:
		return r.token.State == events.Suspended || r.cut
	case c.Kind == events.KindTokenResumed:
		return r.made && r.token.State == events.Active
	case c.Kind == events.KindTokenRevoked:
		return r.ended()
	case c.Kind == events.KindAccountSuspended:
		return r.account.Suspended
	case c.Kind == events.KindAccountResumed:
		return r.known && !r.account.Suspended
	case c.Kind == events.KindAccountGranted:
		return slices.Equal(events.ScopeStrings(r.account.Grants), events.ScopeStrings(c.Scopes))
	case c.Kind == events.KindTokenScoped:
		return slices.Equal(events.ScopeStrings(r.token.Scopes), events.ScopeStrings(c.Scopes))
	}
	return false
}

// checkMatched reports a bulk revocation that counts too few tokens. It must
// count those that were created before it was sent, unless a command that began
// before its answer ended them.
func (o *order) checkMatched(found *violations, c Change) {
	if c.Outcome != Done {
		return
	}
	sure, from, to := 0, o.floor(c.Sent), o.ceiling(c.Ended)
	for _, t := range o.meant(c) {
		r := o.look(t.ID, t.Account, from)
		if !r.made || r.ended() {
			continue
		}
		end, ok := o.endOf(t)
		own := ok && (end.Key == c.keyOf(t, o.root) || end.Key == events.NewCommandKey(o.root, c.Key))
		if own || !ok || end.at() > to {
			sure++
		}
	}
	if c.Many.Matched < sure {
		found.add("I15", "%s; %d such tokens had been created before it was sent, up to position %d, and lived",
			c, sure, from)
	}
}

// endOf returns the event that ended a token forever, or false.
func (o *order) endOf(t *Token) (logged, bool) {
	for _, at := range o.turns(t.ID, t.Account) {
		if o.look(t.ID, t.Account, at).ended() {
			return o.entries[at], true
		}
	}
	return logged{}, false
}

// checkMinority reports commands that a ledger answered while it was cut off
// from the other ledgers (I15). It must answer that it is unavailable.
func (r Record) checkMinority(found *violations) {
	for _, o := range r.Outages {
		for _, c := range r.Changes {
			if c.Ledger == o.Node && c.answered() && c.Sent > o.From && c.Ended < o.To {
				found.add("I15", "%s; the ledger was cut off from the others at %s", c, o.From.Round(time.Millisecond))
			}
		}
	}
}
