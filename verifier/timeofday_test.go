package verifier_test

import (
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// tellingLease is a lease that reports a time of day.
type tellingLease struct {
	*verifiertest.Lease
	now time.Time
}

func (l *tellingLease) Valid() (int64, bool) {
	_, yes := l.Lease.Valid()
	return l.now.UnixNano(), yes
}

// TestWhoseTimeOfDay measures expiry by the lease's reading of the time of day,
// by the configured clock if there is one, or else by the node's own.
func TestWhoseTimeOfDay(t *testing.T) {
	l := eventstest.NewLog(1)
	id, secret := l.Token(l.Account("superuser"), "superuser")
	end := time.Now().Add(time.Hour)
	l.Change(string(id), &events.TokenEdited{Expires: &end})
	n := verifiertest.Start(t, l, verifiertest.Options{})
	never, before, after := time.Unix(0, 0), end.Add(-1), end
	for _, c := range []struct {
		lease time.Time
		own   func() time.Time
		want  verifier.Reason
	}{
		{before, nil, verifier.Allowed},
		{after, nil, verifier.Expired},
		{never, nil, verifier.Allowed},
		{before, func() time.Time { return after }, verifier.Expired},
		{after, func() time.Time { return before }, verifier.Allowed},
		{never, func() time.Time { return after }, verifier.Expired},
	} {
		v, err := verifier.New(verifier.Config{Index: n.Index, Lease: &tellingLease{n.Lease, c.lease}, Now: c.own})
		if err != nil {
			t.Fatal(err)
		}
		if d := v.Check(secret.Reveal(), verifier.Request{}); d.Reason != c.want {
			t.Errorf("lease at %s, own clock %t: %s, want %s", c.lease, c.own != nil, d.Reason, c.want)
		}
	}
}
