package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

// TestPrompts answers the program's prompts on a terminal.
func TestPrompts(t *testing.T) {
	o := openOffice(t)
	for name, test := range map[string]func(*testing.T, *office){
		"login":                   login,
		"login on the screen":     loginOnScreen,
		"login that is asked for": loginAsked,
		"login with a code":       loginWithCode,
		"wrong password":          loginWrong,
		"nothing typed":           nothingTyped,
		"end of input":            endOfInput,
		"interrupt":               interrupt,
		"interrupt at a code":     interruptAtCode,
		"typing errors":           typingErrors,
		"line without end":        longLine,
		"password":                newPassword,
		"passwords that differ":   passwordsDiffer,
		"wrong old password":      wrongOldPassword,
		"invitation":              invitation,
		"second factor":           secondFactor,
		"second factor, no code":  secondFactorNoCode,
		"second factor, replaced": secondFactorReplaced,
		"proof":                   proof,
		"proof by a code":         proofByCode,
		"proof that fails":        proofFails,
		"proof, interrupted":      proofInterrupted,
		"proof without terminal":  proofWithoutTerminal,
		"session reauth":          sessionReauth,
		"erase":                   erase,
		"erase, another login":    eraseAnother,
		"erase, interrupted":      eraseInterrupted,
		"erase, then prove":       eraseProve,
		"erase, input spoken for": eraseSpokenFor,
		"a secret to check":       checkSecret,
	} {
		t.Run(name, func(t *testing.T) { test(t, o) })
	}
}

func login(t *testing.T, o *office) {
	p := o.hire(t, "login-anna")
	s := p.sits("login", "--login", p.login)
	s.answers("Password: ", goodPassword)
	s.ends(exit.OK)
	s.unseen("", goodPassword)
	if got := s.errs.String(); got != "Password: \n" {
		t.Errorf("standard error %q, want the prompt alone", got)
	}
	if !strings.HasPrefix(s.out.String(), "signed in to "+o.url+" as login-anna until ") || !p.signedIn() {
		t.Errorf("standard output %q, want a session", s.out)
	}
}

func loginOnScreen(t *testing.T, o *office) {
	p := o.hire(t, "screen-anna")
	s := sit(t, true, p.environ(), "login", "--login", p.login)
	s.screen.wait(t, "Password: ")
	s.types(goodPassword + "\n")
	s.ends(exit.OK)
	before, after, _ := strings.Cut(s.screen.String(), "signed in to ")
	if before != "Password: \r\n" || strings.Count(after, "\n") != 1 {
		t.Errorf("the terminal shows %q", s.screen)
	}
}

// loginAsked types a login, which is no secret, and then the password.
func loginAsked(t *testing.T, o *office) {
	p := o.hire(t, "asked-anna")
	s := p.sits("login")
	s.errs.wait(t, "Login: ")
	s.types(p.login + "\n")
	s.screen.wait(t, p.login+"\r\n")
	s.answers("Password: ", goodPassword)
	s.ends(exit.OK)
	s.unseen(p.login+"\r\n", goodPassword)
	if !p.signedIn() {
		t.Error("nobody has signed in")
	}

	s = p.sits("login")
	s.errs.wait(t, "Login: ")
	s.types("\n")
	s.ends(exit.Usage, "no login")
	s = p.sits("login")
	s.errs.wait(t, "Login: ")
	s.types(ctrlC)
	s.ends(exit.Interrupted, "interrupted")
}

func loginWithCode(t *testing.T, o *office) {
	p := o.hire(t, "code-anna")
	a := p.addsFactor()
	s := p.sits("login", "--login", p.login)
	s.answers("Password: ", goodPassword)
	code := a.code(t)
	s.answers("Code of the second factor: ", code)
	s.ends(exit.OK)
	s.unseen("", goodPassword, code)
	if !p.signedIn() {
		t.Error("nobody has signed in")
	}
}

// addsFactor adds a second factor without a terminal, and signs out.
func (p *employee) addsFactor() *app {
	p.t.Helper()
	p.signsIn()
	var made struct{ Secret string }
	p.reads(&made, "second-factor", "add", "-o", "json")
	a := &app{secret: made.Secret}
	p.must(a.code(p.t)+"\n", "second-factor", "confirm")
	p.must("", "logout")
	return a
}

func loginWrong(t *testing.T, o *office) {
	p := o.hire(t, "wrong-anna")
	s := p.sits("login", "--login", p.login)
	s.answers("Password: ", otherPassword)
	s.ends(exit.NotAllowed, "not accepted")
	s.unseen("", otherPassword)
	if p.signedIn() {
		t.Error("there is a session")
	}
}

// asking are commands that prompt for a secret, each with its first prompt.
var asking = []struct {
	what, prompt string
	args         []string
}{
	{"password", "Password: ", []string{"login", "--login", "nobody"}},
	{"invitation", "Invitation: ", []string{"password", "--invitation"}},
	{"old password", "Old password: ", []string{"password"}},
	{"code that the app shows", "Code that the app shows: ", []string{"second-factor", "confirm"}},
	{"code, or a recovery code", "Code, or a recovery code: ", []string{"second-factor", "remove"}},
	{"password, or code of the second factor", "Password, or code of the second factor: ", []string{"session", "reauth"}},
}

func nothingTyped(t *testing.T, o *office) { nothingAt(t, o, "nothing-anna", "\n") }

// endOfInput types end-of-file (^D) at a prompt.
func endOfInput(t *testing.T, o *office) { nothingAt(t, o, "end-anna", ctrlD) }

func nothingAt(t *testing.T, o *office, login, key string) {
	p := o.hire(t, login)
	p.signsIn()
	_, before := o.since(0)
	for _, c := range asking {
		s := p.sits(c.args...)
		s.asked(c.prompt)
		s.types(key)
		s.ends(exit.Usage, "no "+c.what)
		s.unseen("")
	}
	if got, _ := o.since(before); len(got) > 0 {
		t.Errorf("the ledger was asked for %v", got)
	}
	if !p.signedIn() {
		t.Error("the session is over")
	}
}

func interrupt(t *testing.T, o *office) {
	p := o.hire(t, "interrupt-anna")
	p.signsIn()
	_, before := o.since(0)
	for _, c := range asking {
		s := p.sits(c.args...)
		s.asked(c.prompt)
		s.types("otter" + ctrlC)
		s.ends(exit.Interrupted)
		s.unseen("", "otter")
		if got, want := s.errs.String(), c.prompt+"\ntokenledger: interrupted.\n"; got != want {
			t.Errorf("standard error %q, want %q", got, want)
		}
	}
	if got, _ := o.since(before); len(got) > 0 {
		t.Errorf("the ledger was asked for %v", got)
	}
}

// interruptAtCode interrupts at the second prompt of a command.
func interruptAtCode(t *testing.T, o *office) {
	p := o.hire(t, "interrupt-ben")
	p.addsFactor()
	s := p.sits("login", "--login", p.login)
	s.answers("Password: ", goodPassword)
	s.asked("Code of the second factor: ")
	s.types(ctrlC)
	s.ends(exit.Interrupted, "interrupted")
	s.unseen("", goodPassword)
	if p.signedIn() {
		t.Error("there is a session")
	}

	s = p.sits("login", "--login", p.login)
	s.answers("Password: ", goodPassword)
	s.asked("Code of the second factor: ")
	s.types(ctrlD)
	s.ends(exit.Usage, "no code of the second factor")
}

// typingErrors deletes characters with both erase keys (^H and DEL) and the
// line with ^U.
func typingErrors(t *testing.T, o *office) {
	p := o.hire(t, "errors-anna")
	const killLine = "\x15"
	for _, typed := range []string{
		goodPassword + "xy" + backspace + backspace,
		backspace + goodPassword + "xü" + ctrlH + ctrlH,
		ctrlH + goodPassword,
		otherPassword + killLine + goodPassword,
	} {
		s := p.sits("login", "--login", p.login)
		s.answers("Password: ", typed)
		s.ends(exit.OK)
		s.unseen("", goodPassword)
		p.must("", "logout")
	}
}

func longLine(t *testing.T, o *office) {
	p := o.hire(t, "long-anna")
	for _, n := range []int{4 << 10, 5000, 70_000} {
		s := p.sits("login", "--login", p.login)
		s.answers("Password: ", strings.Repeat("z", n))
		s.ends(exit.Usage, "password")
		s.unseen("", "zzzz")
	}
	if p.signedIn() {
		t.Error("there is a session")
	}
}

func newPassword(t *testing.T, o *office) {
	p := o.hire(t, "change-anna")
	p.signsIn()
	s := p.sits("password")
	s.answers("Old password: ", goodPassword)
	s.answers("New password: ", otherPassword)
	s.answers("New password again: ", otherPassword)
	s.ends(exit.OK)
	s.unseen("", "otter", "plinth", "quaver")
	if s.out.String() != "password set\n" || p.opens(goodPassword) || !p.opens(otherPassword) || !p.signedIn() {
		t.Errorf("standard output %q, want the new password to be the only one", s.out)
	}
}

func passwordsDiffer(t *testing.T, o *office) {
	p := o.hire(t, "differ-anna")
	p.signsIn()
	_, before := o.since(0)
	s := p.sits("password")
	s.answers("Old password: ", goodPassword)
	s.answers("New password: ", otherPassword)
	s.answers("New password again: ", otherPassword+"s")
	s.ends(exit.Usage, "the two passwords differ; nothing was changed.")
	s.unseen("", "otter", "plinth", "quaver")
	for _, key := range []string{ctrlD, "\n"} {
		s = p.sits("password")
		s.answers("Old password: ", goodPassword)
		s.answers("New password: ", otherPassword)
		s.asked("New password again: ")
		s.types(key)
		s.ends(exit.Usage, "no new password again")
	}
	if got, _ := o.since(before); len(got) > 0 {
		t.Errorf("the ledger was asked for %v", got)
	}
	if !p.opens(goodPassword) {
		t.Error("the password is another one")
	}
}

func wrongOldPassword(t *testing.T, o *office) {
	p := o.hire(t, "old-anna")
	p.signsIn()
	s := p.sits("password")
	s.answers("Old password: ", otherPassword)
	s.answers("New password: ", otherPassword)
	s.answers("New password again: ", otherPassword)
	s.ends(exit.NotAllowed, "not accepted")
	s.unseen("", "otter", "plinth", "quaver")
	if p.opens(otherPassword) || !p.opens(goodPassword) {
		t.Error("the password is another one")
	}
}

func invitation(t *testing.T, o *office) {
	p := o.hire(t, "invited-anna")
	invited := strings.TrimSpace(p.must("", "account", "invite", p.login, "--secret-only", "--token-file", o.root))
	s := p.sits("password", "--invitation")
	s.answers("Invitation: ", invited)
	s.answers("New password: ", otherPassword)
	s.answers("New password again: ", otherPassword)
	s.ends(exit.OK, "Sign in with 'tokenledger login'")
	s.unseen("", invited, "otter", "plinth", "quaver")
	if p.opens(goodPassword) || !p.opens(otherPassword) {
		t.Error("the password is not the new one")
	}
}

func checkSecret(t *testing.T, o *office) {
	p := o.hire(t, "secret-anna", "view:site/1")
	secret := strings.TrimSpace(p.must("", "token", "create", "--account", p.login, "--scope", "view:site/1", "--secret-only", "--token-file", o.root))
	s := p.sits("token", "list", "--token-file", "-")
	s.answers("Secret: ", secret)
	s.ends(exit.OK)
	s.unseen("", secret)
	for key, want := range map[string]struct {
		code exit.Code
		says string
	}{ctrlD: {exit.Usage, "secret"}, "\n": {exit.Usage, "secret"}, secret[:10] + ctrlC: {exit.Interrupted, "interrupted"}} {
		s := p.sits("token", "list", "--token-file", "-")
		s.asked("Secret: ")
		s.types(key)
		s.ends(want.code, want.says)
		s.unseen("", secret[:10])
	}
}

// TestPromptComesLast prints the prompt after echo is off, so that even an
// immediate answer is not shown.
func TestPromptComesLast(t *testing.T) {
	leaveNothing(t)
	keys, tty := openTerminal(t)
	before := settingsOf(t, keys)
	shown, asked := false, 0
	ctx, cancel := context.WithDeadline(t.Context(), limitOf(t))
	defer cancel()
	e := newEnv(tty, io.Discard, hook(func() {
		if asked++; asked > 1 {
			return // behind the prompt comes the end of its line
		}
		shown = settingsOf(t, keys).Lflag&unix.ECHO != 0
		if _, err := io.WriteString(keys, goodPassword+"\n"); err != nil {
			t.Error(err)
		}
	}), nil)
	got, err := e.input.Ask(ctx, "password")
	if err != nil || got != goodPassword || shown {
		t.Errorf("ask = %q, %v; the terminal showed it: %t", got, err, shown)
	}
	if after := settingsOf(t, keys); after != before {
		t.Errorf("the terminal is left set as %+v, want %+v", after, before)
	}

	// An interrupt before the prompt leaves the terminal unchanged.
	cancel()
	e = newEnv(tty, io.Discard, io.Discard, nil)
	if _, err := e.input.Ask(ctx, "password"); !errors.Is(err, context.Canceled) {
		t.Errorf("ask = %v, want %v", err, context.Canceled)
	}
	if after := settingsOf(t, keys); after != before {
		t.Errorf("the terminal is left set as %+v, want %+v", after, before)
	}
}

// hook is a writer that calls a function at each write.
type hook func()

func (h hook) Write(b []byte) (int, error) {
	h()
	return len(b), nil
}
