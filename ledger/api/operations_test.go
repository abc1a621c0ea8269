package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger/api"
)

// TestDescription compares the committed description with the one that the
// types make.
func TestDescription(t *testing.T) {
	got, err := api.Description()
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	committed, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pretty.Bytes(), committed) {
		t.Error("openapi.json is not what the types describe; run go generate ./ledger/api")
	}
}

// description is the part of the description that tests go by.
type description struct {
	Paths map[string]map[string]struct {
		OperationID string         `json:"operationId"`
		Tags        []string       `json:"tags"`
		Responses   map[string]any `json:"responses"`
	} `json:"paths"`
}

func describe(t testing.TB) description {
	t.Helper()
	raw, err := api.Description()
	if err != nil {
		t.Fatal(err)
	}
	var d description
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// find returns the operation that serves a request line.
func (d description) find(line string) (id string, statuses []string) {
	method, target, _ := strings.Cut(line, " ")
	target, _, _ = strings.Cut(target, "?")
	for pattern, item := range d.Paths {
		want, got := strings.Split(pattern, "/"), strings.Split(target, "/")
		if len(want) != len(got) {
			continue
		}
		fits := true
		for i := range want {
			fits = fits && (want[i] == got[i] || strings.HasPrefix(want[i], "{"))
		}
		if op, ok := item[strings.ToLower(method)]; fits && ok {
			for status := range op.Responses {
				statuses = append(statuses, status)
			}
			return op.OperationID, statuses
		}
	}
	return "", nil
}

// TestOperations goes through the life of an account and its tokens, and through
// every operation that is described. Each answer is of the described form, and
// says which position it rests on.
func TestOperations(t *testing.T) {
	s := start(t)
	d := describe(t)
	done := map[string]bool{}
	// ask sends a request and holds its answer to what all of them have; where
	// changes is true the request made an event.
	ask := func(line string, body any, status int, changes bool, header ...string) answer {
		t.Helper()
		before := s.changes()
		a := s.do(line, body, header...)
		id, statuses := d.find(line)
		done[id] = true
		if a.status != status || !slices.Contains(statuses, fmt.Sprint(status)) {
			t.Fatalf("%s: status %d, want %d, of %v: %s", line, a.status, status, statuses, a.raw)
		}
		after := s.changes()
		want := before
		if changes {
			want++
		}
		end := s.end()
		changed := end
		if a.at("receipt", "position") == float64(end) {
			want++ // the receipt is an event, too
			changed--
		}
		if after != want {
			t.Fatalf("%s: the log went from %d changes to %d, want %d", line, before, after, want)
		}
		if got := a.header.Get("Ledger-Position"); changes && got != fmt.Sprint(end) {
			t.Errorf("%s: Ledger-Position %s, want %d", line, got, end)
		} else if got == "" || got == "0" {
			t.Errorf("%s: Ledger-Position %q", line, got)
		}
		if a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: headers %v", line, a.header)
		}
		if changes && a.at("position") != float64(changed) {
			t.Errorf("%s: position %v in the body, want %d", line, a.at("position"), changed)
		}
		return a
	}
	type account struct {
		Account  api.Account  `json:"account"`
		Position uint64       `json:"position"`
		Receipt  *api.Receipt `json:"receipt"`
	}
	type token struct {
		Token       api.Token    `json:"token"`
		Secret      string       `json:"secret"`
		Position    uint64       `json:"position"`
		SecretShown bool         `json:"secret_already_shown"`
		Receipt     *api.Receipt `json:"receipt"`
	}
	etag := func(v uint64) string { return fmt.Sprintf(`"%d"`, v) }

	// Accounts.
	a := ask("POST /v1/accounts", m{"login": "Alice", "kind": "user", "grants": []string{"view:site/*", "admin:site/1"}}, 201, true)
	var made account
	a.into(t, &made)
	id := made.Account.ID
	if made.Account.Login != "Alice" || made.Account.State != "active" || strings.Join(made.Account.Grants, " ") != "admin:site/1 view:site/*" || a.header.Get("ETag") != etag(made.Account.Version) {
		t.Errorf("made %+v, ETag %s", made.Account, a.header.Get("ETag"))
	}
	var shown api.Account
	a = ask("GET /v1/accounts/alice", nil, 200, false)
	if a.into(t, &shown); shown.ID != id || a.header.Get("ETag") != etag(shown.Version) {
		t.Errorf("shown as %+v, ETag %s", shown, a.header.Get("ETag"))
	}
	a = ask("PUT /v1/accounts/alice/grants", m{"grants": []string{"view:site/*", "write:site/1"}}, 200, true, "If-Match: "+a.header.Get("ETag"))
	if a.into(t, &made); strings.Join(made.Account.Grants, " ") != "view:site/* write:site/1" || a.header.Get("ETag") != etag(made.Position) {
		t.Errorf("granted %+v, ETag %s", made.Account, a.header.Get("ETag"))
	}
	a = ask("POST /v1/accounts/"+id+"/suspend?wait=10s", m{"reason": "away"}, 200, true)
	if a.text("account", "state") != "suspended" || a.text("account", "reason") != "away" || a.at("receipt", "complete") != true {
		t.Errorf("suspended: %s", a.raw)
	}
	if a = ask("POST /v1/accounts/alice/suspend", nil, 200, false); a.text("account", "reason") != "away" {
		t.Errorf("suspended again: %s", a.raw)
	}
	if a = ask("POST /v1/accounts/alice/resume", nil, 200, true); a.text("account", "state") != "active" || a.at("account", "reason") != nil {
		t.Errorf("resumed: %s", a.raw)
	}
	var accounts struct {
		Items      []api.Account `json:"items"`
		NextCursor string        `json:"next_cursor"`
	}
	a = ask("GET /v1/accounts", nil, 200, false)
	if a.into(t, &accounts); len(accounts.Items) != 2 || accounts.NextCursor != "" {
		t.Errorf("accounts: %s", a.raw)
	}

	shop := ask("POST /v1/accounts", m{"login": "shop", "kind": "service", "owner": "alice", "grants": []string{"view:site/1"}, "name": "Shop"}, 201, true)
	if shop.text("account", "owner") != id || shop.text("account", "name") != "Shop" || shop.at("account", "self_service") != true {
		t.Errorf("made %s", shop.raw)
	}
	a = ask("PATCH /v1/accounts/shop", m{"owner": "", "self_service": false}, 200, true, "If-Match: "+shop.header.Get("ETag"))
	if a.at("account", "owner") != nil || a.at("account", "self_service") != false || a.header.Get("ETag") != etag(uint64(a.at("position").(float64))) {
		t.Errorf("edited %s", a.raw)
	}
	if a = ask("GET /v1/accounts?kind=service", nil, 200, false); len(a.at("items").([]any)) != 2 {
		t.Errorf("service accounts: %s", a.raw)
	}
	ask("POST /v1/revocations", m{"account": "shop"}, 200, true)
	if a = ask("GET /v1/accounts/shop", nil, 200, false); a.at("tokens_until") == nil {
		t.Errorf("after a revocation of all: %s", a.raw)
	}
	ben := ask("POST /v1/accounts", m{"login": "ben", "kind": "user", "name": "Ben Ôtre", "mail": "ben@example.org", "grants": []string{"view:site/1"}}, 201, true)
	if ben.text("account", "name") != "Ben Ôtre" || ben.text("account", "mail") != "ben@example.org" {
		t.Errorf("made %s", ben.raw)
	}
	rename := m{"name": "Ben Lind", "mail": "lind@example.org"}
	a = ask("PATCH /v1/accounts/ben", rename, 200, true, "If-Match: "+ben.header.Get("ETag"), "Idempotency-Key: rename")
	if a.text("account", "name") != "Ben Lind" || a.text("account", "mail") != "lind@example.org" || a.header.Get("ETag") != etag(uint64(a.at("position").(float64))) {
		t.Errorf("renamed: %s", a.raw)
	}
	if a = ask("PATCH /v1/accounts/ben", m{"mail": ""}, 200, true, "If-Match: "+a.header.Get("ETag")); a.text("account", "name") != "Ben Lind" || a.at("account", "mail") != nil {
		t.Errorf("without a mail: %s", a.raw)
	}
	ben = ask("GET /v1/accounts/ben", nil, 200, false)
	if ben.text("name") != "Ben Lind" || ben.at("mail") != nil || ben.header.Get("ETag") != a.header.Get("ETag") {
		t.Errorf("shown: %s", ben.raw)
	}
	if a = ask("PATCH /v1/accounts/ben", rename, 200, false, "Idempotency-Key: rename"); a.header.Get("Idempotency-Replayed") != "true" || a.at("account", "mail") != nil {
		t.Errorf("renamed again: %s", a.raw)
	}
	if a = ask("GET /v1/accounts?kind=user", nil, 200, false); a.at("items").([]any)[1].(m)["name"] != "Ben Lind" {
		t.Errorf("listed: %s", a.raw)
	}
	a = ask("POST /v1/accounts/ben/erase?wait=10s", m{}, 200, true, "If-Match: "+ben.header.Get("ETag"), "Idempotency-Key: erase")
	if a.text("account", "state") != "erased" || a.at("account", "login") != nil || a.at("account", "mail") != nil || a.at("account", "name") != nil || a.at("receipt", "complete") != true {
		t.Errorf("erased: %s", a.raw)
	}
	if again := ask("POST /v1/accounts/"+ben.text("id")+"/erase", nil, 200, false); again.at("position") != a.at("position") {
		t.Errorf("erased again: %s", again.raw)
	}
	policy := ask("GET /v1/policy", nil, 200, false)
	if a = ask("PUT /v1/policy?wait=10s", policy.at("policy"), 200, false, "If-Match: "+policy.header.Get("ETag")); a.at("version") != policy.at("version") {
		t.Errorf("the policy as it was: %s", a.raw)
	}

	// Tokens.
	create := m{
		"account": "alice", "app": "mobile app", "device": "phone", "scopes": []string{"view:site/2", "view:site/1"}, "expires_in": "90d",
		"constraints": m{"cidrs": []string{"127.0.0.0/8"}, "origins": []string{"https://example.org"}, "methods": []string{"GET"}, "audience": []string{"site"}, "header_only": true, "rate": 5},
	}
	began := time.Now()
	a = ask("POST /v1/tokens", create, 201, true, "Idempotency-Key: first")
	var first token
	a.into(t, &first)
	tok := first.Token
	if tok.Account != id || tok.App != "mobile app" || tok.Device != "phone" || tok.State != "active" || strings.Join(tok.Scopes, " ") != "view:site/1 view:site/2" ||
		strings.Join(tok.Effective, " ") != "view:site/1 view:site/2" || tok.Inherit || tok.Constraints == nil || !tok.Constraints.HeaderOnly || tok.Constraints.Rate != 5 || tok.ExpiresSoon ||
		tok.ExpiresAt.Sub(began).Round(time.Hour) != 90*24*time.Hour || tok.CreatedBy.Address != "127.0.0.1" || tok.CreatedBy.Token == "" ||
		a.header.Get("ETag") != etag(first.Position) || !strings.HasPrefix(first.Secret, "tlu_") || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("made %s", a.raw)
	}
	again := ask("POST /v1/tokens", create, 200, false, "Idempotency-Key: first")
	if again.header.Get("Idempotency-Replayed") != "true" || again.header.Get("Ledger-Position") != fmt.Sprint(first.Position) || !bytes.Equal(a.raw, again.raw) {
		t.Errorf("made again: %v %s, want the first answer %s", again.header, again.raw, a.raw)
	}
	if a = ask("POST /v1/tokens", m{"account": id, "inherit": true, "format": "hex32"}, 201, true); len(a.text("secret")) != 32 || a.at("token", "inherit") != true {
		t.Errorf("made %s", a.raw)
	}
	at := "/v1/tokens/" + tok.ID
	a = ask("GET "+at, nil, 200, false)
	var got api.Token
	if a.into(t, &got); got.ID != tok.ID || a.header.Get("ETag") != etag(tok.Version) || bytes.Contains(a.raw, []byte("secret")) {
		t.Errorf("shown as %s, ETag %s", a.raw, a.header.Get("ETag"))
	}
	a = ask("PATCH "+at, m{"scopes": []string{"write:site/1"}, "app": "desktop", "constraints": m{}, "expires_at": began.Add(time.Hour).UTC().Format(time.RFC3339)}, 200, true, "If-Match: "+a.header.Get("ETag"))
	edited := token{}
	a.into(t, &edited)
	if e := edited.Token; strings.Join(e.Scopes, " ") != "write:site/1" || e.App != "desktop" || e.Device != "phone" || e.Constraints != nil || !e.ExpiresAt.Equal(began.Add(time.Hour).Truncate(time.Second)) || a.header.Get("ETag") != etag(edited.Position) {
		t.Errorf("edited to %s", a.raw)
	}
	if a = s.do("PATCH "+at, m{"app": "x"}, "If-Match: "+etag(first.Position)); a.status != 412 || a.code() != "stale" || a.at("version") != float64(edited.Position) {
		t.Errorf("on the version before: %d %s", a.status, a.raw)
	}
	a = ask("POST "+at+"/rotate", m{"grace": "15m"}, 200, true, "Idempotency-Key: second", "If-Match: "+etag(edited.Position))
	var rotated token
	a.into(t, &rotated)
	if rotated.Secret == first.Secret || !strings.HasPrefix(rotated.Secret, "tlu_") || rotated.Token.GraceUntil.Sub(began).Round(time.Minute) != 15*time.Minute {
		t.Errorf("rotated to %s", a.raw)
	}
	if again = ask("POST "+at+"/rotate", m{"grace": "15m"}, 200, false, "Idempotency-Key: second", "If-Match: "+etag(edited.Position)); again.text("secret") != rotated.Secret || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("rotated again: %v", again.header)
	}
	ask("POST "+at+"/rotate", nil, 200, true)
	if a = ask("POST "+at+"/suspend", m{"reason": "odd"}, 200, true); a.text("token", "state") != "suspended" || a.text("token", "reason") != "odd" || a.text("token", "stopped_by") == "" || a.at("token", "expires_soon") != nil || a.at("receipt") != nil {
		t.Errorf("suspended: %s", a.raw)
	}
	if a = ask("POST "+at+"/resume", nil, 200, true); a.text("token", "state") != "active" || a.at("token", "stopped_by") != nil || a.at("token", "expires_soon") != true {
		t.Errorf("resumed: %s", a.raw)
	}
	a = ask("POST "+at+"/revoke?wait=10s", m{"reason": "lost"}, 200, true)
	var revoked token
	a.into(t, &revoked)
	if revoked.Token.State != "revoked" || revoked.Token.RevokedAt == nil || !revoked.Receipt.Complete || revoked.Receipt.Covers != revoked.Position || revoked.Receipt.Position != revoked.Position+1 ||
		len(revoked.Receipt.Nodes) != 1 || revoked.Receipt.Nodes[0].How != "applied" || revoked.Receipt.Nodes[0].At == nil {
		t.Errorf("revoked: %s", a.raw)
	}
	a = ask(fmt.Sprintf("GET /v1/receipts/%d", revoked.Position), nil, 200, false)
	var receipt api.Receipt
	if a.into(t, &receipt); receipt.Position != revoked.Receipt.Position || receipt.Covers != revoked.Position || receipt.IssuedAt == nil || receipt.TookMS != revoked.Receipt.TookMS {
		t.Errorf("the receipt: %s", a.raw)
	}
	// Whatever takes something away can be waited for.
	spare := ask("POST /v1/tokens", m{"account": "alice", "app": "spare", "scopes": []string{"view:site/1"}}, 201, true).text("token", "id")
	for _, again := range []struct {
		line string
		body any
	}{
		{"PATCH /v1/tokens/" + spare + "?wait=10s", m{"app": "spare"}},
		{"POST /v1/tokens/" + spare + "/rotate?wait=10s", m{"grace": "0s"}},
		{"POST /v1/tokens/" + spare + "/suspend?wait=10s", nil},
		{"PUT /v1/accounts/alice/grants?wait=10s", m{"grants": []string{"view:site/*", "write:site/1"}}},
		{"POST /v1/revocations?wait=10s", m{"app": "spare", "reason": "over"}},
	} {
		a := ask(again.line, again.body, 200, true)
		if a.at("receipt", "complete") != true || a.at("receipt", "covers") != a.at("position") {
			t.Errorf("%s: %s", again.line, a.raw)
		}
	}
	a = ask("POST /v1/revocations", m{"account": "alice", "dry_run": true}, 200, false)
	var many api.Revocations
	if a.into(t, &many); many.Revoked != 1 || many.Already != 2 || !many.DryRun || len(many.Tokens) != 1 {
		t.Errorf("dry run: %s", a.raw)
	}
	if a = ask("POST "+at+"/revoke", nil, 200, false); a.header.Get("Ledger-Position") != fmt.Sprint(s.end()) || a.header.Get("ETag") != etag(revoked.Position) {
		t.Errorf("revoked again: %v", a.header)
	}
	ask("GET /v1/tokens", nil, 200, false)
	soon := ask("POST /v1/tokens", m{"account": "alice", "device": "desk", "scopes": []string{"view:site/7"}, "expires_in": "13d"}, 201, true).text("token", "id")
	for query, want := range map[string]int{
		"expiring=14d": 1, "expiring=12d": 0, "expiring=336h&resource=site/7": 1, "resource=site/7&account=alice": 2, "expiring=14d&site=1": 0,
	} {
		if a := ask("GET /v1/tokens?"+query, nil, 200, false); len(a.at("items").([]any)) != want {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
	if a = ask("POST /v1/revocations", m{"device": "desk"}, 200, true); len(a.at("tokens").([]any)) != 1 || a.at("tokens").([]any)[0] != soon {
		t.Errorf("revoked a device: %s", a.raw)
	}

	var nodes struct {
		Items []api.Node `json:"items"`
	}
	// The node reports what it has applied a moment after it has.
	for end := time.Now().Add(patience); ; {
		a = ask("GET /v1/nodes", nil, 200, false)
		a.into(t, &nodes)
		if len(nodes.Items) != 1 || nodes.Items[0].Lag == 0 || time.Now().After(end) {
			break
		}
	}
	if len(nodes.Items) != 1 || !nodes.Items[0].Ready || nodes.Items[0].Lag != 0 || nodes.Items[0].Address == "" || nodes.Items[0].State != "serving" || nodes.Items[0].Instance == "" || nodes.Items[0].RenewedAt == nil {
		t.Errorf("nodes: %s", a.raw)
	}

	for path, item := range d.Paths {
		for method, op := range item {
			if !done[op.OperationID] && !slices.Contains(op.Tags, peopleTag) { // those are TestPeople's
				t.Errorf("%s %s (%s) was not asked", method, path, op.OperationID)
			}
		}
	}
}

// TestConflict has two callers edit a version without naming it.
func TestConflict(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	for range 50 {
		id, _ := s.token("alice", "view:site/1")
		answers := make(chan answer, 2)
		for _, app := range []string{"a", "b"} {
			go func() { answers <- s.do("PATCH /v1/tokens/"+id, m{"app": app}) }()
		}
		one, two := <-answers, <-answers
		if one.status != 200 {
			one, two = two, one
		}
		if one.status != 200 || two.status != 200 && two.status != 409 {
			t.Fatalf("%d and %d: %s %s", one.status, two.status, one.raw, two.raw)
		}
		if two.status == 409 {
			if two.code() != "conflict" || two.at("version") != one.at("token", "version") {
				t.Errorf("the conflict is %s, and the winner %s", two.raw, one.raw)
			}
			checkProblem(t, two)
			return
		}
	}
	t.Error("no two edits met")
}

// TestPages goes through lists page by page, and with cursors that are not the
// list's.
func TestPages(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/*"}})
	s.must("POST /v1/accounts", m{"login": "bob", "kind": "service", "grants": []string{"view:site/*"}})
	want := map[string][]string{"": nil, "account=alice": nil, "account=bob&site=2": nil, "state=revoked": nil, "site=1&state=active": nil}
	add := func(id string, filters ...string) {
		for _, f := range filters {
			want[f] = append(want[f], id)
		}
	}
	for i := range 12 {
		account := []string{"alice", "bob"}[i%2]
		site := 1 + i%3
		id, _ := s.token(account, fmt.Sprintf("view:site/%d", site))
		add(id, "")
		if account == "alice" {
			add(id, "account=alice")
		}
		if account == "bob" && site == 2 {
			add(id, "account=bob&site=2")
		}
		switch {
		case i > 8:
			s.must("POST /v1/tokens/"+id+"/revoke", nil)
			add(id, "state=revoked")
		case site == 1:
			add(id, "site=1&state=active")
		}
	}
	root := s.must("GET /v1/tokens?account=root", nil)
	add(root.at("items").([]any)[0].(m)["id"].(string), "", "site=1&state=active")

	cursors := map[string]string{}
	for filter, ids := range want {
		slices.Sort(ids)
		for _, limit := range []string{"limit=1", "limit=5", "limit=500", ""} {
			var got []string
			cursor := ""
			for pages := 0; ; pages++ {
				query := strings.Trim(strings.Join([]string{filter, limit, cursor}, "&"), "&")
				a := s.must("GET /v1/tokens?"+query, nil)
				for _, item := range a.at("items").([]any) {
					got = append(got, item.(m)["id"].(string))
				}
				next := a.text("next_cursor")
				if next == "" {
					break
				}
				cursors[filter] = next
				cursor = "cursor=" + next
			}
			if !slices.Equal(got, ids) {
				t.Errorf("%s %s: %v, want %v", filter, limit, got, ids)
			}
		}
	}
	for of, cursor := range cursors {
		for filter := range want {
			if a := s.do("GET /v1/tokens?"+strings.Trim(filter+"&cursor="+cursor, "&"), nil); (a.status == 200) != (filter == of) {
				t.Errorf("cursor of %q for %q: status %d", of, filter, a.status)
			}
		}
		for i := range cursor {
			changed := []byte(cursor)
			changed[i] = map[bool]byte{true: 'A', false: 'B'}[changed[i] != 'A']
			// A change in the id's last characters may name another id of the
			// same list, which is a place in it like any other.
			if a := s.do("GET /v1/tokens?"+strings.Trim(of+"&cursor="+url.QueryEscape(string(changed)), "&"), nil); a.status != 200 && a.code() != "invalid_request" {
				t.Errorf("cursor changed at %d: status %d", i, a.status)
			}
		}
	}
	if a := s.must("GET /v1/tokens?account=bob&state=suspended", nil); len(a.at("items").([]any)) != 0 {
		t.Errorf("an empty list is %s", a.raw)
	}
	var accounts []string
	cursor := ""
	for {
		a := s.must("GET /v1/accounts?limit=1"+cursor, nil)
		for _, item := range a.at("items").([]any) {
			accounts = append(accounts, item.(m)["login"].(string))
		}
		next := a.text("next_cursor")
		if next == "" {
			break
		}
		cursor = "&cursor=" + next
	}
	if slices.Sort(accounts); !slices.Equal(accounts, []string{"alice", "bob", "root"}) {
		t.Errorf("accounts: %v", accounts)
	}
}

// TestForwardedFor claims another address. The one in the log is the one that the
// request came from.
func TestForwardedFor(t *testing.T) {
	s := start(t)
	s.must("POST /v1/accounts", m{"login": "alice", "kind": "user", "grants": []string{"view:site/1"}})
	a := s.must("POST /v1/tokens", m{"account": "alice", "scopes": []string{"view:site/1"}},
		"X-Forwarded-For: 192.0.2.7", "X-Real-IP: 192.0.2.7", "Forwarded: for=192.0.2.7", "X-Ledger-Account: acc_x")
	if got := a.text("token", "created_by", "address"); got != "127.0.0.1" {
		t.Errorf("made from %s", got)
	}
}

// TestOpenDescription serves the description, and nothing else, without a token.
func TestOpenDescription(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		if a := s.send(request{line: "GET " + path, header: h("-Authorization")}); a.status != 200 || !bytes.Contains(a.raw, []byte("create-token")) {
			t.Errorf("%s: status %d", path, a.status)
		}
	}
	for _, path := range []string{"/", "/docs", "/schemas/Token.json", "/v1", "/metrics", "/debug/pprof/", "/healthz"} {
		if a := s.send(request{line: "GET " + path, header: h("-Authorization")}); a.status != 401 {
			t.Errorf("%s without a token: status %d", path, a.status)
		}
		if a := s.do("GET "+path, nil); a.status != 404 || a.code() != "not_found" {
			t.Errorf("%s: status %d, code %q", path, a.status, a.code())
		}
	}
}

// TestAnswersToBrowsers asks as a page does, and for another type.
func TestAnswersToBrowsers(t *testing.T) {
	s := start(t)
	before := s.changes()
	for _, accept := range []string{"text/html", "*/*", "application/cbor", "application/json;q=0", "x"} {
		a := s.do("POST /v1/accounts", m{"login": fmt.Sprintf("user%d", len(accept)), "kind": "user"}, "Accept: "+accept, "Origin: https://example.org")
		if a.status != 201 || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("Accept: %s: status %d, %s", accept, a.status, a.header.Get("Content-Type"))
		}
		for name := range a.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s lets other pages read it", name)
			}
		}
	}
	if after := s.changes(); after != before+5 {
		t.Errorf("the log went from %d to %d", before, after)
	}
}
