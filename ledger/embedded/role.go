package embedded

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

// The server's accounts, one for each role. The ledger's is also the name of its folder
// on disk.
const (
	ledgerAccount   = "LEDGER"
	verifierAccount = "VERIFIER"
)

// The prefixes of inboxes, where the server's answers arrive. A verifier with its own
// key has its own inbox: ownInboxPrefix followed by its name.
const (
	ledgerInbox    = "_INBOX_ledger"
	verifierInbox  = "_INBOX_verifier"
	ownInboxPrefix = "_INBOX_v_"
)

// SnapshotBucket is the object store that holds snapshots of the index, and
// SnapshotStream the stream behind it.
const (
	SnapshotBucket = "SNAPSHOTS"
	SnapshotStream = "OBJ_" + SnapshotBucket
)

// The requests that a verifier may send.
const (
	streamInfo = "$JS.API.STREAM.INFO." + events.StreamName
	directGet  = "$JS.API.DIRECT.GET."
)

// share is a subject that the account VERIFIER imports from the account LEDGER.
type share struct {
	subject string
	// stream means that messages come from LEDGER. Otherwise it is a service:
	// requests go there, and answers return to the account that asked.
	stream bool
	// many means that a request has several answers.
	many bool
	// why is a comment in the configuration of external servers.
	why string
}

// shares are the subjects that a verifier needs.
//
// Verifiers may not publish $JS.API.INFO. It is imported because the
// server otherwise adds an import of all of $JS.API to every account, and a
// request would be answered twice, first with "JetStream not enabled".
//
// A report (node.status) and a renewal (lease.node) are imported as services
// and not as streams: a stream would carry the reply subject that a verifier
// chose into the ledger's account, and the acknowledgement of a renewal would be
// published there.
var shares = []share{
	{subject: "$JS.API.INFO", why: "imported so that the server does not import all of $JS.API; nobody may publish it"},
	{subject: streamInfo, why: "the log's last position"},
	{subject: directGet + events.StreamName, many: true, why: "events of the log"},
	{subject: directGet + events.StreamName + ".>"},
	{subject: directGet + events.LeaseStreamName, many: true, why: "renewals and barriers"},
	{subject: directGet + events.LeaseStreamName + ".>"},
	{subject: directGet + SnapshotStream, many: true, why: "snapshots of the index"},
	{subject: directGet + SnapshotStream + ".>"},
	{subject: events.RenewalSubjectFilter, why: "a verifier's renewals of its lease"},
	{subject: events.NodeSubjectFilter, why: "a verifier's reports of what it has applied"},
	{subject: events.TailFilter, stream: true, why: "what is appended to the log, as it is"},
	{subject: events.LeaseTailFilter, stream: true},
}

// grant is the set of subjects that a role may publish and subscribe to.
type grant struct {
	publish, subscribe []string
}

func ledgerGrant() grant {
	return grant{
		publish: []string{
			events.SubjectFilter,
			events.LeaseFilter,
			"node.>",
			"$JS.API.>",
			"$JS.ACK.>", // consumers: acknowledgements
			"$JS.FC.>",  // consumers: flow control
			"$KV.>",
			"$O." + SnapshotBucket + ".>",
		},
		subscribe: []string{
			ledgerInbox + ".>",
			events.SubjectFilter,
			events.TailFilter,
			events.LeaseFilter,
			events.LeaseTailFilter,
			"node.>",
			"$KV.>",
			"$O." + SnapshotBucket + ".>",
			"$JS.EVENT.>", // who changed or deleted a stream
		},
	}
}

// verifierGrant lets a verifier read and report. It may not create a consumer, which
// could deliver to subjects that the verifier may not publish to. With a name, it
// renews and reports only as that verifier, and no other verifier reads its answers.
// Without a name it may use any.
func verifierGrant(name string) grant {
	who := name
	if name == "" {
		who = "*"
	}
	g := grant{
		publish: []string{streamInfo},
		subscribe: []string{
			inboxOf(name) + ".>",
			events.TailFilter,
			events.LeaseTailFilter,
		},
	}
	for _, stream := range []string{events.StreamName, events.LeaseStreamName, SnapshotStream} {
		g.publish = append(g.publish, directGet+stream, directGet+stream+".>")
	}
	g.publish = append(g.publish, events.RenewalSubjectPrefix+who, events.NodeSubjectPrefix+who)
	return g
}

// inboxOf returns the prefix of a verifier's inboxes.
func inboxOf(name string) string {
	if name == "" {
		return verifierInbox
	}
	return ownInboxPrefix + name
}

// user is a key that may connect.
type user struct {
	key     string // public half
	account string
	name    string // of the member; empty for a key that several share
	grant   grant
}

func ledgerUser(key, name string) user { return user{key, ledgerAccount, name, ledgerGrant()} }

func verifierUser(key, name string) user {
	return user{key, verifierAccount, name, verifierGrant(name)}
}

// accountsText returns the configuration of accounts and permissions, for the server in
// this process and for external ones. It is text because JetStream for an account other
// than the default one can only be enabled that way.
//
// The threshold is how long the server remembers where to send an answer.
func accountsText(users []user) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	account := func(name string) {
		line("    users: [")
		for _, u := range users {
			if u.account != name {
				continue
			}
			who := u.name
			if who == "" {
				who = "shared"
			}
			line("      { # %s", who)
			line("        nkey: %s", u.key)
			line("        permissions: {")
			line("          publish: [%s]", quoteAll(u.grant.publish))
			line("          subscribe: [%s]", quoteAll(u.grant.subscribe))
			line("        }")
			line("      }")
		}
		line("    ]")
	}
	line("accounts: {")
	line("  %s: {", ledgerAccount)
	line("    jetstream: enabled")
	line("    exports: [")
	for _, s := range shares {
		if s.why != "" {
			line("      # %s", s.why)
		}
		switch {
		case s.stream:
			line("      {stream: %q, accounts: [%s]}", s.subject, verifierAccount)
		case s.many:
			line(
				"      {service: %q, accounts: [%s], threshold: \"30s\", response: stream}",
				s.subject,
				verifierAccount,
			)
		default:
			line("      {service: %q, accounts: [%s], threshold: \"30s\"}", s.subject, verifierAccount)
		}
	}
	line("    ]")
	account(ledgerAccount)
	line("  }")
	line("  %s: {", verifierAccount)
	line("    imports: [")
	for _, s := range shares {
		kind := "service"
		if s.stream {
			kind = "stream"
		}
		line("      {%s: {account: %s, subject: %q}}", kind, ledgerAccount, s.subject)
	}
	line("    ]")
	account(verifierAccount)
	line("  }")
	line("}")
	return b.String()
}

func quoteAll(subjects []string) string {
	quoted := make([]string, len(subjects))
	for i, s := range subjects {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(quoted, ", ")
}

// LedgerOptions returns the options of a ledger's connection.
func LedgerOptions(key Key) []nats.Option {
	return clientOptions(key, "tokenledger ledger", ledgerInbox)
}

// VerifierOptions returns the options of a connection with the key that verifiers share.
// A verifier with its own key uses [Credentials.Options].
func VerifierOptions(key Key) []nats.Option {
	return clientOptions(key, "tokenledger verifier", verifierInbox)
}

func clientOptions(key Key, name, inbox string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		key.Option(),
		nats.CustomInboxPrefix(inbox),
		nats.Timeout(2 * time.Second),
		// Reconnect forever: a server that is down comes back, and wrong keys are
		// corrected.
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(150*time.Millisecond, 150*time.Millisecond),
		// A dead connection is detected within three seconds.
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2),
		// Sending fails while disconnected. A buffered message would be sent after
		// its sender gave up.
		nats.ReconnectBufSize(-1),
		nats.PermissionErrOnSubscribe(true),
	}
}
