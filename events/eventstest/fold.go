package eventstest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// State answers what follows from a log. It keeps the events alone.
type State struct {
	log []entry
	err error
}

// entry is an event and where it stands.
type entry struct {
	at events.Position
	*events.Event
	subject string
}

// Fold returns what follows from messages. It takes them on trust but for
// their encoding: whether each event could be is for the index to judge.
func Fold(messages []events.Message) State {
	var s State
	for _, m := range messages {
		e, err := events.DecodeMessage(m)
		if err != nil {
			s.err = errors.Join(s.err, err)
			continue
		}
		s.log = append(s.log, entry{at: m.Position, Event: e, subject: m.Subject})
	}
	return s
}

// Err returns which messages could not be decoded, nil where all could.
func (s State) Err() error { return s.err }

// Until returns what followed from the log up to a position.
func (s State) Until(at events.Position) State {
	n, _ := slices.BinarySearchFunc(s.log, at+1, func(e entry, at events.Position) int { return int(e.at) - int(at) })
	return State{log: s.log[:n], err: s.err}
}

// Position returns the position of the last event, 0 where there is none.
func (s State) Position() events.Position {
	if len(s.log) == 0 {
		return 0
	}
	return s.log[len(s.log)-1].at
}

// Tokens lists every token, in order of making.
func (s State) Tokens() []events.TokenID {
	var out []events.TokenID
	for _, e := range s.log {
		if _, ok := e.Change.(*events.TokenCreated); ok {
			out = append(out, events.TokenID(e.About))
		}
	}
	return out
}

// Accounts lists every account, in order of making.
func (s State) Accounts() []events.AccountID {
	var out []events.AccountID
	for _, e := range s.log {
		if _, ok := e.Change.(*events.AccountCreated); ok {
			out = append(out, events.AccountID(e.About))
		}
	}
	return out
}

// Digests lists the digest of every secret that a token was given, each once.
func (s State) Digests() []events.Digest {
	var out []events.Digest
	for _, e := range s.log {
		if r, ok := gives(e); ok && !slices.Contains(out, r.Digest) {
			out = append(out, r.Digest)
		}
	}
	return out
}

// Keys lists the key of every command that had one.
func (s State) Keys() []events.CommandKey {
	var out []events.CommandKey
	for _, e := range s.log {
		if e.Key != "" {
			out = append(out, e.Key)
		}
	}
	return out
}

// Lines returns the last position of each line of subjects.
func (s State) Lines() map[string]events.Position {
	out := map[string]events.Position{}
	for _, e := range s.log {
		line, err := events.Line(e.subject)
		if err != nil {
			panic(err) // DecodeMessage compared the subject
		}
		out[line] = e.at
	}
	return out
}

// Command returns what became of the command with a key.
func (s State) Command(key events.CommandKey) (events.Done, bool) {
	for _, e := range slices.Backward(s.log) {
		if key != "" && e.Key == key {
			return events.Done{Position: e.at, Event: e.ID, About: e.About, Kind: e.Change.Kind(), Digest: e.Digest}, true
		}
	}
	return events.Done{}, false
}

// Receipt returns the receipt that covers a position: of several the one that
// covers least, and of those the latest.
func (s State) Receipt(at events.Position) (events.Receipt, bool) {
	var best events.Receipt
	for _, e := range s.log {
		r, ok := e.Change.(*events.ReceiptIssued)
		if ok && r.Covers >= at && (best.Covers == 0 || r.Covers <= best.Covers) {
			best = events.Receipt{ReceiptIssued: *r, Position: e.at, Issued: e.Time}
		}
	}
	return best, best.Covers > 0
}

// Policy returns the policy.
func (s State) Policy() events.PolicyState {
	var p events.PolicyState
	for _, e := range s.about(events.PolicyName) {
		p.Version = e.at
		if set, ok := e.Change.(*events.PolicySet); ok {
			p.Policy = set.Policy
		}
		if cut, ok := e.Change.(*events.PolicyTokensRevoked); ok {
			p.TokensBefore = latest(p.TokensBefore, cut.Before)
		}
	}
	return p
}

// Account returns an account.
func (s State) Account(id events.AccountID) (events.Account, bool) {
	all := s.about(string(id))
	if len(all) == 0 {
		return events.Account{}, false
	}
	made := all[0].Change.(*events.AccountCreated)
	end := all[len(all)-1]
	a := events.Account{
		ID: id, Kind: made.Type, Owner: made.Owner, Grants: made.Grants, SelfService: true,
		Created: all[0].Time, Changed: end.Time, Version: end.at,
	}
	if e, ok := last[*events.AccountGranted](all); ok {
		a.Grants = e.Grants
	}
	for _, e := range all {
		if edit, ok := e.Change.(*events.AccountEdited); ok && edit.Owner != nil {
			a.Owner = *edit.Owner
		}
		if edit, ok := e.Change.(*events.AccountEdited); ok && edit.SelfService != nil {
			a.SelfService = *edit.SelfService
		}
		if cut, ok := e.Change.(*events.AccountTokensRevoked); ok {
			a.TokensBefore = latest(a.TokensBefore, cut.Before)
		}
	}
	for _, e := range slices.Backward(all) {
		if _, ok := e.Change.(*events.AccountResumed); ok {
			break
		}
		if stop, ok := e.Change.(*events.AccountSuspended); ok {
			a.Suspended, a.Reason = true, stop.Reason
			break
		}
	}
	_, a.Erased = last[*events.AccountErased](all)
	return a, true
}

// Token returns a token.
func (s State) Token(id events.TokenID) (events.Token, bool) {
	all := s.about(string(id))
	if len(all) == 0 {
		return events.Token{}, false
	}
	made := all[0].Change.(*events.TokenCreated)
	end := all[len(all)-1]
	t := events.Token{
		ID: id, Account: made.Account, App: made.App, Device: made.Device,
		Scopes: made.Scopes, Inherit: made.Inherit, Expires: made.Expires, Constraints: made.Constraints,
		State:   events.Active,
		Created: all[0].Time, CreatedBy: all[0].Actor, CreatedIn: all[0].at, Changed: end.Time, Version: end.at,
	}
	if e, ok := last[*events.TokenScoped](all); ok {
		t.Scopes, t.Inherit = e.Scopes, e.Inherit
	}
	for _, e := range all {
		edit, ok := edits(e)
		if !ok {
			continue
		}
		if edit.App != nil {
			t.App = *edit.App
		}
		if edit.Device != nil {
			t.Device = *edit.Device
		}
		if edit.Expires != nil {
			t.Expires = *edit.Expires
		}
		if edit.Constraints != nil {
			t.Constraints = edit.Constraints
		}
	}
	if t.Constraints.Empty() {
		t.Constraints = nil
	}
	for _, e := range slices.Backward(all) {
		if _, ok := e.Change.(*events.TokenResumed); ok {
			break
		}
		if stop, ok := e.Change.(*events.TokenSuspended); ok {
			t.State, t.Reason, t.StoppedBy = events.Suspended, stop.Reason, e.Actor.Account
			break
		}
	}
	if e, ok := last[*events.TokenRevoked](all); ok {
		t.State, t.Reason, t.Revoked, t.StoppedBy = events.Revoked, e.Reason, end.Time, ""
	}
	for _, e := range slices.Backward(all) {
		r, gives := gives(e)
		if !gives {
			continue
		}
		if secret, _ := s.Secret(r.Digest); secret.Given == e.at && !secret.Superseded {
			t.Secrets = append(t.Secrets, events.SecretSlot{Digest: r.Digest, Since: e.Time, Until: secret.Until, Form: r.Form, IssuedBy: s.issuer(e)})
		}
	}
	return t, true
}

// issuer returns the account that made the secret which an event gives.
func (s State) issuer(e entry) events.AccountID {
	if e.Actor.Token != "" {
		if t, ok := s.Until(e.at - 1).Token(e.Actor.Token); ok {
			return t.Issuer(e.Actor.Account)
		}
	}
	return e.Actor.Account
}

// Secret is what follows from the events about one secret.
type Secret struct {
	Token events.TokenID
	Given events.Position // of the event that gave it to the token
	// Until is when it ends because a rotation replaced it, zero while none
	// has.
	Until time.Time
	// Superseded says that a second rotation ended it at once.
	Superseded bool
	Plain      bool // it has neither prefix nor checksum
}

// Secret returns whose a secret is: it stays with the first token that was
// given it.
func (s State) Secret(d events.Digest) (Secret, bool) {
	for i, e := range s.log {
		given, ok := gives(e)
		if !ok || given.Digest != d {
			continue
		}
		secret := Secret{Token: events.TokenID(e.About), Given: e.at, Plain: given.Form == events.FormHex32}
		rotations := 0
		for _, later := range s.log[i+1:] {
			r, ok := later.Change.(*events.TokenRotated)
			if !ok || later.About != e.About {
				continue
			}
			if rotations++; rotations == 1 {
				secret.Until = r.Until
			}
		}
		secret.Superseded = rotations > 1
		return secret, true
	}
	return Secret{}, false
}

// Use is what a secret may be used for.
type Use struct {
	Token       events.Token
	Account     events.Account
	Constraints *events.Constraints
	URLRefused  bool // by the policy
}

// Use returns what a secret is good for at a time, and false where it is good
// for nothing.
func (s State) Use(d events.Digest, now time.Time) (Use, bool) {
	secret, ok := s.Secret(d)
	if !ok {
		return Use{}, false
	}
	t, _ := s.Token(secret.Token)
	a, _ := s.Account(t.Account)
	over := func(end time.Time) bool { return !end.IsZero() && !now.Before(end) }
	switch {
	case t.State != events.Active, over(t.Expires):
		return Use{}, false
	case secret.Superseded, over(secret.Until):
		return Use{}, false
	case secret.Plain && s.Policy().PlainRefused, secret.Plain && over(s.Policy().PlainUntil):
		return Use{}, false
	case a.Suspended, a.Erased, t.Created.Before(a.TokensBefore), t.Created.Before(s.Policy().TokensBefore):
		return Use{}, false
	}
	return Use{Token: t, Account: a, Constraints: t.Constraints, URLRefused: s.Policy().URLRefused}, true
}

// Covers reports whether the use includes a scope: the account has it now, and
// so has the token, unless the token has whatever the account has.
func (u Use) Covers(m *events.Model, need events.Scope) bool {
	return m.AnyCovers(u.Account.Grants, need) && (u.Token.Inherit || m.AnyCovers(u.Token.Scopes, need))
}

// about returns the events about one token, account or the policy.
func (s State) about(about string) []entry {
	var out []entry
	for _, e := range s.log {
		if e.About == about {
			out = append(out, e)
		}
	}
	return out
}

// gives returns the digest of the secret that an event gives its token.
func gives(e entry) (events.SecretRecord, bool) {
	switch c := e.Change.(type) {
	case *events.TokenCreated:
		return c.Secret, true
	case *events.TokenRotated:
		return c.Secret, true
	}
	return events.SecretRecord{}, false
}

// edits returns what an event changes besides scopes, secrets and state.
func edits(e entry) (*events.TokenEdited, bool) {
	switch c := e.Change.(type) {
	case *events.TokenEdited:
		return c, true
	case *events.TokenScoped:
		return c.Edit, c.Edit != nil
	}
	return nil, false
}

// last returns the last change of a kind.
func last[C events.Change](all []entry) (C, bool) {
	for _, e := range slices.Backward(all) {
		if c, ok := e.Change.(C); ok {
			return c, true
		}
	}
	var none C
	return none, false
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// String says how much was folded.
func (s State) String() string { return fmt.Sprintf("state after %d events", len(s.log)) }
