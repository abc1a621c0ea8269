package embedded

import (
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events"
)

// The server's accounts, one for each role. The ledger's name is also that of
// its folder on disk.
const (
	ledgerAccount   = "LEDGER"
	verifierAccount = "VERIFIER"
)

// Where the server's answers to a role arrive.
const (
	ledgerInbox   = "_INBOX_ledger"
	verifierInbox = "_INBOX_verifier"
)

// What a verifier may ask of the stream.
const (
	streamInfo      = "$JS.API.STREAM.INFO." + events.StreamName
	directGet       = "$JS.API.DIRECT.GET." + events.StreamName
	directGetFilter = directGet + ".>" // the last event of a subject
)

// accountsConfig shares what a verifier needs, and no more, between the
// accounts.
//
// Verifiers have no leave to publish $JS.API.INFO. It is imported because the
// server otherwise adds an import of all of $JS.API to every account, and a
// request would be answered twice, first with "JetStream not enabled".
//
// A report (node.status) is imported as a service and not as a stream: a
// stream would carry the reply subject that a verifier chose into the ledger's
// account.
//
// The threshold is for how long the server remembers where to send an answer.
var accountsConfig = fmt.Sprintf(`
accounts {
  %[1]s {
    jetstream: enabled
    exports [
      {service: "$JS.API.INFO", accounts: [%[2]s], threshold: "30s"}
      {service: %[3]q, accounts: [%[2]s], threshold: "30s"}
      {service: %[4]q, accounts: [%[2]s], threshold: "30s", response: stream}
      {service: %[5]q, accounts: [%[2]s], threshold: "30s"}
      {service: %[6]q, accounts: [%[2]s], threshold: "30s"}
      {stream: %[7]q, accounts: [%[2]s]}
    ]
  }
  %[2]s {
    imports [
      {service: {account: %[1]s, subject: "$JS.API.INFO"}}
      {service: {account: %[1]s, subject: %[3]q}}
      {service: {account: %[1]s, subject: %[4]q}}
      {service: {account: %[1]s, subject: %[5]q}}
      {service: {account: %[1]s, subject: %[6]q}}
      {stream: {account: %[1]s, subject: %[7]q}}
    ]
  }
}`, ledgerAccount, verifierAccount,
	streamInfo, directGet, directGetFilter, events.NodeSubjectFilter, events.TailFilter)

func ledgerPermissions() *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			events.SubjectFilter,
			"node.>",
			"$JS.API.>",
			"$JS.ACK.>", // consumers: acknowledgements
			"$JS.FC.>",  // consumers: flow control
			"$KV.>",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			ledgerInbox + ".>",
			events.SubjectFilter,
			events.TailFilter,
			"node.>",
			"$KV.>",
			"$JS.EVENT.>", // who changed or deleted a stream
		}},
	}
}

// verifierPermissions lets a verifier read and report. It may not make a
// consumer, which can deliver into subjects that it may not publish to.
func verifierPermissions() *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			streamInfo,
			directGet,
			directGetFilter,
			events.NodeSubjectFilter,
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			verifierInbox + ".>",
			events.TailFilter,
		}},
	}
}

// LedgerOptions are the client options of a connection as the ledger.
func LedgerOptions(key Key) []nats.Option {
	return clientOptions(key, "tokenledger ledger", ledgerInbox)
}

// VerifierOptions are the client options of a connection as a verifier.
func VerifierOptions(key Key) []nats.Option {
	return clientOptions(key, "tokenledger verifier", verifierInbox)
}

func clientOptions(key Key, name, inbox string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		key.Option(),
		nats.CustomInboxPrefix(inbox),
		nats.Timeout(2 * time.Second),
		// A server that is away comes back, and one with the wrong keys is put
		// right; giving up is for people.
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(150*time.Millisecond, 150*time.Millisecond),
		// A cut link is noticed within three seconds.
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2),
		// What is sent while disconnected fails. Kept, it would be sent on
		// reconnection, after its sender gave up.
		nats.ReconnectBufSize(-1),
		nats.PermissionErrOnSubscribe(true),
	}
}
