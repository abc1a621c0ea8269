package genesis

import (
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ledger/embedded"
)

// answer is a ledger's report about one Raft group.
func answer(name, leader string, term, last, applied uint64) Report {
	return Report{Name: name, Open: true, Raft: map[string]embedded.RaftState{
		"S": {ID: name, Leader: leader, Term: term, Last: last, Applied: applied},
	}}
}

// TestAgreement tries the answers of the others of three or five ledgers, while
// ledger a keeps its store closed.
func TestAgreement(t *testing.T) {
	type round []Report
	empty := Report{Name: "c", Epoch: "e", Empty: true}
	for name, tt := range map[string]struct {
		members int
		rounds  []round
		want    bool // after the last round; before it, it is never so
		why     string
	}{
		"all the same": {3, []round{{answer("b", "b", 2, 9, 9), answer("c", "b", 2, 9, 9)}}, true, ""},
		// b may have acknowledged entry 10 with a.
		"one lags": {3, []round{{answer("b", "b", 2, 10, 10), answer("c", "b", 2, 9, 9)}}, false, "needs entry 10"},
		"one has caught up": {3, []round{
			{answer("b", "b", 2, 10, 10), answer("c", "b", 2, 9, 9)},
			{answer("b", "b", 2, 10, 10), answer("c", "b", 2, 10, 10)},
		}, true, ""},
		// Later entries are not waited for.
		"under load": {3, []round{
			{answer("b", "b", 2, 10, 9), answer("c", "b", 2, 9, 9)},
			{answer("b", "b", 2, 30, 20), answer("c", "b", 2, 25, 11)},
		}, true, ""},
		"has it, and not in its streams": {3, []round{{answer("b", "b", 2, 10, 10), answer("c", "b", 2, 10, 4)}}, false, "has entry 4"},
		// c may still ask for votes in term 3, in which a may have voted for b.
		"an old term":              {3, []round{{answer("b", "b", 3, 9, 9), answer("c", "b", 2, 9, 9)}}, false, "no common leader"},
		"two leaders":              {3, []round{{answer("b", "b", 2, 9, 9), answer("c", "c", 2, 9, 9)}}, false, "no common leader"},
		"no leader":                {3, []round{{answer("b", "", 2, 9, 9), answer("c", "", 2, 9, 9)}}, false, "no common leader"},
		"they follow a":            {3, []round{{answer("b", "a", 2, 9, 9), answer("c", "a", 2, 9, 9)}}, false, "no common leader"},
		"one answers":              {3, []round{{answer("b", "b", 2, 9, 9)}}, false, "majority"},
		"one is empty":             {3, []round{{answer("b", "b", 2, 9, 9), empty}}, false, "majority"},
		"one without the group":    {3, []round{{answer("b", "b", 2, 9, 9), {Name: "c", Raft: map[string]embedded.RaftState{"M": {ID: "c", Leader: "c"}}}}}, false, "not all of them have"},
		"three of five":            {5, []round{{answer("b", "b", 2, 9, 9), answer("c", "b", 2, 9, 9), answer("d", "b", 2, 9, 9)}}, true, ""},
		"two of five":              {5, []round{{answer("b", "b", 2, 9, 9), answer("c", "b", 2, 9, 9)}}, false, "majority"},
		"three of five, one lags":  {5, []round{{answer("b", "b", 2, 9, 9), answer("c", "b", 2, 9, 9), answer("d", "b", 2, 8, 8)}}, false, "needs entry 9"},
		"nothing is open anywhere": {3, []round{{{Name: "b"}, {Name: "c"}}}, false, "majority"},
	} {
		var s Agreement
		for i, r := range tt.rounds {
			got, why := s.Reached(r, tt.members)
			last := i == len(tt.rounds)-1
			if got != (tt.want && last) || last && !strings.Contains(why, tt.why) {
				t.Errorf("%s, round %d: %v, %q, want %v, %q", name, i, got, why, tt.want && last, tt.why)
			}
		}
	}
}
