package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"

	"github.com/tokenledger/tokenledger/events"
)

// command is a request that changes something.
type command struct {
	kind   events.Kind // of its event
	method string
	path   string
	body   map[string]any
	key    string // idempotency key
}

// reply is the answer to a command or a check, success or problem.
type reply struct {
	status int

	Token struct {
		ID string `json:"id"`
	} `json:"token"`
	Account json.RawMessage `json:"account"` // an object from the API, an id from a verifier
	ID      string          `json:"id"`      // of the record in the answer
	Secret  string          `json:"secret"`

	Position events.Position `json:"position"`

	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`

	Code   string `json:"code"` // of a problem
	Detail string `json:"detail"`
}

// about returns the id of the record that a command changed.
func (r reply) about() string {
	var account struct {
		ID string `json:"id"`
	}
	if r.Token.ID != "" || json.Unmarshal(r.Account, &account) != nil {
		return r.Token.ID
	}
	return account.ID
}

// String describes the reply without its secret.
func (r reply) String() string {
	return fmt.Sprintf("status %d, %s%s %s, position %d", r.status, r.Code, r.Reason, r.Detail, r.Position)
}

// request is one HTTP request.
type request struct {
	method, url string
	secret, key string // empty for none
	body        map[string]any
}

// send sends a request, once.
func send(ctx context.Context, c *http.Client, r request) (reply, error) {
	var content io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return reply{}, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, content)
	if err != nil {
		return reply{}, err
	}
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.secret != "" {
		req.Header.Set("Authorization", "Bearer "+r.secret)
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	resp, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	got := reply{status: resp.StatusCode}
	if err := json.Unmarshal(b, &got); err != nil {
		return got, fmt.Errorf("%s %s: status %d, and the body is not JSON: %w", r.method, r.url, resp.StatusCode, err)
	}
	return got, nil
}

// checks sends checks. Its short timeout ends those to a node that hangs.
var checks = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}

// ask asks a verifier about a secret.
func ask(ctx context.Context, verify, secret string, need ...string) (reply, error) {
	return send(ctx, checks, request{
		method: http.MethodPost, url: verify + "/v1/verify", body: map[string]any{"token": secret, "need": need},
	})
}

// ack is a command that was acknowledged.
type ack struct {
	command
	about    string
	position events.Position
}

// workload sends commands of every kind from several clients at once. Each
// client retries a command with the same key until it is acknowledged, and
// changes only its own accounts and tokens, so that it knows their state.
type workload struct {
	ledger  *machine
	limit   int64
	root    string // the secret of all commands
	clients []*client
	web     *http.Client

	begun   atomic.Int64  // commands
	acked   atomic.Int64  // commands
	refused atomic.Int64  // requests that were answered with 503
	idle    chan struct{} // closed when the clients have stopped

	mu      sync.Mutex
	revoked []revocation // guarded by mu
}

// revocation is a secret that a node must refuse after it has applied a
// position.
type revocation struct {
	secret   string
	position events.Position
}

// newWorkload returns limit commands for a number of clients.
func newWorkload(ledger *machine, seed uint64, clients, limit int) *workload {
	w := &workload{
		ledger: ledger,
		limit:  int64(limit),
		web:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}},
	}
	for i := range clients {
		w.clients = append(w.clients, &client{
			w: w, name: fmt.Sprintf("c%d", i), run: fmt.Sprintf("%x", seed),
			rng: rand.New(rand.NewPCG(seed, uint64(i)+100)),
		})
	}
	return w
}

// do sends commands until all are acknowledged or ctx ends. If it is called
// again, it continues with the commands that are not acknowledged.
func (w *workload) do(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(w.clients))
	for i, c := range w.clients {
		wg.Go(func() {
			if errs[i] = c.do(ctx); errs[i] != nil {
				cancel() // further commands would show nothing
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// begin runs do in the background, and returns a function that waits for its
// end.
func (w *workload) begin(ctx context.Context) (end func() error) {
	result := make(chan error, 1)
	w.idle = make(chan struct{})
	go func() {
		defer close(w.idle)
		result <- w.do(ctx)
	}()
	return func() error { return <-result }
}

// reached waits until n commands are acknowledged. It returns an error if the
// clients stop first.
func (w *workload) reached(n int64) error {
	var err error
	done := wait.For(wait.Limit, func() bool {
		if w.acked.Load() >= n {
			return true
		}
		select {
		case <-w.idle:
			err = errors.New("the clients have stopped")
		default:
		}
		return err != nil
	})
	if !done {
		err = errors.New("it took too long")
	}
	return err
}

// acks returns all acknowledged commands. The clients must have stopped.
func (w *workload) acks() []ack {
	var all []ack
	for _, c := range w.clients {
		all = append(all, c.acks...)
	}
	return all
}

// end returns the last acknowledged position. The clients must have stopped.
func (w *workload) end() (end events.Position) {
	for _, a := range w.acks() {
		end = max(end, a.position)
	}
	return end
}

// anyRevoked returns a random acknowledged revocation.
func (w *workload) anyRevoked(rng *rand.Rand) (revocation, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.revoked) == 0 {
		return revocation{}, false
	}
	return w.revoked[rng.IntN(len(w.revoked))], true
}

// client sends its commands one after another. It is not safe for concurrent
// use.
type client struct {
	w    *workload
	name string
	run  string // part of the keys
	rng  *rand.Rand

	made     int      // commands
	pending  *planned // made, and not acknowledged
	accounts []*account
	tokens   []*token
	acks     []ack

	retries, lost int // retries; secrets in lost answers
}

// planned is a command, and the change of state once it is acknowledged.
type planned struct {
	command
	then func(reply)
}

// account is the state of an account of a client.
type account struct {
	id, login string
	wide      bool // holds admin:site/*, else view:site/*
	suspended bool
}

// token is the state of a token of a client.
type token struct {
	id      string
	account *account
	scopes  []string
	state   events.TokenState

	current string   // secret; empty if the answer was lost
	fading  string   // the previous secret during its grace period; or empty
	dead    []string // secrets that a rotation ended
}

func (c *client) do(ctx context.Context) error {
	for {
		if c.pending == nil {
			if c.w.begun.Add(1) > c.w.limit {
				c.w.begun.Add(-1)
				return nil
			}
			c.plan()
		}
		if err := c.finish(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// finish retries the pending command until it is acknowledged.
func (c *client) finish(ctx context.Context) error {
	r, err := c.acknowledged(ctx, c.pending.command)
	if err != nil {
		return err
	}
	c.acks = append(c.acks, ack{command: c.pending.command, about: r.about(), position: r.Position})
	c.pending.then(r)
	c.pending = nil
	c.w.acked.Add(1)
	return nil
}

// acknowledged sends a command until it is acknowledged. It retries only if the
// outcome is unknown or the node is unavailable. Every other refusal is a
// fault, also a 401 from a node that has just started.
func (c *client) acknowledged(ctx context.Context, cmd command) (reply, error) {
	for try := 0; ; try++ {
		r, err := c.try(ctx, cmd)
		switch {
		case err == nil && (r.status == http.StatusOK || r.status == http.StatusCreated):
			return r, nil
		case err == nil && r.status != http.StatusServiceUnavailable:
			return r, fmt.Errorf("client %s: %s %s %v (%s): %s", c.name, cmd.method, cmd.path, cmd.body, cmd.kind, r)
		case err == nil:
			c.w.refused.Add(1)
		}
		c.retries++
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// try sends a command once, sometimes with such a short timeout that the ledger
// still works on it when the retry arrives.
func (c *client) try(ctx context.Context, cmd command) (reply, error) {
	limit := 5 * time.Second
	if c.rng.IntN(10) == 0 {
		limit = time.Duration(c.rng.IntN(6000)) * time.Microsecond
	}
	return c.once(ctx, cmd, limit)
}

// once sends a command once.
func (c *client) once(ctx context.Context, cmd command, limit time.Duration) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, ok := c.w.ledger.addresses()
	if !ok {
		return reply{}, errors.New("the ledger does not listen")
	}
	return send(ctx, c.w.web, request{
		method: cmd.method, url: a.API + cmd.path, secret: c.w.root, key: cmd.key, body: cmd.body,
	})
}

// plan chooses the next command, which must succeed.
func (c *client) plan() {
	type choice struct {
		weight int
		plan   func()
	}
	var choices []choice
	add := func(weight int, plan func()) { choices = append(choices, choice{weight, plan}) }
	if len(c.accounts) < 2 {
		add(3, c.createAccount)
	}
	for _, a := range c.accounts {
		if a.suspended {
			add(15, func() { c.resumeAccount(a) })
			continue
		}
		add(18, func() { c.createToken(a) })
		add(3, func() { c.grant(a) })
		add(2, func() { c.suspendAccount(a) })
	}
	if t := c.pick(func(t *token) bool { return t.state != events.Revoked && !t.account.suspended }); t != nil {
		add(10, func() { c.scope(t) })
		add(10, func() { c.edit(t) })
		add(14, func() { c.rotate(t, c.rng.IntN(2) == 0) })
	}
	if t := c.pick(func(t *token) bool { return t.state == events.Active }); t != nil {
		add(7, func() { c.suspend(t) })
	}
	if t := c.pick(func(t *token) bool { return t.state == events.Suspended }); t != nil {
		add(8, func() { c.resume(t) })
	}
	if t := c.pick(func(t *token) bool { return t.state != events.Revoked }); t != nil {
		add(10, func() { c.revoke(t) })
	}
	total := 0
	for _, ch := range choices {
		total += ch.weight
	}
	roll := c.rng.IntN(max(total, 1))
	for _, ch := range choices {
		if roll -= ch.weight; roll < 0 {
			ch.plan()
			return
		}
	}
}

// pick returns a random token that is wanted, or nil.
func (c *client) pick(wanted func(*token) bool) *token {
	var list []*token
	for _, t := range c.tokens {
		if wanted(t) {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[c.rng.IntN(len(list))]
}

// will sets the next command, and the change of state once it is acknowledged.
func (c *client) will(kind events.Kind, method, path string, body map[string]any, then func(reply)) {
	c.made++
	key := fmt.Sprintf("%s-%s-%d", c.run, c.name, c.made)
	c.pending = &planned{command{kind: kind, method: method, path: path, body: body, key: key}, then}
}

func (c *client) createAccount() {
	a := &account{login: fmt.Sprintf("%s.%s-%d", c.run, c.name, len(c.accounts)), wide: true}
	c.will(events.KindAccountCreated, http.MethodPost, "/v1/accounts",
		map[string]any{"login": a.login, "kind": "user", "grants": a.grants()},
		func(r reply) {
			a.id = r.about()
			c.accounts = append(c.accounts, a)
		})
}

func (a *account) grants() []string {
	if a.wide {
		return []string{"admin:site/*"}
	}
	return []string{"view:site/*"}
}

func (c *client) grant(a *account) {
	to := *a
	to.wide = !a.wide
	c.will(events.KindAccountGranted, http.MethodPut, "/v1/accounts/"+a.id+"/grants",
		map[string]any{"grants": to.grants()},
		func(reply) { a.wide = to.wide })
}

func (c *client) suspendAccount(a *account) {
	c.will(events.KindAccountSuspended, http.MethodPost, "/v1/accounts/"+a.id+"/suspend", nil,
		func(reply) { a.suspended = true })
}

func (c *client) resumeAccount(a *account) {
	c.will(events.KindAccountResumed, http.MethodPost, "/v1/accounts/"+a.id+"/resume", nil,
		func(reply) { a.suspended = false })
}

// scopes returns scopes within the grants of the account.
func (c *client) scopes(a *account) []string {
	permissions := []string{"view", "write", "admin"}
	if !a.wide {
		permissions = permissions[:1]
	}
	var list []string
	for _, site := range c.rng.Perm(9)[:1+c.rng.IntN(3)] {
		list = append(list, fmt.Sprintf("%s:site/%d", permissions[c.rng.IntN(len(permissions))], site+1))
	}
	return list
}

func (c *client) createToken(a *account) {
	t := &token{account: a, scopes: c.scopes(a), state: events.Active}
	c.will(events.KindTokenCreated, http.MethodPost, "/v1/tokens",
		map[string]any{"account": a.login, "app": "cron", "device": c.name, "scopes": t.scopes},
		func(r reply) {
			t.id = r.about()
			c.shown(t, r)
			c.tokens = append(c.tokens, t)
		})
}

// shown records the secret in an answer. A ledger that was killed between the
// event and the answer cannot return the secret again.
func (c *client) shown(t *token, r reply) {
	t.current = r.Secret
	if r.Secret == "" {
		c.lost++
	}
}

func (c *client) scope(t *token) {
	scopes := c.scopes(t.account)
	body := map[string]any{"scopes": scopes}
	if c.rng.IntN(3) == 0 {
		body["device"] = "phone"
	}
	c.will(events.KindTokenScoped, http.MethodPatch, "/v1/tokens/"+t.id, body,
		func(reply) { t.scopes = scopes })
}

func (c *client) edit(t *token) {
	c.will(events.KindTokenEdited, http.MethodPatch, "/v1/tokens/"+t.id,
		map[string]any{"app": fmt.Sprintf("app %d", c.made)}, func(reply) {})
}

// rotate rotates the secret of a token. The old one has a grace period of an
// hour, longer than any test, or none.
func (c *client) rotate(t *token, grace bool) {
	body := map[string]any{"grace": 0, "end_earlier": true}
	if grace {
		body["grace"] = "1h"
	}
	c.will(events.KindTokenRotated, http.MethodPost, "/v1/tokens/"+t.id+"/rotate", body,
		func(r reply) {
			ended := []string{t.fading}
			t.fading = ""
			if grace {
				t.fading = t.current
			} else {
				ended = append(ended, t.current)
			}
			for _, s := range ended {
				if s != "" {
					t.dead = append(t.dead, s)
				}
			}
			c.shown(t, r)
		})
}

func (c *client) suspend(t *token) {
	c.will(events.KindTokenSuspended, http.MethodPost, "/v1/tokens/"+t.id+"/suspend",
		map[string]any{"reason": "away"}, func(reply) { t.state = events.Suspended })
}

func (c *client) resume(t *token) {
	c.will(events.KindTokenResumed, http.MethodPost, "/v1/tokens/"+t.id+"/resume", nil,
		func(reply) { t.state = events.Active })
}

func (c *client) revoke(t *token) {
	c.will(events.KindTokenRevoked, http.MethodPost, "/v1/tokens/"+t.id+"/revoke",
		map[string]any{"reason": "lost"},
		func(r reply) {
			t.state = events.Revoked
			c.w.mu.Lock()
			defer c.w.mu.Unlock()
			for _, s := range append(slices.Clone(t.dead), t.fading, t.current) {
				if s != "" {
					c.w.revoked = append(c.w.revoked, revocation{s, r.Position})
				}
			}
		})
}

// findLost rotates the tokens whose secrets were in lost answers, so that each
// has a known secret.
func (w *workload) findLost(ctx context.Context) error {
	for _, c := range w.clients {
		for _, t := range c.tokens {
			for t.current == "" && t.state != events.Revoked && !t.account.suspended {
				c.rotate(t, true)
				w.limit++
				w.begun.Add(1)
				if err := c.finish(ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// expectation is the answer that a node must give.
type expectation struct {
	about   string // the token's id
	secret  string
	need    string
	allowed bool
}

// expectations returns the expected answers after all acknowledged commands,
// for every secret.
func (w *workload) expectations() []expectation {
	var list []expectation
	for _, c := range w.clients {
		for _, t := range c.tokens {
			live := t.state == events.Active && !t.account.suspended
			add := func(secret string, good bool) {
				if secret == "" {
					return
				}
				for _, s := range t.scopes {
					permission, resource, _ := strings.Cut(s, ":")
					list = append(list,
						expectation{t.id, secret, "view:" + resource, good},
						expectation{t.id, secret, "admin:" + resource, good && permission == "admin" && t.account.wide})
				}
				list = append(list, expectation{t.id, secret, "view:site/77", false})
			}
			add(t.current, live)
			add(t.fading, live)
			for _, s := range t.dead {
				add(s, false)
			}
		}
	}
	return list
}
