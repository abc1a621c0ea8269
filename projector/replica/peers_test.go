package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
)

// at is a statement.
func at(p events.Position, d events.IndexDigest) events.Statement {
	return events.Statement{Position: p, Digest: d}
}

// known are a node's own digests.
func known(own ...events.Statement) func(events.Position) (events.IndexDigest, bool) {
	return func(p events.Position) (events.IndexDigest, bool) {
		for _, s := range own {
			if s.Position == p {
				return s.Digest, true
			}
		}
		return 0, false
	}
}

func TestCompare(t *testing.T) {
	type said struct {
		node        string
		index, mark events.Statement
	}
	mine := known(at(0, 0), at(256, 0xa), at(300, 0xb), at(310, 0xc))
	for _, tt := range []struct {
		name          string
		said          []said
		want          reaction
		names         []string
		at            events.Position
		agree, differ int
	}{
		{"nobody", nil, noReaction, nil, 0, 0, 0},
		{"one agrees", []said{{"a", at(300, 0xb), at(256, 0xa)}}, noReaction, nil, 0, 1, 0},
		{"one agrees at the mark", []said{{"a", at(400, 1), at(256, 0xa)}}, noReaction, nil, 0, 1, 0},
		{"one is elsewhere", []said{{"a", at(299, 1), at(512, 2)}}, noReaction, nil, 0, 0, 0},
		{"one is empty", []said{{"a", at(0, 0), at(0, 0)}}, noReaction, nil, 0, 0, 0},
		{"one is empty and says otherwise", []said{{"a", at(0, 7), at(0, 7)}}, noReaction, nil, 0, 0, 0},
		{"one differs", []said{{"a", at(300, 1), at(256, 1)}}, rebuildFenced, []string{"a"}, 300, 0, 1},
		{"one differs at the mark", []said{{"a", at(299, 1), at(256, 1)}}, rebuildFenced, []string{"a"}, 256, 0, 1},
		{"one differs since the mark", []said{{"a", at(300, 1), at(256, 0xa)}}, rebuildFenced, []string{"a"}, 300, 0, 1},
		{"two against", []said{{"a", at(310, 1), at(256, 1)}, {"b", at(300, 1), at(256, 1)}}, rebuildFenced, []string{"a", "b"}, 300, 0, 2},
		{"one with, one against", []said{{"a", at(300, 1), at(256, 1)}, {"b", at(300, 0xb), at(256, 0xa)}}, reportPeers, []string{"a"}, 300, 1, 1},
		{"one with, two against", []said{{"a", at(300, 1), at(256, 1)}, {"b", at(300, 2), at(256, 1)}, {"c", at(300, 0xb), at(256, 0xa)}}, rebuildFenced, []string{"a", "b"}, 300, 1, 2},
		{"two with, two against", []said{
			{"a", at(300, 1), at(256, 1)}, {"b", at(300, 1), at(256, 1)}, {"c", at(300, 0xb), at(256, 0xa)}, {"d", at(310, 0xc), at(256, 0xa)},
		}, reportPeers, []string{"a", "b"}, 300, 2, 2},
		{"one against, one elsewhere", []said{{"a", at(300, 1), at(256, 1)}, {"b", at(299, 1), at(512, 1)}}, rebuildFenced, []string{"a"}, 300, 0, 1},
		{"the newest counts", []said{{"a", at(300, 1), at(256, 1)}, {"a", at(310, 0xc), at(256, 0xa)}}, noReaction, nil, 0, 1, 0},
		{"the newest counts, though it is worse", []said{{"a", at(300, 0xb), at(256, 0xa)}, {"a", at(310, 1), at(256, 0xa)}}, rebuildFenced, []string{"a"}, 310, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c peerCheck
			for _, s := range tt.said {
				c.record(s.node, s.index, s.mark)
			}
			f := c.compare(0, mine)
			if f.reaction != tt.want || !slices.Equal(f.peers, tt.names) || f.at != tt.at || f.agree != tt.agree || f.differ != tt.differ {
				t.Errorf("compare = %+v, want action %d, names %v at %d, %d with and %d against", f, tt.want, tt.names, tt.at, tt.agree, tt.differ)
			}
			if own, _ := mine(tt.at); f.differ > 0 && f.own != own {
				t.Errorf("own digest %s, want %s", f.own, own)
			}
		})
	}
}

// TestPeersAreReportedOnce reports each differing peer once. A peer that was
// proved wrong is ignored until it agrees.
func TestPeersAreReportedOnce(t *testing.T) {
	var c peerCheck
	mine := known(at(1, 1), at(2, 2), at(3, 3), at(4, 4))
	say := func(node string, p events.Position, d events.IndexDigest) reaction {
		c.record(node, at(p, d), at(0, 0))
		return c.compare(0, mine).reaction
	}
	steps := []struct {
		node string
		at   events.Position
		says events.IndexDigest
		want reaction
	}{
		{"a", 1, 1, noReaction},
		{"b", 1, 9, reportPeers},
		{"b", 1, 9, noReaction}, // said
		{"b", 2, 9, noReaction},
		{"b", 3, 3, noReaction},
		{"b", 4, 9, reportPeers}, // it agreed meanwhile
		{"a", 4, 9, rebuildFenced},
	}
	for i, s := range steps {
		if got := say(s.node, s.at, s.says); got != s.want {
			t.Fatalf("step %d: action %d, want %d", i+1, got, s.want)
		}
	}
	c.quarantine(0, []string{"a", "b", "nobody"})
	for _, node := range []string{"a", "b"} {
		for p := range events.Position(4) {
			if got := say(node, p+1, 9); got != noReaction {
				t.Errorf("%s was proved wrong and differs at %d: action %d", node, p+1, got)
			}
		}
	}
	if got := say("c", 4, 9); got != rebuildFenced {
		t.Errorf("another one differs: action %d, want %d", got, rebuildFenced)
	}
	if got := say("a", 4, 4); got != rebuildFenced {
		t.Errorf("one in quarantine agrees, and has no say: action %d, want %d", got, rebuildFenced)
	}
}

// TestQuarantine ignores a peer that was proved wrong for a time that doubles,
// and considers it again afterwards. From the second rebuildFenced on, this
// node keeps answering.
func TestQuarantine(t *testing.T) {
	var c peerCheck
	mine := known(at(1, 1), at(2, 2))
	say := func(now time.Duration, node string, digest events.IndexDigest) reaction {
		c.record(node, at(1, digest), at(0, 0))
		return c.compare(now, mine).reaction
	}
	const right, wrong = 1, 9
	now, want, rebuilds := time.Duration(0), rebuildFenced, 0
	end := 1000 * time.Hour
	for ; now < end; now += time.Minute {
		for range 2 { // it copies this node's digest, and then says another one
			if got := say(now, "liar", right); got != noReaction {
				t.Fatalf("after %s it agrees: action %d", now, got)
			}
			switch got := say(now, "liar", wrong); got {
			case noReaction:
			case want:
				rebuilds++
				c.quarantine(now, []string{"liar"})
				want = rebuildServing
			default:
				t.Fatalf("after %s: action %d, want %d or none", now, got, want)
			}
		}
	}
	if rebuilds != 10 { // 0, 1, 3, 7, … 511 hours, and no more than 512 apart
		t.Errorf("%d rebuilds in %s", rebuilds, end)
	}
	// Its agreement does not count either, and another peer's rebuildFenced
	// does.
	if got := say(now, "liar", right); got != noReaction {
		t.Errorf("action %d", got)
	}
	if got := say(now, "other", wrong); got != rebuildFenced {
		t.Errorf("an honest node differs: action %d, want %d", got, rebuildFenced)
	}
	c.exonerate([]string{"other"})
	if got := say(now, "other", right); got != noReaction {
		t.Errorf("it agrees: action %d", got)
	}
	// A peer that was wrong once and now agrees counts again after its
	// quarantine.
	c.quarantine(now, []string{"other"})
	say(now, "other", right)
	if got := say(now+minQuarantine-1, "other", wrong); got != noReaction {
		t.Errorf("in quarantine: action %d", got)
	}
	if got := say(now+minQuarantine, "other", wrong); got != rebuildServing {
		t.Errorf("after it: action %d, want %d", got, rebuildServing)
	}
	// A peer that has not agreed since is still wrong.
	c.quarantine(now, []string{"other"})
	if got := say(now+maxQuarantine, "other", wrong); got != noReaction {
		t.Errorf("wrong all the while: action %d", got)
	}
}

// TestMajorityDecides tries random statements of correct and wrong nodes. A
// node in the majority never starts a dispute, one outside always does, and the
// order of the nodes' names does not matter.
func TestMajorityDecides(t *testing.T) {
	rng := seed.Rand(t)
	for range 5000 {
		nodes := 2 + rng.IntN(6)
		digests := make([]events.IndexDigest, nodes)
		for i := range digests {
			if rng.IntN(3) == 0 {
				digests[i] = events.IndexDigest(1 + rng.IntN(3))
			}
		}
		names := rng.Perm(nodes)
		for me := range nodes {
			var c peerCheck
			same, differ := 0, 0
			for _, other := range rng.Perm(nodes) {
				if other == me {
					continue
				}
				c.record(fmt.Sprint(names[other]), at(5, digests[other]), at(0, 0))
				if digests[other] == digests[me] {
					same++
				} else {
					differ++
				}
			}
			want := noReaction
			switch {
			case differ == 0:
			case same+1 > differ:
				want = reportPeers
			default:
				want = rebuildFenced
			}
			if f := c.compare(0, known(at(5, digests[me]))); f.reaction != want || f.agree != same || f.differ != differ {
				t.Fatalf("%v, node %d: %+v, want action %d", digests, me, f, want)
			}
		}
	}
}

// TestPeersAreBounded limits the number of peers.
func TestPeersAreBounded(t *testing.T) {
	var c peerCheck
	for i := range 2 * maxPeers {
		c.record(fmt.Sprint(i), at(1, 1), at(0, 0))
	}
	if len(c.peers) != maxPeers {
		t.Errorf("%d nodes are remembered, want %d", len(c.peers), maxPeers)
	}
	if f := c.compare(0, known(at(1, 1))); f.agree != maxPeers {
		t.Errorf("%d agree", f.agree)
	}
}
