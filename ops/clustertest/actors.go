package clustertest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// group is a group of clients that work with one token after another. Each
// token is ended while they work with it.
type group struct {
	load    *Load
	boss    *client // sends the commands of the root token
	slow    *client // sends requests in two parts
	workers []*client
}

// newGroup returns a group whose random choices come from streams of their own.
func (l *Load) newGroup(name string, stream uint64, workers int) *group {
	g := &group{load: l, boss: l.newClient(name, stream), slow: l.newClient(name+"half", ^stream)}
	for i := range workers {
		g.workers = append(g.workers, l.newClient(fmt.Sprintf("%sw%d", name, i), stream+1+uint64(i)))
	}
	return g
}

// work ends one token after another, each in a random way.
func (g *group) work(ctx context.Context) {
	for ctx.Err() == nil {
		g.round(ctx, waysToEnd[g.boss.rng.IntN(len(waysToEnd))])
		select {
		case <-ctx.Done():
		case <-time.After(g.load.options.RoamPause):
		}
	}
}

// wayToEnd is a command that ends a token, or removes a right that the work
// needs.
type wayToEnd struct {
	how  string
	task func(t *Token) task
}

// waysToEnd are all commands of a superuser that end a token.
var waysToEnd = []wayToEnd{
	{"revoked", func(t *Token) task { return onToken(t, events.KindTokenRevoked, "revoke") }},
	{"rotated without grace", func(t *Token) task {
		k := onToken(t, events.KindTokenRotated, "rotate")
		k.body = map[string]any{"grace": "0s", "end_earlier": true}
		return k
	}},
	{"suspended", func(t *Token) task { return onToken(t, events.KindTokenSuspended, "suspend") }},
	{"demoted", func(t *Token) task {
		k := onAccount(t.Account, events.KindAccountGranted, "grants")
		k.operation, k.method, k.change.Scopes = "grant", http.MethodPut, []events.Scope{}
		k.body = map[string]any{"grants": []string{}}
		return k
	}},
	{
		"suspended with its account",
		func(t *Token) task { return onAccount(t.Account, events.KindAccountSuspended, "suspend") },
	},
	{"erased with its account", func(t *Token) task { return onAccount(t.Account, events.KindAccountErased, "erase") }},
	{"revoked with all tokens of its account", func(t *Token) task {
		return task{
			change:    Change{Kind: events.KindAccountTokensRevoked, Many: &Many{Account: t.Account}},
			operation: "revoke-tokens", method: http.MethodPost, path: "/v1/revocations",
			body: map[string]any{"account": t.Account},
		}
	}},
}

// actor creates an account and a token that may create tokens for it.
func (g *group) actor(ctx context.Context) *Token {
	grants := append(allSites(), events.ManageTokens)
	c := g.boss
	change, a := c.carry(ctx, task{
		change: Change{Kind: events.KindAccountCreated, Scopes: grants}, method: http.MethodPost, path: "/v1/accounts",
		body: c.service(grants), roams: true, most: 4,
	})
	if change.Outcome != Done {
		return nil
	}
	t := newToken(a.About(), "actor", "actor")
	k := creation(t, nil, grants...)
	k.roams, k.most = true, 4
	if change, _ := c.carry(ctx, k); change.Outcome != Done {
		return nil
	}
	g.load.offer(t)
	return t
}

// round lets the workers create tokens with a token, ends the token meanwhile,
// and returns when every worker has tried once more. It reports whether the end
// was acknowledged.
func (g *group) round(ctx context.Context, way wayToEnd) bool {
	t := g.actor(ctx)
	if t == nil {
		return false
	}
	over := make(chan struct{})
	var done atomic.Int64
	var wg sync.WaitGroup
	for _, w := range g.workers {
		wg.Go(func() {
			for last := false; !last && ctx.Err() == nil; {
				select {
				case <-over:
					last = true
				default:
				}
				if w.createAs(ctx, t) {
					done.Add(1)
				}
				select {
				case <-over:
				case <-time.After(g.load.options.WorkPause):
				}
			}
		})
	}
	wg.Go(func() { g.slow.halfOpen(ctx, t, over) })
	// The end comes at a random moment of the work. With faults, the workers
	// may not have created any token.
	want, patience := int64(1+g.boss.rng.IntN(2*len(g.workers))), time.After(2*time.Second)
	for waiting := true; waiting && done.Load() < want; {
		select {
		case <-patience:
			waiting = false
		case <-ctx.Done():
			waiting = false
		case <-time.After(time.Millisecond):
		}
	}
	change := g.end(ctx, t, way)
	close(over)
	wg.Wait()
	g.load.rounds.Add(1)
	return change.Outcome == Done
}

// end ends a token, and waits for the receipt.
func (g *group) end(ctx context.Context, t *Token, way wayToEnd) Change {
	k := way.task(t)
	k.change.Ends, k.change.Account = t, t.Account
	k.wait, k.roams, k.most = true, true, 6
	g.load.withdraw(true, ending{t, scope(1)})
	change, _ := g.boss.carry(ctx, k)
	g.load.Ended(Ending{How: way.how, Actor: t, Change: change})
	return change
}

// createAs creates a token with the token of an actor, and reports whether the
// command was acknowledged.
func (c *client) createAs(ctx context.Context, actor *Token) bool {
	k := creation(newToken(actor.Account, "work", c.name), actor, scope(1))
	k.roams, k.most = true, 2
	change, _ := c.carry(ctx, k)
	if change.Outcome == Done {
		c.load.offer(change.Made)
	}
	return change.Outcome == Done
}

// halfOpenTimeout bounds a request that is sent in two parts.
const halfOpenTimeout = 20 * time.Second

// halfOpen sends the first part of a request that creates a token with an
// actor's token, and the rest after the actor has ended. The ledger must not
// decide when it has read only the headers.
func (c *client) halfOpen(ctx context.Context, actor *Token, over <-chan struct{}) {
	k := creation(newToken(actor.Account, "half", c.name), actor, scope(1))
	change := k.change
	c.made++
	change.Client, change.Key = c.name, fmt.Sprintf("%s-%s-%d", c.load.run, c.name, c.made)
	ledgers := c.load.cluster.Ledgers()
	n := ledgers[c.rng.IntN(len(ledgers))]
	change.Ledger, change.Tries, change.Began = n.Name, 1, c.load.Now()
	change.Sent = change.Began
	number := c.load.Begin(change)
	a, err := c.inTwoParts(ctx, n, k, change.Key, over)
	change.Outcome, change.Ended = Unknown, c.load.Now()
	switch {
	case err != nil:
	case a.Status == http.StatusCreated:
		change.Outcome, change.Position, change.About = Done, a.Position, a.About()
	case k.refuses(a.Code):
		change.Outcome, change.Code = Refused, a.Code
	}
	c.load.History.End(number, change)
}

// inTwoParts sends the head of a request and the first byte of its body. It
// sends the rest when a channel is closed. It returns the answer, even if the
// answer comes earlier.
func (c *client) inTwoParts(ctx context.Context, n *Node, k task, key string, rest <-chan struct{}) (Answer, error) {
	body, err := json.Marshal(k.body)
	if err != nil {
		return Answer{}, err
	}
	host := strings.TrimPrefix(n.API, "http://")
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", host)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(halfOpenTimeout)); err != nil {
		return Answer{}, err
	}
	head := []string{
		k.method + " " + k.path + " HTTP/1.1", "Host: " + host, "Authorization: Bearer " + k.change.By.Secret,
		"Idempotency-Key: " + key, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)), "", "",
	}
	if _, err := io.WriteString(conn, strings.Join(head, "\r\n")+string(body[:1])); err != nil {
		return Answer{}, err
	}
	select {
	case <-rest:
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
	if _, err := conn.Write(body[1:]); err != nil {
		return Answer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	return a, json.NewDecoder(resp.Body).Decode(&a)
}
