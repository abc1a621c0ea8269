// Package authz authorizes operations of principals on tokens and accounts.
//
// A [Principal] is the caller of a request: a token, or a person with a session.
// The rule of an [Operation] lists relations between a principal and the target,
// one of which is enough. [Authorizer.Authorize] evaluates the rule
// against the index.
//
// An operation that escalates gives a token more rights or a longer lifetime.
// It also needs a recent authentication of the person, or the permission
// manage_tokens for a token, and the result can never have more rights than the
// principal.
//
// The package reads the index through a small interface and writes nothing. An
// index that does not answer is [errdefs.ErrUnavailable], never a permission.
package authz
