package clustertest

import (
	"testing"
	"time"
)

// breakage is a program that is broken on purpose.
type breakage struct {
	name  string
	edits []Edit
	want  []string // invariants that it violates
	scene scene
}

// scene is a cluster under load in which a breakage shows.
type scene struct {
	// begin starts the cluster and its load, and play does something to them.
	begin func(t *testing.T, o Options) *harness
	play  func(t *testing.T, c *harness)
}

// The scenes. A breakage that shows in none of them brings its own.
var (
	// cutOffScene cuts a verifier off for longer than its lease.
	cutOffScene = scene{
		begin: func(t *testing.T, o Options) *harness {
			o.Ledgers, o.Verifiers = 1, 2
			return newHarness(t, o)
		},
		play: func(t *testing.T, c *harness) {
			v := c.anyVerifier()
			c.hold(v, true, true)
			end := c.cut(v)
			cut := c.load.Now()
			c.load.Proofs(t, 10)
			for c.load.Now() < cut+c.lease+time.Second {
				c.load.Proofs(t, 1)
			}
			end()
			c.Heal()
			c.load.Proofs(t, 10)
		},
	}
	// roamScene has clients change the same records through all ledgers.
	roamScene = scene{
		begin: func(t *testing.T, o Options) *harness {
			return bare(t, o, roamers)
		},
		play: func(t *testing.T, c *harness) { c.turnAbout(t, 100) },
	}
	// actorScene ends tokens while clients work with them.
	actorScene = scene{
		begin: func(t *testing.T, o Options) *harness { return bare(t, o, actors) },
		play:  func(t *testing.T, c *harness) { c.endActors(t, 30) },
	}
)

// breakages are what TestBroken tries. The first two are part of the short form.
var breakages = []breakage{
	{
		"the verifier ignores its lease",
		[]Edit{
			{"verifier/decision.go", "if d.Reason == Unavailable || valid && d.Position >=", "if d.Position >="},
			unconfirmed,
		},
		[]string{"I3", "I11"},
		cutOffScene,
	},
	{
		"the ledger waits for no barrier",
		[]Edit{{"ledger/barrier/machine.go", "	if !m.bind(w) {\n		return false, 0\n	}\n	// A renewal", "	if true {\n		return true, 0\n	}\n	// A renewal"}},
		[]string{"I3"},
		cutOffScene,
	},
	{
		"the ledger waits for no lease",
		[]Edit{{"ledger/barrier/machine.go", "	all := w.barrier.seen + m.lease + m.margin\n	known,", "	all := w.barrier.seen\n	known,"}},
		[]string{"I3"},
		cutOffScene,
	},
	{
		"the ledger waits for half a lease",
		[]Edit{
			{"ledger/barrier/machine.go", "	all := w.barrier.seen + m.lease + m.margin\n	known,", "	all := w.barrier.seen + m.lease/2\n	known,"},
		},
		[]string{"I3"},
		cutOffScene,
	},
	{
		"a node's silence counts as consent",
		[]Edit{{"ledger/barrier/machine.go", "		default:\n			complete, wake = false, min(wake, ends)\n", "		default:\n"}},
		[]string{"I3"},
		cutOffScene,
	},
	{
		"a lease needs no reading of the log",
		[]Edit{
			{"verifier/lease/machine.go", "if !t.known || m.applied < t.floor {", "if !t.known {"},
			{"verifier/lease/machine.go", "		m.minPos = max(m.minPos, t.floor)\n", ""},
		},
		[]string{"I3"},
		cutOffScene,
	},
	{
		"a suspended account's tokens work on",
		[]Edit{{"verifier/decision.go", "		return AccountSuspended\n", "		return Allowed\n"}},
		[]string{"I3", "I4"},
		cutOffScene,
	},
	{
		"keys of earlier commands are not looked for",
		[]Edit{{"ledger/commit/writer.go", "	if key == \"\" {\n		return Outcome{}, nil\n	}\n	done, err", "	if true {\n		return Outcome{}, nil\n	}\n	done, err"}},
		[]string{"I2"},
		cutOffScene,
	},
	{
		"the answer names another position",
		[]Edit{{"ledger/commit/writer.go", "return Outcome{Position: at, Event: e.ID,", "return Outcome{Position: at + 1, Event: e.ID,"}},
		[]string{"I1"},
		cutOffScene,
	},
	{
		"a command that finds nothing to do does not ask the quorum",
		[]Edit{{
			"ledger/commit/writer.go", "	if change == nil {\n		if r.c.By.Account == \"\" {\n",
			"	if change == nil {\n		if true {\n",
		}},
		[]string{"I15"},
		roamScene,
	},
	{
		"the actor is not checked again",
		[]Edit{
			{
				"ledger/commit/writer.go", "	by, err := r.w.authz.Reading(seen).Current(r.c.By)\n",
				"	_, _ = r.w.authz.Reading(seen).Current(r.c.By)\n	by, err := r.c.By, error(nil)\n",
			},
			{"projector/fold.go", "void, err := s.whyVoid(e)", "void, err := \"\", error(nil)"},
		},
		[]string{"I14"},
		actorScene,
	},
}

// TestBroken holds the suite itself to something: programs that are broken on
// purpose, each in one line, have to be caught, and the one that is not broken
// must not be.
func TestBroken(t *testing.T) {
	together(t)
	list := breakages[:2]
	if *chaosFlag {
		list = append(breakages,
			breakage{name: "nothing is broken, and a verifier is cut off", scene: cutOffScene},
			breakage{name: "nothing is broken, and clients roam", scene: roamScene},
			breakage{name: "nothing is broken, and actors end", scene: actorScene})
	}
	for _, b := range list {
		t.Run(b.name, func(t *testing.T) {
			c := b.scene.begin(t, Options{Verifiers: 1, Lease: shortLease, Program: Build(t, b.edits...)})
			b.scene.play(t, c)
			c.load.End()
			log := c.ReadLog(t)
			record := c.load.Record()
			found := append(record.Violations(), record.LogViolations(log, rootAccount(t, log))...)
			caught := map[string]int{}
			for _, violation := range found {
				if caught[violation.Invariant]++; caught[violation.Invariant] == 1 {
					t.Log(violation)
				}
			}
			t.Logf("violations by invariant: %v", caught)
			for _, invariant := range b.want {
				if caught[invariant] == 0 {
					t.Errorf("%s is not found to be violated", invariant)
				}
			}
			if len(b.want) == 0 && len(found) > 0 {
				t.Errorf("%d violations although nothing is broken", len(found))
			}
		})
	}
}
