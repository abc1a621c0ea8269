package clustertest

import (
	"cmp"
	"slices"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
)

// reference computes the state that a log leads to, with the reference fold. It
// folds each record with only the records that its events rest on, because
// folding the whole log for each query takes too long.
type reference struct {
	messages []events.Message
	entries  map[events.Position]logged
	records  map[string][]logged // id of a record -> its events, in order
	states   map[string]eventstest.State
	keys     map[events.CommandKey][]logged
	took     map[events.Position]bool    // cache of tookEffect
	voids    map[events.Position]bool    // cache of void
	actors   map[events.TokenID][]logged // token -> events that it caused; nil until the first query
	broken   []events.Position           // positions that cannot be decoded
}

// logged is an event of the log, and the message that it was decoded from.
type logged struct {
	*events.Event
	message events.Message
}

func (l logged) at() events.Position { return l.message.Position }

// newReference decodes a log. It skips messages that cannot be decoded.
func newReference(log []events.Message) *reference {
	j := &reference{
		messages: log, entries: map[events.Position]logged{}, records: map[string][]logged{},
		states: map[string]eventstest.State{}, keys: map[events.CommandKey][]logged{},
		took: map[events.Position]bool{}, voids: map[events.Position]bool{},
	}
	for _, m := range log {
		e, err := events.DecodeMessage(m)
		if err != nil {
			j.broken = append(j.broken, m.Position)
			continue
		}
		l := logged{e, m}
		j.entries[m.Position] = l
		j.records[e.About] = append(j.records[e.About], l)
		if e.Key != "" {
			j.keys[e.Key] = append(j.keys[e.Key], l)
		}
	}
	return j
}

// related returns the other records that an event names: its actor, the records
// that its decision rests on, and its account or owner.
func related(l logged) []string {
	ids := []string{string(l.Actor.Token), string(l.Actor.Account)}
	switch c := l.Change.(type) {
	case *events.TokenCreated:
		ids = append(ids, string(c.Account))
	case *events.AccountCreated:
		ids = append(ids, string(c.Owner))
	case *events.AccountEdited:
		if c.Owner != nil {
			ids = append(ids, string(*c.Owner))
		}
	}
	for _, r := range l.Rests {
		ids = append(ids, r.About)
	}
	return slices.DeleteFunc(ids, func(id string) bool { return id == "" })
}

// state returns the fold of a record with the records that its events rest on.
// Other records in that fold are incomplete.
func (j *reference) state(id string) eventstest.State {
	if s, ok := j.states[id]; ok {
		return s
	}
	seen := map[string]bool{id: true, events.PolicyName: true}
	open := []string{id, events.PolicyName}
	var part []events.Message
	for len(open) > 0 {
		next := open[0]
		open = open[1:]
		for _, l := range j.records[next] {
			part = append(part, l.message)
			for _, other := range related(l) {
				if !seen[other] {
					seen[other] = true
					open = append(open, other)
				}
			}
		}
	}
	slices.SortFunc(part, func(a, b events.Message) int { return cmp.Compare(a.Position, b.Position) })
	s := eventstest.Fold(part)
	j.states[id] = s
	return s
}

// unchangedVerb is the verb of events that record that nothing had to change.
const unchangedVerb = "unchanged"

// tookEffect reports whether the event at a position changed its record. The
// version of the record is then that position. Some kinds never change a
// record.
func (j *reference) tookEffect(at events.Position) bool {
	took, known := j.took[at]
	if known {
		return took
	}
	l, ok := j.entries[at]
	if !ok || l.Change.Kind().Verb() == unchangedVerb {
		return false
	}
	version := events.Position(0)
	until := j.state(l.About).Until(at)
	switch l.Change.Kind().Noun() {
	case events.NounToken:
		if t, ok := until.Token(events.TokenID(l.About)); ok {
			version = t.Version
		}
	case events.NounAccount:
		if a, ok := until.Account(events.AccountID(l.About)); ok {
			version = a.Version
		}
	case events.NounPolicy:
		version = until.Policy().Version
	}
	j.took[at] = version == at
	return version == at
}

// void reports whether the event at a position is void: a record that it rests
// on had changed, or its actor had ended.
func (j *reference) void(at events.Position) bool {
	l, ok := j.entries[at]
	if !ok {
		return false
	}
	if void, known := j.voids[at]; known {
		return void
	}
	_, void := j.state(l.About).Void(at)
	j.voids[at] = void
	return void
}

// effect returns the event of a command that changed a record, found by the
// command's key. It returns false if there is none.
func (j *reference) effect(key events.CommandKey) (logged, bool) {
	for _, l := range j.keys[key] {
		if j.tookEffect(l.at()) {
			return l, true
		}
	}
	return logged{}, false
}

// record is the state of a token and its account, or of an account alone, at a
// position.
type record struct {
	token   events.Token
	made    bool // the token exists
	account events.Account
	known   bool // the account exists
	cut     bool // a command ended all tokens of the account at once
}

// ended reports whether the token has ended forever.
func (r record) ended() bool { return r.token.State == events.Revoked || r.cut || r.account.Erased }

// look returns the state of a token at a position.
func (j *reference) look(token, account string, at events.Position) (r record) {
	r.account, r.known = j.state(account).Until(at).Account(events.AccountID(account))
	if token == "" {
		return r
	}
	r.token, r.made = j.state(token).Until(at).Token(events.TokenID(token))
	r.cut = r.made && j.cutOff(r.token, at)
	return r
}

// cutOff reports whether a command ended all tokens of the account, or of all
// accounts, after the creation of a token and up to a position.
func (j *reference) cutOff(t events.Token, at events.Position) bool {
	for _, id := range []string{string(t.Account), events.PolicyName} {
		for _, l := range j.records[id] {
			switch l.Change.(type) {
			case *events.AccountTokensRevoked, *events.PolicyTokensRevoked:
				if l.at() > t.CreatedIn && l.at() <= at && j.tookEffect(l.at()) {
					return true
				}
			}
		}
	}
	return false
}

// turns returns, in order, the positions of the events of a record and its
// account. The state does not change between two of them.
func (j *reference) turns(ids ...string) (list []events.Position) {
	for _, id := range append(ids, events.PolicyName) {
		for _, l := range j.records[id] {
			list = append(list, l.at())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
