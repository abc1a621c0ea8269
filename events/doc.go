// Package events defines the events of tokens, accounts and policy, and their
// stored form.
//
// # Promise
//
// An event is a CloudEvents 1.0 JSON object. Every released form stays readable:
// testdata/golden holds one event of each form, and every build decodes them all.
// A reader ignores unknown fields, except those that the event lists in "crit". An
// unknown kind or critical field is [ErrUnknown]. The reader must then stop: the
// event may be a revocation.
//
// # Contents
//
// Identifiers ([TokenID], [AccountID], [EventID]), scopes and the order of
// permissions ([Scope], [Model]), secrets and their digests ([Secret],
// [Digest]), the subjects that events are published on, and the events.
//
// # Refusals
//
// No event holds a secret, a salt, a password, a login name or a mail address,
// because nothing can be deleted from the log. Its labels (app, device, reason)
// are short, and must not name people.
package events
