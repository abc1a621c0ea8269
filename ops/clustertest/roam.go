package clustertest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// commons is the set of accounts and tokens that all roamers share.
type commons struct {
	mu       sync.Mutex
	accounts []string // guarded by mu, like all below
	tokens   []*Token // that were not revoked individually
	sent     []task   // acknowledged tasks, latest last
}

// Sizes of the commons: few records, so that commands conflict.
const (
	sharedAccounts = 3
	sharedTokens   = 10
	sharedDevices  = 4
	sharedApps     = 3
)

// take returns a random element of a list, or false if the list is empty.
func take[T any](c *client, mu *sync.Mutex, list *[]T) (one T, ok bool) {
	mu.Lock()
	defer mu.Unlock()
	if len(*list) == 0 {
		return one, false
	}
	return (*list)[c.rng.IntN(len(*list))], true
}

// keep stores an acknowledged task, so that its request can be repeated.
func (m *commons) keep(k task) {
	const most = 200
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sent = append(m.sent, k); len(m.sent) > most {
		m.sent = slices.Delete(m.sent, 0, len(m.sent)-most)
	}
}

// drop removes a token from the commons.
func (m *commons) drop(t *Token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens = slices.DeleteFunc(m.tokens, func(other *Token) bool { return other == t })
}

// roam changes shared records through any ledger, without a minimum position.
// It also repeats acknowledged requests.
func (c *client) roam(ctx context.Context) {
	for ctx.Err() == nil {
		c.wander(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(c.load.options.RoamPause):
		}
	}
}

// wander carries out one step of a roamer: some commands on one record.
func (c *client) wander(ctx context.Context) {
	m := &c.load.commons
	m.mu.Lock()
	accounts, tokens := len(m.accounts), len(m.tokens)
	m.mu.Unlock()
	account, _ := take(c, &m.mu, &m.accounts)
	token, _ := take(c, &m.mu, &m.tokens)
	switch roll := c.rng.IntN(100); {
	case accounts < sharedAccounts:
		c.shareAccount(ctx)
	case tokens < sharedTokens:
		c.shareToken(ctx, account, fmt.Sprintf("shared-%d", c.rng.IntN(sharedDevices)))
	case roll < 45:
		c.toggle(ctx, token)
	case roll < 55:
		c.narrowShared(ctx, token)
	case roll < 63:
		// After two concurrent rotations it is unknown which secret is the
		// last. So the new secrets are not checked.
		k := onToken(token, events.KindTokenRotated, "rotate")
		k.body = map[string]any{"grace": "0s", "end_earlier": true}
		c.onShared(ctx, token, k)
	case roll < 69:
		m.drop(token)
		c.onShared(ctx, token, onToken(token, events.KindTokenRevoked, "revoke"))
	case roll < 79:
		c.createAndRevoke(ctx, account)
	case roll < 81:
		c.revokeMany(ctx, Many{App: fmt.Sprintf("app-%d", c.rng.IntN(sharedApps))})
	case roll < 83:
		c.revokeMany(ctx, Many{Account: account})
	case roll < 90:
		c.toggleAccount(ctx, account)
	default:
		c.repeat(ctx)
	}
}

// shared runs a task of a roamer, and stores it if it was acknowledged.
func (c *client) shared(ctx context.Context, k task) (Change, Answer) {
	k.roams, k.most = true, 4
	change, a := c.carry(ctx, k)
	if change.Outcome == Done {
		k.change = change
		c.load.commons.keep(k)
	}
	return change, a
}

func (c *client) shareAccount(ctx context.Context) {
	change, a := c.shared(ctx, task{
		change: Change{
			Kind:   events.KindAccountCreated,
			Scopes: allSites(),
		}, method: http.MethodPost, path: "/v1/accounts",
		body: c.service(allSites()),
	})
	if change.Outcome == Done {
		m := &c.load.commons
		m.mu.Lock()
		defer m.mu.Unlock()
		m.accounts = append(m.accounts, a.About())
	}
}

// service returns the body of a request to create a service account.
func (c *client) service(grants []events.Scope) map[string]any {
	return map[string]any{
		"login": fmt.Sprintf(
			"%s.%s-%d",
			c.load.run,
			c.name,
			c.made,
		), "kind": "service", "grants": events.ScopeStrings(grants),
	}
}

// onToken returns the task of a command on a token, named by the verb of its
// path.
func onToken(t *Token, kind events.Kind, verb string) task {
	return task{
		change:    Change{Kind: kind, About: t.ID, Account: t.Account},
		operation: verb + "-token", method: http.MethodPost, path: "/v1/tokens/" + t.ID + "/" + verb,
	}
}

// onAccount is onToken for a command on an account.
func onAccount(id string, kind events.Kind, verb string) task {
	return task{
		change:    Change{Kind: kind, About: id, Account: id},
		operation: verb + "-account", method: http.MethodPost, path: "/v1/accounts/" + id + "/" + verb,
	}
}

// newToken returns a token with a secret from the client, so that the secret is
// known even if the answer is lost.
func newToken(account, app, device string) *Token {
	s := events.DefaultFormat.NewSecret(events.ServiceAccount)
	return &Token{Account: account, Secret: s.Reveal(), Digest: s.Digest(), App: app, Device: device}
}

// creation returns the task of creating a token.
func creation(t *Token, by *Token, scopes ...events.Scope) task {
	digest, err := t.Digest.MarshalText()
	if err != nil {
		panic(err) // every digest has a text
	}
	return task{
		change: Change{Kind: events.KindTokenCreated, Account: t.Account, Scopes: scopes, Made: t, By: by},
		method: http.MethodPost, path: "/v1/tokens",
		body: map[string]any{
			"account": t.Account, "app": t.App, "device": t.Device,
			"scopes": events.ScopeStrings(scopes), "secret_digest": string(digest),
		},
	}
}

// shareToken creates a token, for all roamers to change.
func (c *client) shareToken(ctx context.Context, account, device string) *Token {
	t := newToken(account, fmt.Sprintf("app-%d", c.rng.IntN(sharedApps)), device)
	change, _ := c.shared(ctx, creation(t, nil, scope(1), scope(2+c.rng.IntN(sites-1))))
	if change.Outcome != Done {
		return nil
	}
	c.load.offer(t)
	m := &c.load.commons
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens = append(m.tokens, t)
	return t
}

// toggle suspends and resumes a token several times, each through a random
// ledger. Each ledger must see the command before.
func (c *client) toggle(ctx context.Context, t *Token) {
	suspend := c.rng.IntN(2) == 0
	for range 2 + c.rng.IntN(4) {
		if suspend {
			c.onShared(ctx, t, onToken(t, events.KindTokenSuspended, "suspend"))
		} else {
			c.onShared(ctx, t, onToken(t, events.KindTokenResumed, "resume"))
		}
		if c.rng.IntN(8) > 0 { // else repeat the command, which finds nothing to do
			suspend = !suspend
		}
	}
}

// narrowShared gives a token another site than it had.
func (c *client) narrowShared(ctx context.Context, t *Token) {
	scopes := []events.Scope{scope(1 + c.rng.IntN(sites))}
	c.onShared(ctx, t, task{
		change:    Change{Kind: events.KindTokenScoped, About: t.ID, Account: t.Account, Scopes: scopes},
		operation: "edit-token", method: http.MethodPatch, path: "/v1/tokens/" + t.ID,
		body: map[string]any{"scopes": events.ScopeStrings(scopes)},
	})
}

// onShared runs one command on a token, and lets clients check the token.
func (c *client) onShared(ctx context.Context, t *Token, k task) Change {
	if k.change.Kind != events.KindTokenResumed {
		c.load.withdraw(k.change.Kind == events.KindTokenRevoked, ending{t, scope(1)})
	}
	change, _ := c.shared(ctx, k)
	return change
}

// toggleAccount suspends and resumes an account, and grants it something.
func (c *client) toggleAccount(ctx context.Context, account string) {
	suspend := c.rng.IntN(3) == 0
	for range 3 {
		k := onAccount(account, events.KindAccountResumed, "resume")
		if suspend {
			k = onAccount(account, events.KindAccountSuspended, "suspend")
		}
		c.shared(ctx, k)
		suspend = !suspend && c.rng.IntN(2) == 0
	}
	c.shared(ctx, onAccount(account, events.KindAccountResumed, "resume"))
	grants := allSites()
	if c.rng.IntN(2) == 0 {
		grants = append(grants, events.MustScope("audit"))
	}
	k := onAccount(account, events.KindAccountGranted, "grants")
	k.operation, k.method, k.change.Scopes = "grant", http.MethodPut, grants
	k.body = map[string]any{"grants": events.ScopeStrings(grants)}
	c.shared(ctx, k)
}

// createAndRevoke creates tokens of one device and revokes them together.
func (c *client) createAndRevoke(ctx context.Context, account string) {
	c.made++
	device := fmt.Sprintf("%s-%d", c.name, c.made)
	for range 1 + c.rng.IntN(3) {
		t := newToken(account, "bulk", device)
		change, _ := c.shared(ctx, creation(t, nil, scope(1)))
		if change.Outcome != Done {
			break
		}
	}
	c.revokeMany(ctx, Many{Device: device})
}

// revokeMany revokes all tokens with a label.
func (c *client) revokeMany(ctx context.Context, m Many) Change {
	body := map[string]any{}
	for name, value := range map[string]string{"account": m.Account, "app": m.App, "device": m.Device} {
		if value != "" {
			body[name] = value
		}
	}
	kind := events.KindTokenRevoked
	if m.App == "" && m.Device == "" {
		kind = events.KindAccountTokensRevoked // one event ends all of them
	}
	change, _ := c.shared(ctx, task{
		change:    Change{Kind: kind, Many: &m},
		operation: "revoke-tokens", method: http.MethodPost, path: "/v1/revocations", body: body,
	})
	shared := &c.load.commons
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.tokens = slices.DeleteFunc(shared.tokens, m.means)
	return change
}

// repeat repeats a request that was acknowledged earlier, with its idempotency
// key. It must not take effect again.
func (c *client) repeat(ctx context.Context) {
	m := &c.load.commons
	k, ok := take(c, &m.mu, &m.sent)
	// A repeated bulk revocation continues with the tokens that are left.
	if !ok || k.change.Many != nil || k.change.Late {
		return
	}
	k.change = Change{
		Kind: k.change.Kind, About: k.change.About, Account: k.change.Account, Scopes: k.change.Scopes,
		By: k.change.By, Key: k.change.Key, Late: true,
	}
	k.operation, k.roams, k.most = "", true, 2
	c.carry(ctx, k)
}
