package events

import (
	"fmt"
	"strings"
)

// Names of the log in NATS JetStream.
const (
	// StreamName is the one stream that holds every event.
	StreamName = "LEDGER"
	// SubjectRoot is the first part of every event's subject.
	SubjectRoot = "ledger"
	// SubjectFilter matches every event's subject.
	SubjectFilter = SubjectRoot + ".>"
	// TailPrefix stands before the subject of a republished event: the tail
	// is what the stream sends to whoever listens, without any promise that
	// it arrives.
	TailPrefix = "tail."
	// TailFilter matches every republished event.
	TailFilter = TailPrefix + SubjectFilter
	// NodeSubjectPrefix stands before a verifier's name where the verifier
	// reports the position that it has applied.
	NodeSubjectPrefix = "node.status."
	// NodeSubjectFilter matches every verifier's reports.
	NodeSubjectFilter = NodeSubjectPrefix + "*"
)

// Position is a message's sequence in the stream. The first event has
// position 1; 0 stands before all of them.
type Position uint64

// Message is an event as the log stores it. Data is never re-encoded: the
// stored bytes are what is applied, hashed, exported and shown.
type Message struct {
	Position Position
	Subject  string
	Data     []byte
}

// Noun is the second part of a subject: what an event is about.
type Noun string

// The nouns.
const (
	NounToken   Noun = "token"
	NounAccount Noun = "account"
	NounPolicy  Noun = "policy"
	NounReceipt Noun = "receipt"
	NounLog     Noun = "log"
)

// single reports whether a noun has one line of events, and no shards.
func (n Noun) single() bool { return n == NounPolicy || n == NounReceipt || n == NounLog }

// Subject returns where e is published: ledger.token.<shard>.<verb>,
// ledger.account.<shard>.<verb>, ledger.policy.<verb>, ledger.receipt.<verb> or
// ledger.log.<verb>.
func (e *Event) Subject() string { return string(e.appendSubject(nil)) }

func (e *Event) appendSubject(b []byte) []byte {
	noun, verb := e.Change.Kind().split()
	b = append(b, SubjectRoot+"."...)
	b = append(append(b, noun...), '.')
	if !noun.single() {
		b = append(append(b, shardOf(e.About)...), '.')
	}
	return append(b, verb...)
}

// under reports whether e's subject is s, without allocating.
func (e *Event) under(s string) bool {
	var b [64]byte
	return string(e.appendSubject(b[:0])) == s
}

// ShardFilter returns the wildcard subject that matches every event of the
// shard that id falls in, which is what an append is conditional on. An empty
// id stands for the policy or the receipts, which have a single line of events.
func ShardFilter(noun Noun, id string) string {
	if noun.single() {
		return SubjectRoot + "." + string(noun) + ".*"
	}
	return SubjectRoot + "." + string(noun) + "." + shardOf(id) + ".*"
}

// Line returns the part of a subject that events are serialised by: the
// subject without its verb. Appends to one line are conditional on the line's
// last position.
func Line(subject string) (string, error) {
	i := strings.LastIndexByte(subject, '.')
	if i < 0 || !strings.HasPrefix(subject, SubjectRoot+".") {
		return "", fmt.Errorf("subject %s is not an event's", Quote(subject))
	}
	return subject[:i], nil
}

// shardOf returns the shard of an id: its last two characters. An id ends in
// ten random bits, so there are 1024 shards; a subject for each token would
// cost the server some 250 bytes of memory a token and a slow start.
func shardOf(id string) string { return id[len(id)-2:] }
