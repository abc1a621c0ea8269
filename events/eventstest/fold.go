package eventstest

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// State is the state that a log leads to. It stores only the events.
type State struct {
	log []entry
	// about -> the events that took effect, in order
	records map[string][]entry
	err     error
}

// entry is an event and its position.
type entry struct {
	at events.Position
	*events.Event
	subject string
	void    string // why it had no effect; empty if it had
}

// Fold folds messages to a state. It checks their encoding, and whether their
// actors had the right to act. It does not check whether an event is consistent
// with the events before it: the index does.
func Fold(messages []events.Message) State {
	var s State
	for _, m := range messages {
		s.Add(m)
	}
	return s
}

// Add applies one more message to the state.
func (s *State) Add(m events.Message) {
	e, err := events.DecodeMessage(m)
	if err != nil {
		s.err = errors.Join(s.err, err)
		return
	}
	added := entry{at: m.Position, Event: e, subject: m.Subject, void: s.whyVoid(e)}
	s.log = append(s.log, added)
	if added.void == "" {
		if s.records == nil {
			s.records = map[string][]entry{}
		}
		s.records[e.About] = append(s.records[e.About], added)
	}
}

// whyVoid returns why the next event has no effect, or an empty string if it
// has one.
func (s State) whyVoid(e *events.Event) string {
	for _, r := range e.Rests {
		if s.version(r.About) != r.Version {
			return "it depends on an older version of " + r.About
		}
	}
	if e.Actor.Account == "" {
		return ""
	}
	named := func(about string) bool {
		_, ok := e.Rests.Version(about)
		return ok || about == e.About
	}
	a, ok := s.Account(e.Actor.Account)
	switch {
	case !ok:
		return "its actor's account does not exist"
	case a.Suspended || a.Erased:
		return "its actor's account has ended"
	case !named(string(a.ID)):
		return "it does not name its actor's account"
	}
	if e.Actor.Session != "" {
		for _, end := range s.took() {
			if c, ok := end.Change.(*events.AccountSessionEnded); ok && c.Session == e.Actor.Session {
				return "its actor's session has ended"
			}
		}
		if e.Actor.Opened < a.SessionsFrom && e.Actor.Session != a.SessionKept ||
			e.Actor.Opened < a.TokensUntil || e.Actor.Opened < s.Policy().TokensUntil {
			return "its actor's session has ended with others"
		}
	}
	if e.Actor.Token == "" {
		return ""
	}
	t, ok := s.Token(e.Actor.Token)
	p := s.Policy()
	switch {
	case !ok || t.Account != a.ID:
		return "its actor's token does not exist in its account"
	case t.State != events.Active:
		return "its actor's token has ended"
	case !t.Expires.IsZero() && !e.Time.Before(t.Expires):
		return "its actor's token has expired"
	case t.Created.Before(a.NotBefore),
		t.Created.Before(p.NotBefore),
		t.CreatedIn < a.TokensUntil,
		t.CreatedIn < p.TokensUntil:
		return "its actor's token has ended with others"
	case !named(string(t.ID)):
		return "it does not name its actor's token"
	}
	return ""
}

// version returns the version of a record, zero if it does not exist.
func (s State) version(about string) events.Position {
	all := s.about(about)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].at
}

// Void returns why the event at a position had no effect. It returns false if
// the event had an effect or does not exist.
func (s State) Void(at events.Position) (string, bool) {
	n := until(s.log, at)
	if n == 0 || s.log[n-1].at != at {
		return "", false
	}
	return s.log[n-1].void, s.log[n-1].void != ""
}

// Voids lists the positions of events that had no effect.
func (s State) Voids() []events.Position {
	var out []events.Position
	for _, e := range s.log {
		if e.void != "" {
			out = append(out, e.at)
		}
	}
	return out
}

// SessionsEnded lists the sessions that were ended individually, in the order
// in which they ended.
func (s State) SessionsEnded() []events.SessionID {
	var out []events.SessionID
	for _, e := range s.took() {
		if c, ok := e.Change.(*events.AccountSessionEnded); ok && !slices.Contains(out, c.Session) {
			out = append(out, c.Session)
		}
	}
	return out
}

// took returns the events with an effect.
func (s State) took() iter.Seq2[int, entry] {
	return func(yield func(int, entry) bool) {
		for i, e := range s.log {
			if e.void == "" && !yield(i, e) {
				return
			}
		}
	}
}

// Err returns the messages that could not be decoded, or nil.
func (s State) Err() error { return s.err }

// Until returns the state up to a position.
func (s State) Until(at events.Position) State {
	n := until(s.log, at)
	out := State{log: s.log[:n], records: map[string][]entry{}, err: s.err}
	for about, all := range s.records {
		if n := until(all, at); n > 0 {
			out.records[about] = all[:n:n]
		}
	}
	out.log = out.log[:n:n]
	return out
}

// until returns how many of the entries are at or before a position.
func until(list []entry, at events.Position) int {
	n, _ := slices.BinarySearchFunc(list, at+1, func(e entry, at events.Position) int { return int(e.at) - int(at) })
	return n
}

// Position returns the position of the last event, or 0 if there is none.
func (s State) Position() events.Position {
	if len(s.log) == 0 {
		return 0
	}
	return s.log[len(s.log)-1].at
}

// Tokens lists all tokens in the order of their creation.
func (s State) Tokens() []events.TokenID {
	var out []events.TokenID
	for _, e := range s.took() {
		if _, ok := e.Change.(*events.TokenCreated); ok {
			out = append(out, events.TokenID(e.About))
		}
	}
	return out
}

// Accounts lists all accounts in the order of their creation.
func (s State) Accounts() []events.AccountID {
	var out []events.AccountID
	for _, e := range s.took() {
		if _, ok := e.Change.(*events.AccountCreated); ok {
			out = append(out, events.AccountID(e.About))
		}
	}
	return out
}

// Digests lists the digest of every secret of a token, each once.
func (s State) Digests() []events.Digest {
	var out []events.Digest
	for _, e := range s.took() {
		if r, ok := gives(e); ok && !slices.Contains(out, r.Digest) {
			out = append(out, r.Digest)
		}
	}
	return out
}

// MatomoSince returns the position of the first event that gave a token a secret
// with the digest scheme of Matomo, 0 for none. An event whose digest another token
// had gives none.
func (s State) MatomoSince() events.Position {
	for _, e := range s.took() {
		if r, ok := gives(e); ok && r.Scheme == events.SchemeMatomo {
			if secret, _ := s.Secret(r.Digest); secret.Given == e.at {
				return e.at
			}
		}
	}
	return 0
}

// Keys lists the idempotency keys of all commands that had one.
func (s State) Keys() []events.CommandKey {
	var out []events.CommandKey
	for _, e := range s.took() {
		if e.Key != "" {
			out = append(out, e.Key)
		}
	}
	return out
}

// Shards returns the last position of each shard, see [events.ShardOf].
func (s State) Shards() map[string]events.Position {
	out := map[string]events.Position{}
	for _, e := range s.log {
		shard, err := events.ShardOf(e.subject)
		if err != nil {
			panic(err) // DecodeMessage compared the subject
		}
		out[shard] = e.at
	}
	return out
}

// Command returns the result of the command with a key.
func (s State) Command(key events.CommandKey) (events.Done, bool) {
	for _, e := range slices.Backward(s.log) {
		if key != "" && e.Key == key && e.void == "" {
			return events.Done{
				Position: e.at,
				Event:    e.ID,
				About:    e.About,
				Kind:     e.Change.Kind(),
				Digest:   e.Digest,
			}, true
		}
	}
	return events.Done{}, false
}

// Receipt returns the receipt that covers a position. Of several, it returns
// the one that covers the fewest positions, and of those the latest.
func (s State) Receipt(at events.Position) (events.Receipt, bool) {
	var best events.Receipt
	for _, e := range s.took() {
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
			p.NotBefore = latest(p.NotBefore, cut.NotBefore)
			if cut.NotBefore.IsZero() {
				p.TokensUntil = e.at
			}
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
		ID: id, Kind: made.Type, Owner: made.Owner, Grants: made.Grants, SelfService: true, Source: made.Source,
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
			a.NotBefore = latest(a.NotBefore, cut.NotBefore)
			if cut.NotBefore.IsZero() {
				a.TokensUntil = e.at
			}
		}
		if end, ok := e.Change.(*events.AccountCredentialChanged); ok && end.EndsSessions {
			a.SessionsFrom, a.SessionKept = e.at, end.Kept
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
		Import: made.Import, State: events.Active,
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
		if edit.LastUsed != nil && made.Import != nil {
			of := *made.Import
			of.LastUsed = *edit.LastUsed
			t.Import = &of
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
			t.Secrets = append(
				t.Secrets,
				events.SecretSlot{
					Digest:   r.Digest,
					Scheme:   map[string]string{events.SchemeMatomo: r.Scheme}[r.Scheme],
					Since:    e.Time,
					Until:    secret.Until,
					Format:   r.Format,
					IssuedBy: s.issuer(e),
				},
			)
		}
	}
	return t, true
}

// issuer returns the account that issued the secret in an event.
func (s State) issuer(e entry) events.AccountID {
	if e.Actor.Token != "" {
		if t, ok := s.Until(e.at - 1).Token(e.Actor.Token); ok {
			return t.Issuer(e.Actor.Account)
		}
	}
	return e.Actor.Account
}

// Secret is the state of one secret.
type Secret struct {
	Token events.TokenID
	Given events.Position // of the event that gave it to the token
	// Until is the end of the grace period after a rotation. Zero means no rotation.
	Until time.Time
	// Superseded is true after another rotation, or one without grace, has ended the
	// secret.
	Superseded bool
	Plain      bool // it has neither prefix nor checksum
}

// Secret returns the state of a secret. A secret belongs to the first token
// that got it.
func (s State) Secret(d events.Digest) (Secret, bool) {
	for i, e := range s.took() {
		given, ok := gives(e)
		if !ok || given.Digest != d {
			continue
		}
		secret := Secret{Token: events.TokenID(e.About), Given: e.at, Plain: given.Format == events.FormatHex32}
		rotations := 0
		for _, later := range s.log[i+1:] {
			r, ok := later.Change.(*events.TokenRotated)
			if !ok || later.About != e.About || later.void != "" {
				continue
			}
			if rotations++; rotations == 1 {
				secret.Until = r.Until
				secret.Superseded = r.Until.IsZero()
			}
		}
		secret.Superseded = secret.Superseded || rotations > 1
		return secret, true
	}
	return Secret{}, false
}

// Use is the access that a secret gives.
type Use struct {
	Token       events.Token
	Account     events.Account
	Constraints *events.Constraints
	URLRefused  bool // by the policy
}

// Use returns the access of a secret at a time, or false if the secret is not
// accepted.
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
	case secret.Plain && s.Policy().LegacyRefused, secret.Plain && over(s.Policy().LegacyUntil):
		return Use{}, false
	case a.Suspended, a.Erased, t.Created.Before(a.NotBefore), t.Created.Before(s.Policy().NotBefore),
		t.CreatedIn < a.TokensUntil, t.CreatedIn < s.Policy().TokensUntil:
		return Use{}, false
	}
	return Use{Token: t, Account: a, Constraints: t.Constraints, URLRefused: s.Policy().URLRefused}, true
}

// Covers reports whether the use includes a scope: the account has the scope
// now, and the token has it too or has all scopes of its account.
func (u Use) Covers(m *events.Model, need events.Scope) bool {
	return m.AnyCovers(u.Account.Grants, need) && (u.Token.Inherit || m.AnyCovers(u.Token.Scopes, need))
}

// about returns the events that changed one token, one account or the policy.
func (s State) about(about string) []entry {
	return slices.DeleteFunc(slices.Clone(s.records[about]), func(e entry) bool { return e.Change.Kind().Keeps() })
}

// gives returns the digest of the secret that an event gives to its token.
func gives(e entry) (events.SecretRecord, bool) {
	switch c := e.Change.(type) {
	case *events.TokenCreated:
		return c.Secret, true
	case *events.TokenRotated:
		return c.Secret, true
	}
	return events.SecretRecord{}, false
}

// edits returns the changes of an event other than scopes, secret and state.
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

// String returns the number of events, for failure messages.
func (s State) String() string { return fmt.Sprintf("state after %d events", len(s.log)) }
