package signin_test

import (
	"errors"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

func TestSecondFactor(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	id := k.person("anna", good)
	_, c := n.must("anna", good, "")

	secret, recovery := k.enrol(n, c)
	k.checkCodes(n, secret)
	k.checkSteps(n, secret)
	k.checkRecovery(n, id, recovery)
	k.checkRemoval(n, id, secret, recovery)
}

// enrol adds a second factor for anna, who is signed in as c, and confirms it. The
// factor counts only after that. It returns the factor's secret and the recovery
// codes.
func (k *ledgers) enrol(n *node, c authz.Principal) (secret string, recovery []string) {
	t := k.t
	t.Helper()
	e, err := n.AddSecondFactor(t.Context(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(e.URI)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/tokenledger:anna" || u.Query().Get("secret") != e.Secret ||
		u.Query().Get("issuer") != "tokenledger" || u.Query().Get("digits") != "6" || u.Query().Get("period") != "30" || u.Query().Get("algorithm") != "SHA1" {
		t.Errorf("the address for apps is %s (%v)", e.URI, err)
	}
	// It is not required before it is confirmed.
	if _, err := n.enter("anna", good, "", home); err != nil {
		t.Errorf("before it is confirmed: %v", err)
	}
	wrong := "000000"
	if wrong == k.code(e.Secret) {
		wrong = "000001"
	}
	_, err = n.Confirm(t.Context(), c, wrong)
	field(t, "a wrong code", err, "code", wrong)
	recovery, err = n.Confirm(t.Context(), c, k.code(e.Secret))
	if err != nil {
		t.Fatal(err)
	}
	if len(recovery) != 10 {
		t.Fatalf("%d recovery codes, want 10", len(recovery))
	}
	for _, code := range recovery {
		if !regexp.MustCompile(`^[0-9a-z]{4}(-[0-9a-z]{4}){3}$`).MatchString(code) {
			t.Errorf("a recovery code is %q", code)
		}
	}
	if _, err := n.Confirm(t.Context(), c, k.code(e.Secret)); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("confirmed twice: %v", err)
	}
	return e.Secret, recovery
}

// checkCodes signs in with and without codes, each of which counts once.
func (k *ledgers) checkCodes(n *node, secret string) {
	t := k.t
	t.Helper()
	if _, err := n.enter("anna", good, "", home); !errors.Is(err, signin.ErrSecondFactor) {
		t.Errorf("without a code: %v", err)
	}
	_, err := n.enter("anna", good+"!", "", home)
	same(t, "a bad password without a code", err)
	_, err = n.enter("anna", good, k.code(secret), home)
	same(t, "the code that it was confirmed by", err)
	k.now.Advance(30 * time.Second)
	code := k.code(secret)
	_, err = n.enter("anna", good+"!", code, home)
	same(t, "a bad password with a code", err)
	o, err := n.enter("anna", good, code[:3]+" "+code[3:], home)
	if err != nil {
		t.Fatalf("the code, though it came with a bad password before: %v", err)
	}
	if got := strings.Join(o.Session.Methods, " "); got != "pwd otp mfa" {
		t.Errorf("methods are %q", got)
	}
	_, err = n.enter("anna", good, code, home)
	same(t, "a code again", err)
}

// checkSteps signs in with codes of other times: one step off is accepted, and time
// goes one way.
func (k *ledgers) checkSteps(n *node, secret string) {
	t := k.t
	t.Helper()
	k.now.Advance(2 * time.Minute)
	late := k.code(secret)
	k.now.Advance(30 * time.Second)
	n.must("anna", good, late)
	k.now.Advance(2 * time.Minute)
	late = k.code(secret)
	k.now.Advance(time.Minute)
	_, err := n.enter("anna", good, late, home)
	same(t, "a code two steps off", err)
	old := k.code(secret)
	k.now.Advance(30 * time.Second)
	n.must("anna", good, k.code(secret))
	_, err = n.enter("anna", good, old, home)
	same(t, "a code before the last", err)
}

// checkRecovery signs in with recovery codes, each once, however they are typed.
func (k *ledgers) checkRecovery(n *node, id events.AccountID, recovery []string) {
	t := k.t
	t.Helper()
	n.must("anna", good, recovery[0])
	_, err := n.enter("anna", good, recovery[0], home)
	same(t, "a recovery code again", err)
	n.must("anna", good, strings.ToUpper(strings.ReplaceAll(recovery[1], "-", " ")))
	if got := k.credentialChanges(id); got != "invited password second_factor recovery_code_used recovery_code_used" {
		t.Errorf("the trail says %q", got)
	}
	// The record has no recovery code.
	for _, code := range recovery {
		if e, err := k.bucket("DIRECTORY").Get(t.Context(), "credential."+string(id)); err != nil || strings.Contains(string(e.Value()), strings.ReplaceAll(code, "-", "")) {
			t.Errorf("a recovery code is stored as it is (%v)", err)
		}
	}
}

// checkRemoval renews the recovery codes, which ends the old ones, and removes the
// second factor, which ends all.
func (k *ledgers) checkRemoval(n *node, id events.AccountID, secret string, recovery []string) {
	t := k.t
	t.Helper()
	k.now.Advance(time.Hour) // the failures are forgotten
	_, c := n.must("anna", good, k.code(secret))
	fresh, err := n.RenewRecovery(t.Context(), c, recovery[3])
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.enter("anna", good, recovery[2], home)
	same(t, "a recovery code that was replaced", err)
	err = n.RemoveSecondFactor(t.Context(), c, recovery[2])
	same(t, "removal by a code that was replaced", err)
	if err := n.RemoveSecondFactor(t.Context(), c, fresh[0]); err != nil {
		t.Fatal(err)
	}
	n.must("anna", good, "")
	if err := n.RemoveSecondFactor(t.Context(), c, fresh[1]); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := n.RenewRecovery(t.Context(), c, ""); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("recovery codes for no second factor: %v", err)
	}
	if got := k.credentialChanges(id); !strings.HasSuffix(got, " recovery_code_used recovery_codes recovery_code_used second_factor_removed recovery_code_used") {
		t.Errorf("the trail says %q", got)
	}
}

// TestCodeOnce sends one code, and one recovery code, to several ledgers
// concurrently. Each is accepted once.
func TestCodeOnce(t *testing.T) {
	k := start(t, 3)
	k.person("anna", good)
	_, c := k.node[0].must("anna", good, "")
	secret, recovery := k.factor(k.node[0], c)
	for round := range 20 {
		code := k.code(secret)
		if round%2 == 1 {
			code = recovery[round/2]
		}
		errs := make([]error, len(k.node))
		atOnce(len(k.node), func(i int) { _, errs[i] = k.node[i].enter("anna", good, code, home) })
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				same(t, "the same code elsewhere", err)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d ledgers took one code: %v", round, won, errs)
		}
		k.now.Advance(10 * time.Minute) // failures are forgotten, and the code is another
	}
}

// TestRecentReauth checks that a re-authentication is recent for five minutes.
func TestRecentReauth(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good, "superuser")
	o, c := n.must("anna", good, "")
	secret, recovery := k.factor(n, c)
	needs := map[string]func(c authz.Principal) error{
		"add":     func(c authz.Principal) error { _, err := n.AddSecondFactor(t.Context(), c, ""); return err },
		"confirm": func(c authz.Principal) error { _, err := n.Confirm(t.Context(), c, "1"); return err },
		"remove":  func(c authz.Principal) error { return n.RemoveSecondFactor(t.Context(), c, "1") },
		"codes": func(c authz.Principal) error {
			made, err := n.RenewRecovery(t.Context(), c, recovery[1])
			if err == nil {
				recovery = made
			}
			return err
		},
		"invite": func(c authz.Principal) error { _, err := n.Invite(t.Context(), c, "anna", false); return err },
	}
	recent := func() {
		t.Helper()
		for what, do := range needs {
			if err := do(n.caller(o)); errors.Is(err, ledger.ErrReauthRequired) {
				t.Errorf("%s with a recent proof: %v", what, err)
			}
		}
	}
	stale := func() {
		t.Helper()
		for what, do := range needs {
			var p *ledger.ReauthError
			if err := do(n.caller(o)); !errors.As(err, &p) || p.MaxAge != 5*time.Minute {
				t.Errorf("%s without a recent proof: %v", what, err)
			}
		}
	}
	k.now.Advance(4 * time.Minute)
	recent()
	k.now.Advance(2 * time.Minute)
	stale()
	prove := func(p signin.Reauthentication) error {
		_, err := n.Reauthenticate(t.Context(), n.caller(o), p)
		return err
	}
	field(t, "no proof at all", prove(signin.Reauthentication{}), "password", "")
	same(t, "a bad password", prove(signin.Reauthentication{Password: []byte(good + "!")}))
	same(t, "a bad code", prove(signin.Reauthentication{Code: "1"}))
	same(t, "a good password and a bad code", prove(signin.Reauthentication{Password: []byte(good), Code: "1"}))
	stale()
	for _, p := range []func() signin.Reauthentication{
		func() signin.Reauthentication { return signin.Reauthentication{Password: []byte(good)} },
		func() signin.Reauthentication { return signin.Reauthentication{Code: k.code(secret)} },
		func() signin.Reauthentication { return signin.Reauthentication{Code: recovery[0]} },
	} {
		if err := prove(p()); err != nil {
			t.Fatal(err)
		}
		recent()
		k.now.Advance(6 * time.Minute)
		stale()
	}
	// A token cannot re-authenticate.
	token := authz.Principal{Account: k.root.Account, Token: k.root.Token, Scopes: k.root.Scopes}
	for what, do := range needs {
		if err := do(token); what != "invite" && !errors.Is(err, ledger.ErrForbidden) {
			t.Errorf("%s by a token: %v, want ErrForbidden", what, err)
		}
	}
	if _, err := n.Reauthenticate(t.Context(), token, signin.Reauthentication{Password: []byte(good)}); !errors.Is(err, ledger.ErrForbidden) {
		t.Errorf("a token proves a person: %v", err)
	}
}

// TestGuessedReauth limits guesses at a password or a code through a session.
func TestGuessedReauth(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	_, c := n.must("anna", good, "")
	for what, guess := range map[string]func(c authz.Principal) error{
		"prove": func(c authz.Principal) error {
			_, err := n.Reauthenticate(t.Context(), c, signin.Reauthentication{Password: []byte("x")})
			return err
		},
		"change": func(c authz.Principal) error { return n.ChangePassword(t.Context(), c, []byte("x"), []byte(good)) },
	} {
		c := c
		c.Address = map[string]string{"prove": "192.0.2.1", "change": "192.0.2.2"}[what]
		stopped := 0
		for range 20 {
			var many *signin.TooManyError
			if err := guess(c); errors.As(err, &many) {
				stopped++
			} else {
				same(t, what, err)
			}
		}
		if stopped != 12 {
			t.Errorf("%s: %d of 20 guesses were stopped, want 12", what, stopped)
		}
	}
}

// TestCrashBeforeEvent loses the event of each change. No credential without
// its event signs in, and afterwards each event is in the log once.
func TestCrashBeforeEvent(t *testing.T) {
	k := start(t, 2)
	n := k.node[0]
	id := k.person("anna", good)
	_, c := n.must("anna", good, "")
	lost := errors.New("the log is gone")
	for _, other := range k.node {
		other.trail.before = func() error { return lost }
	}
	const next = "plinth otter quaver"
	if err := n.ChangePassword(t.Context(), c, []byte(good), []byte(next)); !errors.Is(err, lost) {
		t.Errorf("the change = %v, want the fault", err)
	}
	if got := k.credentialChanges(id); got != "invited password" {
		t.Errorf("the trail says %q", got)
	}
	if _, err := n.enter("anna", next, "", home); !errors.Is(err, lost) {
		t.Errorf("sign-in by what the trail does not know of: %v", err)
	}
	if _, err := n.enter("anna", good, "", home); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("the old password, which may be replaced: %v, want ErrUnavailable", err)
	}
	for _, other := range k.node {
		other.trail.before = nil
	}
	atOnce(2, func(i int) {
		if _, err := k.node[i].enter("anna", next, "", home); err != nil {
			t.Errorf("once the log is back: %v", err)
		}
	})
	if got := k.credentialChanges(id); got != "invited password password" {
		t.Errorf("the trail says %q, want the change once", got)
	}
	for _, name := range []string{"due", "next", "commit"} {
		if _, still := k.stored(id)[name]; still {
			t.Errorf("the change is still noted as under way: %s", name)
		}
	}
	for _, e := range k.log.Events() {
		if c, ok := e.Change.(*events.AccountCredentialChanged); ok && c.Credential == events.CredentialPassword && e.Actor.Account != id {
			t.Errorf("the change was by %+v", e.Actor)
		}
	}
}

// TestReplaceFactorTakesCode has a session with a recent authentication.
// Replacing the second factor or the recovery codes still needs a code.
func TestReplaceFactorTakesCode(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	id := k.person("anna", good)
	_, c := n.must("anna", good, "")
	secret, recovery := k.factor(n, c)
	before := k.stored(id)
	add := func(code string) error { _, err := n.AddSecondFactor(t.Context(), c, code); return err }
	renew := func(code string) error { _, err := n.RenewRecovery(t.Context(), c, code); return err }
	for what, do := range map[string]func(code string) error{
		"replace": add, "renew": renew,
		"remove": func(code string) error { return n.RemoveSecondFactor(t.Context(), c, code) },
	} {
		for range 20 { // a missing code is no failed attempt
			field(t, what+" without a code", do(""), "code", secret)
		}
		same(t, what+" with a bad code", do("000000"))
	}
	if _, err := n.Confirm(t.Context(), c, k.code(secret)); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("confirmed what nobody could add: %v", err)
	}
	if got := k.stored(id); !reflect.DeepEqual(got, before) {
		t.Errorf("the credential is %v, want it as it was: %v", got, before)
	}

	// Guesses are counted.
	stopped := 0
	for range 20 {
		var many *signin.TooManyError
		if err := renew("000000"); errors.As(err, &many) {
			stopped++
		} else {
			same(t, "a guess", err)
		}
	}
	if stopped != 15 { // eight are let through at once, and three were made above
		t.Errorf("%d of 20 guesses were stopped, want 15", stopped)
	}
	k.now.Advance(2 * time.Hour)
	_, c = n.must("anna", good, k.code(secret))
	if err := renew(recovery[0]); err != nil {
		t.Fatal(err)
	}
	k.now.Advance(30 * time.Second)
	code := k.code(secret)
	made, err := n.AddSecondFactor(t.Context(), c, code)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "a code again", add(code))
	if _, err := n.Confirm(t.Context(), c, k.code(made.Secret)); err != nil {
		t.Fatal(err)
	}
	if got := k.credentialChanges(id); got != "invited password second_factor recovery_codes recovery_code_used second_factor" {
		t.Errorf("the trail says %q", got)
	}
}
