package signin_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

func TestSignIn(t *testing.T) {
	k := start(t, 2)
	id := k.person("Anna@example.org", good, "admin:site/3")
	for i, n := range k.node {
		for _, login := range []string{"Anna@example.org", "anna@EXAMPLE.org"} {
			o, err := n.enter(login, good, "", home)
			if err != nil {
				t.Fatalf("ledger %d: %v", i, err)
			}
			if !events.IsSessionSecret(o.Secret.Reveal()) || events.DefaultFormat.Shape(o.Secret.Reveal()) {
				t.Error("the secret of a session is shaped like a token's")
			}
			k.accepted(o)
			c := k.node[1-i].caller(o)
			if c.Account != id || c.Session != o.Session.ID || c.Token != "" || c.Authenticated.IsZero() || !c.Inherit || len(c.Scopes) != 1 || c.Scopes[0].String() != "admin:site/3" {
				t.Errorf("the caller is %+v", c)
			}
			if got := strings.Join(o.Session.Methods, " "); got != "pwd" || o.Session.Account != id || o.Session.Address != home {
				t.Errorf("the session is %+v", o.Session)
			}
		}
	}
	if got := k.credentialChanges(id); got != "invited password" {
		t.Errorf("the trail says %q", got)
	}
}

// TestFailuresLookTheSame fails sign-ins in every way: each has the same answer
// and takes one hash.
func TestFailuresLookTheSame(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	k.account("fresh", "user")
	k.account("robot", "service", "view:site/1")
	suspended := k.person("sleepy", good)
	k.append(string(suspended), &events.AccountSuspended{})
	erased := k.person("gone", good)
	k.append(string(erased), &events.AccountErased{})

	for i, tt := range []struct{ what, login, password string }{
		{"bad password", "anna", good + "!"},
		{"empty login", "", good},
		{"unknown login", "nobody", good},
		{"no login at all", "acc_01jd3qk8z5n0v7m2x4c6b8a9ef", good},
		{"login that looks the same", "аnna", good}, // its first letter is Cyrillic
		{"no password yet", "fresh", good},
		{"service account", "robot", good},
		{"suspended", "sleepy", good},
		{"erased", "gone", good},
	} {
		before := n.Stats().Hashes
		_, err := n.enter(tt.login, tt.password, "", "192.0.2."+string(rune('1'+i)))
		cause(t, tt.what, err, signin.ErrLogin)
		if did := n.Stats().Hashes - before; did != 1 {
			t.Errorf("%s: %d hashes, want 1", tt.what, did)
		}
	}
	before := n.Stats().Hashes
	if _, err := n.enter("anna", good, "", home); err != nil || n.Stats().Hashes-before != 1 {
		t.Errorf("a good sign-in: %v, %d hashes", err, n.Stats().Hashes-before)
	}
	for _, secret := range []string{good, "anna", "sleepy", "robot"} {
		if strings.Contains(n.logged.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	if !strings.Contains(n.logged.String(), home) || !strings.Contains(n.logged.String(), "signed in") {
		t.Error("the log does not say who signed in from where")
	}
}

// TestOverlong refuses overlong input before any hash.
func TestOverlong(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	before := n.Stats().Hashes
	for _, login := range []string{"anna", "nobody"} {
		for _, password := range []string{strings.Repeat("a", 1<<20), strings.Repeat("é", 129), strings.Repeat("\u0301", 600), "", "a\x00b", "\xff\xfe"} {
			_, err := n.enter(login, password, "", home)
			field(t, login, err, "password", password)
		}
	}
	if _, err := n.enter(strings.Repeat("a", 1<<20), good, "", home); !errors.Is(err, signin.ErrFailed) {
		t.Errorf("a login of 1 MiB: %v", err)
	}
	if did := n.Stats().Hashes - before; did != 1 {
		t.Errorf("%d hashes, want that of the long login alone", did)
	}
}

// TestNormal accepts a password in another Unicode normalization.
func TestNormal(t *testing.T) {
	k := start(t, 1)
	k.person("anna", "Ångström quaver plinth") // Å as one code point
	for _, tt := range []struct {
		typed string
		ok    bool
	}{
		{"A\u030angstro\u0308m quaver plinth", true},
		{"Ångström\u00a0quaver\u3000plinth", true},
		{"ångström quaver plinth", false},
		{"Ångström quaver plinth ", false},
	} {
		if _, err := k.node[0].enter("anna", tt.typed, "", home); (err == nil) != tt.ok {
			t.Errorf("%q: %v, want accepted %t", tt.typed, err, tt.ok)
		}
	}
}

// TestRehash computes a hash with old parameters again, once.
func TestRehash(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	id := k.person("anna", good)
	before, _ := k.stored(id)["password"].(string)
	n.cfg.Cost = signin.Cost{Memory: 128, Passes: 2, Threads: 1}
	n.reopen()
	if _, err := n.enter("anna", good+"?", "", home); !errors.Is(err, signin.ErrFailed) {
		t.Fatal(err)
	}
	if now := k.stored(id)["password"]; now != before {
		t.Error("a bad password changed the hash")
	}
	for i, want := range []uint64{2, 1} {
		hashes := n.Stats().Hashes
		n.must("anna", good, "")
		if did := n.Stats().Hashes - hashes; did != want {
			t.Errorf("sign-in %d: %d hashes, want %d", i, did, want)
		}
	}
	if now, _ := k.stored(id)["password"].(string); !strings.HasPrefix(before, "$argon2id$v=19$m=64,t=1,p=1$") || !strings.HasPrefix(now, "$argon2id$v=19$m=128,t=2,p=1$") {
		t.Errorf("the hash began as %.30s and is %.30s", before, now)
	}
}

// TestFlood limits the number of sign-ins that wait for a hash.
func TestFlood(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	before := n.Stats().Hashes
	release, _ := n.HoldHashes()
	const people = 200
	errs := make(chan error, people)
	for i := range people {
		go func() {
			_, err := n.SignIn.SignIn(context.Background(), signin.Attempt{Login: "user" + hex(i), Password: []byte(good), Address: "2001:db8:" + hex(i) + "::1"})
			errs <- err
		}()
	}
	for range people - n.MaxWaiting() {
		if err := <-errs; !errors.Is(err, signin.ErrBusy) || !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("one too many: %v, want ErrBusy", err)
		}
	}
	release()
	for range n.MaxWaiting() {
		same(t, "one that waited", <-errs)
	}
	if did := int(n.Stats().Hashes - before); did != n.MaxWaiting() {
		t.Errorf("%d hashes, want those of the %d that waited", did, n.MaxWaiting())
	}
	// A refused sign-in does not count as a failure, and the next one has room.
	if _, err := n.enter("anna", good, "", home); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

// TestFairTurns floods sign-in with the right password of one account, or with
// many logins from one address. Another account gets the next turn, from any
// address.
func TestFairTurns(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("mallory", good)
	k.person("anna", good)
	const elsewhere = "198.51.100.7"
	some := func(i int) string { return fmt.Sprintf("203.0.113.%d", i%3) } // the limits let eight in from each
	for _, tt := range []struct {
		name  string
		login func(i int) string
		from  func(i int) string
		anna  string // where she signs in from
	}{
		{"an account", func(int) string { return "mallory" }, some, elsewhere},
		{"an account, also from the address of anna", func(int) string { return "mallory" }, some, some(0)},
		{"an account from many addresses", func(int) string { return "mallory" }, func(i int) string { return fmt.Sprintf("203.0.113.%d", i) }, elsewhere},
		{"many logins from one address", func(i int) string { return fmt.Sprintf("user%d", i) }, func(int) string { return home }, elsewhere},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k.now.Advance(24 * time.Hour) // the failures of before are forgotten
			release, step := n.HoldHashes()
			defer release()
			const flood = 24
			results := make(chan error, flood)
			for i := range flood {
				if i == 1 {
					// The first sign-in in the queue has the first turn. It has
					// the address that anna may share.
					await(t, "the first one waits", func() bool { return n.Waiting() == 1 })
				}
				go func() {
					_, err := n.SignIn.SignIn(context.Background(), signin.Attempt{Login: tt.login(i), Password: []byte(good), Address: tt.from(i)})
					results <- err
				}()
			}
			// The queue is full: the rest is refused.
			for range flood - n.MaxWaiting() {
				if err := <-results; !errors.Is(err, signin.ErrBusy) {
					t.Fatalf("one that does not fit: %v, want ErrBusy", err)
				}
			}
			step() // so that what has run counts, too
			<-results
			// Anna takes a place in the queue and has the next turn after the
			// free slots.
			before := n.Stats().Hashes
			signed := make(chan error, 1)
			go func() {
				_, err := n.SignIn.SignIn(context.Background(), signin.Attempt{Login: "anna", Password: []byte(good), Address: tt.anna})
				signed <- err
			}()
			await(t, "anna waits", func() bool { return n.Waiting() == n.MaxWaiting() })
			step()
			select {
			case err := <-signed:
				if err != nil {
					t.Errorf("anna: %v", err)
				}
			case err := <-results:
				t.Fatalf("the turn is another's (%v), want anna's", err)
			}
			if did := n.Stats().Hashes - before; did != 1 {
				t.Errorf("anna had turn %d, want the first", did)
			}
			// Again, with a full queue.
			go func() {
				_, err := n.SignIn.SignIn(context.Background(), signin.Attempt{Login: tt.login(0), Password: []byte(good), Address: tt.from(0)})
				results <- err
			}()
			await(t, "the queue is full again", func() bool { return n.Waiting() == n.MaxWaiting() })
			go func() {
				_, err := n.SignIn.SignIn(context.Background(), signin.Attempt{Login: "anna", Password: []byte(good), Address: tt.anna})
				signed <- err
			}()
			if err := <-results; !errors.Is(err, signin.ErrBusy) {
				t.Errorf("the flood's last = %v, want ErrBusy: its place is anna's", err)
			}
			step()
			release()
			if err := <-signed; err != nil {
				t.Errorf("anna, with the queue full: %v", err)
			}
			for range n.MaxWaiting() - 1 {
				if err := <-results; err != nil {
					same(t, "one of the flood", err)
				}
			}
		})
	}
}

// TestLease refuses every sign-in while the node has no lease.
func TestLease(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	o, _ := n.must("anna", good, "")
	i, err := n.Invite(t.Context(), k.root, "anna", false)
	if err != nil {
		t.Fatal(err)
	}
	n.ready = false
	before := n.Stats().Hashes
	_, err1 := n.enter("anna", good, "", home)
	_, err2 := n.Authenticate(t.Context(), o.Secret.Reveal(), home)
	_, err3 := n.Redeem(t.Context(), i.Secret.Reveal(), []byte(good), home)
	_, err4 := n.SignInToken(t.Context(), "x", home)
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("%d: %v, want ErrUnavailable", i, err)
		}
	}
	if n.Stats().Hashes != before {
		t.Error("a node without a lease made hashes")
	}
	n.ready = true
	k.accepted(o)
}

// TestAttempts guesses passwords of an account from many addresses.
func TestAttempts(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	n.must("anna", good, "") // the owner is known at home
	limited := func(login, address string) (*signin.TooManyError, bool) {
		before := n.Stats().Hashes
		_, err := n.enter(login, "not the password of anybody", "", address)
		var many *signin.TooManyError
		if errors.As(err, &many) {
			if n.Stats().Hashes != before {
				t.Error("an attempt past the limit cost a hash")
			}
			return many, true
		}
		same(t, "a bad password", err)
		return nil, false
	}
	// One address and account: eight failures, whether the login exists or not.
	for _, login := range []string{"anna", "ANNA", "nobody"} {
		count, address := 0, abroad
		if login == "nobody" {
			address = "198.51.100.8"
		}
		for range 20 {
			many, stop := limited(login, address)
			if stop {
				if many.After <= 0 || many.After > 5*time.Minute {
					t.Errorf("try again in %s", many.After)
				}
				break
			}
			count++
		}
		if want := map[string]int{"anna": 8, "ANNA": 0, "nobody": 8}[login]; count != want {
			t.Errorf("%s: %d failures of one address are let through, want %d", login, count, want)
		}
	}
	// From new networks each time: 40 failures, and the same for an unknown
	// login.
	for _, login := range []string{"anna", "nobody"} {
		count := 0
		for i := range 100 {
			if _, stop := limited(login, "2001:db8:1:"+hex(i)+"::1"); !stop {
				count++
			}
		}
		if count != 40-8 {
			t.Errorf("%s: %d failures of strangers are let through, want 32 after the eight of before", login, count)
		}
	}
	// Unknown addresses are refused; the owner's known address is not.
	var many *signin.TooManyError
	if _, err := n.enter("anna", good, "", "203.0.113.9"); !errors.As(err, &many) {
		t.Errorf("a stranger with the password: %v, want too many attempts", err)
	}
	for range 50 {
		n.must("anna", good, "")
	}
	// After an hour a few more attempts are allowed.
	k.now.Advance(time.Hour)
	count := 0
	for i := range 100 {
		if _, stop := limited("anna", "2001:db8:2:"+hex(i)+"::1"); !stop {
			count++
		}
	}
	if count < 6 || count > 7 {
		t.Errorf("%d failures of strangers are let through after an hour, want one in ten minutes", count)
	}
	// One address with many logins.
	count = 0
	for i := range 100 {
		if _, stop := limited("user"+hex(i), "203.0.113.77"); !stop {
			count++
		}
	}
	if count != 30 {
		t.Errorf("%d failures of one address are let through, want 30", count)
	}
	// All of one customer's IPv6 network is one address.
	count = 0
	for i := range 100 {
		if _, stop := limited("other"+hex(i), "2001:db8:aaaa:bbbb::"+hex(i)); !stop {
			count++
		}
	}
	if count != 30 {
		t.Errorf("%d failures of one network are let through, want 30", count)
	}
}

// TestGuessedCodes counts wrong codes like wrong passwords.
func TestGuessedCodes(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	_, c := n.must("anna", good, "")
	k.factor(n, c)
	stopped := false
	for i := range 20 {
		_, err := n.enter("anna", good, "000000", abroad)
		var many *signin.TooManyError
		if stopped = errors.As(err, &many); stopped {
			if i != 8 {
				t.Errorf("%d guesses of a code are let through, want 8", i)
			}
			break
		}
		same(t, "a guessed code", err)
	}
	if !stopped {
		t.Error("codes can be guessed without limit")
	}
	// A password without its code is not a failure.
	for range 20 {
		if _, err := n.enter("anna", good, "", "198.51.100.99"); !errors.Is(err, signin.ErrSecondFactor) {
			t.Fatalf("a password without its code: %v", err)
		}
	}
}

func hex(i int) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[i>>8&15], digits[i>>4&15], digits[i&15]})
}
