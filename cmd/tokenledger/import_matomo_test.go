package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo/matomotest"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/nodetest"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

const matomoSalt = "3f1a9c0d2b7e48f6a5c4d3e2f1b0a998"

// migration is a Matomo beside a node.
type migration struct {
	t      *testing.T
	db     *matomotest.Server
	node   *node.Node
	root   string // file of the root token
	config string // config.ini.php
}

// matomoToken is the n-th token of the tests.
func matomoToken(n int) string { return fmt.Sprintf("%032x", n) }

func matomoHash(n int) string { return matomotest.Hash(matomoToken(n), matomoSalt) }

// startMigration starts a node with the salt, and a database of Matomo 6 with three
// users: anna on site 1, bert on sites 1 and 2, and boss, who is superuser.
func startMigration(t *testing.T) *migration {
	t.Helper()
	m := &migration{t: t, db: matomotest.Start(t), config: filepath.Join(t.TempDir(), "config.ini.php")}
	saltFile := filepath.Join(t.TempDir(), "salt")
	if err := os.WriteFile(saltFile, []byte(matomoSalt+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, dir := nodetest.Start(t, func(c *node.Config) { c.MatomoSaltFile = saltFile })
	m.node, m.root = n, filepath.Join(dir, "root.token")
	m.db.Create("matomo", "6")
	m.setSalt(matomoSalt)
	m.sql(`INSERT INTO matomo_site (idsite, name) VALUES (1, 'one'), (2, 'two');
INSERT INTO matomo_user (login, email, superuser_access) VALUES ('anonymous', '', 0), ('anna', 'anna@example.org', 0), ('bert', 'bört@example.org', 0), ('boss', '', 1);
INSERT INTO matomo_access (login, idsite, access) VALUES ('anna', 1, 'view'), ('bert', 1, 'write'), ('bert', 2, 'admin'), ('bert', 9, 'admin')`)
	m.sql("INSERT INTO matomo_user_token_auth (login, description, password, hash_algo, date_created) VALUES ('anonymous', 'x', '" +
		matomotest.Hash("anonymous", matomoSalt) + "', 'sha512', '2020-01-01')")
	m.add(1, "anna", "Created by Matomo 4 migration", "")
	m.add(2, "bert", "reports", "")
	m.add(3, "bert", "post", ", secure_only = 1")
	m.add(4, "boss", "viewer", ", access_level = 'view', last_used = '2021-01-01'")
	return m
}

func (m *migration) sql(statements string) { m.t.Helper(); m.db.Exec("USE matomo; " + statements) }

// add adds a token.
func (m *migration) add(n int, login, description, more string) {
	m.t.Helper()
	m.sql(fmt.Sprintf("INSERT INTO matomo_user_token_auth SET login = '%s', description = '%s', password = '%s', hash_algo = 'sha512', "+
		"date_created = '2020-01-01'%s", login, description, matomoHash(n), more))
}

func (m *migration) setSalt(salt string) {
	m.t.Helper()
	if err := os.WriteFile(m.config, []byte(m.db.Config("matomo", salt)), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// args are the arguments of the import, with more.
func (m *migration) args(more ...string) []string {
	return append([]string{"import", "matomo", "--config", m.config, "--server", m.node.Addresses().API, "--token-file", m.root}, more...)
}

// run runs the program, and fails the test unless it exits with code. Nothing that it
// prints has a secret.
func (m *migration) run(code int, args ...string) (stdout, stderr string) {
	m.t.Helper()
	var out, errs bytes.Buffer
	got := run(m.t.Context(), args, strings.NewReader(""), &out, &errs, []string{"XDG_CONFIG_HOME=" + m.t.TempDir()})
	if got != code {
		m.t.Fatalf("%q exits with %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	for _, secret := range []string{matomoSalt, matomotest.Password, matomoHash(1), matomoToken(1), matomoToken(2)} {
		if strings.Contains(out.String()+errs.String(), secret) {
			m.t.Errorf("%q prints a secret: %s%s", args, out.String(), errs.String())
		}
	}
	return out.String(), errs.String()
}

// report runs the import and returns its report.
func (m *migration) report(more ...string) (r importReport) {
	m.t.Helper()
	out, _ := m.run(0, m.args(append(more, "-o", "json")...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		m.t.Fatal(err)
	}
	return r
}

// verify asks the node whether a token allows a scope. It returns the reason.
func (m *migration) verify(n int, need string, inURL bool) string {
	m.t.Helper()
	body, _ := json.Marshal(map[string]any{"token": matomoToken(n), "need": []string{need}, "in_url": inURL})
	resp, err := http.Post(m.node.Addresses().Verify+"/v1/verify", "application/json", bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a struct{ Reason string }
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		m.t.Fatal(err)
	}
	return a.Reason
}

// wants checks what tokens allow.
func (m *migration) wants(what string, want map[string]string) {
	m.t.Helper()
	for ask, reason := range want {
		number, need, _ := strings.Cut(ask, " ")
		n, _ := strconv.Atoi(number)
		need, inURL := strings.CutSuffix(need, " in URL")
		if got := m.verify(n, need, inURL); got != reason {
			m.t.Errorf("%s: token %s is %s, want %s", what, ask, got, reason)
		}
	}
}

// TestImportMatomo imports, again, and after changes in Matomo and in the ledger.
func TestImportMatomo(t *testing.T) {
	m := startMigration(t)
	before := m.report("--dry-run")
	if before.Accounts.Created != 3 || before.Tokens.Created != 4 || !before.DryRun || m.verify(1, "view:site/1", false) != "invalid_token" {
		t.Errorf("dry run: %+v", before)
	}
	first := m.report()
	if first.Accounts.Created != 3 || first.Tokens.Created != 4 || len(first.Migrated) != 1 || len(first.Unused) != 4 {
		t.Errorf("first: %+v", first)
	}
	if !slices.ContainsFunc(first.Problems, func(s matomo.Skip) bool { return s.Name == "bert" && strings.Contains(s.Why, "mail") }) {
		t.Errorf("nothing is said of a mail address that was left out: %+v", first.Problems)
	}
	m.wants("imported", map[string]string{
		"1 view:site/1": "allowed", "1 view:site/2": "insufficient_scope", "2 admin:site/2": "allowed", "2 admin:site/1": "insufficient_scope",
		"2 view:site/9": "insufficient_scope", "3 view:site/1": "allowed", "3 view:site/1 in URL": "invalid_token", "2 view:site/1 in URL": "allowed",
		"4 view:site/7": "allowed", "4 admin:site/1": "insufficient_scope", "4 superuser": "insufficient_scope", "5 view:site/1": "invalid_token",
	})
	again := m.report()
	if again.changed() || again.Tokens.Unchanged != 4 || again.Accounts.Unchanged != 3 {
		t.Errorf("again: %+v", again)
	}

	// Matomo has a new token and a new user, takes a right and gives one, and deletes a token.
	m.add(5, "carl", "new", "")
	m.sql(`INSERT INTO matomo_user (login, superuser_access) VALUES ('carl', 0); INSERT INTO matomo_access (login, idsite, access) VALUES ('carl', 2, 'view');
UPDATE matomo_access SET access = 'view' WHERE login = 'bert' AND idsite = 1; UPDATE matomo_access SET access = 'write' WHERE login = 'anna';
DELETE FROM matomo_user_token_auth WHERE description = 'post'`)
	// The ledger ended one, and narrowed one.
	m.tokenledger("token", "revoke", "--migrated", "--yes")
	m.tokenledger("token", "set-scopes", m.idOf("reports"), "view:site/2")
	changed := m.report()
	if changed.Accounts.Created != 1 || changed.Accounts.Updated != 2 || changed.Tokens.Created != 1 || changed.Tokens.Deleted != 1 || changed.Tokens.Ended != 1 {
		t.Errorf("changed: %+v", changed)
	}
	m.wants("changed", map[string]string{
		"1 view:site/1": "invalid_token", "2 admin:site/2": "insufficient_scope", "2 view:site/2": "allowed", "3 view:site/1": "invalid_token",
		"5 view:site/2": "allowed", "4 view:site/1": "allowed",
	})

	// A table that is suddenly empty ends nothing without a flag.
	m.sql("DELETE FROM matomo_user_token_auth WHERE login <> 'anonymous'")
	out, stderr := m.run(5, m.args("-o", "json")...)
	if !strings.Contains(stderr+out, "--max-ended") || m.verify(2, "view:site/2", false) != "allowed" {
		t.Errorf("an empty table: %s %s", out, stderr)
	}
	if last := m.report("--max-ended", "9"); last.Tokens.Deleted != 3 || m.verify(2, "view:site/2", false) != "invalid_token" {
		t.Errorf("ended: %+v", last)
	}
}

// tokenledger runs a command as root.
func (m *migration) tokenledger(args ...string) string {
	m.t.Helper()
	out, _ := m.run(0, append(args, "--server", m.node.Addresses().API, "--token-file", m.root)...)
	return out
}

func (m *migration) idOf(app string) string {
	m.t.Helper()
	var list struct{ Items []api.Token }
	if err := json.Unmarshal([]byte(m.tokenledger("token", "list", "--source", "matomo", "--app", app, "-o", "json")), &list); err != nil || len(list.Items) != 1 {
		m.t.Fatalf("%d tokens %s, %v", len(list.Items), app, err)
	}
	return list.Items[0].ID
}

// TestImportMatomoRefused starts imports that must not begin.
func TestImportMatomoRefused(t *testing.T) {
	m := startMigration(t)
	dump := filepath.Join(t.TempDir(), "dump.sql")
	whole := m.db.Dump("matomo")
	write := func(path string, b []byte) string {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const bad = "a-password-of-nobody"
	secret := filepath.Join(t.TempDir(), "dsn")
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"a wrong password", []string{"--dsn", m.db.DSN("matomo", bad)}, 1, "Access denied"},
		{"a wrong password in a file", []string{"--dsn-file", write(secret, []byte(m.db.DSN("matomo", bad)+"\n"))}, 1, "Access denied"},
		{"a DSN that is none", []string{"--dsn", "matomo:" + bad}, 2, "data source name"},
		{"a dump that is cut off", []string{"--dump", write(dump, whole[:len(whole)-len(whole)/3])}, 1, "cut off"},
		{"no dump", []string{"--dump", dump + "x"}, 1, "no such file"},
		{"another prefix", []string{"--table-prefix", "piwik_"}, 1, "no table piwik_user"},
		{"a bad prefix", []string{"--table-prefix", "`;"}, 2, "--table-prefix"},
		{"a bad name", []string{"--name", "a/b"}, 2, "--name"},
		{"a dump to follow", []string{"--dump", dump, "--follow"}, 2, "--follow"},
		{"a check token that is none", []string{"--check-token-file", write(secret+"2", []byte("anonymous\n"))}, 2, "32 hexadecimal"},
		{"a check token that is unknown", []string{"--check-token-file", write(secret+"3", []byte(matomoToken(77)))}, 2, "salt"},
	} {
		out, stderr := m.run(tt.code, m.args(tt.args...)...)
		if !strings.Contains(out+stderr, tt.says) || strings.Contains(out+stderr, bad) {
			t.Errorf("%s: %s%s; want %q", tt.name, out, stderr, tt.says)
		}
	}
	m.setSalt(strings.ToUpper(matomoSalt))
	if _, stderr := m.run(2, m.args()...); !strings.Contains(stderr, "salt") {
		t.Errorf("a wrong salt: %s", stderr)
	}
	m.setSalt("")
	if _, stderr := m.run(2, m.args()...); !strings.Contains(stderr, "salt") {
		t.Errorf("an empty salt: %s", stderr)
	}
	if list := m.tokenledger("account", "list", "-o", "json"); strings.Contains(list, "anna") {
		t.Errorf("something was imported: %s", list)
	}
	m.setSalt(matomoSalt)

	// An account that the import did not make is not used: root would lend its rights.
	m.sql("INSERT INTO matomo_user (login, superuser_access) VALUES ('Root', 0)")
	m.add(9, "Root", "of another root", "")
	r := m.report("--dump", write(dump, m.db.Dump("matomo")))
	if r.Accounts.Refused != 1 || m.verify(9, "view:site/1", false) != "invalid_token" || m.verify(1, "view:site/1", false) != "allowed" {
		t.Errorf("a login of the ledger's own: %+v", r)
	}
	m.tokenledger("account", "create", "dora", "--kind", "user", "--grant", "view:site/2")
	m.sql("INSERT INTO matomo_user (login, superuser_access) VALUES ('DORA', 1)")
	m.add(10, "Dora", "of dora", "")
	m.report("--adopt", "dora")
	m.wants("adopted", map[string]string{"10 view:site/2": "allowed", "10 superuser": "insufficient_scope"})
}

// TestImportedIsNoCaller calls the API with the imported token of a superuser, before
// and after a rotation.
func TestImportedIsNoCaller(t *testing.T) {
	m := startMigration(t)
	m.add(6, "boss", "all", "")
	m.report()
	whoami := func(secret string) int {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, m.node.Addresses().API+"/v1/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if m.verify(6, "superuser", false) != "allowed" || whoami(matomoToken(6)) != http.StatusUnauthorized {
		t.Errorf("the imported token: %s, and %d from the API; want allowed, and 401", m.verify(6, "superuser", false), whoami(matomoToken(6)))
	}
	var rotated struct{ Secret string }
	if err := json.Unmarshal([]byte(m.tokenledger("token", "rotate", m.idOf("all"), "-o", "json")), &rotated); err != nil {
		t.Fatal(err)
	}
	if !events.IsMatomoShape(rotated.Secret) || whoami(rotated.Secret) != http.StatusOK {
		t.Errorf("the rotated token has %d characters, and gets %d; want 32, and 200", len(rotated.Secret), whoami(rotated.Secret))
	}
}

// TestImportMatomoFollow polls for tokens that are made and deleted.
func TestImportMatomoFollow(t *testing.T) {
	m := startMigration(t)
	ctx, stop := context.WithCancel(t.Context())
	var out, errs lockedBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, m.args("--follow", "--interval", "50ms"), strings.NewReader(""), &out, &errs, []string{"XDG_CONFIG_HOME=" + t.TempDir()})
	}()
	is := func(n int, need, reason string) {
		t.Helper()
		wait.Until(t, fmt.Sprintf("token %d is %s", n, reason), func() bool { return m.verify(n, need, false) == reason })
	}
	is(2, "admin:site/2", "allowed")
	m.add(20, "anna", "made later", "")
	is(20, "view:site/1", "allowed")
	m.sql("DELETE FROM matomo_user_token_auth WHERE description = 'reports'")
	is(2, "admin:site/2", "invalid_token")
	m.sql("RENAME TABLE matomo_access TO away") // an error does not end it
	wait.Until(t, "a warning", func() bool { return strings.Contains(errs.String(), "no table matomo_access") })
	m.sql("RENAME TABLE away TO matomo_access; DELETE FROM matomo_access WHERE login = 'anna'")
	is(20, "view:site/1", "insufficient_scope")
	stop()
	if code := <-ended; code != 130 {
		t.Errorf("exit code %d, want 130\n%s%s", code, out.String(), errs.String())
	}
}

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// many adds tokens from the number 1000 on.
func (m *migration) many(n int) {
	m.t.Helper()
	const batch = 2000
	for from := 0; from < n; from += batch {
		var rows []string
		for i := from; i < min(n, from+batch); i++ {
			rows = append(rows, fmt.Sprintf("('%s','app %d','%s','sha512','2024-01-01')", []string{"anna", "bert", "boss"}[i%3], i, matomoHash(1000+i)))
		}
		m.sql("INSERT INTO matomo_user_token_auth (login, description, password, hash_algo, date_created) VALUES " + strings.Join(rows, ","))
	}
}

// TestImportMatomoKilled kills the import in the middle, and repeats it. Each token
// is there once.
func TestImportMatomoKilled(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the program is found by a symbolic link")
	}
	m := startMigration(t)
	const n = 6000
	m.many(n)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "tokenledger") // which TestMain runs by its name
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	p := proc.Start(t, proc.Command{Name: "import", Args: append([]string{program}, m.args()...), Env: []string{"XDG_CONFIG_HOME=" + t.TempDir()}})
	wait.Until(t, "some tokens are imported", func() bool { return m.node.Position() > 500 || p.Exited() })
	p.Kill(t)
	part := m.report("--dry-run")
	t.Logf("killed after %d of %d tokens", part.Tokens.Unchanged, n+4)
	if part.Tokens.Unchanged == 0 || part.Tokens.Created == 0 {
		t.Errorf("it was not killed in the middle: %+v", part.Tokens)
	}
	if last := m.report(); last.Tokens.Created+last.Tokens.Unchanged != n+4 || last.Tokens.Deleted != 0 || last.Tokens.Refused != 0 {
		t.Errorf("repeated: %+v", last.Tokens)
	}
	if again := m.report(); again.changed() || again.Tokens.Unchanged != n+4 {
		t.Errorf("again: %+v", again.Tokens)
	}
	m.wants("imported", map[string]string{"1000 view:site/1": "allowed", strconv.Itoa(999+n) + " view:site/1": "allowed"})
}

// TestImportMatomoMany imports as many tokens as TOKENLEDGER_TEST_IMPORT says, and
// logs time and memory. Without it, the test is skipped.
func TestImportMatomoMany(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("TOKENLEDGER_TEST_IMPORT"))
	if err != nil {
		t.Skip("TOKENLEDGER_TEST_IMPORT=100000 imports so many tokens, and measures")
	}
	m := startMigration(t)
	m.many(n)
	dump := filepath.Join(t.TempDir(), "dump.sql")
	if err := os.WriteFile(dump, m.db.Dump("matomo"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "tokenledger")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		args []string
	}{{"dry run from a dump", []string{"--dump", dump, "--dry-run"}}, {"import", nil}, {"import again", nil}} {
		began := time.Now()
		p := proc.Start(t, proc.Command{Name: step.name, Args: append([]string{program}, m.args(step.args...)...), Env: []string{"XDG_CONFIG_HOME=" + t.TempDir()}})
		most := 0
		for !p.Exited() {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
			if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
				kb, _ := strconv.Atoi(strings.Fields(rest)[0])
				most = max(most, kb)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if code := p.Wait(t); code != 0 {
			t.Fatalf("%s: exit code %d", step.name, code)
		}
		t.Logf("%s: %d tokens in %s, %d MB", step.name, n, time.Since(began).Round(10*time.Millisecond), most>>10)
	}
	if got := m.verify(999+n, "view:site/1", false); got != "allowed" {
		t.Errorf("the last token is %s", got)
	}
}
