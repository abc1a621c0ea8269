package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// redisInstance is a Redis server with a record for each digest, in memory only.
type redisInstance struct {
	tokens *population
	socket string
	server *server
	admin  *redisConn
	memory int64
}

func startRedis(ctx context.Context, s *stand) (_ instance, err error) {
	path, ok := findProgram("redis-server", "valkey-server")
	if !ok {
		return nil, &notInstalled{"redis-server", "redis-server"}
	}
	r := &redisInstance{tokens: s.tokens, socket: filepath.Join(s.dir, "redis.sock")}
	r.server, err = startServer(s.dir, user{}, path, "--port", "0", "--unixsocket", r.socket, "--unixsocketperm", "700",
		"--dir", s.dir, "--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", filepath.Join(s.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.stop())
		}
	}()
	if err = r.server.await(ctx, func() (err error) {
		r.admin, err = r.dial()
		return err
	}); err != nil {
		return nil, err
	}
	before, err := r.admin.memory()
	if err != nil {
		return nil, err
	}
	for first := 0; first < s.tokens.all(); first += batchSize {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err = r.admin.set(s.tokens, first, min(batchSize, s.tokens.all()-first), false); err != nil {
			return nil, err
		}
	}
	after, err := r.admin.memory()
	r.memory = after - before
	return r, err
}

func (r *redisInstance) dial() (*redisConn, error) {
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		return nil, err
	}
	return &redisConn{c: c, r: bufio.NewReader(c)}, nil
}

func (r *redisInstance) session() (checker, error) { return r.dial() }

func (r *redisInstance) stop() error {
	var err error
	if r.admin != nil {
		err = r.admin.close()
	}
	return errors.Join(err, r.server.stop())
}

func (r *redisInstance) revoke(_ context.Context, first, n int) error {
	return r.admin.set(r.tokens, first, n, true)
}

func (r *redisInstance) facts() (facts, error) {
	info, err := r.admin.info()
	return facts{
		memory: r.memory, what: "used_memory of the server", version: info["redis_version"], servers: r.server.processes(),
	}, err
}

// redisConn implements the needed part of Redis's protocol (RESP2).
type redisConn struct {
	c   net.Conn
	r   *bufio.Reader
	out []byte
}

func (c *redisConn) close() error { return c.c.Close() }

// command appends a command to the output buffer.
func (c *redisConn) command(args ...[]byte) {
	c.out = append(c.out, '*')
	c.out = strconv.AppendInt(c.out, int64(len(args)), 10)
	c.out = append(c.out, "\r\n"...)
	for _, a := range args {
		c.out = append(c.out, '$')
		c.out = strconv.AppendInt(c.out, int64(len(a)), 10)
		c.out = append(c.out, "\r\n"...)
		c.out = append(append(c.out, a...), "\r\n"...)
	}
}

func (c *redisConn) send() error {
	_, err := c.c.Write(c.out)
	c.out = c.out[:0]
	return err
}

// line reads a line of an answer. It is valid until the next reading.
func (c *redisConn) line() ([]byte, error) {
	b, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("read from Redis: %w", err)
	}
	b = bytes.TrimSuffix(b, []byte("\r\n"))
	if len(b) == 0 || b[0] == '-' {
		return nil, fmt.Errorf("answer of Redis: %q", b)
	}
	return b, nil
}

// bulk reads a string, or nil if it is absent. It is valid until the next read.
func (c *redisConn) bulk(into []byte) ([]byte, error) {
	b, err := c.line()
	if err != nil {
		return nil, err
	}
	if string(b) == "$-1" {
		return nil, nil
	}
	n, err := strconv.Atoi(string(b[1:]))
	if err != nil || b[0] != '$' || n < 0 {
		return nil, fmt.Errorf("answer of Redis to GET: %q", b)
	}
	if cap(into) < n+2 {
		into = make([]byte, n+2)
	}
	if _, err := io.ReadFull(c.r, into[:n+2]); err != nil {
		return nil, fmt.Errorf("read from Redis: %w", err)
	}
	return into[:n], nil
}

var cmdGet, cmdSet, cmdInfo = []byte("GET"), []byte("SET"), []byte("INFO")

// set stores the records of tokens, revoked or with their state in the
// population.
func (c *redisConn) set(p *population, first, n int, ended bool) error {
	for i := first; i < first+n; i++ {
		digest, r := p.digest(i), p.record(i)
		r.live = r.live && !ended
		c.command(cmdSet, digest[:], r.append(nil))
	}
	sent := make(chan error, 1)
	go func() { sent <- c.send() }() // both sides would wait once the buffers are full
	for range n {
		if _, err := c.line(); err != nil {
			return errors.Join(err, c.c.Close(), <-sent)
		}
	}
	return <-sent
}

func (c *redisConn) check(q query) (bool, error) {
	digest, ok := digestOf(q.secret)
	if !ok {
		return false, nil
	}
	c.command(cmdGet, digest[:])
	if err := c.send(); err != nil {
		return false, err
	}
	var buf [recordLength + 2]byte
	b, err := c.bulk(buf[:])
	if err != nil || b == nil {
		return false, err
	}
	r, err := parseRecord(b)
	return r.allows(q), err
}

func (c *redisConn) info() (map[string]string, error) {
	c.command(cmdInfo)
	if err := c.send(); err != nil {
		return nil, err
	}
	b, err := c.bulk(nil)
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		out[name] = value
	}
	return out, err
}

func (c *redisConn) memory() (int64, error) {
	info, err := c.info()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(info["used_memory"], 10, 64)
}
