package leasemodel

import (
	"testing"
	"time"
)

// worlds are explored one by one. Each allows the faults that its name says and
// few others, because all faults together would take days. With -deep, each
// takes some gigabytes of memory.
var worlds = []struct {
	name  string
	small limits
	deep  limits
	quick bool // the small world takes less than a second
}{
	{
		"delayed renewals", // which overtake each other and the barrier
		limits{Horizon: 6, Renewals: 2, Barriers: 1},
		limits{Horizon: 6, Renewals: 2, Barriers: 2},
		false,
	},
	{
		"a slow clock",
		limits{Horizon: 6, Renewals: 1, Barriers: 2, Slow: 1},
		limits{Horizon: 6, Renewals: 2, Barriers: 1, Slow: 1},
		false,
	},
	{
		"a ledger that checks late",
		limits{Horizon: 6, Renewals: 1, Barriers: 1, Slow: 1, Lazy: true},
		limits{Horizon: 5, Renewals: 2, Barriers: 1, Lazy: true},
		true,
	},
	{
		"the first lease",
		limits{Horizon: 4, Renewals: 1, Barriers: 2, Cold: true},
		limits{Horizon: 4, Renewals: 2, Barriers: 2, Cold: true},
		true,
	},
	{
		"a verifier that restarts",
		limits{Horizon: 4, Renewals: 1, Barriers: 2, Restarts: 1},
		limits{Horizon: 3, Renewals: 2, Barriers: 2, Restarts: 1},
		false,
	},
	{
		"two processes with one name",
		limits{Horizon: 4, Renewals: 1, Barriers: 1, Restarts: 1, Twin: true},
		limits{Horizon: 4, Renewals: 2, Barriers: 1, Restarts: 1, Twin: true},
		false,
	},
	{
		"a second ledger that lags",
		limits{Horizon: 4, Renewals: 1, Barriers: 2, Second: true},
		limits{Horizon: 4, Renewals: 1, Barriers: 3, Second: true},
		false,
	},
	{
		"a second ledger and a verifier that restarts",
		limits{Horizon: 2, Renewals: 1, Barriers: 2, Second: true, Restarts: 1},
		limits{Horizon: 3, Renewals: 1, Barriers: 2, Second: true, Restarts: 1},
		false,
	},
	{
		"more processes with one name than a ledger distinguishes",
		limits{Horizon: 4, Renewals: 1, Barriers: 1, Restarts: 1, Twin: true, Told: 1},
		limits{Horizon: 4, Renewals: 2, Barriers: 1, Restarts: 1, Twin: true, Told: 1},
		false,
	},
	{
		"a ledger that restarts",
		limits{Horizon: 5, Renewals: 1, Barriers: 1, LedgerRestarts: 1},
		limits{Horizon: 5, Renewals: 1, Barriers: 2, LedgerRestarts: 1},
		false,
	},
	{
		"a ledger that restarts after leases have ended",
		limits{Horizon: 5, Renewals: 1, Barriers: 2, LedgerRestarts: 1},
		limits{Horizon: 6, Renewals: 1, Barriers: 2, LedgerRestarts: 1},
		false,
	},
	{
		"an index that is rebuilt",
		limits{Horizon: 5, Renewals: 1, Barriers: 1, Rebuilds: 1},
		limits{Horizon: 5, Renewals: 2, Barriers: 1, Rebuilds: 1},
		true,
	},
	{
		"a verifier that gives up",
		limits{Horizon: 5, Renewals: 1, Barriers: 1, GiveUps: 1, Restarts: 1},
		limits{Horizon: 4, Renewals: 1, Barriers: 2, GiveUps: 1, Restarts: 1},
		false,
	},
	{
		"any fault",
		limits{Horizon: 4, Renewals: 1, Barriers: 1, Lost: 1, LedgerLost: 1, Restarts: 1, GiveUps: 1, Rebuilds: 1, Failed: 1, Timeouts: 1, LedgerRestarts: 1, Faults: 1},
		limits{Horizon: 4, Renewals: 1, Barriers: 2, Lost: 1, LedgerLost: 1, Restarts: 1, GiveUps: 1, Rebuilds: 1, Failed: 1, Timeouts: 1, LedgerRestarts: 1, Faults: 1},
		false,
	},
	{
		"any two faults",
		limits{Horizon: 3, Renewals: 1, Barriers: 1, Lost: 1, Restarts: 1, Rebuilds: 1, LedgerRestarts: 1, Faults: 2},
		limits{Horizon: 3, Renewals: 1, Barriers: 1, Lost: 1, LedgerLost: 1, Restarts: 1, GiveUps: 1, Rebuilds: 1, Failed: 1, Timeouts: 1, LedgerRestarts: 1, Faults: 2},
		false,
	},
}

// TestNoReceiptTooEarly holds I3, I5 and I11 of the protocol itself: a receipt
// is given only when no process may answer any more without what it covers.
func TestNoReceiptTooEarly(t *testing.T) {
	began, states := time.Now(), 0
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			l := w.small
			if *deep {
				l = w.deep
			}
			if (racing || testing.Short()) && !w.quick {
				t.Skip("takes some seconds")
			}
			f := explore(l)
			t.Log(f)
			states += f.states
			if f.trace != nil {
				t.Errorf("a receipt while a process may still answer:\n%s", f.story())
			}
			if f.both == 0 || f.refuses == 0 {
				t.Error("what is looked for cannot come to be in this world")
			}
		})
	}
	t.Logf("%d states in %v", states, time.Since(began).Round(time.Millisecond))
}

// TestBrokenRulesAreCaught breaks each rule, and has the same explorer find
// what comes of it.
func TestBrokenRulesAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		l      limits
		broken rule
	}{
		{"it does not read up to its renewal", limits{Horizon: 5, Renewals: 1, Barriers: 1}, noRead},
		{"it ignores the floor of barriers", limits{Horizon: 5, Renewals: 1, Barriers: 1}, noFloor},
		{"its lease starts at the acknowledgement", limits{Horizon: 6, Renewals: 1, Barriers: 1}, fromAck},
		{"it joins without a barrier after its renewal", limits{Horizon: 5, Renewals: 1, Barriers: 1, Restarts: 1}, noJoin},
		{"it answers below its minimum position", limits{Horizon: 5, Renewals: 1, Barriers: 1, Rebuilds: 1}, noLeast},
		{"it answers for a while after it has released its lease", limits{Horizon: 5, Renewals: 1, Barriers: 1, GiveUps: 1}, lateStop},
		{"it restarts with the instance of the previous process", limits{Horizon: 4, Renewals: 1, Barriers: 2, Restarts: 1}, sameInstance},
		{"a ledger takes a renewal after the barrier as proof", limits{Horizon: 5, Renewals: 2, Barriers: 1}, doneByRenewal},
		{"barriers are written without a condition on the last one", limits{Horizon: 2, Renewals: 1, Barriers: 2, Second: true, Restarts: 1}, unconditional},
		{"a ledger that starts assumes that it knows all holders", limits{Horizon: 5, Renewals: 1, Barriers: 1, LedgerRestarts: 1}, forgetHolders},
		{"a ledger waits without the margin, and a clock is slow", limits{Horizon: 5, Renewals: 1, Barriers: 1, Slow: 1}, noMargin},
		{"a ledger ignores processes that it does not distinguish", limits{Horizon: 4, Renewals: 1, Barriers: 2, Restarts: 1, Told: 1}, leaveOut},
		{"a barrier lists leases as ended without the margin", limits{Horizon: 6, Renewals: 1, Barriers: 2, Slow: 1, LedgerRestarts: 1}, endedEarly},
		{"a listed lease ends later renewals, too", limits{Horizon: 5, Renewals: 1, Barriers: 2, LedgerRestarts: 1}, endedAll},
		{"a ledger does not read up to its barrier", limits{Horizon: 4, Renewals: 1, Barriers: 2, Cold: true}, readNotUpTo},
	} {
		t.Run(c.name, func(t *testing.T) {
			if (racing || testing.Short()) && c.l.Barriers > 1 && c.l.Restarts > 0 {
				t.Skip("takes some seconds")
			}
			l := c.l
			l.Broken = c.broken
			f := explore(l)
			t.Log(f)
			if f.trace == nil {
				t.Error("the explorer found no violation")
				return
			}
			t.Logf("found:\n%s", f.story())
		})
	}
}
