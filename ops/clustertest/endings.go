package clustertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Ending is a command that ended a token, or removed a right that its holder
// needs, while the holder worked with it.
type Ending struct {
	How    string // as in "rotated"
	Actor  *Token
	Change Change // the command
}

// checkActors reports effects of an actor after its end (I14): events of an
// ended actor that changed something, and acknowledged commands of an ended
// actor.
func (r Record) checkActors(found *violations, j *reference, root events.AccountID) {
	j.checkEnds(found)
	for _, e := range r.Endings {
		e.check(found, r, j, root)
	}
	for _, c := range r.Changes {
		if c.Outcome != Done || c.Late || c.Many != nil {
			continue
		}
		at := j.entries[c.Position]
		if at.Event != nil && at.Key == events.NewCommandKey(c.account(root), c.Key) && j.void(c.Position) {
			found.add("I14", "%s; it was acknowledged, and its event had no effect", c)
		}
	}
}

// checkEnds reports events in the log whose actor had ended at a lower
// position, as far as the log alone shows that.
func (j *reference) checkEnds(found *violations) {
	for _, m := range j.messages {
		l, ok := j.entries[m.Position]
		if !ok || l.Actor.Account == "" || !j.tookEffect(l.at()) {
			continue
		}
		r := j.look(string(l.Actor.Token), string(l.Actor.Account), l.at()-1)
		why := ""
		switch {
		case !r.known:
			why = "the account did not exist"
		case r.account.Erased:
			why = "the account was erased"
		case r.account.Suspended:
			why = "the account was suspended"
		case l.Actor.Token == "":
		case !r.made:
			why = "the token did not exist"
		case r.cut:
			why = "all tokens of the account were revoked"
		case r.token.State != events.Active:
			why = fmt.Sprintf("the token was %s", r.token.State)
		}
		if why != "" {
			found.add("I14", "position %d: %s of %s by %s took effect, though %s",
				l.at(), l.Change.Kind(), l.About, l.actor(), why)
		}
	}
}

// actor describes the actor of an event.
func (l logged) actor() string {
	if l.Actor.Token != "" {
		return string(l.Actor.Token)
	}
	return string(l.Actor.Account)
}

// at returns the position of the ending's event, 0 if it is not in the log.
func (e Ending) at(j *reference, root events.AccountID) events.Position {
	if l, ok := j.effect(events.NewCommandKey(root, e.Change.Key)); ok {
		return l.at()
	}
	return 0
}

// check reports effects of the actor after this ending. A token that was
// rotated or demoted must be as ended for its holder as one that was revoked.
func (e Ending) check(found *violations, r Record, j *reference, root events.AccountID) {
	at := e.at(j, root)
	for _, l := range j.deeds(e.Actor) {
		if at != 0 && l.at() > at && j.tookEffect(l.at()) {
			found.add("I14", "position %d: %s of %s by %s took effect, and the actor was %s at position %d",
				l.at(), l.Change.Kind(), l.About, l.actor(), e.How, at)
		}
	}
	if e.Change.Outcome != Done {
		return
	}
	for _, c := range r.Changes {
		if c.By == e.Actor && c.Outcome == Done && c.Began > e.Change.Ended {
			found.add("I14", "%s; before it began, its actor was %s, acknowledged at %s",
				c, e.How, e.Change.Ended.Round(time.Millisecond))
		}
	}
}

// deeds returns the events that a token caused.
func (j *reference) deeds(actor *Token) (list []logged) {
	if j.actors == nil {
		j.actors = map[events.TokenID][]logged{}
		for _, m := range j.messages {
			if l, ok := j.entries[m.Position]; ok && l.Actor.Token != "" {
				j.actors[l.Actor.Token] = append(j.actors[l.Actor.Token], l)
			}
		}
	}
	return j.actors[events.TokenID(actor.ID)]
}

// ghosts returns the tokens that must not exist: tokens that events after the
// end of their actor would have created, and tokens of void events. The events
// have their secrets.
func (r Record) ghosts(j *reference, root events.AccountID) (list []*Token) {
	secrets := map[events.Digest]*Token{}
	for _, c := range r.Changes {
		if c.Made != nil {
			secrets[c.Made.Digest] = c.Made
		}
	}
	// A client that retries sends the same secret, which may then belong to
	// another token.
	given := map[events.Digest]bool{}
	exists := map[string]bool{}
	for _, m := range j.messages {
		l := j.entries[m.Position]
		if created, ok := l.Change.(*events.TokenCreated); ok && !j.void(m.Position) {
			given[created.Secret.Digest], exists[l.About] = true, true
		}
	}
	add := func(l logged) {
		created, ok := l.Change.(*events.TokenCreated)
		if !ok {
			return
		}
		t := Token{ID: l.About, Account: string(created.Account)}
		if made := secrets[created.Secret.Digest]; made != nil && !given[made.Digest] {
			t.Secret, t.Digest = made.Secret, made.Digest
		}
		if !slices.ContainsFunc(list, func(other *Token) bool { return other.ID == t.ID }) {
			list = append(list, &t)
		}
	}
	for _, e := range r.Endings {
		at := e.at(j, root)
		for _, l := range j.deeds(e.Actor) {
			if at != 0 && l.at() > at {
				add(l)
			}
		}
	}
	// A command whose event was void may have been decided again, and may have
	// created the token then.
	for _, m := range j.messages {
		if l := j.entries[m.Position]; j.void(m.Position) && !exists[l.About] {
			add(l)
		}
	}
	return list
}
