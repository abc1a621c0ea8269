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
	// TailPrefix is the prefix of the subject of a republished event. The server
	// sends republished events to all subscribers, at most once.
	TailPrefix = "tail."
	// TailFilter matches every republished event.
	TailFilter = TailPrefix + SubjectFilter
	// NodeSubjectPrefix and a verifier's name are the subject of the verifier's
	// reports of its applied position.
	NodeSubjectPrefix = "node.status."
	// NodeSubjectFilter matches every verifier's reports.
	NodeSubjectFilter = NodeSubjectPrefix + "*"
)

// Position is the sequence of a message in the stream. The first event has
// position 1, and 0 is before all events.
type Position uint64

// Message is an event as the log stores it. Data is never re-encoded: nodes apply,
// hash, export and show the stored bytes.
type Message struct {
	Position Position
	Subject  string
	Data     []byte
}

// Noun is the type of record that an event is about, the second part of a subject.
type Noun string

// The nouns.
const (
	NounToken   Noun = "token"
	NounAccount Noun = "account"
	NounPolicy  Noun = "policy"
	NounReceipt Noun = "receipt"
	NounLog     Noun = "log"
)

// single reports whether a noun has no shards.
func (n Noun) single() bool { return n == NounPolicy || n == NounReceipt || n == NounLog }

// Subject returns the subject of e: ledger.token.<shard>.<verb>,
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

// ShardFilter returns the wildcard subject that matches every event in the shard
// of id. An append is conditional on the last position of this subject. Nouns
// without shards ignore id.
func ShardFilter(noun Noun, id string) string {
	if noun.single() {
		return SubjectRoot + "." + string(noun) + ".*"
	}
	return SubjectRoot + "." + string(noun) + "." + shardOf(id) + ".*"
}

// ShardOf returns a subject without its verb. It names the shard, or the noun if the
// noun has no shards.
func ShardOf(subject string) (string, error) {
	i := strings.LastIndexByte(subject, '.')
	if i < 0 || !strings.HasPrefix(subject, SubjectRoot+".") {
		return "", fmt.Errorf("%s is not the subject of an event", Quote(subject))
	}
	return subject[:i], nil
}

// shardOf returns the shard of an id: its last two characters, which are ten
// random bits. With a subject for each token instead, the server would need about
// 250 bytes of memory for each, and start slowly.
func shardOf(id string) string { return id[len(id)-2:] }
