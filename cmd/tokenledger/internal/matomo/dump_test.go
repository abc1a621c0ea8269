package matomo_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo/matomotest"
	"github.com/tokenledger/tokenledger/events"
)

const (
	head = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump\n/*!40101 SET NAMES utf8mb4 */;\n" +
		"CREATE TABLE `m_user` (\n  `login` varchar(100) NOT NULL COMMENT 'it''s (a, `b`)',\n  `email` varchar(100),\n  `superuser_access` tinyint(2) DEFAULT '0',\n  PRIMARY KEY (`login`)\n) ENGINE=InnoDB;\n" +
		"CREATE TABLE `m_site` (`idsite` int(10), `name` varchar(90), PRIMARY KEY (`idsite`));\n" +
		"CREATE TABLE `m_access` (`login` varchar(100), `idsite` int, `access` varchar(50));\n" +
		"CREATE TABLE `m_user_token_auth` (`idusertokenauth` bigint, `login` varchar(100), `description` varchar(100), `password` varchar(191), `date_expired` datetime);\n"
	foot = "\n-- Dump completed on 2026-03-04  5:06:07\n"
)

// TestDumpForms reads dumps in every form that they may have.
func TestDumpForms(t *testing.T) {
	hash := matomotest.Hash(token(1), salt)
	for name, body := range map[string]string{
		"as mysqldump writes it":    "LOCK TABLES `m_user` WRITE;\n/*!40000 ALTER TABLE `m_user` DISABLE KEYS */;\nINSERT INTO `m_user` VALUES ('anna','',0),('bert','',0);\nUNLOCK TABLES;\nINSERT INTO `m_user_token_auth` VALUES (1,'anna','x','" + hash + "',NULL);",
		"with names, out of order":  "INSERT INTO `m_user` (`superuser_access`, `login`) VALUES (0,'anna'),(0,'bert');INSERT INTO `m_user_token_auth` (`password`,`login`) VALUES ('" + hash + "','anna');",
		"in lower case, without ;":  "insert ignore into `m_user` values('anna',_utf8mb4'',0),('bert',null,-0);insert into m_user_token_auth values(1,'anna','x',\"" + hash + "\",NULL);",
		"replace, of a database":    "REPLACE INTO `db`.`m_user` VALUES ('anna','',0) , ('bert','',0);INSERT INTO `db`.`m_user_token_auth` VALUES (1,'anna','x','" + hash + "',NULL)\n;",
		"with what looks like more": "INSERT INTO `m_site` VALUES (1,'); INSERT INTO `m_user` VALUES (''eve'','''',1); -- '),(2,'/* \\' */'),(3,'\\\\');INSERT INTO `m_user` VALUES ('anna','',0),('bert','',0);INSERT INTO `m_user_token_auth` VALUES (1,'anna','-- Dump completed','" + hash + "',NULL);",
		"with other tables":         "CREATE TABLE `m_log` (`x` blob);INSERT INTO `m_log` VALUES (0x27,'\\0\\Z\\'');INSERT INTO `m_user` VALUES ('anna','',0),('bert','',0);/*!50003 CREATE TRIGGER t BEFORE INSERT ON `m_user` FOR EACH ROW SET NEW.login = 'eve' */;INSERT INTO `m_user_token_auth` VALUES (1,'anna','x','" + hash + "',NULL);",
	} {
		for how, in := range map[string]string{"": head + body + foot, " with \\r\\n": strings.ReplaceAll(head+body+foot, "\n", "\r\n")} {
			s, err := matomo.Dump(iotest.OneByteReader(strings.NewReader(in)), "m_", now)
			if err != nil {
				t.Errorf("%s%s: %v", name, how, err)
				continue
			}
			if len(s.Users) != 2 || s.Users[0].Login != "anna" || s.Users[0].Superuser || len(s.Tokens) != 1 || s.Tokens[0].Login != "anna" {
				t.Errorf("%s%s: %+v %+v %+v", name, how, s.Users, s.Tokens, s.Skipped)
			}
		}
	}
}

// TestDumpRefused reads dumps that must not be imported.
func TestDumpRefused(t *testing.T) {
	rows := "INSERT INTO `m_user` VALUES ('anna','',0);"
	for name, tt := range map[string]struct{ dump, says string }{
		"nothing":                      {"", "cut off"},
		"not SQL":                      {"\x00\x01\x02\xff" + foot, "cut off"},
		"without an end":               {head + rows, "cut off"},
		"with an end in the middle":    {head + foot + rows, "cut off"},
		"with an end in a block":       {head + rows + "/*\n-- Dump completed\n*/", "cut off"},
		"with an end after a hash":     {head + rows + "#- Dump completed\n", "cut off"},
		"cut in a string":              {head + "INSERT INTO `m_user` VALUES ('an", "middle of a statement"},
		"cut after a backslash":        {head + "INSERT INTO `m_user` VALUES ('an\\", "middle of a statement"},
		"cut between rows":             {head + "INSERT INTO `m_user` VALUES ('anna','',0),", "middle of a statement"},
		"cut before the ;":             {head + "INSERT INTO `m_user` VALUES ('anna','',0)" + foot, "middle of a statement"},
		"cut in a comment":             {head + "/* not closed " + foot, "middle of a statement"},
		"cut in a name":                {head + "INSERT INTO `m_us", "middle of a statement"},
		"a table twice":                {head + head + foot, "twice"},
		"rows before the table":        {rows + head + foot, "before its CREATE TABLE"},
		"too few values":               {head + "INSERT INTO `m_user` VALUES ('anna','');" + foot, "2 values for 3 columns"},
		"too many values":              {head + "INSERT INTO `m_user` VALUES ('anna','',0,1);" + foot, "4 values for 3 columns"},
		"an expression":                {head + "INSERT INTO `m_user` VALUES (CONCAT('a','b'),'',0);" + foot, "something else"},
		"a sum":                        {head + "INSERT INTO `m_user` VALUES ('a','',0+1);" + foot, "something else"},
		"a subquery":                   {head + "INSERT INTO `m_user` SELECT 'a','',1;" + foot, "without VALUES"},
		"a row without a comma":        {head + "INSERT INTO `m_user` VALUES ('a','',0)('b','',0);" + foot, "not followed by a comma"},
		"on duplicate key":             {head + "INSERT INTO `m_user` VALUES ('a','',0) ON DUPLICATE KEY UPDATE login='x';" + foot, "not followed by a comma"},
		"without the login":            {head + "INSERT INTO `m_user` (`email`) VALUES ('a');" + foot, "no column login"},
		"an update":                    {head + rows + "UPDATE `m_user` SET `superuser_access`=1;" + foot, "UPDATE changes the table m_user"},
		"a delete":                     {head + rows + "DELETE FROM `m_user`;" + foot, "DELETE changes"},
		"load data":                    {head + "LOAD DATA INFILE '/etc/passwd' INTO TABLE `m_user`;" + foot, "LOAD changes"},
		"another delimiter":            {head + "DELIMITER ;;\n" + foot, "DELIMITER"},
		"a value of 100 kB":            {head + "INSERT INTO `m_user` VALUES ('" + strings.Repeat("x", 100<<10) + "','',0);" + foot, "longer than 64 kB"},
		"another prefix":               {strings.ReplaceAll(head, "m_", "n_") + foot, "no table m_user"},
		"a definition that ends early": {"CREATE TABLE `m_user` (`login` varchar(100;" + foot, "inside parentheses"},
	} {
		s, err := matomo.Dump(strings.NewReader(tt.dump), "m_", now)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, %v; want an error that says %q", name, s, err, tt.says)
		}
	}
}

// TestDumpCutAnywhere cuts a dump at every byte: each part is refused.
func TestDumpCutAnywhere(t *testing.T) {
	whole := head + "INSERT INTO `m_user` VALUES ('anna','',0),('o\\'hara','',0);\n" + foot
	end := strings.Index(whole, "-- Dump completed") + len("-- Dump completed")
	for i := range end {
		if _, err := matomo.Dump(strings.NewReader(whole[:i]), "m_", now); err == nil {
			t.Fatalf("the first %d bytes are accepted: ...%q", i, whole[max(0, i-40):i])
		}
	}
	if _, err := matomo.Dump(strings.NewReader(whole), "m_", now); err != nil {
		t.Fatal(err)
	}
}

// FuzzDump reads dumps with anything in them. What is accepted never has a user that
// the ledger cannot have, or a token of no user.
func FuzzDump(f *testing.F) {
	f.Add(head + "INSERT INTO `m_user` VALUES ('anna','',1);INSERT INTO `m_user_token_auth` VALUES (1,'anna','x','" + strings.Repeat("0", 128) + "',NULL);" + foot)
	f.Add(head + "INSERT INTO `m_user` VALUES ('a\\0b','',1),('','',0),(NULL,NULL,NULL);" + foot)
	f.Add("-- Dump completed")
	f.Fuzz(func(t *testing.T, dump string) {
		s, err := matomo.Dump(strings.NewReader(dump), "m_", now)
		if err != nil {
			return
		}
		users := map[string]bool{}
		for _, u := range s.Users {
			users[u.Login] = true
			if u.Login == "" || u.Login == "anonymous" || strings.ContainsAny(u.Login, "\x00\n'\" ") {
				t.Errorf("user %q", u.Login)
			}
		}
		for _, one := range s.Tokens {
			if !users[one.Login] || one.Hash == (events.MatomoHash{}) && !strings.Contains(dump, strings.Repeat("0", 128)) {
				t.Errorf("token %+v", one)
			}
		}
	})
}

// TestOddRows reads rows that no Matomo writes, or that an attacker might.
func TestOddRows(t *testing.T) {
	hash := func(n int) string { return matomotest.Hash(token(n), salt) }
	body := "INSERT INTO `m_site` VALUES (1,'x');" +
		"INSERT INTO `m_user` VALUES ('anna','',0),('Straße','',0),('strasse','',0),('a\\0b','',0),('','',0),('acc_x','',0),('" + token(3) + "','',0),('Anonymous ','',0),(' eve','',0),('bert','x@y',2);" +
		"INSERT INTO `m_access` VALUES ('anna',1,'view'),('anna','1','admin'),('anna','01','view'),('anna','1/../2','view'),('anna',1,'superuser'),('anna',1,NULL),('ANNA',1,'view'),('strasse',1,'admin');" +
		"INSERT INTO `m_user_token_auth` VALUES (1,'anna','x','" + hash(1) + "','0000-00-00 00:00:00'),(2,'anna','x','" + hash(2) + "','soon'),(3,'strasse','x','" + hash(3) + "',NULL)," +
		"(4,'Strasse','x','" + hash(4) + "',NULL),(5,'ANNA ','\\0\\n','" + hash(5) + "',NULL),(6,'anna','x','" + strings.ToUpper(hash(6)) + "',NULL),(7,'anna','" + strings.Repeat("é", 100) + "','" + hash(7) + "',NULL)," +
		"(8,'ANONYMOUS','x','" + hash(8) + "',NULL),(9,'bert','an\xffonymous','" + hash(9) + "','2030-01-01 00:00:00.000000');"
	s, err := matomo.Dump(strings.NewReader(head+body+foot), "m_", now)
	if err != nil {
		t.Fatal(err)
	}
	var users []string
	for _, u := range s.Users {
		users = append(users, u.Login+fmt.Sprint(u.Grants))
	}
	if got := strings.Join(users, " "); got != "anna[admin:site/1 view:site/1] bert[superuser]" {
		t.Errorf("users %s", got)
	}
	var tokens []string
	for _, one := range s.Tokens {
		tokens = append(tokens, one.ID+one.Login)
		if len(one.Description) > 100 || strings.ContainsAny(one.Description, "\x00\n") {
			t.Errorf("description %q", one.Description)
		}
	}
	if got := strings.Join(tokens, " "); got != "5anna 7anna 9bert" {
		t.Errorf("tokens %s; left out: %+v", got, s.Skipped)
	}
}
