package events

// TokenUnchanged says that a command found a token as it was to become. It
// changes no record. It is appended under the same condition as a change, so the
// answer "nothing to do" rests on everything that the quorum had committed on the
// token's line, and the command's idempotency key is remembered.
type TokenUnchanged struct {
	Command string `json:"command,omitempty"` // as in "revoke"
}

// AccountUnchanged is [TokenUnchanged] for an account.
type AccountUnchanged struct {
	Command string `json:"command,omitempty"`
}

// PolicyUnchanged is [TokenUnchanged] for the policy.
type PolicyUnchanged struct {
	Command string `json:"command,omitempty"`
}

// LogName is what events about the log itself are about.
const LogName = "log"

// LogConfirmed is appended by a ledger that has to know everything that the
// quorum had committed before it answers. It changes no record.
type LogConfirmed struct {
	Ledger string `json:"ledger,omitempty"` // name of the node that asked
}

func (*TokenUnchanged) Kind() Kind          { return KindTokenUnchanged }
func (*AccountUnchanged) Kind() Kind        { return KindAccountUnchanged }
func (*PolicyUnchanged) Kind() Kind         { return KindPolicyUnchanged }
func (*LogConfirmed) Kind() Kind            { return KindLogConfirmed }
func (c *TokenUnchanged) validate() error   { return checkLabel("command", c.Command) }
func (c *AccountUnchanged) validate() error { return checkLabel("command", c.Command) }
func (c *PolicyUnchanged) validate() error  { return checkLabel("command", c.Command) }

func (c *LogConfirmed) validate() error {
	if c.Ledger == "" {
		return nil
	}
	return CheckNodeName(c.Ledger)
}

// unchanged makes the event of a noun that says nothing changed.
var unchanged = map[Noun]func(command string) Change{
	NounToken:   func(command string) Change { return &TokenUnchanged{Command: command} },
	NounAccount: func(command string) Change { return &AccountUnchanged{Command: command} },
	NounPolicy:  func(command string) Change { return &PolicyUnchanged{Command: command} },
}

// Unchanged returns the change which says that a command on a record of a noun
// found nothing to do.
func Unchanged(n Noun, command string) Change { return unchanged[n](command) }

// Keeps reports whether events of a kind leave every record as it is.
func (k Kind) Keeps() bool {
	switch k {
	case KindTokenUnchanged, KindAccountUnchanged, KindPolicyUnchanged, KindLogConfirmed:
		return true
	}
	return false
}
