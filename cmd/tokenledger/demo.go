package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier"
)

func newDemoCmd(e *env) *cobra.Command {
	keep := false
	c := &cobra.Command{
		Use:   "demo",
		Short: "Try a ledger, three verifiers and a client in this process",
		Long: `Starts a ledger and three verifiers in this process, on loopback and in a temporary
folder. It then acts as a client: it creates a token, checks it and revokes it, and
prints how long each step took.`,
		Example: `  tokenledger demo
  tokenledger demo --keep`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "tokenledger-demo-")
			if err != nil {
				return err
			}
			d := &demo{env: e, dir: dir}
			err = d.run(c.Context(), keep)
			return errors.Join(err, d.stop(), os.RemoveAll(dir))
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "keep running afterwards, and show what to try next")
	return c
}

// demo is one run of the demonstration.
type demo struct {
	env       *env
	dir       string
	running   []*runningNode // in order of start
	ledger    *client.Client
	verifiers []*client.Client
}

// runningNode is a node of this process.
type runningNode struct {
	*node.Node
	stop context.CancelFunc
	done chan error
}

func (d *demo) run(ctx context.Context, keep bool) error {
	d.env.Printf("A ledger, three verifiers and a client, in one process:\n\n")
	if err := d.startAll(ctx); err != nil {
		return err
	}
	if err := d.play(ctx); err != nil {
		return err
	}
	if !keep {
		d.env.Printf(
			"\nNext: 'tokenledger demo --keep' keeps this running; 'tokenledger serve' runs a node of your own.\n",
		)
		return nil
	}
	return d.stay(ctx)
}

func (d *demo) startAll(ctx context.Context) error {
	begun := time.Now()
	l, err := d.start(ctx, node.Config{Name: "ledger", Roles: []string{node.RoleLedger}, NATSListen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	addrs := l.Addresses()
	d.step(begun, "ledger", "%s", addrs.API)
	root, err := os.ReadFile(filepath.Join(d.dir, "ledger", datadir.RootToken))
	if err != nil {
		return err
	}
	if d.ledger, err = d.client("the ledger", addrs.API, strings.TrimSpace(string(root))); err != nil {
		return err
	}
	for i := range 3 {
		begun := time.Now()
		name := fmt.Sprintf("verifier-%d", i+1)
		v, err := d.start(ctx, node.Config{
			Name: name, Roles: []string{node.RoleVerifier},
			NATS: addrs.NATS, NATSKey: filepath.Join(d.dir, "ledger", datadir.VerifierKey),
		})
		if err != nil {
			return err
		}
		c, err := d.client(name, v.Addresses().Verify, "")
		if err != nil {
			return err
		}
		d.verifiers = append(d.verifiers, c)
		if err := d.untilReady(ctx, v); err != nil {
			return err
		}
		d.step(begun, name, "%s", v.Addresses().Verify)
	}
	return nil
}

// start runs a node until the demonstration ends.
func (d *demo) start(ctx context.Context, cfg node.Config) (*runningNode, error) {
	cfg.Data = filepath.Join(d.dir, cfg.Name)
	cfg.APIAddr, cfg.VerifyAddr, cfg.MetricsAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Version = buildVersion().name()
	cfg.Logger = slog.New(slog.NewTextHandler(d.env.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.New(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &runningNode{Node: n, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	d.running = append(d.running, r)
	select {
	case <-n.Ready():
		return r, nil
	case err := <-r.done:
		r.done <- err
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
}

// untilReady waits until a node has read the log and answers checks.
func (d *demo) untilReady(ctx context.Context, n *runningNode) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for n.Verifier().Lease() <= 0 {
		if !clock.Sleep(ctx, 2*time.Millisecond) {
			return fmt.Errorf("%s did not come up to the log", n.Addresses().Name)
		}
	}
	return nil
}

// stop ends the nodes, the last first.
func (d *demo) stop() error {
	var problems []error
	for i := len(d.running) - 1; i >= 0; i-- {
		d.running[i].stop()
		problems = append(problems, <-d.running[i].done)
	}
	return errors.Join(problems...)
}

func (d *demo) client(what, address, secret string) (*client.Client, error) {
	base, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return d.env.config().At(what, base, secret), nil
}

// play is what the client does.
func (d *demo) play(ctx context.Context) error {
	d.env.Printf("\nAn account and two tokens of it:\n\n")
	begun := time.Now()
	if _, err := d.send(ctx, []string{"v1", "accounts"}, map[string]any{
		"login": "alice", "kind": "user", "grants": []string{"admin:site/1", "view:site/2"},
	}); err != nil {
		return err
	}
	d.step(begun, "account", "alice has admin:site/1 and view:site/2")
	phone, err := d.create(ctx, "mobile app", "phone")
	if err != nil {
		return err
	}
	sibling, err := d.create(ctx, "mobile app", "tablet")
	if err != nil {
		return err
	}
	if err := d.everywhere(ctx, phone.Position, sibling.Position); err != nil {
		return err
	}

	d.env.Printf("\nEach verifier answers from its own index:\n\n")
	checks := []struct {
		who, need string
		secret    string
		allowed   bool
	}{
		{"phone", "view:site/1", phone.Secret, true},
		{"phone", "view:site/2", phone.Secret, false}, // alice may, the token may not
		{"phone", "write:site/1", phone.Secret, false},
		{"tablet", "view:site/1", sibling.Secret, true},
	}
	for _, c := range checks {
		if err := d.check(ctx, c.who, c.secret, c.need, c.allowed); err != nil {
			return err
		}
	}

	d.env.Printf("\nThe phone is lost:\n\n")
	begun = time.Now()
	const wait = 30 * time.Second
	answer, err := d.ledger.Do(ctx, client.Request{
		Method: http.MethodPost, Path: []string{"v1", "tokens", phone.Token.ID, "revoke"}, Key: client.NewKey(),
		Body: map[string]any{"reason": "lost"}, Query: url.Values{"wait": {wait.String()}}, Linger: wait,
	})
	var revoked proven
	if err == nil {
		err = json.Unmarshal(answer.Body, &revoked)
	}
	if err != nil {
		return err
	}
	r := revoked.Receipt
	if r == nil || !r.Complete {
		return fmt.Errorf(
			"the revocation at position %d is not in force on every node after %s",
			revoked.Position,
			wait,
		)
	}
	d.step(begun, "revoke", "phone: in the log, at position %d, and no node accepts it any more", revoked.Position)
	for _, n := range r.Nodes {
		d.env.Printf("  %11s  %-10s  %s: %s %d ms after the wait "+
			"began\n", "", "", render.Escape(n.Name), n.How, n.At.Sub(r.AskedAt).Milliseconds())
	}
	d.env.Printf("  %11s  %-10s  the receipt is in the log, at position %d\n", "", "", r.Position)
	if err := d.check(ctx, "phone", phone.Secret, "view:site/1", false); err != nil {
		return err
	}
	return d.check(ctx, "tablet", sibling.Secret, "view:site/1", true)
}

// create creates a token of alice.
func (d *demo) create(ctx context.Context, app, device string) (tokenAnswer, error) {
	var m tokenAnswer
	begun := time.Now()
	answer, err := d.send(ctx, []string{"v1", "tokens"}, map[string]any{
		"account": "alice", "app": app, "device": device, "scopes": []string{"view:site/1"},
	})
	if err == nil {
		err = json.Unmarshal(answer.Body, &m)
	}
	if err != nil {
		return m, err
	}
	d.step(begun, "token", "%s on the %s: view:site/1  (%s, secret %s...)", app, device, m.Token.ID, m.Secret[:8])
	return m, nil
}

func (d *demo) send(ctx context.Context, path []string, body any) (*client.Answer, error) {
	return d.ledger.Do(ctx, client.Request{Method: http.MethodPost, Path: path, Body: body, Key: client.NewKey()})
}

// everywhere waits until each verifier has applied the positions.
func (d *demo) everywhere(ctx context.Context, positions ...uint64) error {
	for _, r := range d.running[1:] {
		for _, at := range positions {
			for uint64(r.Position()) < at {
				if !clock.Sleep(ctx, 100*time.Microsecond) {
					return ctx.Err()
				}
			}
		}
	}
	return nil
}

// check asks every verifier, and fails where one answers other than expected.
func (d *demo) check(ctx context.Context, who, secret, need string, allowed bool) error {
	begun := time.Now()
	var reason string
	for _, v := range d.verifiers {
		answer, err := v.Do(ctx, client.Request{
			Method: http.MethodPost, Path: []string{"v1", "verify"},
			Body: verifier.CheckRequest{Token: secret, Need: []string{need}},
		})
		if err != nil {
			return err
		}
		var got verifier.CheckAnswer
		if err := json.Unmarshal(answer.Body, &got); err != nil {
			return err
		}
		if got.Allowed != allowed {
			return fmt.Errorf(
				"%s answered allowed=%v for the %s and %s, and should not have",
				v.Name(),
				got.Allowed,
				who,
				need,
			)
		}
		reason = got.Reason
	}
	verdict := "allowed"
	if !allowed {
		verdict = "refused (" + reason + ")"
	}
	each := time.Since(begun) / time.Duration(len(d.verifiers))
	d.step(time.Now().Add(-each), "check", "%-6s  %-12s  %s by all three", who, need, verdict)
	return nil
}

// step prints what was done and how long it took.
func (d *demo) step(begun time.Time, what, format string, args ...any) {
	ms := float64(time.Since(begun).Microseconds()) / 1000
	d.env.Printf("  %8.2f ms  %-10s  %s\n", ms, what, fmt.Sprintf(format, args...))
}

// stay keeps the nodes up until the program is interrupted.
func (d *demo) stay(ctx context.Context) error {
	data := filepath.Join(d.dir, "ledger")
	verify := d.running[1].Addresses().Verify
	d.env.Printf(`
It stays up until it is interrupted. In another terminal:

  export TOKENLEDGER_DATA=%s TOKENLEDGER_VERIFIER=%s
  tokenledger nodes
  tokenledger token list --account alice
  tokenledger token create --account alice --app script --scope view:site/2 --secret-only > secret
  tokenledger verify --need view:site/2 < secret; echo $?
  tokenledger snippet nginx --upstream http://127.0.0.1:3000
`, data, verify)
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.running[0].done:
		d.running[0].done <- nil
		return fmt.Errorf("the ledger ended: %w", err)
	}
}
