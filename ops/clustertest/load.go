package clustertest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// LoadOptions configure a [Load].
type LoadOptions struct {
	Seed uint64
	// Clients is the number of goroutines that send commands. Zero means 8, and
	// a negative number none.
	Clients int
	// Checkers is the number of goroutines that check each node. Zero means 2.
	Checkers int
	// Pause is the pause between two checks of a goroutine. Zero means 5 ms.
	Pause time.Duration
	// Wait is how long a client waits for a receipt. Zero means 12 s.
	Wait time.Duration
	// Roamers is the number of goroutines that change shared records through
	// any ledger, and RoamPause their pause between two steps.
	Roamers   int
	RoamPause time.Duration
	// Actors is the number of groups of clients that work with tokens while the
	// tokens are ended. Workers is the number of clients in each group.
	Actors, Workers int
	// WorkPause is the pause of a worker between two commands.
	WorkPause time.Duration
}

// Load is a set of clients that send commands through any ledger, and checks to
// every node. A history records all of it.
type Load struct {
	*History

	cluster *Cluster
	options LoadOptions
	root    string // the secret of the commands
	run     string // part of all keys
	waits   map[string]bool
	commons commons
	rounds  atomic.Int64 // of groups of actors

	cancel context.CancelFunc
	wg     sync.WaitGroup

	done, proved, unknown, refusals atomic.Int64 // commands
	allowed, denied, unavailable    atomic.Int64 // checks
	alarm                           func(format string, args ...any)

	mu       sync.Mutex
	live     []*Token       // guarded by mu, like all below; valid tokens, as far as their clients know
	ended    []ending       // tokens that lost a right, latest last
	problems map[string]int // answers that must not occur -> number
}

// ending is a token, and the scope that it has lost.
type ending struct {
	token *Token
	need  events.Scope
}

// Begin starts a load on a cluster that is ready. The load runs until the test
// ends or [Load.End].
func Begin(t testing.TB, c *Cluster, o LoadOptions) *Load {
	t.Helper()
	def := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	def(&o.Clients, 8)
	def(&o.Checkers, 2)
	if o.Pause == 0 {
		o.Pause = 5 * time.Millisecond
	}
	if o.Wait == 0 {
		o.Wait = 12 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{
		History: NewHistory(c.Journal.began), cluster: c, options: o, root: c.Root(t), run: fmt.Sprintf("%x", o.Seed),
		waits: c.waits(t), cancel: cancel, problems: map[string]int{},
		alarm: func(format string, args ...any) { c.Journal.Note("load", format, args...) },
	}
	for i := range max(o.Clients, 0) {
		client := l.newClient(fmt.Sprintf("c%d", i), 100+uint64(i))
		l.wg.Go(func() { client.work(ctx) })
	}
	for i := range o.Roamers {
		client := l.newClient(fmt.Sprintf("r%d", i), 200+uint64(i))
		l.wg.Go(func() { client.roam(ctx) })
	}
	for i := range o.Actors {
		group := l.newGroup(fmt.Sprintf("a%d", i), 300+100*uint64(i), o.Workers)
		l.wg.Go(func() { group.work(ctx) })
	}
	for i, n := range c.Nodes {
		for j := range o.Checkers {
			rng := rand.New(rand.NewPCG(o.Seed, uint64(1000+100*i+j)))
			l.wg.Go(func() { l.check(ctx, n, rng) })
		}
	}
	t.Cleanup(l.End)
	return l
}

// newClient returns a client with its own source of random choices.
func (l *Load) newClient(name string, stream uint64) *client {
	return &client{load: l, name: name, rng: rand.New(rand.NewPCG(l.options.Seed, stream))}
}

// End ends the load, and returns when all clients have stopped.
func (l *Load) End() {
	l.cancel()
	l.wg.Wait()
}

// Tally counts the commands and checks of a load.
type Tally struct {
	Done, Proved, Unknown        int64 // commands; Unknown have timed out
	Refusals                     int64 // answers that the ledger is unavailable
	Allowed, Denied, Unavailable int64 // checks
}

// Tally returns the counts so far.
func (l *Load) Tally() Tally {
	return Tally{
		l.done.Load(), l.proved.Load(), l.unknown.Load(), l.refusals.Load(),
		l.allowed.Load(), l.denied.Load(), l.unavailable.Load(),
	}
}

// Problems returns answers to commands that must not occur, and their numbers.
func (l *Load) Problems() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.problems)
}

// Proofs waits until so many more commands have a receipt.
func (l *Load) Proofs(t testing.TB, n int64) {
	t.Helper()
	want := l.proved.Load() + n
	wait.Until(t, fmt.Sprintf("%d more commands are proved", n), func() bool { return l.proved.Load() >= want })
}

// Commands waits until so many more commands are acknowledged.
func (l *Load) Commands(t testing.TB, n int64) {
	t.Helper()
	want := l.done.Load() + n
	wait.Until(t, fmt.Sprintf("%d more commands are acknowledged", n), func() bool { return l.done.Load() >= want })
}

// offer adds a token to those that are checked.
func (l *Load) offer(t *Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = append(l.live, t)
}

// withdraw records that tokens are losing a right.
func (l *Load) withdraw(gone bool, list ...ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, list...)
	const most = 4000
	if n := len(l.ended) - most; n > 0 {
		l.ended = slices.Delete(l.ended, 0, n)
	}
	if gone {
		for _, e := range list {
			if i := slices.Index(l.live, e.token); i >= 0 {
				l.live = slices.Delete(l.live, i, i+1)
			}
		}
	}
}

// pick returns a token to check: usually one that lost a right recently,
// otherwise a valid one, usually a new one.
func (l *Load) pick(rng *rand.Rand) (ending, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	late := func(n int) int { return n - 1 - min(rng.IntN(n), rng.IntN(n), rng.IntN(n)) }
	if n := len(l.ended); n > 0 && rng.IntN(10) < 6 {
		if rng.IntN(4) > 0 {
			return l.ended[n-1-rng.IntN(min(n, 24))], true
		}
		return l.ended[rng.IntN(n)], true
	}
	if n := len(l.live); n > 0 {
		return ending{l.live[late(n)], scope(1 + rng.IntN(sites))}, true
	}
	return ending{}, false
}

// check sends checks to a node until the load ends.
func (l *Load) check(ctx context.Context, n *Node, rng *rand.Rand) {
	tick := time.NewTicker(l.options.Pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if about, ok := l.pick(rng); ok {
			l.Ask(ctx, n, about.token, about.need)
		}
	}
}

// checkTimeout bounds a check. It is long, so that checks are in flight at a
// paused node.
const checkTimeout = 20 * time.Second

// Ask checks a token with a node, and records the check.
func (l *Load) Ask(ctx context.Context, n *Node, token *Token, need events.Scope) Check {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c := Check{Node: n.Name, Token: token, Need: need, Verdict: Silent, Began: l.Now()}
	a, err := n.Check(ctx, token.Secret, need.String())
	c.Ended, c.Position = l.Now(), a.Position
	switch {
	case err != nil:
		return c // no answer
	case a.Status == http.StatusServiceUnavailable:
		c.Verdict = Unavailable
		l.unavailable.Add(1)
	case a.Status != http.StatusOK:
		l.problem("%s answered a check with %s", n.Name, a)
		return c
	case a.Allowed:
		c.Verdict = Allowed
		l.allowed.Add(1)
	default:
		c.Verdict = Denied
		l.denied.Add(1)
	}
	l.Checked(c)
	return c
}

func (l *Load) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.alarm("%s", text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems[text]++
}

// sites is the number of sites.
const sites = 6

func scope(site int) events.Scope {
	list, err := events.ParseScopes([]string{fmt.Sprintf("view:site/%d", site)})
	if err != nil {
		panic(err) // the text is a constant
	}
	return list[0]
}

// waits returns which commands can be waited for, by the name of the operation.
func (c *Cluster) waits(t testing.TB) map[string]bool {
	t.Helper()
	type operation struct {
		ID         string `json:"operationId"`
		Parameters []struct {
			Name string `json:"name"`
		} `json:"parameters"`
	}
	var d struct {
		Paths map[string]map[string]operation `json:"paths"`
	}
	if err := getJSON(t.Context(), c.Ledgers()[0].API+"/openapi.json", &d); err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, methods := range d.Paths {
		for _, o := range methods {
			for _, p := range o.Parameters {
				if p.Name == "wait" {
					out[o.ID] = true
				}
			}
		}
	}
	if len(out) == 0 {
		t.Fatal("no command can be waited for")
	}
	return out
}

// client changes its own records, one command after another. It is not safe for
// concurrent use.
type client struct {
	load     *Load
	name     string
	rng      *rand.Rand
	made     int // commands
	accounts []*account
	seen     events.Position // highest position in an answer
}

// account is the state of an account of a client.
type account struct {
	id        string
	suspended bool
	lost      bool // its state is unknown
	tokens    []*holding
}

// holding is the state of a token of a client.
type holding struct {
	*Token
	scopes    []events.Scope
	suspended bool
	lost      bool // its state is unknown
}

func (c *client) work(ctx context.Context) {
	for ctx.Err() == nil {
		c.step(ctx)
	}
}

// tokens returns the tokens of accounts that are not suspended.
func (c *client) tokens(wanted func(*holding) bool) (list []choice) {
	for _, a := range c.accounts {
		if a.suspended || a.lost {
			continue
		}
		for _, h := range a.tokens {
			if !h.lost && wanted(h) {
				list = append(list, choice{a, h})
			}
		}
	}
	return list
}

type choice struct {
	account *account
	token   *holding
}

// step runs one command.
func (c *client) step(ctx context.Context) {
	usable := slices.DeleteFunc(slices.Clone(c.accounts), func(a *account) bool { return a.lost })
	if len(usable) < 2 {
		c.createAccount(ctx)
		return
	}
	for _, a := range usable {
		if a.suspended && c.rng.IntN(2) == 0 {
			c.account(ctx, a, "resume", events.KindAccountResumed)
			return
		}
	}
	open := slices.DeleteFunc(usable, func(a *account) bool { return a.suspended })
	active := c.tokens(func(h *holding) bool { return !h.suspended })
	if len(open) > 0 && len(active) < 3 {
		c.createToken(ctx, open[c.rng.IntN(len(open))])
		return
	}
	if len(active) == 0 {
		return // all accounts are suspended; the next step may resume one
	}
	pick := active[c.rng.IntN(len(active))]
	switch roll := c.rng.IntN(100); {
	case roll < 35:
		c.createToken(ctx, open[c.rng.IntN(len(open))])
	case roll < 65:
		c.token(ctx, pick, "revoke", events.KindTokenRevoked)
	case roll < 75:
		c.token(ctx, pick, "suspend", events.KindTokenSuspended)
	case roll < 87:
		c.narrow(ctx, pick)
	case roll < 91:
		c.account(ctx, pick.account, "suspend", events.KindAccountSuspended)
	default:
		if stopped := c.tokens(func(h *holding) bool { return h.suspended }); len(stopped) > 0 {
			c.token(ctx, stopped[c.rng.IntN(len(stopped))], "resume", events.KindTokenResumed)
		}
	}
}

func (c *client) createAccount(ctx context.Context) {
	change := Change{Kind: events.KindAccountCreated, Scopes: allSites()}
	body := map[string]any{
		"login":  fmt.Sprintf("%s.%s-%d", c.load.run, c.name, c.made),
		"kind":   "user",
		"grants": events.ScopeStrings(change.Scopes),
	}
	k := task{change: change, method: http.MethodPost, path: "/v1/accounts", body: body}
	if change, a := c.do(ctx, k); change.Outcome == Done {
		c.accounts = append(c.accounts, &account{id: a.About()})
	}
}

func allSites() []events.Scope {
	list, err := events.ParseScopes([]string{"admin:site/*"})
	if err != nil {
		panic(err) // the text is a constant
	}
	return list
}

func (c *client) createToken(ctx context.Context, a *account) {
	h := &holding{}
	for site := range sites {
		h.scopes = append(h.scopes, scope(site+1))
	}
	change, answer := c.do(ctx, task{
		change: Change{Kind: events.KindTokenCreated, Scopes: h.scopes}, method: http.MethodPost, path: "/v1/tokens",
		body: map[string]any{"account": a.id, "app": "load", "scopes": events.ScopeStrings(h.scopes)},
	})
	if change.Outcome != Done || answer.Secret == "" {
		return // the secret was in a lost answer
	}
	digest, ok := events.DefaultFormat.DigestOf(answer.Secret)
	if !ok {
		c.load.problem("%s made a token whose secret is none", change.Ledger)
		return
	}
	h.Token = &Token{ID: answer.About(), Account: a.id, Secret: answer.Secret, Digest: digest}
	a.tokens = append(a.tokens, h)
	c.load.offer(h.Token)
}

// token suspends, resumes or revokes a token.
func (c *client) token(ctx context.Context, pick choice, verb string, kind events.Kind) {
	h := pick.token
	operation := verb + "-token"
	taken := ending{h.Token, h.scopes[c.rng.IntN(len(h.scopes))]}
	if verb != "resume" {
		c.load.withdraw(verb == "revoke", taken)
	} else {
		operation = ""
	}
	change, _ := c.do(ctx, task{
		change: Change{Kind: kind, About: h.ID}, operation: operation,
		method: http.MethodPost, path: "/v1/tokens/" + h.ID + "/" + verb,
	})
	switch {
	case change.Outcome != Done:
		h.lost = true
	case verb == "revoke":
		pick.account.tokens = slices.DeleteFunc(pick.account.tokens, func(o *holding) bool { return o == h })
	default:
		h.suspended = verb == "suspend"
	}
	c.sharp(ctx, change, taken)
}

// narrow removes one of a token's sites, or restores all.
func (c *client) narrow(ctx context.Context, pick choice) {
	h := pick.token
	operation := "edit-token"
	var scopes []events.Scope
	var taken ending
	if len(h.scopes) > 2 {
		i := c.rng.IntN(len(h.scopes))
		taken = ending{h.Token, h.scopes[i]}
		scopes = slices.Delete(slices.Clone(h.scopes), i, i+1)
		c.load.withdraw(false, taken)
	} else {
		operation = ""
		for site := range sites {
			scopes = append(scopes, scope(site+1))
		}
	}
	change, _ := c.do(ctx, task{
		change: Change{Kind: events.KindTokenScoped, About: h.ID, Scopes: scopes}, operation: operation,
		method: http.MethodPatch, path: "/v1/tokens/" + h.ID,
		body: map[string]any{"scopes": events.ScopeStrings(scopes)},
	})
	if change.Outcome != Done {
		h.lost = true
		return
	}
	h.scopes = scopes
	if taken.token != nil {
		c.sharp(ctx, change, taken)
	}
}

// account suspends or resumes an account, with all of its tokens.
func (c *client) account(ctx context.Context, a *account, verb string, kind events.Kind) {
	operation := verb + "-account"
	var taken []ending
	if verb == "suspend" {
		for _, h := range a.tokens {
			if !h.suspended && !h.lost {
				taken = append(taken, ending{h.Token, h.scopes[c.rng.IntN(len(h.scopes))]})
			}
		}
		c.load.withdraw(false, taken...)
	} else {
		operation = ""
	}
	change, _ := c.do(ctx, task{
		change: Change{Kind: kind, About: a.id}, operation: operation,
		method: http.MethodPost, path: "/v1/accounts/" + a.id + "/" + verb,
	})
	if change.Outcome != Done {
		a.lost = true
		return
	}
	a.suspended = verb == "suspend"
	c.sharp(ctx, change, taken...)
}

// sharp checks with every node, at once after the receipt, a right that a token
// has lost. A later check would be an easier test.
func (c *client) sharp(ctx context.Context, change Change, taken ...ending) {
	if change.Proved == 0 || len(taken) == 0 {
		return
	}
	// A paused node must not block the client.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, n := range c.load.cluster.Nodes {
		e := taken[c.rng.IntN(len(taken))]
		wg.Go(func() { c.load.Ask(ctx, n, e.token, e.need) })
	}
	wg.Wait()
}

// task is a command with its request.
type task struct {
	change       Change
	operation    string // name of the operation if the client may wait for a receipt
	method, path string
	body         any
	wait         bool // wait for a receipt if possible
	// roams sends the request to any ledger without a minimum position, and
	// accepts a refusal because of the state of the log as an answer.
	roams bool
	most  int // maximum number of tries; 0 for no limit
}

// do runs a command. It sends the request to any ledger, and retries until the
// command is acknowledged or the client gives up.
func (c *client) do(ctx context.Context, k task) (Change, Answer) {
	if c.rng.IntN(8) == 0 {
		k.most = 2 // the client gives up early, and the outcome stays unknown
	}
	return c.carry(ctx, k)
}

// carry runs a task.
func (c *client) carry(ctx context.Context, k task) (Change, Answer) {
	change := k.change
	if change.Key == "" {
		c.made++
		change.Key = fmt.Sprintf("%s-%s-%d", c.load.run, c.name, c.made)
	}
	change.Client, change.Outcome, change.Began = c.name, Unknown, c.load.Now()
	if c.load.waits[k.operation] && (k.wait || c.rng.IntN(3) > 0) {
		change.Waited = true
		k.path += "?wait=" + c.load.options.Wait.String()
	}
	number := c.load.Begin(change)
	var last Answer
	for ctx.Err() == nil && (k.most == 0 || change.Tries < k.most) {
		if last = c.attempt(ctx, k, &change); change.Outcome != Unknown || change.Code != "" {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(20+c.rng.IntN(80)) * time.Millisecond):
		}
	}
	change.Ended = c.load.Now()
	switch {
	case change.Outcome == Done:
		c.load.done.Add(1)
		if change.Proved > 0 {
			c.load.proved.Add(1)
		}
	default:
		c.load.unknown.Add(1)
	}
	c.load.History.End(number, change)
	return change, last
}

// attempt sends a task once to a random ledger, and records the answer.
func (c *client) attempt(ctx context.Context, k task, change *Change) Answer {
	ledgers := c.load.cluster.Ledgers()
	n := ledgers[c.rng.IntN(len(ledgers))]
	change.Tries++
	change.Ledger, change.Sent = n.Name, c.load.Now()
	r := Request{Method: k.method, URL: n.API + k.path, Secret: c.load.root, Key: change.Key, Body: k.body}
	if change.By != nil {
		r.Secret = change.By.Secret
	}
	if !k.roams {
		r.MinPosition = c.seen
	}
	var many struct {
		Matched int      `json:"matched"`
		Tokens  []string `json:"tokens"`
	}
	if change.Many != nil {
		r.Into = &many
	}
	a, err := c.try(ctx, n, r)
	switch {
	case err != nil:
	case a.Status == http.StatusOK || a.Status == http.StatusCreated:
		change.Outcome, change.Position = Done, a.Position
		if at, ok := a.Proof(); ok && change.Waited {
			change.Proved = at
		}
		if change.About == "" && change.Many == nil {
			change.About = a.About()
		}
		if change.Made != nil {
			change.Made.ID = a.About() // no other client has the token yet
		}
		if change.Many != nil {
			filled := *change.Many
			filled.Matched, filled.Revoked = many.Matched, many.Tokens
			change.Many = &filled
		}
		c.seen = max(c.seen, a.Position)
	case a.Status == http.StatusServiceUnavailable:
		c.load.refusals.Add(1)
	case k.refuses(a.Code):
		change.Code, change.Version = a.Code, a.Version
		if change.Tries == 1 {
			change.Outcome = Refused
		}
	default:
		// Every command is possible.
		c.load.problem("%s, try %d: %s %s of %s: %s", n.Name, change.Tries, k.method, k.path, change.Kind, a)
		if change.Tries == 1 {
			change.Outcome = Refused
		}
	}
	return a
}

// refuses reports whether a problem is a valid answer to the task: commands on
// shared records conflict, and an actor works on after its end.
func (k task) refuses(code string) bool {
	switch code {
	case codeNotFound, codeEnded, codeConflict:
		return k.roams
	case codeUnauthenticated, codeForbidden:
		return k.change.By != nil
	}
	return false
}

// try sends a request once.
func (c *client) try(ctx context.Context, n *Node, r Request) (Answer, error) {
	if p := n.Process(); p == nil || p.Exited() {
		return Answer{}, fmt.Errorf("%s is not running", n.Name)
	}
	limit := 4*time.Second + c.load.options.Wait
	if c.rng.IntN(20) == 0 {
		// The timeout is so short that the ledger may still work on this try
		// when the next one arrives.
		limit = time.Duration(c.rng.IntN(8000)) * time.Microsecond
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return Send(ctx, r)
}
