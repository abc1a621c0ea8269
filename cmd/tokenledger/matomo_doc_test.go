package main

import (
	"crypto/sha512"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
)

// TestMatomoDoc runs the numbered steps of the page on Matomo, with a dump in place
// of its database and PHP in place of its scripts.
func TestMatomoDoc(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("******** NOT TESTED: no curl here. Install curl to test the page on Matomo. ********")
	}
	const token, salt = "0123456789abcdef0123456789abcdef", "a salt of the test"
	up := matomotest.Start(t, matomotest.Options{})
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := write("config.ini.php", "; <?php exit; ?> DO NOT REMOVE THIS LINE\n[database]\nhost = \"127.0.0.1\"\nusername = \"matomo\"\n"+
		"password = \"\"\ndbname = \"matomo\"\ntables_prefix = \"matomo_\"\n\n[General]\nsalt = \""+salt+"\"\n")
	dump := write("dump.sql", dumpOf(salt, token))
	script := "printf '%s\\n' " + token + " > old.token\n" + strings.Join(docBlocks(t, "../../ops/deploy/matomo/README.md", "TestMatomoDoc"), "")
	for old, replaced := range map[string]string{
		"config=/var/www/matomo/config/config.ini.php": "config='" + config + "'",
		"matomo=http://127.0.0.1:8081":                 "matomo=" + up.URL,
		`import matomo --config "$config"`:             `import matomo --config "$config" --dump '` + dump + "'",
		"127.0.0.1:7605":                               addrtest.Free(t),
	} {
		if !strings.Contains(script, old) {
			t.Fatalf("the page lacks %q", old)
		}
		script = strings.ReplaceAll(script, old, replaced)
	}
	out := runDoc(t, script)
	statuses := slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return len(line) != 3 || line < "200" || line > "599" })
	if want := []string{"200", "200", "200", "401"}; !slices.Equal(statuses, want) {
		t.Errorf("calls answered %q, want %q:\n%s", statuses, want, out)
	}
	for _, want := range []string{"(1 of 1 applied", "ledger-tracking: token not used"} {
		if !strings.Contains(strings.ToLower(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, salt) || strings.Contains(out, token) {
		t.Errorf("the output has a secret:\n%s", out)
	}
}

// dumpOf is a dump of the tables of Matomo 5, with one token of a user who views two
// sites.
func dumpOf(salt, token string) string {
	hash := func(s string) string { return fmt.Sprintf("%x", sha512.Sum512([]byte(s+salt))) }
	return "CREATE TABLE `matomo_user` (`login` varchar(100), `email` varchar(100), `superuser_access` tinyint(2));\n" +
		"CREATE TABLE `matomo_site` (`idsite` int(10));\n" +
		"CREATE TABLE `matomo_access` (`login` varchar(100), `idsite` int(10), `access` varchar(50));\n" +
		"CREATE TABLE `matomo_user_token_auth` (`idusertokenauth` bigint(20), `login` varchar(100), `description` varchar(100)," +
		" `password` varchar(191), `hash_algo` varchar(30), `system_token` tinyint(1), `last_used` datetime," +
		" `date_created` datetime, `date_expired` datetime, `secure_only` tinyint(1));\n" +
		"INSERT INTO `matomo_user` VALUES ('anonymous','',0),('alice','alice@example.org',0);\n" +
		"INSERT INTO `matomo_site` VALUES (1),(2);\n" +
		"INSERT INTO `matomo_access` VALUES ('alice',1,'view'),('alice',2,'view');\n" +
		"INSERT INTO `matomo_user_token_auth` VALUES (1,'anonymous','anonymous','" + hash("anonymous") + "','sha512',0,NULL,'2024-01-01 00:00:00',NULL,0)," +
		"(2,'alice','report','" + hash(token) + "','sha512',0,'2026-11-01 00:00:00','2024-01-01 00:00:00',NULL,0);\n" +
		"-- Dump completed on 2026-11-01  0:00:00\n"
}
