package events

// TokenUnchanged records that a command had nothing to change on a token. It
// changes no record. It is appended under the same condition as a change: the
// ledger's answer is then based on all committed events of the token's shard, and
// the log has the command's idempotency key.
type TokenUnchanged struct {
	Command string `json:"command,omitempty"` // such as "revoke"
}

// AccountUnchanged is [TokenUnchanged] for an account.
type AccountUnchanged struct {
	Command string `json:"command,omitempty"`
}

// PolicyUnchanged is [TokenUnchanged] for the policy.
type PolicyUnchanged struct {
	Command string `json:"command,omitempty"`
}

// LogName is About in events about the log itself.
const LogName = "log"

// LogConfirmed is appended by a ledger that must have read all committed events
// before it answers. It changes no record.
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

// unchanged returns the "unchanged" event of each noun.
var unchanged = map[Noun]func(command string) Change{
	NounToken:   func(command string) Change { return &TokenUnchanged{Command: command} },
	NounAccount: func(command string) Change { return &AccountUnchanged{Command: command} },
	NounPolicy:  func(command string) Change { return &PolicyUnchanged{Command: command} },
}

// Unchanged returns the change that records a command without effect on a record of
// a noun.
func Unchanged(n Noun, command string) Change { return unchanged[n](command) }

// Keeps reports whether events of a kind change no record.
func (k Kind) Keeps() bool {
	switch k {
	case KindTokenUnchanged, KindAccountUnchanged, KindPolicyUnchanged, KindLogConfirmed:
		return true
	}
	return false
}
