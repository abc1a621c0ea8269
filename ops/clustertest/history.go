package clustertest

import (
	"fmt"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Outcome is what is known of a command.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // it was acknowledged
	Refused Outcome = "refused" // it was said not to be done
	Unknown Outcome = "unknown" // nobody said
)

// Change is a command as its client saw it: from its first request to the
// answer that settled it, however often it was sent. Times are those of the
// history's clock.
type Change struct {
	Client string
	Key    string // of all of its requests
	Kind   events.Kind
	About  string // id of the token or account; empty while a creation is not acknowledged
	// Scopes are the token's, or the account's grants, as the command sets them.
	Scopes []events.Scope

	Began, Ended time.Duration
	Tries        int
	Ledger       string // that was asked last
	Waited       bool   // it asked for proof

	Outcome  Outcome
	Position events.Position // of a command that was acknowledged
	// Proved is the position that its answer proves to be in force everywhere;
	// 0 where it proves nothing.
	Proved events.Position

	// Account is the account of the token that the command is about, or is to
	// create. Made is the token that a creation asks for.
	Account string
	Made    *Token
	// By is the token that the command is sent with. Nil means the root token.
	By *Token
	// Ends is the token, or the secret of a token, that the command ends for its
	// holder. Nil if the command is not about one secret.
	Ends *Token
	// Late marks a duplicate of a command that was acknowledged before.
	Late bool
	// Sent is when the request was sent that was answered last.
	Sent time.Duration
	// Code names the problem that a refusal answered with, as in "ended".
	Code string
	// Version is the current version of the record, as a conflict names it.
	Version events.Position
	// Many is set for a command that revokes all tokens of a label.
	Many *Many
}

// Many is a request to revoke all tokens that have a label, and its answer.
type Many struct {
	// Which tokens the request means: the filters that are not empty apply.
	Account, App, Device string

	Matched int      // number of tokens that the answer counts
	Revoked []string // ids of tokens that the answer names
}

// means reports whether a token has the labels.
func (m *Many) means(t *Token) bool {
	return (m.Account == "" || m.Account == t.Account) && (m.App == "" || m.App == t.App) && (m.Device == "" || m.Device == t.Device)
}

// String names the labels, and how many tokens the answer counts.
func (m *Many) String() string {
	return fmt.Sprintf("tokens of account %q, app %q, device %q (matched %d)", m.Account, m.App, m.Device, m.Matched)
}

// answered reports whether a ledger decided the command: it acknowledged it, or
// refused it with a problem that rests on the state of the log.
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

// Verdict is what a node said of a secret.
type Verdict string

// The verdicts.
const (
	Allowed     Verdict = "allowed"
	Denied      Verdict = "denied"
	Unavailable Verdict = "unavailable" // the node said that it does not know
	Silent      Verdict = "silent"      // no answer came
)

// Check is a question to a node about a secret, and the answer.
type Check struct {
	Node  string
	Token *Token
	Need  events.Scope

	Began, Ended time.Duration
	Verdict      Verdict
	Position     events.Position // that an answer rests on
}

func (c Check) String() string {
	return fmt.Sprintf("%s said of %s for %s: %s, from position %d (%s to %s)",
		c.Node, c.Token.ID, c.Need, c.Verdict, c.Position, c.Began.Round(time.Millisecond), c.Ended.Round(time.Millisecond))
}

// Token is a token that checks ask about.
type Token struct {
	ID      string
	Account string
	Secret  string
	Digest  events.Digest // of the secret
	// Labels that the token was created with. They never change.
	App, Device string
}

// Outage is a time during which a node was cut off from the log: it may go on
// for as long as its lease, and no longer.
type Outage struct {
	Node  string
	Lease time.Duration
	// From is when no byte came through any more, To when the first one could
	// again.
	From, To time.Duration
}

// History is what clients saw. Any number of goroutines may add to it.
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

// Now returns the time by the history's clock, which nobody sets.
func (h *History) Now() time.Duration { return time.Since(h.began) }

// Begin adds a command that its client begins now, and End what became of it. In
// between, its outcome is unknown.
func (h *History) Begin(c Change) (number int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.Outcome = Unknown
	h.changes = append(h.changes, c)
	return len(h.changes) - 1
}

// End says what became of a command.
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

// Record returns a copy of what was added so far.
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

// Record is a history that is over.
type Record struct {
	Changes []Change
	Checks  []Check
	Outages []Outage
	Endings []Ending
}
