// Package events says what can happen to tokens, accounts and policy, and how
// that is written down.
//
// # Promise
//
// An event is a CloudEvents 1.0 JSON object. Every form that was ever released
// stays readable: testdata/golden holds one of each and every build decodes
// them all. A field that a reader does not know is ignored, unless the event
// lists it in "crit"; a kind or a critical field that a reader does not know is
// [ErrUnknown], and the reader has to stop, because what it would skip may be a
// revocation.
//
// # Contents
//
// Identifiers ([TokenID], [AccountID], [EventID]), scopes and the order of
// permissions ([Scope], [Model]), secrets and their digests ([Secret],
// [Digest]), the subjects that events are published on, and the events.
//
// # Refusals
//
// No event holds a secret, a salt, a password, a login name or a mail address:
// the log cannot forget. The labels that it does hold (app, device, reason) are
// short, and are not for naming people.
package events
