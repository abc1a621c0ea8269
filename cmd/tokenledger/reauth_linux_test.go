package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

func secondFactor(t *testing.T, o *office) {
	p := o.hire(t, "factor-anna")
	p.signsIn()
	s := p.sits("second-factor", "add")
	s.asked("Code that the app shows: ")
	s.out.wait(t, "\naddress")
	a := &app{secret: strings.Fields(s.out.String())[1]}
	s.types(a.code(t) + "\n")
	s.ends(exit.OK)
	s.unseen("")
	lines := strings.Split(strings.TrimSpace(s.out.String()), "\n")
	if len(lines) != 2+1+10 || !strings.HasPrefix(lines[2], "The recovery codes") {
		t.Fatalf("standard output %q, want the app's secret and ten recovery codes", s.out)
	}
	if o := p.runs(goodPassword+"\n", "login", "--login", p.login); o.code != int(exit.Usage) {
		t.Errorf("signed in without a code: %+v", o)
	}

	// A recovery code with other spaces than shown.
	recovery := strings.ReplaceAll(lines[3], "-", " ")
	s = p.sits("second-factor", "remove")
	s.answers("Code, or a recovery code: ", recovery)
	s.ends(exit.OK)
	s.unseen("", recovery)
	if s.out.String() != "removed\n" || !p.opens(goodPassword) {
		t.Errorf("standard output %q, want the factor to be gone", s.out)
	}
}

// secondFactorReplaced prompts for a code before it replaces the factor or the
// recovery codes.
func secondFactorReplaced(t *testing.T, o *office) {
	p := o.hire(t, "factor-cleo")
	p.signsIn()
	type secret struct{ Secret string }
	type recovery struct {
		Codes []string `json:"recovery_codes"`
	}
	json := func(v any, stdin string, args ...string) {
		t.Helper()
		if err := json.Unmarshal([]byte(p.must(stdin, append(args, "-o", "json")...)), v); err != nil {
			t.Fatal(err)
		}
	}
	var first, next secret
	var codes, renewed recovery
	json(&first, "", "second-factor", "add")
	json(&codes, (&app{secret: first.Secret}).code(t)+"\n", "second-factor", "confirm")
	for _, args := range [][]string{{"second-factor", "add"}, {"second-factor", "codes"}} {
		s := p.sits(args...)
		s.answers("Code, or a recovery code: ", "000000")
		s.ends(exit.NotAllowed, "not accepted")
		if got := s.out.String(); got != "" {
			t.Errorf("%v with a bad code: standard output %q", args, got)
		}
	}
	json(&renewed, codes.Codes[0]+"\n", "second-factor", "codes")
	json(&next, renewed.Codes[0]+"\n", "second-factor", "add")
	p.must((&app{secret: next.Secret}).code(t)+"\n", "second-factor", "confirm")
}

// secondFactorNoCode stops before the factor is confirmed.
func secondFactorNoCode(t *testing.T, o *office) {
	p := o.hire(t, "factor-ben")
	p.signsIn()
	for key, want := range map[string]exit.Code{ctrlC: exit.Interrupted, ctrlD: exit.Usage, "\n": exit.Usage, "1\n": exit.Usage} {
		s := p.sits("second-factor", "add")
		s.asked("Code that the app shows: ")
		s.types(key)
		s.ends(want)
		s.unseen("")
	}
	if !p.opens(goodPassword) {
		t.Error("there is a second factor")
	}
}

const provePrompt = "Password, or code of the second factor: "

// create is a command that needs a recent authentication.
var create = []string{"token", "create", "--scope", "view:site/1", "--secret-only"}

func proof(t *testing.T, o *office) {
	p := o.hire(t, "proof-anna", "view:site/1")
	p.signsIn()
	p.waits()
	_, before := o.since(0)
	s := p.sits(create...)
	s.errs.wait(t, "tokenledger: re-authentication required: to create a token, ")
	s.answers(provePrompt, goodPassword)
	s.ends(exit.OK)
	s.unseen("", goodPassword)
	p.provedOnce(before)
	if secret := s.out.String(); !strings.HasPrefix(secret, "tlu_") || strings.Count(secret, "\n") != 1 {
		t.Errorf("standard output %q, want the secret alone", secret)
	}

	// The authentication is still recent for the next command.
	s = p.sits(create...)
	s.ends(exit.OK)
	if strings.Contains(s.errs.String(), provePrompt) || p.tokens() != 2 {
		t.Errorf("standard error %q, and %d tokens, want 2 of them and nothing asked", s.errs, p.tokens())
	}
}

// provedOnce checks that one token was created, by one command that was sent
// twice with a re-authentication in between.
func (p *employee) provedOnce(before int) {
	p.t.Helper()
	got, _ := p.since(before)
	whats := make([]string, len(got))
	for i, a := range got {
		whats[i] = a.what
	}
	want := []string{"POST /v1/tokens", "POST /v1/session/reauth", "POST /v1/tokens"}
	if !slices.Equal(whats, want) {
		p.t.Fatalf("the ledger was asked for %v, want %v", got, want)
	}
	if got[0].status != http.StatusUnauthorized || got[1].status != http.StatusOK || got[2].status/100 != 2 {
		p.t.Errorf("the answers are %v", got)
	}
	if got[0].key == "" || got[2].key != got[0].key {
		p.t.Errorf("the idempotency keys are %q and %q, want one", got[0].key, got[2].key)
	}
	if n := p.tokens(); n != 1 {
		p.t.Errorf("%d tokens, want 1", n)
	}
}

func proofByCode(t *testing.T, o *office) {
	for _, spaced := range []bool{true, false} {
		p := o.hire(t, map[bool]string{true: "proof-code-anna", false: "proof-code-ben"}[spaced], "view:site/1")
		p.signsIn()
		var made struct{ Secret string }
		p.reads(&made, "second-factor", "add", "-o", "json")
		a := &app{secret: made.Secret}
		p.must(a.code(t)+"\n", "second-factor", "confirm")
		p.waits()
		_, before := o.since(0)
		s := p.sits(create...)
		s.asked(provePrompt)
		code := a.code(t)
		if !spaced {
			code = strings.ReplaceAll(code, " ", "")
		}
		s.types(code + "\n")
		s.ends(exit.OK)
		s.unseen("", code)
		p.provedOnce(before)
	}
}

func proofFails(t *testing.T, o *office) {
	p := o.hire(t, "proof-ben", "view:site/1")
	p.signsIn()
	p.waits()
	for typed, want := range map[string]struct {
		code exit.Code
		says string
	}{
		otherPassword + "\n": {exit.NotAllowed, "not accepted"},
		"123 456\n":          {exit.NotAllowed, "not accepted"},
		"\n":                 {exit.Usage, "no password, or code of the second factor"},
		ctrlD:                {exit.Usage, "no password, or code of the second factor"},
	} {
		s := p.sits(create...)
		s.asked(provePrompt)
		s.types(typed)
		s.ends(want.code, want.says)
		s.unseen("", strings.TrimSpace(typed))
		if s.out.String() != "" {
			t.Errorf("standard output %q, want none", s.out)
		}
	}
	if n := p.tokens(); n != 0 {
		t.Errorf("%d tokens, want none", n)
	}
}

func proofInterrupted(t *testing.T, o *office) {
	p := o.hire(t, "proof-cleo", "view:site/1")
	p.signsIn()
	p.waits()
	s := p.sits(create...)
	s.asked(provePrompt)
	s.types(ctrlC)
	s.ends(exit.Interrupted, "interrupted")
	s.unseen("")
	// Nothing was sent, so the outcome is known.
	if strings.Contains(s.errs.String(), "--idempotency-key") || p.tokens() != 0 {
		t.Errorf("standard error %q, and %d tokens, want none", s.errs, p.tokens())
	}
}

func proofWithoutTerminal(t *testing.T, o *office) {
	p := o.hire(t, "proof-dora", "view:site/1")
	p.signsIn()
	p.waits()
	_, before := o.since(0)
	p.runs(goodPassword+"\n", create...).want(t, exit.NotAllowed, "Run 'tokenledger session reauth' first.")
	if got, _ := o.since(before); len(got) != 1 {
		t.Errorf("the ledger was asked for %v, want one request", got)
	}
	p.must(goodPassword+"\n", "session", "reauth")
	p.must("", create...)
	if n := p.tokens(); n != 1 {
		t.Errorf("%d tokens, want 1", n)
	}
}

func sessionReauth(t *testing.T, o *office) {
	p := o.hire(t, "prove-anna", "view:site/1")
	p.signsIn()
	p.waits()
	s := p.sits("session", "reauth")
	s.answers(provePrompt, goodPassword)
	s.ends(exit.OK)
	s.unseen("", goodPassword)
	p.must("", create...)
}

const erasePrompt = "Type its login to confirm: "

func erase(t *testing.T, o *office) {
	p := o.hire(t, "Erase-Anna")
	s := p.sits("account", "erase", p.id, "--token-file", o.root)
	s.errs.wait(t, "This ends the account Erase-Anna and all of its tokens, forever. "+erasePrompt)
	s.types("erase-anno" + backspace + "a\n") // which is no secret, and shown
	s.ends(exit.OK)
	if !strings.HasPrefix(s.out.String(), "erased at position ") || !strings.HasPrefix(s.screen.String(), "erase-anno") {
		t.Errorf("standard output %q, and the terminal shows %q", s.out, s.screen)
	}
	if got := p.state(); got != "erased" {
		t.Errorf("the account is %s", got)
	}
}

func eraseAnother(t *testing.T, o *office) {
	p := o.hire(t, "erase-ben")
	_, before := o.since(0)
	for _, typed := range []string{"erase-anna\n", "y\n", "\n", ctrlD, p.id + "\n", "erase-be" + ctrlD + ctrlD, strings.Repeat("erase-ben", 1000) + "\n"} {
		s := p.sits("account", "erase", p.login, "--token-file", o.root)
		s.errs.wait(t, erasePrompt)
		s.types(typed)
		s.ends(exit.Usage, "give its login on standard input, or add --yes")
	}
	if got, _ := o.since(before); len(got) > 0 || p.state() != "active" {
		t.Errorf("the ledger was asked for %v, and the account is %s", got, p.state())
	}
}

func eraseInterrupted(t *testing.T, o *office) {
	p := o.hire(t, "erase-cleo")
	_, before := o.since(0)
	s := p.sits("account", "erase", p.login, "--token-file", o.root)
	s.errs.wait(t, erasePrompt)
	s.types(p.login + ctrlC)
	s.ends(exit.Interrupted, erasePrompt+"\ntokenledger: interrupted.\n")
	if got, _ := o.since(before); len(got) > 0 || p.state() != "active" {
		t.Errorf("the ledger was asked for %v, and the account is %s", got, p.state())
	}
}

// eraseProve types a login, which is shown, and then a password, which is not.
func eraseProve(t *testing.T, o *office) {
	boss := o.hire(t, "erase-boss", "superuser")
	boss.signsIn()
	boss.waits()
	p := o.hire(t, "erase-dora")
	s := boss.sits("account", "erase", p.login)
	s.answers(provePrompt, goodPassword) // for the dry run, before which nothing is known of the account's own
	s.errs.wait(t, erasePrompt)
	s.types(p.login + "\n")
	s.ends(exit.OK)
	s.unseen(p.login+"\r\n", goodPassword)
	if got := p.state(); got != "erased" {
		t.Errorf("the account is %s", got)
	}
}

// eraseSpokenFor reads the token from the terminal, so the command prompts for
// no login.
func eraseSpokenFor(t *testing.T, o *office) {
	p := o.hire(t, "erase-emil")
	boss := o.hire(t, "erase-chef", "superuser")
	secret := strings.TrimSpace(p.must("", "token", "create", "--account", boss.login, "--scope", "superuser", "--allow-admin", "--secret-only", "--token-file", o.root))
	s := p.sits("account", "erase", p.login, "--token-file", "-")
	s.answers("Secret: ", secret)
	s.ends(exit.Usage, "add --yes")
	s.unseen("", secret)
	if strings.Contains(s.errs.String(), erasePrompt) || p.state() != "active" {
		t.Errorf("standard error %q, and the account is %s", s.errs, p.state())
	}
}
