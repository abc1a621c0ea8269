package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// postgresInstance is a PostgreSQL server with a table of records by digest, held
// entirely in its shared buffers.
type postgresInstance struct {
	tokens *population
	conn   string
	server *server
	admin  *pgx.Conn
	size   int64
}

// database is the database that initdb creates.
const database = "postgres"

const selectRecord = "select expires, site, live from token where digest = $1"

func startPostgres(ctx context.Context, s *stand) (_ instance, err error) {
	initdb, ok := findProgram("initdb", "/usr/lib/postgresql/*/bin/initdb")
	postgres, also := findProgram(filepath.Join(filepath.Dir(initdb), "postgres"))
	if !ok || !also {
		return nil, &notInstalled{"postgres", "postgresql"}
	}
	as, err := unprivileged(s.dir) // PostgreSQL refuses to run as root
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	data := filepath.Join(s.dir, "data")
	if err := runProgram(ctx, s.dir, as, initdb,
		"-D", data, "-A", "trust", "-U", database, "-E", "UTF8", "--no-locale", "--no-sync"); err != nil {
		return nil, err
	}
	const perToken = 200 // bytes of a row and its entry in the index, with room
	buffers := 64 + s.tokens.all()*perToken>>20
	p := &postgresInstance{tokens: s.tokens}
	p.server, err = startServer(s.dir, as, postgres, "-D", data, "-k", s.dir,
		"-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "shared_buffers="+strconv.Itoa(buffers)+"MB",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
		"-c", "wal_level=minimal", "-c", "max_wal_senders=0", "-c", "max_wal_size=8GB",
		"-c", "maintenance_work_mem=512MB", "-c", "autovacuum=off", "-c", "jit=off")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	p.conn = "host=" + s.dir + " user=" + database + " dbname=" + database + " sslmode=disable"
	if err = p.server.await(ctx, func() (err error) {
		p.admin, err = pgx.Connect(ctx, p.conn)
		return err
	}); err != nil {
		return nil, err
	}
	if err = p.fill(ctx, p.admin); err != nil {
		return nil, fmt.Errorf("fill PostgreSQL: %w", err)
	}
	return p, nil
}

func (p *postgresInstance) fill(ctx context.Context, c *pgx.Conn) error {
	const createTable = `create table token
		(digest bytea not null, expires int8 not null, site int4 not null, live bool not null)`
	if _, err := c.Exec(ctx, createTable); err != nil {
		return err
	}
	i := 0
	columns := []string{"digest", "expires", "site", "live"}
	if _, err := c.CopyFrom(ctx, pgx.Identifier{"token"}, columns, pgx.CopyFromFunc(func() ([]any, error) {
		if i == p.tokens.all() {
			return nil, nil
		}
		digest, r := p.tokens.digest(i), p.tokens.record(i)
		i++
		return []any{digest[:], r.expires, int32(r.site), r.live}, nil
	})); err != nil {
		return err
	}
	for _, sql := range []string{
		"alter table token add primary key (digest)", "vacuum (freeze, analyze) token", "checkpoint",
	} {
		if _, err := c.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return c.QueryRow(ctx, "select pg_total_relation_size('token')").Scan(&p.size)
}

func (p *postgresInstance) facts() (facts, error) {
	f := facts{memory: p.size, what: "table and index, in shared buffers", disk: p.size, servers: p.server.processes()}
	return f, p.admin.QueryRow(context.Background(), "show server_version").Scan(&f.version)
}

func (p *postgresInstance) revoke(ctx context.Context, first, n int) error {
	digests := make([][]byte, n)
	for i := range digests {
		d := p.tokens.digest(first + i)
		digests[i] = d[:]
	}
	_, err := p.admin.Exec(ctx, "update token set live = false where digest = any($1)", digests)
	return err
}

func (p *postgresInstance) stop() error {
	var err error
	if p.admin != nil {
		err = p.admin.Close(context.Background())
	}
	return errors.Join(err, p.server.stop())
}

func (p *postgresInstance) session() (checker, error) {
	c, err := pgconn.Connect(context.Background(), p.conn)
	if err != nil {
		return nil, err
	}
	s := &postgresSession{c: c, args: make([][]byte, 1)}
	if _, err := c.Prepare(context.Background(), "check", selectRecord, nil); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// postgresSession uses the binary format and the low-level connection: the
// library's conveniences would cost some microseconds more.
type postgresSession struct {
	c    *pgconn.PgConn
	args [][]byte
}

var binaryFormat = []int16{pgx.BinaryFormatCode}

func (s *postgresSession) close() error { return s.c.Close(context.Background()) }

func (s *postgresSession) check(q query) (allowed bool, err error) {
	digest, ok := digestOf(q.secret)
	if !ok {
		return false, nil
	}
	s.args[0] = digest[:]
	rows := s.c.ExecPrepared(context.Background(), "check", s.args, binaryFormat, binaryFormat)
	for rows.NextRow() {
		r, err := parseRow(rows.Values())
		if err != nil {
			_, closed := rows.Close()
			return false, errors.Join(err, closed)
		}
		allowed = r.allows(q)
	}
	_, err = rows.Close()
	return allowed, err
}

func parseRow(v [][]byte) (record, error) {
	if len(v) != 3 || len(v[0]) != 8 || len(v[1]) != 4 || len(v[2]) != 1 {
		return record{}, errRecord
	}
	return record{
		expires: int64(binary.BigEndian.Uint64(v[0])), site: binary.BigEndian.Uint32(v[1]), live: v[2][0] == 1,
	}, nil
}
