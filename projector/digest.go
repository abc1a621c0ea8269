package projector

import (
	"strconv"

	"github.com/tokenledger/tokenledger/events"
)

// tally is the digest of a set of records: the sum of their check values modulo
// 2^64, and how many they are. It can be kept as records come and go, and does
// not depend on the order in which they did.
//
// It tells accidents. A check value covers the key and the value, and the keys
// of one kind are as long as each other or end where their value cannot begin,
// so two records never have the same bytes before the hash; and xxHash64 of
// different bytes is as good as drawn anew. One wrong record, one that is
// missing or one too many, or two whose values changed places (four check
// values that stand in no relation) therefore leave the sum as it is once in
// 2^64. Whoever chooses records on purpose can make the sum what they like; what
// comes from elsewhere is signed besides.
type tally struct {
	sum     uint64
	records uint64
}

func (t *tally) add(check uint64) { t.sum, t.records = t.sum+check, t.records+1 }
func (t *tally) join(o tally)     { t.sum, t.records = t.sum+o.sum, t.records+o.records }
func (t *tally) leave(o tally)    { t.sum, t.records = t.sum-o.sum, t.records-o.records }

// MarkEvery is the distance of marks: no transaction goes on past a multiple of
// it that it does not end at one, so that the cursor can say what the digest was
// at the last one, on every node; and nodes that are at different positions have
// one to compare their indexes at.
const MarkEvery events.Position = 256

// markOf returns the last mark up to a position.
func markOf(at events.Position) events.Position { return at - at%MarkEvery }

// Most statements that are remembered.
const (
	keptMarks   = 64
	keptCommits = 512
)

// past remembers what the digest was. What is needed to go on is in the cursor;
// this is gone when the process ends.
type past struct {
	marks, commits ring
	kept           events.Statement // at Config.Keep, once it was reached
}

// ring holds the latest statements.
type ring struct {
	list []events.Statement
	next int
	most int
}

func (r *ring) add(s events.Statement) {
	if len(r.list) < r.most {
		r.list = append(r.list, s)
		return
	}
	r.list[r.next] = s
	r.next = (r.next + 1) % r.most
}

func (r *ring) at(p events.Position) (events.IndexDigest, bool) {
	for _, s := range r.list {
		if s.Position == p {
			return s.Digest, true
		}
	}
	return 0, false
}

// statement is what a cursor says of the index.
func (c cursor) statement() events.Statement {
	return events.Statement{Position: c.position, Digest: events.IndexDigest(c.tally.sum)}
}

func (c cursor) marked() events.Statement {
	return events.Statement{Position: markOf(c.position), Digest: events.IndexDigest(c.mark)}
}

// remember notes what the digest is now. The caller holds p.mu.
func (p *Projector) rememberLocked() {
	c := p.mem.cursor
	p.past.commits.add(c.statement())
	if c.position == markOf(c.position) {
		p.past.marks.add(c.statement())
	}
	if c.position == p.cfg.Keep {
		p.past.kept = c.statement()
	}
}

// Digest returns the digest of the index and the position that it holds for. At
// one position of one log it is the same on every node.
func (p *Projector) Digest() (events.Position, events.IndexDigest) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.mem.cursor.statement()
	return s.Position, s.Digest
}

// Mark returns the last position that is a multiple of [MarkEvery], and the
// digest of the index there.
func (p *Projector) Mark() (events.Position, events.IndexDigest) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.mem.cursor.marked()
	return s.Position, s.Digest
}

// Records returns how many records the index holds.
func (p *Projector) Records() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.mem.cursor.tally.records
}

// DigestAt returns what the digest was at a position. It knows the last 64
// marks, the positions at which the last 512 batches ended and [Config.Keep], as
// far as this process was there (a node that catches up goes past some marks),
// besides what [Projector.Digest] and
// [Projector.Mark] say.
func (p *Projector) DigestAt(at events.Position) (events.IndexDigest, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, s := range []events.Statement{p.mem.cursor.statement(), p.mem.cursor.marked(), p.past.kept} {
		if s.Position == at {
			return s.Digest, true
		}
	}
	if d, ok := p.past.marks.at(at); ok {
		return d, true
	}
	return p.past.commits.at(at)
}

// appendPosition writes the stored form of a position that stands alone.
func appendPosition(b []byte, at events.Position) []byte {
	return strconv.AppendUint(b, uint64(at), 10)
}

func parsePosition(b []byte) (events.Position, error) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return events.Position(n), err
}
