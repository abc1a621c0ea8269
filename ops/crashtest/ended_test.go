package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"

	"github.com/pquerna/otp/totp"

	"github.com/tokenledger/tokenledger/ops/clustertest"
)

// fixture is one or more ledgers at which people sign in.
type fixture struct {
	url     func() string // of a ledger's API
	root    func() string // the first token's secret
	stores  func() []string
	crash   func() // kills all at once
	restart func() // restarts all gracefully
}

// person is a person with an account.
type person struct{ id, login, password string }

const firstPassword = "otter plinth quaver"

// ended ends sessions, invitations, codes and accounts in all ways, while other
// records in the same buckets stay.
type ended struct {
	t *testing.T
	fixture
	people int
	// at is the highest position in an answer so far. Requests name it, so that
	// a ledger that lags does not answer from an older state.
	at uint64
	// checks must hold from now on: description -> check.
	checks []check
	// erased are texts that no file of the stores may contain: text ->
	// description.
	erased map[string]string
}

type check struct {
	what  string
	holds func() error
}

func (e *ended) must(what string, holds func() error) {
	e.checks = append(e.checks, check{what, holds})
}

// send retries a request until a ledger answers, and returns status and body.
// repeat is true if an earlier try may have had an effect: it got a 503, or no
// answer.
func (e *ended) send(method, path, secret string, body map[string]any) (status int, answer map[string]any, repeat bool) {
	e.t.Helper()
	if body == nil && method != http.MethodGet {
		body = map[string]any{}
	}
	var problem error
	for deadline := time.Now().Add(2 * wait.Limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		status, answer, problem = e.once(method, path, secret, body)
		if problem == nil && status != http.StatusServiceUnavailable {
			return status, answer, repeat
		}
		repeat = true
	}
	e.t.Fatalf("%s %s: status %d, %v, %v", method, path, status, answer, problem)
	return 0, nil, false
}

func (e *ended) once(method, path, secret string, body map[string]any) (int, map[string]any, error) {
	ctx, cancel := context.WithTimeout(e.t.Context(), wait.Limit)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, e.url()+path, content)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	if e.at > 0 {
		req.Header.Set("Ledger-Min-Position", strconv.FormatUint(e.at, 10))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	if at, err := strconv.ParseUint(resp.Header.Get("Ledger-Position"), 10, 64); err == nil {
		e.at = max(e.at, at)
	}
	answer := map[string]any{}
	if len(raw) > 0 {
		err = json.Unmarshal(raw, &answer)
	}
	return resp.StatusCode, answer, err
}

// unsettled is the panic of a step that was refused, although an earlier try
// may have succeeded. Most of these requests succeed only once, for example to
// accept an invitation.
type unsettled struct{ what string }

// attempt runs the steps of one kind of end. During an election a ledger may
// answer 503 to a command that took effect, so the steps may end [unsettled].
// Then attempt drops their checks, and runs them again with other people.
func (e *ended) attempt(when string, steps func(when string)) {
	e.t.Helper()
	checks, erased := len(e.checks), maps.Clone(e.erased)
	for range 10 {
		again := func() (again bool) {
			defer func() {
				if r := recover(); r != nil {
					u, ok := r.(unsettled)
					if !ok {
						panic(r)
					}
					e.t.Logf("%s: %s; again with other people", when, u.what)
					again = true
				}
			}()
			steps(when)
			return false
		}()
		if !again {
			return
		}
		e.checks, e.erased = e.checks[:checks], maps.Clone(erased)
	}
	e.t.Fatalf("%s: every attempt met an election", when)
}

// done sends a request that must succeed.
func (e *ended) done(method, path, secret string, body map[string]any) map[string]any {
	e.t.Helper()
	status, answer, repeat := e.send(method, path, secret, body)
	if status >= 300 && repeat {
		panic(unsettled{fmt.Sprintf("%s %s: status %d, %v, after a request that may have done it", method, path, status, answer)})
	}
	if status >= 300 {
		e.t.Fatalf("%s %s: status %d, %v", method, path, status, answer)
	}
	return answer
}

// person creates an account with a password.
func (e *ended) person() person {
	e.t.Helper()
	e.people++
	p := person{login: fmt.Sprintf("person%d-login", e.people), password: firstPassword}
	account, _ := e.done("POST", "/v1/accounts", e.root(), map[string]any{
		"login": p.login, "kind": "user", "name": p.login + " first name", "mail": p.login + ".first@example.org",
	})["account"].(map[string]any)
	p.id, _ = account["id"].(string)
	e.redeem(e.invite(p), p.password)
	return p
}

func (e *ended) invite(p person) string {
	e.t.Helper()
	secret, _ := e.done("POST", "/v1/accounts/"+p.id+"/invite", e.root(), nil)["invitation"].(string)
	return secret
}

func (e *ended) redeem(invitation, password string) {
	e.t.Helper()
	e.done("POST", "/v1/password", "", map[string]any{"invitation": invitation, "password": password})
}

// enter signs in, and returns the session's secret and id.
func (e *ended) enter(p person, code string) (secret, id string) {
	e.t.Helper()
	o := e.done("POST", "/v1/session", "", map[string]any{"login": p.login, "password": p.password, "code": code})
	secret, _ = o["secret"].(string)
	session, _ := o["session"].(map[string]any)
	id, _ = session["id"].(string)
	if secret == "" || id == "" {
		e.t.Fatalf("the new session has no secret: %v", o)
	}
	return secret, id
}

// use sends a request with a session that writes its record again.
func (e *ended) use(p person, secret string) {
	e.t.Helper()
	e.done("POST", "/v1/session/reauth", secret, map[string]any{"password": p.password})
}

func (e *ended) status(want int, method, path, secret string, body map[string]any) func() error {
	return func() error {
		if status, answer, _ := e.send(method, path, secret, body); status != want {
			return fmt.Errorf("%s %s: status %d, %v, want %d", method, path, status, answer, want)
		}
		return nil
	}
}

func (e *ended) refused(secret string) func() error {
	return e.status(http.StatusUnauthorized, "GET", "/v1/session", secret, nil)
}

// noEntry checks that a sign-in with a person's password is refused.
func (e *ended) noEntry(p person, code string) func() error {
	return e.status(http.StatusUnauthorized, "POST", "/v1/session", "",
		map[string]any{"login": p.login, "password": p.password, "code": code})
}

// notTaken checks that an invitation is refused.
func (e *ended) notTaken(invitation string) func() error {
	return e.status(http.StatusUnauthorized, "POST", "/v1/password", "",
		map[string]any{"invitation": invitation, "password": "burlap cinder walnut"})
}

func (e *ended) accepted(secret string) func() error {
	return e.status(http.StatusOK, "GET", "/v1/session", secret, nil)
}

// everything ends one record of each kind. Where possible, another session of
// each person stays.
func (e *ended) everything(when string) {
	e.t.Helper()
	for _, steps := range []func(string){e.sessions, e.passwords, e.codes, e.account, e.login} {
		e.attempt(when, steps)
	}
}

func (e *ended) sessions(when string) {
	p := e.person()
	kept, _ := e.enter(p, "")
	e.must(when+", a session that was kept", e.accepted(kept))

	once, _ := e.enter(p, "")
	e.done("POST", "/v1/session/end", once, nil)
	e.must(when+", signed out at once", e.refused(once))

	proved, _ := e.enter(p, "")
	e.use(p, proved)
	e.done("POST", "/v1/session/end", proved, nil)
	e.must(when+", signed out after prove", e.refused(proved))

	used, id := e.enter(p, "")
	e.use(p, used)
	e.done("POST", "/v1/sessions/"+id+"/end", e.root(), nil)
	e.must(when+", ended by a superuser after use", e.refused(used))

	all := e.person()
	other, _ := e.enter(all, "")
	e.use(all, other)
	own, _ := e.enter(all, "")
	e.done("POST", "/v1/sessions/end", own, nil)
	e.must(when+", all ended by oneself", e.refused(other))
	e.must(when+", all ended by oneself, this one too", e.refused(own))
	theirs, _ := e.enter(all, "")
	e.use(all, theirs)
	e.done("POST", "/v1/sessions/end", e.root(), map[string]any{"account": all.id})
	e.must(when+", all ended by a superuser", e.refused(theirs))
}

func (e *ended) passwords(when string) {
	p := e.person()
	old, _ := e.enter(p, "")
	e.use(p, old)
	own, _ := e.enter(p, "")
	e.erase(when+", the password's hash before the change", e.hash(p))
	const next = "mussel thicket organza"
	e.done("PUT", "/v1/password", own, map[string]any{"old": p.password, "new": next})
	e.must(when+", a session before the password was changed", e.refused(old))
	if err := e.accepted(own)(); err != nil {
		e.t.Errorf("%s, the session that changed the password: %v", when, err)
	}
	e.must(when+", the old password", e.noEntry(p, ""))

	first := e.invite(p)
	second := e.invite(p)
	e.must(when+", an invitation that was replaced", e.notTaken(first))
	e.redeem(second, next+" still")
	e.must(when+", an invitation that was taken up", e.notTaken(second))
	e.must(when+", the session of before the invitation", e.refused(own))
}

func (e *ended) codes(when string) {
	p := e.person()
	secret, _ := e.enter(p, "")
	codes := e.factor(secret)
	e.enter(p, codes[0])
	e.must(when+", a recovery code that was used", e.noEntry(p, codes[0]))
}

// factor adds a second factor, and returns recovery codes.
func (e *ended) factor(session string) (codes []string) {
	e.t.Helper()
	secret, _ := e.done("POST", "/v1/second-factor", session, nil)["secret"].(string)
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		e.t.Fatal(err)
	}
	list, _ := e.done("POST", "/v1/second-factor/confirm", session, map[string]any{"code": code})["recovery_codes"].([]any)
	for _, c := range list {
		codes = append(codes, fmt.Sprint(c))
	}
	if len(codes) == 0 {
		e.t.Fatal("the answer has no recovery codes")
	}
	e.secret(secret)
	return codes
}

// secret returns the secret of the second factor that was added last.
func (e *ended) secret(s string) { e.erased["last second factor"] = s }

func (e *ended) account(when string) {
	p := e.person()
	session, _ := e.enter(p, "")
	e.use(p, session)
	e.factor(session)
	e.erase(when+", the second factor of an erased account", e.erased["last second factor"])
	delete(e.erased, "last second factor")
	e.erase(when+", the password's hash of an erased account", e.hash(p))
	for i := range 2 {
		e.done("PATCH", "/v1/accounts/"+p.id, e.root(), map[string]any{
			"name": fmt.Sprintf("%s name %d", p.login, i), "mail": fmt.Sprintf("%s.%d@example.org", p.login, i),
		})
	}
	invitation := e.invite(p)
	e.done("POST", "/v1/accounts/"+p.id+"/erase", e.root(), nil)
	for what, text := range map[string]string{
		"login": `"` + p.login + `"`, "first name": p.login + " first", "first mail": p.login + ".first@", "name": p.login + " name", "mail": p.login + ".",
	} {
		e.erase(when+", the "+what+" of an erased account", text)
	}
	e.must(when+", a session of an erased account", e.refused(session))
	e.must(when+", the password of an erased account", e.noEntry(p, ""))
	e.must(when+", the invitation of an erased account", e.notTaken(invitation))
	e.must(when+", the login of an erased account", e.status(http.StatusNotFound, "GET", "/v1/accounts/"+p.login, e.root(), nil))
	e.must(when+", the name of an erased account", func() error {
		status, answer, _ := e.send("GET", "/v1/accounts/"+p.id, e.root(), nil)
		if s := fmt.Sprint(answer); status != http.StatusOK || strings.Contains(s, p.login) {
			return fmt.Errorf("status %d, %s", status, s)
		}
		return nil
	})
}

// login releases a login, and gives it to another account.
func (e *ended) login(when string) {
	p := e.person()
	e.done("POST", "/v1/accounts/"+p.id+"/erase", e.root(), nil)
	account, _ := e.done("POST", "/v1/accounts", e.root(), map[string]any{"login": p.login, "kind": "service"})["account"].(map[string]any)
	e.must(when+", a login that was let go and taken", func() error {
		_, answer, _ := e.send("GET", "/v1/accounts/"+p.login, e.root(), nil)
		if answer["id"] != account["id"] || account["id"] == p.id {
			return fmt.Errorf("it is %v's, want %v", answer["id"], account["id"])
		}
		return nil
	})
}

// erase adds a text that the files must not contain from now on.
func (e *ended) erase(what, text string) {
	e.t.Helper()
	if len(e.holds(text)) == 0 && !strings.Contains(what, "name") && !strings.Contains(what, "mail") && !strings.Contains(what, "login") {
		e.t.Fatalf("no file contains %s, so its absence would show nothing", what)
	}
	e.erased[what] = text
}

// hash returns the stored hash of a person's password.
func (e *ended) hash(p person) string {
	e.t.Helper()
	record := regexp.MustCompile(`(?s)credential\.` + p.id + `.{0,300}?"password":"([^"]+)"`)
	found := ""
	e.files(func(_ string, raw []byte) {
		for _, m := range record.FindAllSubmatch(raw, -1) {
			found = string(m[1])
		}
	})
	if !strings.HasPrefix(found, "$argon2id$") {
		e.t.Fatalf("cannot find the password hash of %s: %q", p.login, found)
	}
	return found
}

func (e *ended) files(visit func(path string, raw []byte)) {
	e.t.Helper()
	for _, dir := range e.stores() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // the file was just removed
			}
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			visit(path, raw)
			return err
		})
		if err != nil {
			e.t.Fatal(err)
		}
	}
}

// holds returns the files that contain a text.
func (e *ended) holds(text string) (in []string) {
	e.t.Helper()
	e.files(func(path string, raw []byte) {
		if bytes.Contains(raw, []byte(text)) {
			in = append(in, path)
		}
	})
	return in
}

// check fails the test unless all that has to hold does.
func (e *ended) check(when string) {
	e.t.Helper()
	for _, c := range e.checks {
		if err := c.holds(); err != nil {
			e.t.Errorf("%s: %s: %v", when, c.what, err)
		}
	}
	for what, text := range e.erased {
		// The other ledgers of a log apply it a moment later.
		if !wait.For(wait.Limit, func() bool { return len(e.holds(text)) == 0 }) {
			e.t.Fatalf("%s: %s is still in %q", when, what, e.holds(text))
		}
	}
}

// testEnded ends records before and after a graceful restart, and then crashes
// the ledgers several times.
func testEnded(t *testing.T, f fixture) {
	e := &ended{t: t, fixture: f, erased: map[string]string{}}
	e.everything("before the restart")
	e.check("at once")
	e.restart()
	e.check("after the restart")
	e.everything("after the restart")
	for i := range 2 {
		e.crash()
		e.check(fmt.Sprintf("after crash %d", i+1))
	}
	// Records from between the last snapshot and the crash are ended too.
	e.everything("after a crash")
	e.crash()
	e.check("after the last crash")
}

// TestEndedByKill ends sessions, invitations, codes and accounts in all ways
// and kills the ledger.
func TestEndedByKill(t *testing.T) {
	t.Parallel()
	m := newLedger(t, node.Config{})
	m.run()
	testEnded(t, oneLedger(t, m, func() { m.process().Kill(t); m.run() }))
}

// oneLedger returns a fixture with one running ledger.
func oneLedger(t *testing.T, m *machine, crash func()) fixture {
	root := rootSecret(t, m.process())
	return fixture{
		url:     func() string { return m.process().WaitListening(t).API },
		root:    func() string { return root },
		stores:  func() []string { return []string{m.process().Path("log"), m.process().Path("index")} },
		crash:   crash,
		restart: func() { m.process().stop(t); m.run() },
	}
}

// TestEndedByKillOfThree does so with three ledgers, which are all killed at
// once.
func TestEndedByKillOfThree(t *testing.T) {
	if testing.Short() {
		t.Skip("not part of the short form; make full runs it")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	turn := 0
	all := func(do func(*clustertest.Node)) {
		for _, n := range c.Ledgers() {
			do(n)
		}
		for _, n := range c.Ledgers() {
			n.Start(t)
		}
		for _, n := range c.Ledgers() {
			n.WaitReady(t)
		}
	}
	root := c.Root(t)
	testEnded(t, fixture{
		url: func() string { // each in turn
			turn++
			return c.Ledgers()[turn%3].API
		},
		root: func() string { return root },
		stores: func() (dirs []string) {
			for _, n := range c.Ledgers() {
				dirs = append(dirs, n.File("log", "jetstream", "LEDGER", "streams"))
			}
			return dirs
		},
		crash:   func() { all(func(n *clustertest.Node) { n.Kill(t) }) },
		restart: func() { all(func(n *clustertest.Node) { n.Stop(t) }) },
	})
}
