// Package genesis decides which ledger creates a replicated log, and when one whose
// disk is empty may take a copy of it.
//
// A log that several ledgers keep is created once, by one of them. The log's
// servers cannot tell a log that never was from one whose copies were lost: if the
// disks of a majority are gone, the servers that come back empty agree that there
// is no stream. So each ledger keeps a note of the log that it has known, and
// ledgers ask each other for it ([Ask], [Answer]). The log is created only if all
// ledgers answer and none has known one ([DecideCreate]).
//
// The ledger with the first name creates it. It stores the epoch before that, so
// that it continues after a crash with the same epoch and the same first token.
//
// The decisions are functions of the answers alone. They have no clock and no I/O.
package genesis

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/ledger/embedded"
)

// ErrLogGone reports that the log existed and is lost. A new one would
// forget every revocation.
var ErrLogGone = errors.New("the log of this data folder is gone")

// Report is a ledger's report about its log to the others.
type Report struct {
	Name string `json:"name"`
	// Epoch is the epoch of the log that the ledger has known or is creating, empty
	// for none.
	Epoch string `json:"epoch,omitempty"`
	// Beginning means that the ledger is creating the log.
	Beginning bool `json:"beginning,omitempty"`
	// Empty means that the ledger has no copy: its disk is new, or its copy is in
	// quarantine, and its store is closed.
	Empty bool `json:"empty,omitempty"`
	// Open means that the ledger takes part with a whole copy.
	Open bool `json:"open,omitempty"`
	// Raft is its progress: Raft group -> state. Only ledgers that are open
	// report it.
	Raft map[string]embedded.RaftState `json:"raft,omitempty"`
}

// Knows reports whether the ledger has known a log that was created.
func (r Report) Knows() bool { return r.Epoch != "" && !r.Beginning }

// Kind is the next step of a ledger.
type Kind int

// Each decision has one kind.
const (
	Create           Kind = iota + 1 // create the log
	Open                             // open the empty store: no ledger has known a log
	Fill                             // open the empty store, and copy the log from others
	WaitForLedgers                   // some ledgers have not answered
	WaitForCreator                   // another ledger creates the log
	WaitForAgreement                 // the others may lack what this ledger acknowledged
	Gone                             // the log is lost
)

// Decision is the result of the answers of all ledgers.
type Decision struct {
	Kind    Kind
	Missing []string // for WaitForLedgers
	Creator string   // for WaitForCreator
	From    []string // for Fill: who has a copy
	Err     error    // for Gone: an ErrLogGone
}

// Missing returns the members that have not answered.
func Missing(answers map[string]Report, members []string) []string {
	return slices.DeleteFunc(slices.Clone(members), func(name string) bool {
		_, ok := answers[name]
		return ok
	})
}

// DecideCreate decides whether the ledger called own creates the log, which no
// server has. answers include its own; members are the sorted names of all
// ledgers. A ledger that has begun to create the log finishes it.
func DecideCreate(own string, answers map[string]Report, members []string) Decision {
	creator := ""
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		switch a := answers[name]; {
		case a.Knows():
			return Decision{
				Kind: Gone,
				Err: fmt.Errorf(
					"%w: ledger %s has known it (epoch %s), and no server has it: a majority of the copies is lost, and a new log would forget every revocation; "+
						"stop all ledgers and restore the log from a backup",
					ErrLogGone,
					name,
					a.Epoch,
				),
			}
		case a.Beginning && creator == "":
			creator = name
		}
	}
	if missing := Missing(answers, members); len(missing) > 0 {
		return Decision{Kind: WaitForLedgers, Missing: missing}
	}
	if creator == "" {
		creator = members[0]
	}
	if creator != own {
		return Decision{Kind: WaitForCreator, Creator: creator}
	}
	return Decision{Kind: Create}
}

// DecideFill decides whether a ledger opens its empty store: because no ledger has
// known a log, or because most ledgers have a copy that holds all that this one
// can have acknowledged (agreed; see [Agreement]). answers include its own.
//
// Between the two lies the loss of a majority. Ledgers with empty disks could then
// outvote those that have something left: they would make them delete it, or take
// the shortest copy for the truth.
func DecideFill(answers map[string]Report, members []string, agreed bool) Decision {
	var copies, known []string
	for _, name := range members {
		if answers[name].Knows() {
			known = append(known, name)
			if !answers[name].Empty {
				copies = append(copies, name)
			}
		}
	}
	missing := Missing(answers, members)
	switch {
	case len(copies) > len(members)/2 && !agreed:
		return Decision{Kind: WaitForAgreement}
	case len(copies) > len(members)/2:
		return Decision{Kind: Fill, From: copies}
	case len(missing) > 0:
		return Decision{Kind: WaitForLedgers, Missing: missing}
	case len(copies) > 0:
		return Decision{
			Kind: Gone,
			Err: fmt.Errorf(
				"%w: of %d ledgers only %s has a copy, and a copy that is alone may lack events that were acknowledged: "+
					"stop all ledgers, and restore the log from a backup",
				ErrLogGone,
				len(members),
				strings.Join(copies, ", "),
			),
		}
	case len(known) > 0:
		return Decision{
			Kind: Gone,
			Err: fmt.Errorf(
				"%w: %s had one, and no ledger has a copy; restore it from a backup",
				ErrLogGone,
				strings.Join(known, ", "),
			),
		}
	}
	return Decision{Kind: Open}
}
