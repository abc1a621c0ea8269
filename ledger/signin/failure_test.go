package signin_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger/signin"
)

// TestCauses checks that errors name their cause if that tells an attacker
// nothing.
func TestCauses(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	k.person("anna", good)
	_, c := n.must("anna", good, "")
	secret, recovery := k.factor(n, c)
	tries := 0
	enter := func(login, password, code string) error {
		tries++ // each from another address, which no limit is for
		_, err := n.enter(login, password, code, fmt.Sprintf("192.0.2.%d", tries))
		return err
	}

	// The first of two expected steps is no failure, and the log has none.
	logged := n.logged.Len()
	if err := enter("anna", good, ""); !errors.Is(err, signin.ErrSecondFactor) {
		t.Errorf("without a code: %v", err)
	}
	if got := n.logged.String()[logged:]; strings.Contains(got, "sign-in failed") {
		t.Errorf("the first step is logged as %s", got)
	}

	// Without the password, nothing tells whether a code is good.
	for what, code := range map[string]string{"no code": "", "a good code": k.code(secret), "a bad code": "000000"} {
		cause(t, "a wrong password and "+what, enter("anna", good+"!", code), signin.ErrLogin)
	}
	cause(t, "a wrong code", enter("anna", good, "1"), signin.ErrCode)
	used := k.code(secret)
	if err := enter("anna", good, used); err != nil {
		t.Fatal(err)
	}
	cause(t, "a code again", enter("anna", good, used), signin.ErrCodeUsed)
	if got := n.logged.String(); !strings.Contains(got, "sign-in failed") || !strings.Contains(got, "used before") {
		t.Error("the log does not say why")
	}
	cause(t, "a used code for a session", errorOf(n.Reauthenticate(t.Context(), c, signin.Reauthentication{Code: used})),
		signin.ErrCodeUsed)
	k.now.Advance(time.Hour) // the attempts before are forgotten
	_, c = n.must("anna", good, recovery[1])
	cause(t, "a wrong password for a session",
		errorOf(n.Reauthenticate(t.Context(), c, signin.Reauthentication{Password: []byte("x")})), signin.ErrPassword)
	again := k.code(secret)
	if err := enter("anna", good, again); err != nil {
		t.Fatal(err)
	}
	cause(t, "a used code to remove the factor", n.RemoveSecondFactor(t.Context(), c, again), signin.ErrCodeUsed)
	if err := enter("anna", good, recovery[0]); err != nil {
		t.Fatal(err)
	}
	cause(t, "a recovery code again", enter("anna", good, recovery[0]), signin.ErrCode)
	k.now.Advance(30 * time.Second)
	if err := enter("anna", good, k.code(secret)); err != nil {
		t.Errorf("the next code: %v", err)
	}
}

// TestInvitationCauses tells the holder of an invitation why it cannot be used.
func TestInvitationCauses(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	id := k.person("anna", good)
	redeem := func(secret string) error {
		return errorOf(n.Redeem(t.Context(), secret, []byte(good), home))
	}
	invite := func() string {
		i, err := n.Invite(t.Context(), k.root, string(id), false)
		if err != nil {
			t.Fatal(err)
		}
		return i.Secret.Reveal()
	}
	first := invite()
	last := invite()
	cause(t, "a replaced invitation", redeem(first), signin.ErrInvitation)
	cause(t, "half an invitation", redeem(last[:20]), signin.ErrInvitation)
	if err := redeem(last); err != nil {
		t.Fatal(err)
	}
	cause(t, "a used invitation", redeem(last), signin.ErrInvitation)
	last = invite()
	k.now.Advance(signin.InvitationLifetime + time.Minute)
	cause(t, "an expired invitation", redeem(last), signin.ErrInvitationExpired)
}

func errorOf[T any](_ T, err error) error { return err }
