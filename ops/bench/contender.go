package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// contender is one way to answer checks.
type contender struct {
	ID   string
	Name string // and a short description
	// inProcess is true if it uses memory of this process.
	inProcess bool
	// forgets is true if it does not support revocation.
	forgets bool
	start   func(ctx context.Context, s *stand) (instance, error)
}

// contenders lists all contenders, the product first.
var contenders = []contender{
	{ID: "tokenledger", Name: "tokenledger, in process", inProcess: true, start: startProduct},
	{ID: "map", Name: "a Go map alone (the limit)", inProcess: true, start: startMap},
	{ID: "badger", Name: "a Badger get alone", inProcess: true, start: startBadger},
	{ID: "jwt-hs256", Name: "JWT, HS256 (golang-jwt)", inProcess: true, forgets: true, start: startHS256},
	{ID: "jwt-eddsa", Name: "JWT, EdDSA (golang-jwt)", inProcess: true, forgets: true, start: startEdDSA},
	{ID: "redis", Name: "Redis GET, Unix socket", start: startRedis},
	{ID: "postgres", Name: "PostgreSQL row, prepared, Unix socket", start: startPostgres},
	{ID: "http", Name: "introspection over loopback HTTP: tokenledger", inProcess: true, start: startHTTP},
	{ID: "http-map", Name: "introspection over loopback HTTP: a Go map", inProcess: true, start: startHTTPMap},
}

const productID = "tokenledger"

// Rivals returns the names of the contenders that tokenledger can be compared with.
func Rivals() []string {
	var out []string
	for _, c := range contenders[1:] {
		out = append(out, c.ID)
	}
	return out
}

// choose returns the product and the named rivals.
func choose(rivals []string) ([]contender, error) {
	for _, r := range rivals {
		if !slices.Contains(Rivals(), r) {
			return nil, fmt.Errorf("unknown rival %q; choose from %s", r, strings.Join(Rivals(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(contenders), func(c contender) bool {
		return c.ID != productID && !slices.Contains(rivals, c.ID)
	}), nil
}

// stand is the environment of a contender.
type stand struct {
	tokens *population
	dir    string // its own, empty
	say    func(format string, args ...any)
	ready  map[string]instance // contenders that started earlier
}

// instance is a started contender with the tokens of a population.
type instance interface {
	// session returns a checker for one thread.
	session() (checker, error)
	// facts returns its figures besides time.
	facts() (facts, error)
	// stop stops it and all that it started.
	stop() error
}

// revoker is an instance that can revoke tokens while it answers.
type revoker interface {
	// revoke revokes n tokens of the population from first on. It returns once
	// they are refused.
	revoke(ctx context.Context, first, n int) error
}

// checker answers questions, one at a time.
type checker interface {
	check(q query) (allowed bool, err error)
	close() error
}

// facts are a contender's figures besides time. Zero means unknown.
type facts struct {
	memory  int64 // bytes in another process, for all tokens
	what    string
	disk    int64
	version string
	servers []int // process ids, whose processor time counts
	load    Load
}

// notInstalled reports a server that is not installed.
type notInstalled struct{ program, pkg string }

func (e *notInstalled) Error() string {
	return fmt.Sprintf("not installed: no %s here (apt-get install %s)", e.program, e.pkg)
}

func missing(err error) (why string, is bool) {
	var e *notInstalled
	if errors.As(err, &e) {
		return e.Error(), true
	}
	return "", false
}
