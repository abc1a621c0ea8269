package projector

import (
	"fmt"
	"strconv"

	"github.com/tokenledger/tokenledger/events"
)

// setDigest is the digest of a set of records: their number, and the sum of
// their check values modulo 2^64. Records can be added and removed in any
// order.
//
// It detects accidental damage. A check value is the xxHash64 of key and value.
// No two records have the same hash input: keys of one kind have the same
// length, or their end can be told from the value behind it. A changed, missing
// or extra record, or two records with exchanged values, therefore leaves the
// sum unchanged with probability 2^-64.
//
// It does not detect attacks: an attacker can choose records with a given sum.
// Indexes from other nodes are therefore signed as well (package snapshot).
type setDigest struct {
	sum     uint64
	records uint64
}

func (d *setDigest) add(check uint64)      { d.sum, d.records = d.sum+check, d.records+1 }
func (d *setDigest) addAll(o setDigest)    { d.sum, d.records = d.sum+o.sum, d.records+o.records }
func (d *setDigest) removeAll(o setDigest) { d.sum, d.records = d.sum-o.sum, d.records-o.records }

func (d setDigest) String() string {
	return fmt.Sprintf("%d records with the digest %s", d.records, events.IndexDigest(d.sum))
}

// CompareEvery is the distance between compare points, the positions at which
// nodes compare their digests even if they are at different positions now. A
// transaction that reaches a compare point ends at one, and the cursor keeps
// the digest at the last one.
const CompareEvery events.Position = 256

// lastComparePoint returns the last compare point up to a position.
func lastComparePoint(pos events.Position) events.Position { return pos - pos%CompareEvery }

// Bounds of digestHistory.
const (
	maxComparePoints = 64
	maxCommits       = 512
)

// digestHistory holds earlier digests of the index. It is not stored.
type digestHistory struct {
	comparePoints, commits ring
	kept                   events.Statement // at Config.Keep; zero before that
}

// ring holds the latest statements, up to max.
type ring struct {
	list []events.Statement
	next int // the oldest, once the ring is full
	max  int
}

func (r *ring) add(s events.Statement) {
	if len(r.list) < r.max {
		r.list = append(r.list, s)
		return
	}
	r.list[r.next] = s
	r.next = (r.next + 1) % r.max
}

func (r *ring) at(p events.Position) (events.IndexDigest, bool) {
	for _, s := range r.list {
		if s.Position == p {
			return s.Digest, true
		}
	}
	return 0, false
}

// statement returns the digest at the cursor's position.
func (c cursor) statement() events.Statement {
	return events.Statement{Position: c.position, Digest: events.IndexDigest(c.digest.sum)}
}

// comparePoint returns the digest at the last compare point.
func (c cursor) comparePoint() events.Statement {
	return events.Statement{Position: lastComparePoint(c.position), Digest: events.IndexDigest(c.compareDigest)}
}

// recordDigestLocked adds the current digest to the history.
func (p *Projector) recordDigestLocked() {
	c := p.state.cursor
	p.history.commits.add(c.statement())
	if c.position == lastComparePoint(c.position) {
		p.history.comparePoints.add(c.statement())
	}
	if c.position == p.cfg.Keep {
		p.history.kept = c.statement()
	}
}

// Digest returns the position and the digest of the index. At one position of
// one log, every node has the same digest.
func (p *Projector) Digest() (events.Position, events.IndexDigest) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.state.cursor.statement()
	return s.Position, s.Digest
}

// ComparePoint returns the last position that is a multiple of [CompareEvery],
// and the digest of the index there.
func (p *Projector) ComparePoint() (events.Position, events.IndexDigest) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.state.cursor.comparePoint()
	return s.Position, s.Digest
}

// Records returns the number of records in the index, without the cursor.
func (p *Projector) Records() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.state.cursor.digest.records
}

// DigestAt returns the digest at an earlier position, and false if it does not
// have it. It has the digests at the ends of the last 512 transactions, at the
// last 64 compare points at which one ended, and at [Config.Keep], if this
// process applied them. Of the log before, it has only the digests of
// [Projector.Digest] and [Projector.ComparePoint].
func (p *Projector) DigestAt(pos events.Position) (events.IndexDigest, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, s := range []events.Statement{p.state.cursor.statement(), p.state.cursor.comparePoint(), p.history.kept} {
		if s.Position == pos {
			return s.Digest, true
		}
	}
	if d, ok := p.history.comparePoints.at(pos); ok {
		return d, true
	}
	return p.history.commits.at(pos)
}

// appendPosition appends the stored form of a position that is a whole value.
func appendPosition(b []byte, pos events.Position) []byte {
	return strconv.AppendUint(b, uint64(pos), 10)
}

func parsePosition(b []byte) (events.Position, error) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return events.Position(n), err
}
