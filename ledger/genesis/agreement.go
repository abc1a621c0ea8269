package genesis

import "fmt"

// Agreement finds out whether the other ledgers hold all that this one can have
// acknowledged with its vote, before its disk was emptied or its copy was
// damaged. The zero value is ready.
type Agreement struct {
	floors map[string]uint64 // Raft group -> entry that all have to have applied
}

// Reached reports whether the others have agreed, and if not, why. Each answer was
// asked for after this ledger closed its store.
//
// Every entry that was acknowledged with this ledger's vote is in the log of one
// of a majority of the others. The floors are the ends of their logs. Once all of
// them have applied the floors, no lost vote of this ledger can lose an entry. And
// if all of them follow one leader among them in one term, a vote that this ledger
// forgot cannot make a second leader in that term. See decision 0014.
func (a *Agreement) Reached(others []Report, members int) (bool, string) {
	var open []Report
	groups := map[string]bool{}
	for _, r := range others {
		if r.Raft == nil {
			continue
		}
		open = append(open, r)
		for g := range r.Raft {
			groups[g] = true
		}
	}
	if len(open) <= members/2 {
		return false, "a majority of other ledgers with whole copies is needed"
	}
	if a.floors == nil {
		a.floors = map[string]uint64{}
	}
	missing := ""
	for g := range groups {
		end, least := uint64(0), ^uint64(0)
		leads, same := false, true
		first, there := open[0].Raft[g]
		for _, r := range open {
			state, ok := r.Raft[g]
			there = there && ok
			end, least = max(end, state.Last), min(least, state.Applied)
			leads = leads || state.ID == first.Leader
			same = same && state.Term == first.Term && state.Leader == first.Leader
		}
		if !there {
			missing = fmt.Sprintf("not all of them have the group %s", g)
			continue
		}
		if floor, ok := a.floors[g]; !ok || end < floor {
			a.floors[g] = end
		}
		switch {
		case !same || !leads:
			missing = fmt.Sprintf("they have no common leader of the group %s", g)
		case least < a.floors[g]:
			missing = fmt.Sprintf("one of them has entry %d of the group %s, and needs entry %d", least, g, a.floors[g])
		}
	}
	if len(groups) == 0 {
		missing = "they have opened no log yet"
	}
	return missing == "", missing
}
