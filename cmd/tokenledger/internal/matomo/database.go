package matomo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/tokenledger/tokenledger/events"
)

// DSN says how to reach a database. Its methods and errors never show the password.
type DSN struct{ cfg *mysql.Config }

// Format hides the DSN.
func (DSN) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[dsn]") }

// String returns where the database is.
func (d DSN) String() string {
	return fmt.Sprintf("%s on %s", events.Quote(d.cfg.DBName), events.Quote(d.cfg.Addr))
}

// ParseDSN parses a data source name of go-sql-driver/mysql:
// user:password@tcp(host:port)/database?tls=true.
func ParseDSN(s string) (DSN, error) {
	cfg, err := mysql.ParseDSN(strings.TrimSpace(s))
	if err != nil {
		// The driver's error may quote a part of it.
		return DSN{}, errors.New("not a data source name; want user:password@tcp(host:port)/database")
	}
	if cfg.DBName == "" {
		return DSN{}, errors.New("the data source name names no database; want user:password@tcp(host:port)/database")
	}
	return DSN{cfg}, nil
}

// DSN returns how to reach the database that config.ini.php names.
func (c *Config) DSN() (DSN, error) {
	d := c.database
	if d["username"] == "" || d["dbname"] == "" {
		return DSN{}, errors.New("section [database] has no username or no dbname")
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = d["username"], d["password"], d["dbname"]
	host, port := d["host"], d["port"]
	if host == "" {
		host = "127.0.0.1"
	}
	if name, given, err := net.SplitHostPort(host); err == nil && port == "" {
		host, port = name, given
	}
	if port == "" || port == "0" {
		port = "3306"
	}
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(host, port)
	if socket := d["unix_socket"]; socket != "" {
		cfg.Net, cfg.Addr = "unix", socket
	}
	return DSN{cfg}, c.setTLS(cfg, host)
}

// setTLS sets up TLS as the section [database] asks for it.
func (c *Config) setTLS(cfg *mysql.Config, host string) error {
	on := func(name string) bool {
		v := strings.ToLower(c.database[name])
		return v == "1" || v == "true" || v == "yes" || v == "on"
	}
	if !on("enable_ssl") {
		return nil
	}
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: on("ssl_no_verify")}
	if path := c.database["ssl_ca"]; path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("ssl_ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("ssl_ca: the file has no certificate")
		}
	}
	if path := c.database["ssl_cert"]; path != "" {
		pair, err := tls.LoadX509KeyPair(path, c.database["ssl_key"])
		if err != nil {
			return fmt.Errorf("ssl_cert and ssl_key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	cfg.TLS = t
	return nil
}

// Database reads an installation from its database, in one read-only transaction.
func Database(ctx context.Context, dsn DSN, prefix string, now time.Time) (*Source, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	cfg := dsn.cfg.Clone()
	cfg.Timeout = 10 * time.Second
	cfg.Logger = log.New(io.Discard, "", 0)
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.ParseTime, cfg.Loc = false, time.UTC
	cfg.Params["time_zone"] = "'+00:00'"
	if err := cfg.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return nil, hidden(cfg, err)
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, hidden(cfg, err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, hidden(cfg, err)
	}
	defer func() { _ = tx.Rollback() }()
	s := newSource()
	if err := s.readTables(ctx, tx, prefix); err != nil {
		return nil, hidden(cfg, err)
	}
	s.finish(now)
	return s, nil
}

// hidden returns an error of the driver without the password.
func hidden(cfg *mysql.Config, err error) error {
	var denied *mysql.MySQLError
	text := err.Error()
	if errors.As(err, &denied) {
		text = fmt.Sprintf("%s (error %d)", denied.Message, denied.Number)
	}
	if cfg.Passwd != "" {
		text = strings.ReplaceAll(text, cfg.Passwd, "[password]")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("read the database: %w", err)
	}
	return errors.New("database " + DSN{cfg}.String() + ": " + text)
}

func (s *Source) readTables(ctx context.Context, tx *sql.Tx, prefix string) error {
	for _, table := range []string{tableUser, tableSite, tableAccess, tableToken} {
		have, err := columnsOf(ctx, tx, prefix+table)
		if err != nil {
			return err
		}
		if len(have) == 0 {
			if table == tableToken {
				continue // Matomo 2 and 3
			}
			return fmt.Errorf("there is no table %s; is %s the prefix of the tables?", prefix+table, events.Quote(prefix))
		}
		if err := s.readTable(ctx, tx, prefix, table, have); err != nil {
			return err
		}
	}
	return nil
}

// columnsOf returns the wanted columns that a table has.
func columnsOf(ctx context.Context, tx *sql.Tx, table string) (map[string]bool, error) {
	rows, err := tx.QueryContext(ctx,
		"SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?", table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	have := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		have[strings.ToLower(name)] = true
	}
	return have, rows.Err()
}

func (s *Source) readTable(ctx context.Context, tx *sql.Tx, prefix, table string, have map[string]bool) error {
	r := &dbRow{at: map[string]int{}}
	var names []string
	for _, c := range columns[table] {
		if have[c] {
			r.at[c] = len(names)
			names = append(names, "`"+c+"`")
		}
	}
	if err := s.checkColumns(table, func(c string) bool { return have[c] }); err != nil {
		return err
	}
	// The prefix was checked, and the names are this package's own.
	rows, err := tx.QueryContext(ctx, "SELECT "+strings.Join(names, ", ")+" FROM `"+prefix+table+"`")
	if err != nil {
		return err
	}
	defer rows.Close()
	r.values = make([]sql.NullString, len(names))
	into := make([]any, len(names))
	for i := range into {
		into[i] = &r.values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		s.add(table, r)
	}
	return rows.Err()
}

// required are the columns that every version has.
var required = map[string][]string{
	tableUser: {"login"}, tableAccess: {"login", "idsite", "access"}, tableSite: {"idsite"},
	tableToken: {"login", "password"},
}

func (*Source) checkColumns(table string, have func(string) bool) error {
	for _, c := range required[table] {
		if !have(c) {
			return fmt.Errorf("table %s has no column %s", table, c)
		}
	}
	return nil
}

// dbRow is a row of the database.
type dbRow struct {
	at     map[string]int
	values []sql.NullString
}

func (r *dbRow) text(column string) (string, bool) {
	i, ok := r.at[column]
	if !ok || !r.values[i].Valid {
		return "", false
	}
	return r.values[i].String, true
}
