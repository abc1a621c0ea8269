package commit

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

func TestSecretCacheBounds(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	a := newSecretCache(func() time.Time { return now })
	id := func(i int) events.EventID { return events.EventID(fmt.Sprintf("evt_%d", i)) }
	secrets := make([]events.Secret, maxSecrets+5)
	for i := range secrets {
		secrets[i] = events.NewHexSecret()
		a.keep(id(i), secrets[i])
		now = now.Add(time.Millisecond)
	}
	if len(a.secrets) != maxSecrets || len(a.order) != maxSecrets {
		t.Errorf("%d secrets in order of %d, want %d", len(a.secrets), len(a.order), maxSecrets)
	}
	for i, want := range map[int]bool{0: false, 4: false, 5: true, maxSecrets + 4: true} {
		if s, ok := a.find(id(i)); ok != want || ok && s != secrets[i] {
			t.Errorf("find(%d) = %t, want %t", i, ok, want)
		}
	}
	if len(a.secrets) != maxSecrets {
		t.Errorf("looking forgot some: %d are left", len(a.secrets))
	}

	// A command that is decided again replaces only its secret.
	again := events.NewHexSecret()
	a.keep(id(9), again)
	if s, _ := a.find(id(9)); s != again || len(a.secrets) != maxSecrets || len(a.order) != maxSecrets {
		t.Errorf("kept again: %d secrets in order of %d", len(a.secrets), len(a.order))
	}

	now = now.Add(secretTTL)
	if _, ok := a.find(id(maxSecrets + 4)); ok || len(a.secrets) != 0 || len(a.order) != 0 {
		t.Errorf("after %s: %d secrets in order of %d, want none", secretTTL, len(a.secrets), len(a.order))
	}
}
