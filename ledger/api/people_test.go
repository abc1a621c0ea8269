package api_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/verifier"
)

// Passwords that nothing is wrong with.
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

// person makes a user's account with a password.
func (s *server) person(login, password string, grants ...string) (id string) {
	s.t.Helper()
	id = s.must("POST /v1/accounts", m{"login": login, "kind": "user", "grants": grants}).text("account", "id")
	invitation := s.must("POST /v1/accounts/"+login+"/invite", nil).text("invitation")
	if a := s.must("POST /v1/password", m{"invitation": invitation, "password": password}, "-Authorization"); a.text("account") != id {
		s.t.Fatalf("the password is that of %s", a.raw)
	}
	return id
}

// TestPeople goes through every operation for people, and through what they
// refuse.
func TestPeople(t *testing.T) {
	s := start(t)
	d := describe(t)
	done := map[string]bool{}
	ask := func(line string, body any, secret string, status int, code string) answer {
		t.Helper()
		auth := "-Authorization"
		if secret != "" {
			auth = as(secret)
		}
		a := s.do(line, body, auth)
		id, statuses := d.find(line)
		if a.status != status || a.code() != code || !slices.Contains(statuses, strings.Fields("200 401 403 404 422 429 503")[slices.Index([]int{200, 401, 403, 404, 422, 429, 503}, status)]) {
			t.Fatalf("%s: %d %s, want %d %s of %v: %s", line, a.status, a.code(), status, code, statuses, a.raw)
		}
		if status == 200 {
			done[id] = true
		} else {
			checkProblem(t, a)
		}
		for _, secret := range []string{goodPassword, otherPassword} {
			if strings.Contains(string(a.raw), secret) {
				t.Errorf("%s: the answer repeats a password: %s", line, a.raw)
			}
		}
		if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", line, a.header)
		}
		return a
	}
	id := s.must("POST /v1/accounts", m{"login": "Anna", "kind": "user", "grants": []string{"admin:site/1"}}).text("account", "id")
	s.must("POST /v1/accounts", m{"login": "robot", "kind": "service"})
	ask("POST /v1/accounts/robot/invite", nil, s.root, 422, "invalid_request")
	ask("POST /v1/accounts/nobody/invite", nil, s.root, 404, "not_found")
	a := ask("POST /v1/accounts/anna/invite", m{}, s.root, 200, "")
	if until, err := time.Parse(time.RFC3339, a.text("expires_at")); err != nil || a.text("account") != id || time.Until(until) > 72*time.Hour {
		t.Errorf("invite: %s", a.raw)
	}
	invitation := a.text("invitation")
	ask("POST /v1/password", m{"invitation": invitation, "password": "short"}, "", 422, "invalid_request")
	if a := ask("POST /v1/password", m{"invitation": invitation, "password": "password1234567890"}, "", 422, "invalid_request"); a.body["errors"].([]any)[0].(m)["location"] != "body.password" {
		t.Errorf("a common password: %s", a.raw)
	}
	if a := ask("POST /v1/password", m{"invitation": invitation, "password": goodPassword}, "", 200, ""); a.text("account") != id {
		t.Errorf("set-password: %s", a.raw)
	}
	ask("POST /v1/password", m{"invitation": invitation, "password": goodPassword}, "", 401, "sign_in_failed")

	// All failures are one answer.
	var first string
	for _, body := range []m{
		{"login": "anna", "password": otherPassword},
		{"login": "nobody", "password": goodPassword},
		{"login": "robot", "password": goodPassword},
		{"login": "аnna", "password": goodPassword},
		{"login": id, "password": goodPassword},
		{"login": "", "password": goodPassword},
	} {
		a := ask("POST /v1/session", body, "", 401, "sign_in_failed")
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
	ask("POST /v1/session", m{"login": "anna", "password": strings.Repeat("a", 2000)}, "", 422, "invalid_request")
	ask("POST /v1/session", m{"login": "anna", "password": goodPassword, "token": s.root}, "", 422, "invalid_request")
	if a := s.do("POST /v1/session", m{"login": "anna", "password": strings.Repeat("a", 1<<20)}, "-Authorization"); a.status != 413 {
		t.Errorf("a password of 1 MiB: %d", a.status)
	}
	if a := ask("POST /v1/session", m{"token": s.root}, "", 403, "forbidden"); !strings.Contains(a.text("detail"), "token_sign_in") {
		t.Errorf("a token signs in: %s", a.raw)
	}

	a = ask("POST /v1/session", m{"login": "ANNA", "password": goodPassword}, "", 200, "")
	mine := a.text("secret")
	if !strings.HasPrefix(mine, "tlx_") || a.text("session", "account") != id || a.at("session", "methods").([]any)[0] != "pwd" || a.text("session", "proved_at") == "" {
		t.Errorf("sign-in: %s", a.raw)
	}
	a = ask("GET /v1/session", nil, mine, 200, "")
	if a.at("session", "current") != true || a.at("inherit") != true || a.at("scopes").([]any)[0] != "admin:site/1" || strings.Contains(string(a.raw), mine) {
		t.Errorf("who am I: %s", a.raw)
	}
	ask("GET /v1/session", nil, s.root, 403, "forbidden")
	ask("GET /v1/session", nil, "", 401, "unauthenticated")
	ask("GET /v1/session", nil, mine[:len(mine)-1]+"!", 401, "unauthenticated")
	// A session is no token: no verifier takes it, and the API takes it for what
	// its account may do.
	if s.node.Verifier().Check(mine, verifier.Request{}).Reason == verifier.Allowed {
		t.Error("a verifier takes a session's secret for a token")
	}
	ask("POST /v1/accounts/anna/invite", nil, mine, 403, "forbidden")
	s.must("GET /v1/accounts/"+id, nil, as(mine))

	// The second factor.
	a = ask("POST /v1/second-factor", nil, mine, 200, "")
	secret := a.text("secret")
	if !strings.HasPrefix(a.text("uri"), "otpauth://totp/tokenledger:Anna?") {
		t.Errorf("the address for apps: %s", a.raw)
	}
	ask("POST /v1/second-factor", nil, s.root, 403, "forbidden")
	ask("POST /v1/second-factor/confirm", m{"code": "1"}, mine, 422, "invalid_request")
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	codes := ask("POST /v1/second-factor/confirm", m{"code": code}, mine, 200, "").at("recovery_codes").([]any)
	ask("POST /v1/session", m{"login": "anna", "password": goodPassword}, "", 401, "second_factor_required")
	ask("POST /v1/session", m{"login": "anna", "password": goodPassword, "code": code}, "", 401, "sign_in_failed")
	other := ask("POST /v1/session", m{"login": "anna", "password": goodPassword, "code": codes[0]}, "", 200, "").text("secret")
	ask("POST /v1/session/prove", m{}, mine, 422, "invalid_request")
	ask("POST /v1/session/prove", m{"password": otherPassword}, mine, 401, "sign_in_failed")
	ask("POST /v1/session/prove", m{"code": codes[1]}, mine, 200, "")
	ask("POST /v1/session/prove", m{"password": goodPassword}, s.root, 403, "forbidden")
	for _, path := range []string{"POST /v1/second-factor", "POST /v1/second-factor/recovery-codes"} {
		ask(path, nil, mine, 422, "invalid_request")
		ask(path, m{"code": "1"}, mine, 401, "sign_in_failed")
	}
	codes = ask("POST /v1/second-factor/recovery-codes", m{"code": codes[2]}, mine, 200, "").at("recovery_codes").([]any)
	ask("POST /v1/second-factor/remove", m{"code": "1"}, mine, 401, "sign_in_failed")
	ask("POST /v1/second-factor/remove", m{"code": codes[0]}, mine, 200, "")

	// Passwords and sessions.
	if a := ask("PUT /v1/password", m{"old": goodPassword, "new": "short"}, mine, 422, "invalid_request"); a.body["errors"].([]any)[0].(m)["location"] != "body.new" {
		t.Errorf("a short password: %s", a.raw)
	}
	ask("PUT /v1/password", m{"old": goodPassword, "new": otherPassword}, mine, 200, "")
	ask("GET /v1/session", nil, mine, 200, "")
	ask("GET /v1/session", nil, other, 401, "unauthenticated")
	for range 3 {
		other = s.signIn("anna", otherPassword)
	}
	seen := 0
	for next := ""; ; {
		a := ask("GET /v1/sessions?limit=3"+next, nil, mine, 200, "")
		for _, item := range a.at("items").([]any) {
			if item.(m)["account"] != id {
				t.Errorf("sessions: %s", a.raw)
			}
			seen++
		}
		cursor := a.text("next_cursor")
		if cursor == "" {
			break
		}
		ask("GET /v1/sessions?all=true&cursor="+cursor, nil, s.root, 422, "invalid_request")
		next = "&cursor=" + cursor
	}
	if seen != 4 {
		t.Errorf("%d sessions, want 4", seen)
	}
	s.person("ben", goodPassword)
	ben := s.signIn("ben", goodPassword)
	ask("GET /v1/sessions?account=anna", nil, ben, 403, "forbidden")
	ask("GET /v1/sessions?all=true", nil, ben, 403, "forbidden")
	ask("GET /v1/sessions?all=true&account=anna", nil, s.root, 422, "invalid_request")
	if a := ask("GET /v1/sessions?all=true", nil, s.root, 200, ""); len(a.at("items").([]any)) != 5 {
		t.Errorf("all sessions: %s", a.raw)
	}
	var session struct {
		Session api.Session `json:"session"`
		Scopes  []string    `json:"scopes"`
		Inherit bool        `json:"inherit"`
	}
	ask("GET /v1/session", nil, other, 200, "").into(t, &session)
	ask("POST /v1/sessions/"+session.Session.ID+"/end", nil, ben, 404, "not_found")
	ask("POST /v1/sessions/tok_x/end", nil, ben, 422, "invalid_request")
	ask("POST /v1/sessions/"+session.Session.ID+"/end", nil, mine, 200, "")
	ask("GET /v1/session", nil, other, 401, "unauthenticated")
	ask("POST /v1/session/end", nil, mine, 200, "")
	ask("GET /v1/session", nil, mine, 401, "unauthenticated")
	ask("POST /v1/session/end", nil, s.root, 403, "forbidden")
	last := s.signIn("anna", otherPassword)
	ask("POST /v1/sessions/end", m{"account": "anna"}, ben, 403, "forbidden")
	ask("POST /v1/sessions/end", m{"account": "anna"}, s.root, 200, "")
	ask("GET /v1/session", nil, last, 401, "unauthenticated")
	ask("GET /v1/session", nil, ben, 200, "")
	s.must("POST /v1/accounts/ben/suspend", nil)
	ask("GET /v1/session", nil, ben, 401, "unauthenticated")

	for path, item := range d.Paths {
		for method, op := range item {
			if slices.Contains(op.Tags, peopleTag) && !done[op.OperationID] {
				t.Errorf("%s %s (%s) was not asked", method, path, op.OperationID)
			}
		}
	}
	// Hammered, the answer is the same for a login that there is and one that
	// there is not.
	for _, login := range []string{"anna", "nobody-else"} {
		limited := false
		for range 40 {
			a := s.do("POST /v1/session", m{"login": login, "password": goodPassword}, "-Authorization")
			if limited = a.status == 429; limited {
				if a.code() != "too_many_attempts" || a.header.Get("Retry-After") == "" {
					t.Errorf("%s: %v %s", login, a.header, a.raw)
				}
				checkProblem(t, a)
				break
			}
		}
		if !limited {
			t.Errorf("%s can be tried for ever", login)
		}
	}
}

// peopleTag marks operations that are gone through here.
const peopleTag = "people"
