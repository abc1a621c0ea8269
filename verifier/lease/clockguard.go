package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// compareTimeout bounds how long a ledger's first lease waits for another
// ledger's clock: maybe no other ledger writes barriers now.
const compareTimeout = 10 * time.Second

// comparedLocked reports whether checks may see a lease: a ledger among others
// first compares its clock.
func (k *Keeper) comparedLocked() bool {
	if !k.compared {
		k.compared = k.clocks.Heard() || k.firstAckAt != 0 && k.cfg.Boottime() > k.firstAckAt+compareTimeout
	}
	return k.compared
}

// clockLogInterval is how often a wrong clock is logged.
const clockLogInterval = time.Minute

// compareLocked compares this machine's clock with the ledgers' clocks, and
// returns why there may be no lease, nil if there may be one.
func (k *Keeper) compareLocked() error {
	low, high := k.cfg.timeOfDay()
	now := k.cfg.Boottime()
	was := k.offset.Off
	k.offset = k.clocks.Compare(low, high, now)
	err := k.offset.err()
	switch {
	case err != nil && (k.clockLoggedAt == 0 || now > k.clockLoggedAt+clockLogInterval):
		k.clockLoggedAt = now
		k.cfg.Logger.Error("clock is wrong; refusing checks", "offset", round(k.offset.By), "limit", events.ClockLimit,
			"remedy", "correct the clock of this machine, for example with chronyc makestep")
	case err == nil && was:
		k.cfg.Logger.Info("clock is right again", "offset", round(k.offset.By))
	}
	return err
}

// fenceLocked ends the lease and every pending renewal because of err.
func (k *Keeper) fenceLocked(ctx context.Context, err error) {
	if k.dropLeaseLocked() {
		wake(k.woken)
	}
	if !k.released {
		k.cause = err
	}
	k.publishLocked(ctx)
}

// ClockErr returns why a time that this node takes from its own clock would be in
// doubt, nil if it is not: the clock is wrong, half of the ledgers have another
// time, or no other ledger's time is known although there are other ledgers.
func (k *Keeper) ClockErr() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.compareLocked()
	switch {
	case err != nil:
		return err
	case !k.comparedLocked():
		return errCompare
	case k.offset.Doubtful:
		return fmt.Errorf(
			"half of the ledgers have another time of day; this machine differs by %s: correct the clocks",
			round(k.offset.By),
		)
	}
	return nil
}
