package api_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/verifier"
)

// Valid passwords.
const (
	goodPassword  = "otter plinth quaver"
	otherPassword = "plinth otter quaver"
)

// as is the header of a session's or a token's secret.
func as(secret string) string { return "Authorization: Bearer " + secret }

// signIn opens a session.
func (s *server) signIn(login, password string) string {
	s.t.Helper()
	return s.must("POST /v1/session", m{"login": login, "password": password}, "-Authorization").text("secret")
}

// person creates a user's account with a password.
func (s *server) person(login, password string, grants ...string) (id string) {
	s.t.Helper()
	id = s.must("POST /v1/accounts", m{"login": login, "kind": "user", "grants": grants}).text("account", "id")
	invitation := s.must("POST /v1/accounts/"+login+"/invite", nil).text("invitation")
	if a := s.must("POST /v1/password", m{"invitation": invitation, "password": password}, "-Authorization"); a.text("account") != id {
		s.t.Fatalf("the password is that of %s", a.raw)
	}
	return id
}

// people asks a server for the operations for people, and notes which were asked for.
type people struct {
	*server
	description
	asked map[string]bool
	anna  string // id of a user's account
}

// ask sends a request with a secret, empty for none, and checks what all answers have
// in common.
func (p *people) ask(line string, body any, secret string, status int, code string) answer {
	p.t.Helper()
	auth := "-Authorization"
	if secret != "" {
		auth = as(secret)
	}
	a := p.do(line, body, auth)
	id, statuses := p.find(line)
	if a.status != status || a.code() != code || !slices.Contains(statuses, strconv.Itoa(status)) {
		p.t.Fatalf("%s: %d %s, want %d %s of %v: %s", line, a.status, a.code(), status, code, statuses, a.raw)
	}
	if status == 200 {
		p.asked[id] = true
	} else {
		checkProblem(p.t, a)
	}
	for _, secret := range []string{goodPassword, otherPassword} {
		if strings.Contains(string(a.raw), secret) {
			p.t.Errorf("%s: the answer repeats a password: %s", line, a.raw)
		}
	}
	if a.header.Get("Cache-Control") != "no-store" {
		p.t.Errorf("%s: headers %v", line, a.header)
	}
	return a
}

// TestPeople calls every operation for people, with valid and refused requests.
func TestPeople(t *testing.T) {
	p := &people{server: start(t), description: describe(t), asked: map[string]bool{}}
	p.testInvitation()
	p.testFailuresLookTheSame()
	mine := p.testSession()
	other := p.testSecondFactor(mine)
	p.testChangePassword(mine, other)
	last, ben := p.testListSessions(mine)
	p.testEndSessions(mine, last, ben)
	for path, item := range p.Paths {
		for method, op := range item {
			if slices.Contains(op.Tags, peopleTag) && !p.asked[op.OperationID] {
				t.Errorf("%s %s (%s) was not asked", method, path, op.OperationID)
			}
		}
	}
	p.testTooManyAttempts()
}

func (p *people) testInvitation() {
	t := p.t
	p.anna = p.must("POST /v1/accounts", m{"login": "Anna", "kind": "user", "grants": []string{"admin:site/1"}}).text("account", "id")
	p.must("POST /v1/accounts", m{"login": "robot", "kind": "service"})
	p.ask("POST /v1/accounts/robot/invite", nil, p.root, 422, "invalid_request")
	p.ask("POST /v1/accounts/nobody/invite", nil, p.root, 404, "not_found")
	a := p.ask("POST /v1/accounts/anna/invite", m{}, p.root, 200, "")
	if until, err := time.Parse(time.RFC3339, a.text("expires_at")); err != nil || a.text("account") != p.anna || time.Until(until) > 72*time.Hour {
		t.Errorf("invite: %s", a.raw)
	}
	invitation := a.text("invitation")
	p.ask("POST /v1/password", m{"invitation": invitation, "password": "short"}, "", 422, "invalid_request")
	if a := p.ask("POST /v1/password", m{"invitation": invitation, "password": "password1234567890"}, "", 422, "invalid_request"); a.body["errors"].([]any)[0].(m)["location"] != "body.password" {
		t.Errorf("a common password: %s", a.raw)
	}
	if a := p.ask("POST /v1/password", m{"invitation": invitation, "password": goodPassword}, "", 200, ""); a.text("account") != p.anna {
		t.Errorf("set-password: %s", a.raw)
	}
	p.ask("POST /v1/password", m{"invitation": invitation, "password": goodPassword}, "", 401, "sign_in_failed")
}

// testFailuresLookTheSame signs in wrongly in every way. All answers are the same.
func (p *people) testFailuresLookTheSame() {
	t := p.t
	var first string
	for _, body := range []m{
		{"login": "anna", "password": otherPassword},
		{"login": "nobody", "password": goodPassword},
		{"login": "robot", "password": goodPassword},
		{"login": "аnna", "password": goodPassword},
		{"login": p.anna, "password": goodPassword},
		{"login": "", "password": goodPassword},
	} {
		a := p.ask("POST /v1/session", body, "", 401, "sign_in_failed")
		for _, own := range []string{"instance", "request_id"} {
			delete(a.body, own)
		}
		text := a.text("detail") + a.text("title") + a.header.Get("WWW-Authenticate")
		if first == "" {
			first = text
		}
		if text != first || len(a.body) != 5 {
			t.Errorf("%v: %s, want the answer that all failures have", body, a.raw)
		}
	}
	p.ask("POST /v1/session", m{"login": "anna", "password": strings.Repeat("a", 2000)}, "", 422, "invalid_request")
	p.ask("POST /v1/session", m{"login": "anna", "password": goodPassword, "token": p.root}, "", 422, "invalid_request")
	if a := p.do("POST /v1/session", m{"login": "anna", "password": strings.Repeat("a", 1<<20)}, "-Authorization"); a.status != 413 {
		t.Errorf("a password of 1 MiB: %d", a.status)
	}
	if a := p.ask("POST /v1/session", m{"token": p.root}, "", 403, "forbidden"); !strings.Contains(a.text("detail"), "token_sign_in") {
		t.Errorf("a token signs in: %s", a.raw)
	}
}

// testSession signs in, and returns the session's secret.
func (p *people) testSession() (mine string) {
	t := p.t
	a := p.ask("POST /v1/session", m{"login": "ANNA", "password": goodPassword}, "", 200, "")
	mine = a.text("secret")
	if !strings.HasPrefix(mine, "tlx_") || a.text("session", "account") != p.anna || a.at("session", "methods").([]any)[0] != "pwd" || a.text("session", "authenticated_at") == "" {
		t.Errorf("sign-in: %s", a.raw)
	}
	a = p.ask("GET /v1/session", nil, mine, 200, "")
	if a.at("session", "current") != true || a.at("inherit") != true || a.at("scopes").([]any)[0] != "admin:site/1" || strings.Contains(string(a.raw), mine) {
		t.Errorf("who am I: %s", a.raw)
	}
	p.ask("GET /v1/session", nil, p.root, 403, "forbidden")
	p.ask("GET /v1/session", nil, "", 401, "unauthenticated")
	p.ask("GET /v1/session", nil, mine[:len(mine)-1]+"!", 401, "unauthenticated")
	// A session is not a token: verifiers refuse it, and the API accepts it
	// with its account's rights.
	if p.node.Verifier().Check(mine, verifier.Request{}).Reason == verifier.Allowed {
		t.Error("a verifier takes a session's secret for a token")
	}
	p.ask("POST /v1/accounts/anna/invite", nil, mine, 403, "forbidden")
	p.must("GET /v1/accounts/"+p.anna, nil, as(mine))
	return mine
}

// testSecondFactor adds, uses and removes a second factor. It returns the secret of a
// session that was opened with a recovery code.
func (p *people) testSecondFactor(mine string) (other string) {
	t := p.t
	a := p.ask("POST /v1/second-factor", nil, mine, 200, "")
	secret := a.text("secret")
	if !strings.HasPrefix(a.text("uri"), "otpauth://totp/tokenledger:Anna?") {
		t.Errorf("the address for apps: %s", a.raw)
	}
	p.ask("POST /v1/second-factor", nil, p.root, 403, "forbidden")
	p.ask("POST /v1/second-factor/confirm", m{"code": "1"}, mine, 422, "invalid_request")
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	codes := p.ask("POST /v1/second-factor/confirm", m{"code": code}, mine, 200, "").at("recovery_codes").([]any)
	p.ask("POST /v1/session", m{"login": "anna", "password": goodPassword}, "", 401, "second_factor_required")
	p.ask("POST /v1/session", m{"login": "anna", "password": goodPassword, "code": code}, "", 401, "sign_in_failed")
	other = p.ask("POST /v1/session", m{"login": "anna", "password": goodPassword, "code": codes[0]}, "", 200, "").text("secret")
	p.ask("POST /v1/session/reauth", m{}, mine, 422, "invalid_request")
	p.ask("POST /v1/session/reauth", m{"password": otherPassword}, mine, 401, "sign_in_failed")
	p.ask("POST /v1/session/reauth", m{"code": codes[1]}, mine, 200, "")
	p.ask("POST /v1/session/reauth", m{"password": goodPassword}, p.root, 403, "forbidden")
	for _, path := range []string{"POST /v1/second-factor", "POST /v1/second-factor/recovery-codes"} {
		p.ask(path, nil, mine, 422, "invalid_request")
		p.ask(path, m{"code": "1"}, mine, 401, "sign_in_failed")
	}
	codes = p.ask("POST /v1/second-factor/recovery-codes", m{"code": codes[2]}, mine, 200, "").at("recovery_codes").([]any)
	p.ask("POST /v1/second-factor/remove", m{"code": "1"}, mine, 401, "sign_in_failed")
	p.ask("POST /v1/second-factor/remove", m{"code": codes[0]}, mine, 200, "")
	return other
}

// testChangePassword changes the password, which ends the other session.
func (p *people) testChangePassword(mine, other string) {
	t := p.t
	if a := p.ask("PUT /v1/password", m{"old": goodPassword, "new": "short"}, mine, 422, "invalid_request"); a.body["errors"].([]any)[0].(m)["location"] != "body.new" {
		t.Errorf("a short password: %s", a.raw)
	}
	p.ask("PUT /v1/password", m{"old": goodPassword, "new": otherPassword}, mine, 200, "")
	p.ask("GET /v1/session", nil, mine, 200, "")
	p.ask("GET /v1/session", nil, other, 401, "unauthenticated")
}

// testListSessions opens more sessions and lists all of them. It returns the secrets
// of one of them, and of a session of another person.
func (p *people) testListSessions(mine string) (other, ben string) {
	t := p.t
	for range 3 {
		other = p.signIn("anna", otherPassword)
	}
	seen := 0
	for next := ""; ; {
		a := p.ask("GET /v1/sessions?limit=3"+next, nil, mine, 200, "")
		for _, item := range a.at("items").([]any) {
			if item.(m)["account"] != p.anna {
				t.Errorf("sessions: %s", a.raw)
			}
			seen++
		}
		cursor := a.text("next_cursor")
		if cursor == "" {
			break
		}
		p.ask("GET /v1/sessions?all=true&cursor="+cursor, nil, p.root, 422, "invalid_request")
		next = "&cursor=" + cursor
	}
	if seen != 4 {
		t.Errorf("%d sessions, want 4", seen)
	}
	p.person("ben", goodPassword)
	ben = p.signIn("ben", goodPassword)
	p.ask("GET /v1/sessions?account=anna", nil, ben, 403, "forbidden")
	p.ask("GET /v1/sessions?all=true", nil, ben, 403, "forbidden")
	p.ask("GET /v1/sessions?all=true&account=anna", nil, p.root, 422, "invalid_request")
	if a := p.ask("GET /v1/sessions?all=true", nil, p.root, 200, ""); len(a.at("items").([]any)) != 5 {
		t.Errorf("all sessions: %s", a.raw)
	}
	return other, ben
}

// testEndSessions ends sessions one by one and all at once.
func (p *people) testEndSessions(mine, other, ben string) {
	t := p.t
	var session struct {
		Session api.Session `json:"session"`
		Scopes  []string    `json:"scopes"`
		Inherit bool        `json:"inherit"`
	}
	p.ask("GET /v1/session", nil, other, 200, "").into(t, &session)
	p.ask("POST /v1/sessions/"+session.Session.ID+"/end", nil, ben, 404, "not_found")
	p.ask("POST /v1/sessions/tok_x/end", nil, ben, 422, "invalid_request")
	p.ask("POST /v1/sessions/"+session.Session.ID+"/end", nil, mine, 200, "")
	p.ask("GET /v1/session", nil, other, 401, "unauthenticated")
	p.ask("POST /v1/session/end", nil, mine, 200, "")
	p.ask("GET /v1/session", nil, mine, 401, "unauthenticated")
	p.ask("POST /v1/session/end", nil, p.root, 403, "forbidden")
	last := p.signIn("anna", otherPassword)
	p.ask("POST /v1/sessions/end", m{"account": "anna"}, ben, 403, "forbidden")
	p.ask("POST /v1/sessions/end", m{"account": "anna"}, p.root, 200, "")
	p.ask("GET /v1/session", nil, last, 401, "unauthenticated")
	p.ask("GET /v1/session", nil, ben, 200, "")
	p.must("POST /v1/accounts/ben/suspend", nil)
	p.ask("GET /v1/session", nil, ben, 401, "unauthenticated")
}

// testTooManyAttempts signs in wrongly without end. The answer is the same for a login
// that exists and for one that does not.
func (p *people) testTooManyAttempts() {
	t := p.t
	for _, login := range []string{"anna", "nobody-else"} {
		limited := false
		for range 40 {
			a := p.do("POST /v1/session", m{"login": login, "password": goodPassword}, "-Authorization")
			if limited = a.status == 429; limited {
				if a.code() != "too_many_attempts" || a.header.Get("Retry-After") == "" {
					t.Errorf("%s: %v %s", login, a.header, a.raw)
				}
				checkProblem(t, a)
				break
			}
		}
		if !limited {
			t.Errorf("passwords of %s can be tried without limit", login)
		}
	}
}

// peopleTag marks the operations that these tests cover.
const peopleTag = "people"
