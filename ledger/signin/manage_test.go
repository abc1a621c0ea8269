package signin_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

func TestInvitation(t *testing.T) {
	k := start(t, 2)
	n := k.node[0]
	ctx := t.Context()
	id := k.account("anna", "user")
	k.account("robot", "service")
	boss := k.person("boss", good, "admin:site/*")

	_, c := n.must("boss", good, "")
	if _, err := n.Invite(ctx, c, "anna", false); !errors.Is(err, ledger.ErrForbidden) || !strings.Contains(err.Error(), "superuser") {
		t.Errorf("an admin invites: %v", err)
	}
	if _, err := n.Invite(ctx, k.root, "robot", false); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a service account is invited: %v", err)
	}
	if _, err := n.Invite(ctx, k.root, "nobody", false); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("nobody is invited: %v", err)
	}

	first, err := n.Invite(ctx, k.root, "Anna", false)
	if err != nil || first.Account != id {
		t.Fatalf("Invite = %+v, %v", first, err)
	}
	redeem := func(i signin.Invitation, password string) error {
		got, err := k.node[1].Redeem(ctx, i.Secret.Reveal(), []byte(password), home)
		if err == nil && got != id {
			t.Errorf("the password is that of %s, want %s", got, id)
		}
		return err
	}
	again, err := n.Invite(ctx, k.root, string(id), false)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "an invitation that was replaced", redeem(first, good))
	field(t, "a short password", redeem(again, "short1234"), "password", "short1234")
	field(t, "a common password", redeem(again, "password123456789"), "password", "password123456789")
	field(t, "the login", redeem(again, "anna and her otter"), "password", "anna and her otter")
	if err := redeem(again, good); err != nil {
		t.Fatalf("the invitation after refused passwords: %v", err)
	}
	same(t, "an invitation again", redeem(again, good))
	n.must("anna", good, "")
	for _, secret := range []string{"", "tli_", events.NewInvitation().Reveal(), events.NewSessionSecret().Reveal()} {
		_, err := n.Redeem(ctx, secret, []byte(good), home)
		same(t, "no invitation", err)
	}
	for _, key := range []string{first.Secret.Reveal(), again.Secret.Reveal()} {
		if all := k.everything("DIRECTORY"); strings.Contains(all, key) || strings.Contains(all, "invitation") {
			t.Error("the directory holds an invitation that is over")
		}
	}

	// It expires, and ends with its account and with a new password.
	late, err := n.Invite(ctx, k.root, "anna", false)
	if err != nil {
		t.Fatal(err)
	}
	if got := late.Expires.Sub(k.now.Now()).Round(time.Minute); got != 72*time.Hour {
		t.Errorf("an invitation is good for %s", got)
	}
	k.now.Advance(72 * time.Hour)
	same(t, "an invitation after 72 hours", redeem(late, good))
	for what, end := range map[string]func(){
		"changed": func() {
			_, c := n.must("anna", good, "")
			if err := n.ChangePassword(ctx, c, []byte(good), []byte(good)); err != nil {
				t.Fatal(err)
			}
		},
		"suspended": func() { k.append(string(id), &events.AccountSuspended{}) },
	} {
		i, err := n.Invite(ctx, k.root, "anna", false)
		if err != nil {
			t.Fatal(err)
		}
		end()
		same(t, what, redeem(i, good))
		if what == "suspended" {
			k.append(string(id), &events.AccountResumed{})
		}
	}

	// Two requests use it concurrently.
	i, err := n.Invite(ctx, k.root, "anna", false)
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 2)
	atOnce(2, func(j int) { _, errs[j] = k.node[j].Redeem(ctx, i.Secret.Reveal(), []byte(good), home) })
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("two took one invitation up: %v", errs)
	}
	for _, e := range k.log.Events() {
		if c, ok := e.Change.(*events.AccountCredentialChanged); ok && c.Credential == events.CredentialInvited && e.Actor.Account != k.root.Account && e.About != string(boss) {
			t.Errorf("anna was invited by %+v", e.Actor)
		}
	}
}

// TestReset resets the second factor by an invitation, only if the invitation
// says so.
func TestReset(t *testing.T) {
	k := start(t, 1)
	n := k.node[0]
	id := k.person("anna", good)
	_, c := n.must("anna", good, "")
	k.factor(n, c)
	k.password(id, good)
	if _, err := n.enter("anna", good, "", home); !errors.Is(err, signin.ErrSecondFactor) {
		t.Errorf("an invitation took the second factor away: %v", err)
	}
	i, err := n.Invite(t.Context(), k.root, "anna", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.enter("anna", good, "", home); !errors.Is(err, signin.ErrSecondFactor) {
		t.Errorf("the second factor is gone before the invitation is taken up: %v", err)
	}
	if _, err := n.Redeem(t.Context(), i.Secret.Reveal(), []byte(good), home); err != nil {
		t.Fatal(err)
	}
	n.must("anna", good, "")
	if got := k.credentialChanges(id); got != "invited password second_factor invited password invited password second_factor_removed" {
		t.Errorf("the trail says %q", got)
	}
}

// TestErase checks that an erasure leaves no personal data.
func TestErase(t *testing.T) {
	k := start(t, 2)
	n := k.node[0]
	id := k.person("anna", good)
	ben := k.person("ben", good)
	o, c := n.must("anna", good, "")
	other, _ := n.must("ben", good, "")
	k.factor(n, c)
	if _, err := n.Invite(t.Context(), k.root, "anna", false); err != nil {
		t.Fatal(err)
	}
	if all := k.everything("DIRECTORY") + k.everything("SESSIONS"); strings.Count(all, string(id)) < 3 {
		t.Fatalf("there is nothing to erase: %s", all)
	}
	for range 2 { // again, as after a crash
		if err := n.Erase(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	all := k.everything("DIRECTORY") + k.everything("SESSIONS")
	for _, left := range []string{"credential." + string(id), "invitation.", string(o.Session.ID)} {
		if strings.Contains(all, left) {
			t.Errorf("%s is left", left)
		}
	}
	k.refused(o)
	k.accepted(other)
	n.must("ben", good, "")
	if !strings.Contains(all, "credential."+string(ben)) {
		t.Error("another's credential is gone")
	}
	_, err := n.enter("anna", good, "", home)
	same(t, "sign-in after erasure", err)
}
