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

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

// operations asks a server for operations, and notes which were asked for.
type operations struct {
	*server
	description
	asked map[string]bool
	alice string // id of the account that the tokens are of
}

// ask sends a request and checks what all answers have in common. If changes is true
// the request has to append an event that changes a record, otherwise none.
func (o *operations) ask(line string, body any, status int, changes bool, header ...string) answer {
	t := o.t
	t.Helper()
	want := o.changes()
	a := o.do(line, body, header...)
	id, statuses := o.find(line)
	o.asked[id] = true
	if a.status != status || !slices.Contains(statuses, fmt.Sprint(status)) {
		t.Fatalf("%s: status %d, want %d, of %v: %s", line, a.status, status, statuses, a.raw)
	}
	after, end := o.changes(), o.end()
	if changes {
		want++
	}
	changed := end
	if a.at("receipt", "position") == float64(end) {
		want++ // the receipt is an event, too
		changed--
	}
	if after != want {
		t.Fatalf("%s: the log has %d changes, want %d", line, after, want)
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

// etagOf is the ETag of a version.
func etagOf(version uint64) string { return fmt.Sprintf(`"%d"`, version) }

// wantETag checks the ETag of an answer.
func (o *operations) wantETag(a answer, version uint64) {
	o.t.Helper()
	if got := a.header.Get("ETag"); got != etagOf(version) {
		o.t.Errorf("ETag %s, want %s", got, etagOf(version))
	}
}

// accountAnswer is the answer to a command on an account.
type accountAnswer struct {
	Account  api.Account  `json:"account"`
	Position uint64       `json:"position"`
	Receipt  *api.Receipt `json:"receipt"`
}

// tokenAnswer is the answer to a command on a token.
type tokenAnswer struct {
	Token       api.Token    `json:"token"`
	Secret      string       `json:"secret"`
	Position    uint64       `json:"position"`
	SecretShown bool         `json:"secret_already_shown"`
	Receipt     *api.Receipt `json:"receipt"`
}

// account decodes the answer to a command and compares the account, except its
// times and version.
func (o *operations) account(a answer, want api.Account) accountAnswer {
	o.t.Helper()
	var got accountAnswer
	a.into(o.t, &got)
	o.sameAccount(got.Account, want)
	o.wantETag(a, got.Account.Version)
	return got
}

func (o *operations) sameAccount(got, want api.Account) {
	o.t.Helper()
	varying := cmpopts.IgnoreFields(api.Account{}, "NotBeforePosition", "CreatedAt", "ChangedAt", "Version")
	if diff := cmp.Diff(want, got, varying); diff != "" {
		o.t.Errorf("the account differs (-want +got):\n%s", diff)
	}
	if got.CreatedAt.IsZero() || got.ChangedAt.Before(got.CreatedAt) || got.Version == 0 {
		o.t.Errorf("account of %s, changed %s, version %d", got.CreatedAt, got.ChangedAt, got.Version)
	}
}

// token decodes the answer to a command and compares the token, except its
// times, version and creator.
func (o *operations) token(a answer, want api.Token) tokenAnswer {
	o.t.Helper()
	var got tokenAnswer
	a.into(o.t, &got)
	varying := cmpopts.IgnoreFields(api.Token{}, "CreatedAt", "CreatedBy", "ChangedAt", "ExpiresAt", "GraceUntil", "Earlier", "RevokedAt", "StoppedBy", "Version")
	if diff := cmp.Diff(want, got.Token, varying); diff != "" {
		o.t.Errorf("the token differs (-want +got):\n%s", diff)
	}
	if by := got.Token.CreatedBy; by == nil || by.Address != "127.0.0.1" || by.Token == "" {
		o.t.Errorf("created by %+v", by)
	}
	o.wantETag(a, got.Token.Version)
	return got
}

// TestOperations calls every documented operation, in the order of the life of
// an account and its tokens. Each answer has the documented form and its
// position.
func TestOperations(t *testing.T) {
	o := &operations{server: start(t), description: describe(t), asked: map[string]bool{}}
	o.testUserAccount()
	o.testServiceAccount()
	o.testPersonalData()
	o.testPolicy()
	created := o.testCreateToken()
	edited := o.testEditToken(created)
	o.testRotateToken(created, edited)
	o.testSuspendToken(created.Token)
	o.testRevokeToken(created.Token)
	o.testWaits()
	o.testRevocations()
	o.testListExpiring()
	o.testNodes()
	o.testWhoami()
	o.testImport()
	for path, item := range o.Paths {
		for method, op := range item {
			if !o.asked[op.OperationID] && !slices.Contains(op.Tags, peopleTag) { // those are TestPeople's
				t.Errorf("%s %s (%s) was not asked", method, path, op.OperationID)
			}
		}
	}
}

func (o *operations) testUserAccount() {
	t := o.t
	a := o.ask("POST /v1/accounts", m{"login": "Alice", "kind": "user", "grants": []string{"view:site/*", "admin:site/1"}}, 201, true)
	want := api.Account{
		Login: "Alice", Kind: "user", State: "active", Grants: []string{"admin:site/1", "view:site/*"}, SelfService: true,
	}
	want.ID = a.text("account", "id")
	o.alice = want.ID
	o.account(a, want)

	var shown api.Account
	a = o.ask("GET /v1/accounts/alice", nil, 200, false)
	a.into(t, &shown)
	o.sameAccount(shown, want)
	o.wantETag(a, shown.Version)

	grants := m{"grants": []string{"view:site/*", "write:site/1"}}
	want.Grants = []string{"view:site/*", "write:site/1"}
	a = o.ask("PUT /v1/accounts/alice/grants", grants, 200, true, "If-Match: "+a.header.Get("ETag"))
	if got := o.account(a, want); got.Account.Version != got.Position {
		t.Errorf("granted at position %d, version %d", got.Position, got.Account.Version)
	}
	want.State, want.Reason = "suspended", "away"
	a = o.ask("POST /v1/accounts/"+o.alice+"/suspend?wait=10s", m{"reason": "away"}, 200, true)
	if got := o.account(a, want); got.Receipt == nil || !got.Receipt.Complete {
		t.Errorf("suspended: %s", a.raw)
	}
	o.account(o.ask("POST /v1/accounts/alice/suspend", nil, 200, false), want)
	want.State, want.Reason = "active", ""
	o.account(o.ask("POST /v1/accounts/alice/resume", nil, 200, true), want)

	var accounts struct {
		Items      []api.Account `json:"items"`
		NextCursor string        `json:"next_cursor"`
	}
	a = o.ask("GET /v1/accounts", nil, 200, false)
	if a.into(t, &accounts); len(accounts.Items) != 2 || accounts.NextCursor != "" {
		t.Errorf("accounts: %s", a.raw)
	}
}

func (o *operations) testServiceAccount() {
	t := o.t
	a := o.ask("POST /v1/accounts", m{"login": "shop", "kind": "service", "owner": "alice", "grants": []string{"view:site/1"}, "name": "Shop"}, 201, true)
	want := api.Account{
		ID: a.text("account", "id"), Login: "shop", Name: "Shop", Kind: "service", Owner: o.alice,
		State: "active", Grants: []string{"view:site/1"}, SelfService: true,
	}
	o.account(a, want)
	want.Owner, want.SelfService = "", false
	a = o.ask("PATCH /v1/accounts/shop", m{"owner": "", "self_service": false}, 200, true, "If-Match: "+a.header.Get("ETag"))
	if got := o.account(a, want); got.Account.Version != got.Position {
		t.Errorf("edited at position %d, version %d", got.Position, got.Account.Version)
	}
	if a := o.ask("GET /v1/accounts?kind=service", nil, 200, false); len(a.at("items").([]any)) != 2 {
		t.Errorf("service accounts: %s", a.raw)
	}
	o.ask("POST /v1/revocations", m{"account": "shop"}, 200, true)
	if a := o.ask("GET /v1/accounts/shop", nil, 200, false); a.at("tokens_not_before_position") == nil {
		t.Errorf("after a revocation of all: %s", a.raw)
	}
}

// testPersonalData changes and erases what the log does not hold.
func (o *operations) testPersonalData() {
	t := o.t
	a := o.ask("POST /v1/accounts", m{"login": "ben", "kind": "user", "name": "Ben Ôtre", "mail": "ben@example.org", "grants": []string{"view:site/1"}}, 201, true)
	want := api.Account{
		ID: a.text("account", "id"), Login: "ben", Name: "Ben Ôtre", Mail: "ben@example.org", Kind: "user",
		State: "active", Grants: []string{"view:site/1"}, SelfService: true,
	}
	o.account(a, want)
	rename := m{"name": "Ben Lind", "mail": "lind@example.org"}
	want.Name, want.Mail = "Ben Lind", "lind@example.org"
	a = o.ask("PATCH /v1/accounts/ben", rename, 200, true, "If-Match: "+a.header.Get("ETag"), "Idempotency-Key: rename")
	if got := o.account(a, want); got.Account.Version != got.Position {
		t.Errorf("renamed at position %d, version %d", got.Position, got.Account.Version)
	}
	want.Mail = ""
	o.account(o.ask("PATCH /v1/accounts/ben", m{"mail": ""}, 200, true, "If-Match: "+a.header.Get("ETag")), want)
	shown := o.ask("GET /v1/accounts/ben", nil, 200, false)
	var got api.Account
	shown.into(t, &got)
	o.sameAccount(got, want)
	o.wantETag(shown, got.Version)
	if a = o.ask("PATCH /v1/accounts/ben", rename, 200, false, "Idempotency-Key: rename"); a.header.Get("Idempotency-Replayed") != "true" || a.at("account", "mail") != nil {
		t.Errorf("renamed again: %s", a.raw)
	}
	if a = o.ask("GET /v1/accounts?kind=user", nil, 200, false); a.at("items").([]any)[1].(m)["name"] != "Ben Lind" {
		t.Errorf("listed: %s", a.raw)
	}
	a = o.ask("POST /v1/accounts/ben/erase?wait=10s", m{}, 200, true, "If-Match: "+shown.header.Get("ETag"), "Idempotency-Key: erase")
	if a.text("account", "state") != "erased" || a.at("receipt", "complete") != true {
		t.Errorf("erased: %s", a.raw)
	}
	for _, gone := range []string{"login", "mail", "name"} {
		if v := a.at("account", gone); v != nil {
			t.Errorf("erased, and the %s is %v", gone, v)
		}
	}
	if again := o.ask("POST /v1/accounts/"+want.ID+"/erase", nil, 200, false); again.at("position") != a.at("position") {
		t.Errorf("erased again: %s", again.raw)
	}
}

// testImport imports a token, again, and one that is refused, and lists them.
func (o *operations) testImport() {
	t := o.t
	hash := strings.Repeat("0123456789abcdef", 8)
	created, used := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	body := m{"source": "matomo", "tokens": []m{
		{"account": o.alice, "hash": hash, "app": "cron", "header_only": true, "created_at": created, "last_used": used, "migrated": true},
		{"account": "acc_00000000000000000000000000", "hash": strings.Repeat("0", 128)},
	}}
	a := o.ask("POST /v1/imports/matomo", body, 200, true)
	results := a.at("results").([]any)
	made, refused := results[0].(m), results[1].(m)
	if made["outcome"] != "created" || refused["outcome"] != "refused" || refused["problem"] == "" || refused["id"] != nil {
		t.Errorf("imported: %s", a.raw)
	}
	again := o.ask("POST /v1/imports/matomo", body, 200, false).at("results").([]any)[0].(m)
	if again["outcome"] != "unchanged" || again["id"] != made["id"] {
		t.Errorf("imported again: %v, want unchanged, %v", again, made["id"])
	}
	for query, want := range map[string]int{
		"legacy=true": 1, "migrated=true&source=matomo": 1, "unused_for=1d": 1, "unused_for=90000d": 0, "source=other": 0,
	} {
		a := o.ask("GET /v1/tokens?"+query, nil, 200, false)
		items := a.at("items").([]any)
		if len(items) != want {
			t.Errorf("%s: %d tokens, want %d", query, len(items), want)
			continue
		}
		if want == 0 {
			continue
		}
		import_ := items[0].(m)["import"].(m)
		if import_["source"] != "matomo" || import_["last_used"] != "2026-02-03T04:05:06Z" || import_["migrated"] != true ||
			import_["digest_scheme"] != "matomo-sha512" || strings.Contains(string(a.raw), hash) {
			t.Errorf("%s: %s", query, a.raw)
		}
	}
	a = o.ask("POST /v1/revocations", m{"migrated": true}, 200, true)
	if a.at("revoked") != 1.0 {
		t.Errorf("revoked: %s", a.raw)
	}
	last := o.ask("POST /v1/imports/matomo", body, 200, false).at("results").([]any)[0].(m)
	if last["outcome"] != "ended" {
		t.Errorf("imported after it was revoked: %v, want ended", last)
	}
}

func (o *operations) testPolicy() {
	policy := o.ask("GET /v1/policy", nil, 200, false)
	a := o.ask("PUT /v1/policy?wait=10s", policy.at("policy"), 200, false, "If-Match: "+policy.header.Get("ETag"))
	if a.at("version") != policy.at("version") {
		o.t.Errorf("the policy as it was: %s", a.raw)
	}
}

// testCreateToken creates a token, again with the same key, and one for an old
// client.
func (o *operations) testCreateToken() tokenAnswer {
	t := o.t
	constraints := api.Constraints{
		CIDRs: []string{"127.0.0.0/8"}, Origins: []string{"https://example.org"}, Methods: []string{"GET"},
		Audience: []string{"site"}, HeaderOnly: true, Rate: 5,
	}
	create := m{
		"account": "alice", "app": "mobile app", "device": "phone", "scopes": []string{"view:site/2", "view:site/1"},
		"expires_in": "90d", "constraints": constraints,
	}
	began := time.Now()
	a := o.ask("POST /v1/tokens", create, 201, true, "Idempotency-Key: first")
	scopes := []string{"view:site/1", "view:site/2"}
	made := o.token(a, api.Token{
		ID: a.text("token", "id"), Account: o.alice, App: "mobile app", Device: "phone", State: "active",
		Scopes: scopes, Effective: scopes, Constraints: &constraints,
	})
	if made.Token.ExpiresAt.Sub(began).Round(time.Hour) != 90*24*time.Hour {
		t.Errorf("it expires at %s", made.Token.ExpiresAt)
	}
	if made.Token.Version != made.Position || !strings.HasPrefix(made.Secret, "tlu_") || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("made %s, %v", a.raw, a.header)
	}
	again := o.ask("POST /v1/tokens", create, 200, false, "Idempotency-Key: first")
	if again.header.Get("Idempotency-Replayed") != "true" || again.header.Get("Ledger-Position") != fmt.Sprint(made.Position) || !bytes.Equal(a.raw, again.raw) {
		t.Errorf("made again: %v %s, want the first answer %s", again.header, again.raw, a.raw)
	}
	a = o.ask("POST /v1/tokens", m{"account": o.alice, "inherit": true, "format": "hex32"}, 201, true)
	if len(a.text("secret")) != 32 || a.at("token", "inherit") != true {
		t.Errorf("made %s", a.raw)
	}
	return made
}

func (o *operations) testEditToken(made tokenAnswer) tokenAnswer {
	t, path := o.t, "/v1/tokens/"+made.Token.ID
	a := o.ask("GET "+path, nil, 200, false)
	var shown api.Token
	if a.into(t, &shown); shown.ID != made.Token.ID || bytes.Contains(a.raw, []byte("secret")) {
		t.Errorf("shown as %s", a.raw)
	}
	o.wantETag(a, made.Token.Version)

	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	change := m{"scopes": []string{"write:site/1"}, "app": "desktop", "constraints": m{}, "expires_at": expires.Format(time.RFC3339)}
	a = o.ask("PATCH "+path, change, 200, true, "If-Match: "+a.header.Get("ETag"))
	edited := o.token(a, api.Token{
		ID: made.Token.ID, Account: o.alice, App: "desktop", Device: "phone", State: "active", ExpiresSoon: true,
		Scopes: []string{"write:site/1"}, Effective: []string{"write:site/1"},
	})
	if !edited.Token.ExpiresAt.Equal(expires) || edited.Token.Version != edited.Position {
		t.Errorf("edited to %s", a.raw)
	}
	a = o.do("PATCH "+path, m{"app": "x"}, "If-Match: "+etagOf(made.Position))
	if a.status != 412 || a.code() != "stale" || a.at("version") != float64(edited.Position) {
		t.Errorf("on the version before: %d %s", a.status, a.raw)
	}
	return edited
}

func (o *operations) testRotateToken(made, edited tokenAnswer) {
	t, line := o.t, "POST /v1/tokens/"+made.Token.ID+"/rotate"
	header := []string{"Idempotency-Key: second", "If-Match: " + etagOf(edited.Position)}
	began := time.Now()
	a := o.ask(line, m{"grace": "15m"}, 200, true, header...)
	rotated := o.token(a, edited.Token)
	if rotated.Secret == made.Secret || !strings.HasPrefix(rotated.Secret, "tlu_") {
		t.Errorf("rotated to %s", a.raw)
	}
	if rotated.Token.GraceUntil.Sub(began).Round(time.Minute) != 15*time.Minute {
		t.Errorf("the old secret lives until %s", rotated.Token.GraceUntil)
	}
	again := o.ask(line, m{"grace": "15m"}, 200, false, header...)
	if again.text("secret") != rotated.Secret || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("rotated again: %v", again.header)
	}
	if e := rotated.Token.Earlier; len(e) != 1 || !e[0].ValidUntil.Equal(*rotated.Token.GraceUntil) {
		t.Errorf("earlier secrets: %+v", e)
	}
	if refused := o.do(line, nil); refused.status != 409 || refused.code() != "secret_in_grace" {
		t.Errorf("while the first secret is valid: %d %s", refused.status, refused.raw)
	}
	o.ask(line, m{"end_earlier": true}, 200, true)
}

func (o *operations) testSuspendToken(tok api.Token) {
	t, path := o.t, "POST /v1/tokens/"+tok.ID
	a := o.ask(path+"/suspend", m{"reason": "odd"}, 200, true)
	if a.text("token", "state") != "suspended" || a.text("token", "reason") != "odd" || a.text("token", "stopped_by") == "" {
		t.Errorf("suspended: %s", a.raw)
	}
	if a.at("token", "expires_soon") != nil || a.at("receipt") != nil {
		t.Errorf("suspended: %s", a.raw)
	}
	a = o.ask(path+"/resume", nil, 200, true)
	if a.text("token", "state") != "active" || a.at("token", "stopped_by") != nil || a.at("token", "expires_soon") != true {
		t.Errorf("resumed: %s", a.raw)
	}
}

func (o *operations) testRevokeToken(tok api.Token) {
	t, line := o.t, "POST /v1/tokens/"+tok.ID+"/revoke"
	a := o.ask(line+"?wait=10s", m{"reason": "lost"}, 200, true)
	var revoked tokenAnswer
	if a.into(t, &revoked); revoked.Token.State != "revoked" || revoked.Token.RevokedAt == nil {
		t.Errorf("revoked: %s", a.raw)
	}
	r := revoked.Receipt
	if r == nil || !r.Complete || r.Covers != revoked.Position || r.Position != revoked.Position+1 {
		t.Fatalf("the receipt of the revocation: %s", a.raw)
	}
	if len(r.Nodes) != 1 || r.Nodes[0].How != "applied" || r.Nodes[0].At == nil {
		t.Errorf("the nodes of the receipt: %s", a.raw)
	}
	a = o.ask(fmt.Sprintf("GET /v1/receipts/%d", revoked.Position), nil, 200, false)
	var shown api.Receipt
	a.into(t, &shown)
	if shown.Position != r.Position || shown.Covers != r.Covers || shown.IssuedAt == nil || shown.TookMS != r.TookMS {
		t.Errorf("the receipt: %s", a.raw)
	}
	a = o.ask(line, nil, 200, false)
	if a.header.Get("Ledger-Position") != fmt.Sprint(o.end()) {
		t.Errorf("revoked again: %v", a.header)
	}
	o.wantETag(a, revoked.Position)
}

// testWaits waits for the receipt of every other operation that takes rights away.
func (o *operations) testWaits() {
	spare := o.ask("POST /v1/tokens", m{"account": "alice", "app": "spare", "scopes": []string{"view:site/1"}}, 201, true).text("token", "id")
	for _, tt := range []struct {
		line string
		body any
	}{
		{"PATCH /v1/tokens/" + spare + "?wait=10s", m{"app": "spare"}},
		{"POST /v1/tokens/" + spare + "/rotate?wait=10s", m{"grace": "0s"}},
		{"POST /v1/tokens/" + spare + "/suspend?wait=10s", nil},
		{"PUT /v1/accounts/alice/grants?wait=10s", m{"grants": []string{"view:site/*", "write:site/1"}}},
		{"POST /v1/revocations?wait=10s", m{"app": "spare", "reason": "over"}},
	} {
		a := o.ask(tt.line, tt.body, 200, true)
		if a.at("receipt", "complete") != true || a.at("receipt", "covers") != a.at("position") {
			o.t.Errorf("%s: %s", tt.line, a.raw)
		}
	}
}

func (o *operations) testRevocations() {
	a := o.ask("POST /v1/revocations", m{"account": "alice", "dry_run": true}, 200, false)
	var got api.Revocations
	if a.into(o.t, &got); got.Revoked != 1 || got.Already != 2 || !got.DryRun || len(got.Tokens) != 1 {
		o.t.Errorf("dry run: %s", a.raw)
	}
}

// testListExpiring lists tokens by expiry, and revokes one by its device.
func (o *operations) testListExpiring() {
	o.ask("GET /v1/tokens", nil, 200, false)
	soon := o.ask("POST /v1/tokens", m{"account": "alice", "device": "desk", "scopes": []string{"view:site/7"}, "expires_in": "13d"}, 201, true).text("token", "id")
	for query, want := range map[string]int{
		"expiring=14d": 1, "expiring=12d": 0, "expiring=336h&resource=site/7": 1,
		"resource=site/7&account=alice": 2, "expiring=14d&site=1": 0,
	} {
		if a := o.ask("GET /v1/tokens?"+query, nil, 200, false); len(a.at("items").([]any)) != want {
			o.t.Errorf("%s: %s", query, a.raw)
		}
	}
	a := o.ask("POST /v1/revocations", m{"device": "desk"}, 200, true)
	if tokens := a.at("tokens").([]any); len(tokens) != 1 || tokens[0] != soon {
		o.t.Errorf("revoked a device: %s", a.raw)
	}
}

func (o *operations) testNodes() {
	var nodes struct {
		Items []api.Node `json:"items"`
	}
	var a answer
	// The node reports its position a moment after it has applied it.
	for end := time.Now().Add(patience); ; {
		a = o.ask("GET /v1/nodes", nil, 200, false)
		a.into(o.t, &nodes)
		if len(nodes.Items) != 1 || nodes.Items[0].Lag == 0 || time.Now().After(end) {
			break
		}
	}
	if len(nodes.Items) != 1 {
		o.t.Fatalf("nodes: %s", a.raw)
	}
	n := nodes.Items[0]
	if n.State != "serving" || !n.Ready || n.Lag != 0 || n.Address == "" || n.Instance == "" || n.RenewedAt == nil {
		o.t.Errorf("nodes: %s", a.raw)
	}
}

func (o *operations) testWhoami() {
	a := o.ask("GET /v1/whoami", nil, 200, false)
	if a.text("login") != "root" || a.text("credential") != "token" || a.text("reauthentication") != "not_needed" ||
		a.text("token") == "" {
		o.t.Errorf("whoami: %s", a.raw)
	}
	a = o.ask("POST /v1/can-i", m{"verb": "create token", "account": "alice", "scopes": []string{"view:site/1"}}, 200, false)
	if a.at("allowed") != true {
		o.t.Errorf("can-i: %s", a.raw)
	}
	a = o.ask("POST /v1/can-i", m{"verb": "create token", "account": "alice", "scopes": []string{"superuser"}}, 200, false)
	if a.at("allowed") != false || a.text("code") != "forbidden" || a.text("reason") == "" {
		o.t.Errorf("can-i beyond the account: %s", a.raw)
	}
}

// TestConflict edits a token concurrently without preconditions.
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
			// A change of the last characters may give another valid ID, which
			// is a valid cursor.
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

// TestForwardedFor sends a forged X-Forwarded-For. The log has the address of
// the connection.
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
	for _, path := range []string{"/", "/schemas/Token.json", "/v1", "/metrics", "/debug/pprof/", "/healthz"} {
		if a := s.send(request{line: "GET " + path, header: h("-Authorization")}); a.status != 401 {
			t.Errorf("%s without a token: status %d", path, a.status)
		}
		if a := s.do("GET "+path, nil); a.status != 404 || a.code() != "no_path" {
			t.Errorf("%s: status %d, code %q", path, a.status, a.code())
		}
	}
}

// TestAnswersToBrowsers sends requests as a page does, and asks for another
// media type.
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
