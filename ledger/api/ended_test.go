package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// scene has the targets of the requests.
type scene struct {
	*server
	victim, stopped string // accounts
	token, paused   string // ids of tokens of the victim
	session         string // id of a session of the victim
}

// changing is a request that changes something.
type changing struct {
	line string
	body m
	// own: the request is about the caller's own account, so a demoted caller
	// may still send it.
	own bool
}

// changes lists every operation that changes something, except those without a
// caller.
func (s *scene) changes() []changing {
	tokens, accounts := "/v1/tokens/", "/v1/accounts/"
	return []changing{
		{line: "POST /v1/tokens", body: m{"account": s.victim, "scopes": []string{"view:site/1"}}},
		{line: "PATCH " + tokens + s.token, body: m{"scopes": []string{"view:site/1"}, "app": "late"}},
		{line: "POST " + tokens + s.token + "/rotate", body: m{"grace": 0}},
		{line: "POST " + tokens + s.token + "/suspend", body: m{}},
		{line: "POST " + tokens + s.paused + "/resume", body: m{}},
		{line: "POST " + tokens + s.token + "/revoke", body: m{}},
		{line: "POST /v1/accounts", body: m{"login": "late", "kind": "user", "grants": []string{"superuser"}}},
		{line: "PATCH " + accounts + s.victim, body: m{"name": "Late"}},
		{line: "PUT " + accounts + s.victim + "/grants", body: m{"grants": []string{"superuser"}}},
		{line: "POST " + accounts + s.victim + "/suspend", body: m{}},
		{line: "POST " + accounts + s.stopped + "/resume", body: m{}},
		{line: "POST " + accounts + s.victim + "/erase", body: m{}},
		{line: "PUT /v1/policy", body: m{"token_sign_in": true}},
		{line: "POST /v1/revocations", body: m{"account": s.victim}},
		{line: "POST " + accounts + s.victim + "/invite", body: m{}},
		{line: "POST /v1/sessions/" + s.session + "/end", body: m{}},
		{line: "POST /v1/sessions/end", body: m{"account": s.victim}},
		{line: "POST /v1/session/end", body: m{}, own: true},
		{line: "POST /v1/session/reauth", body: m{"password": goodPassword}, own: true},
		{line: "PUT /v1/password", body: m{"old": goodPassword, "new": otherPassword + " late"}, own: true},
		{line: "POST /v1/second-factor", body: m{}, own: true},
		{line: "POST /v1/second-factor/confirm", body: m{"code": "123456"}, own: true},
		{line: "POST /v1/second-factor/remove", body: m{"code": "123456"}, own: true},
		{line: "POST /v1/second-factor/recovery-codes", body: m{}, own: true},
	}
}

// held is a request of which the server has the headers and waits for the body.
type held struct {
	conn
	read *bufio.Reader
	rest string
	changing
}

// hold sends a request's headers, waits until the server asks for the body, and
// sends one byte of it.
func (s *server) hold(secret string, c changing) *held {
	s.t.Helper()
	b, err := json.Marshal(c.body)
	if err != nil {
		s.t.Fatal(err)
	}
	// A space is a valid part of every body.
	body := " " + string(b)
	h := &held{conn: s.dial(), rest: body[1:], changing: c}
	head := fmt.Sprintf("%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", c.line, s.host, secret, len(body))
	if _, err := io.WriteString(h, head); err != nil {
		s.t.Fatal(err)
	}
	h.read = bufio.NewReader(h.conn)
	status, err := h.read.ReadString('\n')
	if err != nil || !strings.HasPrefix(status, "HTTP/1.1 100") {
		s.t.Fatalf("%s: the server does not wait for the body: %q, %v", c.line, status, err)
	}
	if _, err := h.read.ReadString('\n'); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(h, body[:1]); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// finish sends the rest and returns the answer.
func (h *held) finish() answer {
	h.t.Helper()
	if _, err := io.WriteString(h, h.rest); err != nil {
		h.t.Fatal(err)
	}
	method, _, _ := strings.Cut(h.line, " ")
	resp, err := http.ReadResponse(h.read, &http.Request{Method: method})
	if err != nil {
		h.t.Fatalf("%s: %v", h.line, err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.raw, err = io.ReadAll(resp.Body); err != nil {
		h.t.Fatal(err)
	}
	_ = json.Unmarshal(a.raw, &a.body)
	return a
}

// changesSince lists the events after a position that change something.
func (s *server) changesSince(at events.Position) []events.Kind {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := s.log.Stream(ctx, events.StreamName)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []events.Kind
	for at++; at <= s.end(); at++ {
		msg, err := stream.GetMsg(ctx, uint64(at))
		if err != nil {
			s.t.Fatal(err)
		}
		e, err := events.Decode(msg.Data)
		if err != nil {
			s.t.Fatal(err)
		}
		if !e.Change.Kind().Keeps() {
			out = append(out, e.Change.Kind())
		}
	}
	return out
}

// ending is a way in which a caller ends.
type ending struct {
	name string
	end  func(s *scene, login, token, secret string)
	// demotes means that the caller continues with fewer grants.
	demotes bool
}

// endings are for tokens and sessions of an account.
var endings = []ending{
	{name: "account suspended", end: func(s *scene, login, _, _ string) { s.must("POST /v1/accounts/"+login+"/suspend", nil) }},
	{name: "account erased", end: func(s *scene, login, _, _ string) { s.must("POST /v1/accounts/"+login+"/erase", nil) }},
	{name: "account demoted", demotes: true, end: func(s *scene, login, _, _ string) {
		s.must("PUT /v1/accounts/"+login+"/grants", m{"grants": []string{"view:site/9"}})
	}},
	{name: "all tokens revoked", end: func(s *scene, login, _, _ string) { s.must("POST /v1/revocations", m{"account": login}) }},
}

var tokenEndings = []ending{
	{name: "revoked", end: func(s *scene, _, token, _ string) { s.must("POST /v1/tokens/"+token+"/revoke", nil) }},
	{name: "rotated without grace", end: func(s *scene, _, token, _ string) { s.must("POST /v1/tokens/"+token+"/rotate", m{"grace": 0}) }},
	{name: "suspended", end: func(s *scene, _, token, _ string) { s.must("POST /v1/tokens/"+token+"/suspend", nil) }},
	{name: "expired", end: func(s *scene, _, token, secret string) {
		soon := time.Now().Add(2 * time.Second).UTC().Format(time.RFC3339Nano)
		s.must("PATCH /v1/tokens/"+token, m{"expires_at": soon})
		for end := time.Now().Add(patience); s.do("GET /v1/nodes", nil, as(secret)).status != 401; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				s.t.Fatal("the token does not expire")
			}
		}
	}},
}

var sessionEndings = []ending{
	{name: "signed out", end: func(s *scene, _, _, secret string) { s.must("POST /v1/session/end", nil, as(secret)) }},
	{name: "ended by a superuser", end: func(s *scene, _, _, secret string) {
		id := s.must("GET /v1/session", nil, as(secret)).text("session", "id")
		s.must("POST /v1/sessions/"+id+"/end", nil)
	}},
	{name: "all ended", end: func(s *scene, login, _, _ string) { s.must("POST /v1/sessions/end", m{"account": login}) }},
	{name: "password changed", end: func(s *scene, login, _, _ string) {
		s.must("PUT /v1/password", m{"old": goodPassword, "new": otherPassword}, as(s.signIn(login, goodPassword)))
	}},
}

func newScene(t *testing.T) *scene {
	s := &scene{server: start(t)}
	s.victim = s.person("victim", goodPassword, "view:site/1")
	s.stopped = s.must("POST /v1/accounts", m{"login": "stopped", "kind": "user", "grants": []string{"view:site/1"}}).text("account", "id")
	s.must("POST /v1/accounts/stopped/suspend", nil)
	s.token, _ = s.server.token("victim", "view:site/1")
	s.paused, _ = s.server.token("victim", "view:site/1")
	s.must("POST /v1/tokens/"+s.paused+"/suspend", nil)
	s.session = s.must("GET /v1/session", nil, as(s.signIn("victim", goodPassword))).text("session", "id")
	return s
}

// TestEndedCallers ends a caller while the server waits for the body of its
// request. Every request is refused and changes nothing, for each way in which
// the caller ends.
func TestEndedCallers(t *testing.T) {
	s := newScene(t)
	for i, session := range []bool{false, true} {
		ways := append(endings[:len(endings):len(endings)], tokenEndings...)
		if session {
			ways = append(endings[:len(endings):len(endings)], sessionEndings...)
		}
		for j, way := range ways {
			login := fmt.Sprintf("boss%d-%d", i, j)
			var token, secret string
			if session {
				s.person(login, goodPassword, "superuser")
				secret = s.signIn(login, goodPassword)
			} else {
				s.must("POST /v1/accounts", m{"login": login, "kind": "service", "grants": []string{"superuser"}})
				a := s.must("POST /v1/tokens", m{"account": login, "inherit": true})
				token, secret = a.text("token", "id"), a.text("secret")
			}
			s.must("GET /v1/nodes", nil, as(secret))
			var waiting []*held
			for _, c := range s.changes() {
				if !way.demotes || !c.own {
					waiting = append(waiting, s.hold(secret, c))
				}
			}
			way.end(s, login, token, secret)
			at := s.end()
			for _, h := range waiting {
				a := h.finish()
				if a.status != 401 && (!way.demotes || a.status != 403 && a.status != 404) {
					t.Errorf("session %t, %s: %s: status %d: %s", session, way.name, h.line, a.status, a.raw)
				}
			}
			if changed := s.changesSince(at); len(changed) > 0 {
				t.Errorf("session %t, %s: the log has %v", session, way.name, changed)
			}
		}
	}
	// The targets are unchanged, including the victim's session and password.
	if a := s.must("GET /v1/sessions?account=victim", nil); len(a.at("items").([]any)) != 1 {
		t.Errorf("the victim's sessions: %s", a.raw)
	}
	s.signIn("victim", goodPassword)
}
