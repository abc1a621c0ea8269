// Package matomotest runs a real MariaDB server with the tables of Matomo.
package matomotest

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/proc"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// Server is a MariaDB server in a temporary folder, on a socket alone. It ends with
// its test.
type Server struct {
	Socket string

	t  testing.TB
	db *sql.DB
}

// The user that [Server.Create] creates for each database.
const (
	User     = "matomo"
	Password = "p@ss:w/ord?'\"quoted"
)

// Start starts a server with some options. The test is skipped if MariaDB is not
// installed.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	var programs []string
	for _, name := range []string{"mariadbd", "mariadb-install-db", "mariadb-dump"} {
		path, err := exec.LookPath(name)
		if err != nil {
			if path = filepath.Join("/usr/sbin", name); exec.Command("test", "-x", path).Run() != nil {
				t.Skipf("%s is not installed (Debian: mariadb-server); ops/ci/deps installs it", name)
			}
		}
		programs = append(programs, path)
	}
	dir, err := os.MkdirTemp("", "matomo-db-") // short: the path of a socket has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	user := "--user=" + os.Getenv("USER")
	if os.Getuid() == 0 {
		user = "--user=root"
	}
	install := exec.Command(programs[1], "--no-defaults", "--datadir="+data, "--tmpdir="+dir, "--skip-test-db",
		"--auth-root-authentication-method=normal", user)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	s := &Server{Socket: filepath.Join(dir, "s"), t: t}
	p := proc.Start(t, proc.Command{Name: "mariadbd", Args: append([]string{
		programs[0], "--no-defaults", "--datadir=" + data, "--tmpdir=" + dir, "--socket=" + s.Socket, "--skip-networking", user,
		"--pid-file=" + filepath.Join(dir, "pid"), "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M",
	}, options...)})
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.MultiStatements = "root", "unix", s.Socket, true
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.db = sql.OpenDB(connector)
	t.Cleanup(func() { _ = s.db.Close() })
	wait.Until(t, "MariaDB answers", func() bool {
		if p.Exited() {
			t.Fatalf("mariadbd: %s", p.State())
		}
		return s.db.Ping() == nil
	})
	return s
}

// Exec runs statements as root.
func (s *Server) Exec(statements string) {
	s.t.Helper()
	if _, err := s.db.Exec(statements); err != nil {
		s.t.Fatalf("%v\n%.500s", err, statements)
	}
}

// Create creates a database with the tables of a version of Matomo, and its user.
func (s *Server) Create(name, version string) {
	s.t.Helper()
	s.Exec(fmt.Sprintf("CREATE DATABASE `%s` CHARACTER SET utf8mb4; USE `%s`; %s", name, name, Tables(version)))
	s.Exec(fmt.Sprintf("GRANT SELECT, INSERT, UPDATE, DELETE ON `%s`.* TO '%s'@'localhost' IDENTIFIED BY '%s'",
		name, User, strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(Password)))
}

// DSN returns the data source name of a database, with the password of its user or
// another one.
func (s *Server) DSN(database, password string) string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = User, password, "unix", s.Socket, database
	return cfg.FormatDSN()
}

// Config returns a config.ini.php for a database.
func (s *Server) Config(database, salt string) string {
	return fmt.Sprintf(`; <?php exit; ?> DO NOT REMOVE THIS LINE
; file automatically generated or modified by Matomo
[database]
host = "localhost"
unix_socket = "%s"
username = "%s"
password = "%s"
dbname = "%s"
tables_prefix = "matomo_"
charset = "utf8mb4"

[General]
proxy_client_headers[] = "HTTP_X_FORWARDED_FOR"
salt = "%s"
trusted_hosts[] = "example.org"
`, s.Socket, User, strings.NewReplacer(`&`, "&amp;", `"`, "&quot;").Replace(Password), database, salt)
}

// Dump returns a dump of a database, as mariadb-dump writes it.
func (s *Server) Dump(database string, options ...string) []byte {
	s.t.Helper()
	var errs bytes.Buffer
	args := append([]string{"--no-defaults", "--socket=" + s.Socket, "-uroot"}, options...)
	c := exec.Command("mariadb-dump", append(args, database)...)
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		s.t.Fatalf("mariadb-dump: %v\n%s", err, errs.Bytes())
	}
	return out
}

// The versions that [Tables] knows.
var Versions = []string{"3", "4", "5.0.0-b1", "5", "6"}

// Tables returns the statements that create the tables of a version of Matomo that
// have something to do with tokens, with the prefix matomo_.
func Tables(version string) string {
	user := "token_auth CHAR(32) NOT NULL, UNIQUE KEY uniq_keytoken(token_auth),"
	if version != "3" {
		user = "twofactor_secret VARCHAR(40) NOT NULL DEFAULT '', ts_password_modified TIMESTAMP NULL,"
	}
	s := `CREATE TABLE matomo_user (
  login VARCHAR(100) NOT NULL, password VARCHAR(255) NOT NULL DEFAULT '',
  email VARCHAR(100) NOT NULL DEFAULT '', ` + user + `
  superuser_access TINYINT(2) UNSIGNED NOT NULL DEFAULT '0', date_registered TIMESTAMP NULL, PRIMARY KEY (login)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE matomo_access (
  idaccess INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT, login VARCHAR(100) NOT NULL, idsite INTEGER UNSIGNED NOT NULL,
  access VARCHAR(50) NULL, PRIMARY KEY (idaccess), INDEX index_loginidsite (login, idsite)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE matomo_site (
  idsite INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT, name VARCHAR(90) NOT NULL, PRIMARY KEY (idsite)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE matomo_user_dashboard (login VARCHAR(100) NOT NULL, layout TEXT NOT NULL, PRIMARY KEY (login))
 ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
`
	if version == "3" {
		return s
	}
	extra := map[string]string{
		"4": "", "5.0.0-b1": "post_only TINYINT(2) UNSIGNED NOT NULL DEFAULT '0',",
		"5": "secure_only TINYINT(2) UNSIGNED NOT NULL DEFAULT '0',",
		"6": "secure_only TINYINT(2) UNSIGNED NOT NULL DEFAULT '0', ts_rotation_notified TIMESTAMP NULL, " +
			"ts_expiration_warning_notified TIMESTAMP NULL, access_level VARCHAR(50) NULL,",
	}[version]
	return s + `CREATE TABLE matomo_user_token_auth (
  idusertokenauth BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, login VARCHAR(100) NOT NULL,
  description VARCHAR(100) NOT NULL,
  password VARCHAR(191) NOT NULL, hash_algo VARCHAR(30) NOT NULL, system_token TINYINT(1) NOT NULL DEFAULT 0,
  last_used DATETIME NULL, date_created DATETIME NOT NULL, date_expired DATETIME NULL, ` + extra + `
  PRIMARY KEY (idusertokenauth), UNIQUE KEY uniq_password (password)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
`
}

// Hash returns the hash of a token, as the table has it.
func Hash(token, salt string) string {
	h := events.NewMatomoSalt(salt).Hash(token)
	return fmt.Sprintf("%x", h[:])
}
