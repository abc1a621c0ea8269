package clustertest

import (
	"fmt"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Outcome is the outcome of a command, as far as its client knows.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // it was acknowledged
	Refused Outcome = "refused" // it was refused, and has no effect
	Unknown Outcome = "unknown" // no answer that decides
)

// Change is a command as its client saw it, from the first request to the final
// answer, retries included. Times are from the history's clock.
type Change struct {
	Client string
	Key    string // idempotency key of all its requests
	Kind   events.Kind
	About  string // id of the token or account; empty while a creation is not acknowledged
	// Scopes are the scopes or grants that the command sets.
	Scopes []events.Scope

	Began, Ended time.Duration
	Tries        int
	Ledger       string // of the last request
	Waited       bool   // it asked for a receipt

	Outcome  Outcome
	Position events.Position // if it was acknowledged
	// Proved is the position that the receipt in its answer covers, or 0
	// without a receipt.
	Proved events.Position

	// Account is the account of the token that the command changes or creates.
	// Made is the token that it creates.
	Account string
	Made    *Token
	// By is the token of the caller. Nil means the root token.
	By *Token
	// Ends is the token or secret that the command ends. Nil if the command
	// does not end a single secret.
	Ends *Token
	// Late marks a duplicate of a command that was already acknowledged.
	Late bool
	// Sent is the time of the request that got the final answer.
	Sent time.Duration
	// Code is the code of the problem in a refusal, such as "ended".
	Code string
	// Version is the current version of the record, from a conflict.
	Version events.Position
	// Many is set for a command that revokes all tokens of a label.
	Many *Many
}

// Many is a request to revoke all tokens that have a label, and its answer.
type Many struct {
	// Filters of the request. Empty filters do not apply.
	Account, App, Device string

	Matched int      // number of tokens that the answer counts
	Revoked []string // ids of tokens that the answer names
}

// means reports whether a token matches the filters.
func (m *Many) means(t *Token) bool {
	return (m.Account == "" || m.Account == t.Account) && (m.App == "" || m.App == t.App) &&
		(m.Device == "" || m.Device == t.Device)
}

// String describes the filters and the number of tokens in the answer.
func (m *Many) String() string {
	return fmt.Sprintf("tokens of account %q, app %q, device %q (matched %d)", m.Account, m.App, m.Device, m.Matched)
}

// answered reports whether a ledger decided the command: it acknowledged it, or
// refused it because of the state of the log.
func (c Change) answered() bool {
	return c.Outcome == Done || c.Code != "" && c.Code != codeUnauthenticated
}

// account returns the id of the account that sent the command.
func (c Change) account(root events.AccountID) events.AccountID {
	if c.By != nil {
		return events.AccountID(c.By.Account)
	}
	return root
}

func (c Change) String() string {
	about := c.About
	if c.Many != nil {
		about = c.Many.String()
	}
	outcome := string(c.Outcome)
	if c.Code != "" {
		outcome += " with " + c.Code
	}
	if c.Late {
		outcome = "duplicate " + outcome
	}
	return fmt.Sprintf("%s of %s by %s through %s (%s to %s, %s, position %d, proved %d)",
		c.Kind, about, c.Client, c.Ledger, c.Began.Round(time.Millisecond), c.Ended.Round(time.Millisecond),
		outcome, c.Position, c.Proved)
}

// Verdict is the answer of a node to a check.
type Verdict string

// The verdicts.
const (
	Allowed     Verdict = "allowed"
	Denied      Verdict = "denied"
	Unavailable Verdict = "unavailable" // the node has no lease
	Silent      Verdict = "silent"      // no answer
)

// Check is a check of a secret by a node, and its answer.
type Check struct {
	Node  string
	Token *Token
	Need  events.Scope

	Began, Ended time.Duration
	Verdict      Verdict
	Position     events.Position // of the answer
}

func (c Check) String() string {
	return fmt.Sprintf(
		"%s said of %s for %s: %s, from position %d (%s to %s)",
		c.Node,
		c.Token.ID,
		c.Need,
		c.Verdict,
		c.Position,
		c.Began.Round(time.Millisecond),
		c.Ended.Round(time.Millisecond),
	)
}

// Token is a token that clients check.
type Token struct {
	ID      string
	Account string
	Secret  string
	Digest  events.Digest // of the secret
	// Labels that the token was created with. They never change.
	App, Device string
}

// Outage is a time during which a node was cut off from the log. The node may
// answer until its lease ends.
type Outage struct {
	Node  string
	Lease time.Duration
	// From is the time after which no byte passed. To is the time before which
	// no byte passed again.
	From, To time.Duration
}

// History records what clients saw. It is safe for concurrent use.
type History struct {
	began time.Time

	mu      sync.Mutex
	changes []Change // guarded by mu, like all below
	checks  []Check
	outages []Outage
	endings []Ending
}

// NewHistory returns an empty history that begins at a time.
func NewHistory(began time.Time) *History { return &History{began: began} }

// Now returns the time of the history's clock, which is monotonic.
func (h *History) Now() time.Duration { return time.Since(h.began) }

// Begin adds a command at its start, and [History.End] its outcome. In between
// the outcome is unknown.
func (h *History) Begin(c Change) (number int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.Outcome = Unknown
	h.changes = append(h.changes, c)
	return len(h.changes) - 1
}

// End records the outcome of a command.
func (h *History) End(number int, c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes[number] = c
}

// Checked adds a check.
func (h *History) Checked(c Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, c)
}

// Cut adds an outage.
func (h *History) Cut(o Outage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outages = append(h.outages, o)
}

// Ended adds the end of an actor.
func (h *History) Ended(e Ending) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endings = append(h.endings, e)
}

// Record returns a copy of the history so far.
func (h *History) Record() Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Record{
		Changes: append([]Change(nil), h.changes...),
		Checks:  append([]Check(nil), h.checks...),
		Outages: append([]Outage(nil), h.outages...),
		Endings: append([]Ending(nil), h.endings...),
	}
}

// Record is a copy of a history.
type Record struct {
	Changes []Change
	Checks  []Check
	Outages []Outage
	Endings []Ending
}
