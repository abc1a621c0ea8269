package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newTokenCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: "token", Short: "Create, show, change and revoke tokens",
	}
	c.AddCommand(
		newTokenCreateCmd(e), newTokenListCmd(e), newTokenShowCmd(e),
		newTokenSetScopesCmd(e), newTokenEditCmd(e), newTokenRotateCmd(e),
		newTokenSuspendCmd(e), newTokenResumeCmd(e), newTokenRevokeCmd(e),
	)
	return c
}

func newTokenListCmd(e *env) *cobra.Command {
	var account, site, resource, state string
	var expiring durationFlag
	var pages pageFlags
	c := &cobra.Command{
		Use: "list", Short: "List tokens", Args: takes(),
		Example: `  tokenledger token list --site 3 --state active
  tokenledger token list --expiring 14d
  tokenledger token list --account shop --all -o jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			r := client.Request{Path: []string{"v1", "tokens"}, Query: client.Query(
				"account", account, "site", site, "resource", resource, "state", state, "expiring", expiring.String(),
			)}
			grid := gridOf[api.Token]{
				header: []string{"ID", "ACCOUNT", "STATE", "APP", "DEVICE", "SCOPES", "EXPIRES"},
				row: func(t api.Token) []string {
					return []string{t.ID, t.Account, t.State, t.App, t.Device, scopesOf(t), e.TimePtr(t.ExpiresAt)}
				},
			}
			return list(c, e, listing[api.Token]{request: r, pages: pages, grid: grid})
		},
	}
	flags := c.Flags()
	flags.StringVar(&account, "account", "", "tokens of this account, by ID or login")
	flags.StringVar(&site, "site", "", "tokens that may do something on this site")
	flags.StringVar(&resource, "resource", "", "tokens that may do something on this resource, as in site/3")
	flags.Var(&expiring, "expiring", "tokens that work now and expire within this time, as in 14d")
	flags.StringVar(&state, "state", "", "tokens in this state: active, suspended, revoked or expired")
	group(flags, groupSelect, "account", "site", "resource", "expiring", "state")
	pages.declare(flags)
	e.completeFlag(c, "account", e.accounts)
	e.completeFlag(c, "state", oneOf("active", "suspended", "revoked", "expired"))
	return c
}

func newTokenShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a token",
		Example:           `  tokenledger token show tok_01jd3qk8z5n0v7m2x4c6b8a9ef`,
		Args:              takes("the token's ID"),
		ValidArgsFunction: e.first(e.tokens(anyState)),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := tokenID(args[0])
			if err != nil {
				return err
			}
			return e.read(c, []string{"v1", "tokens", id}, func(a *client.Answer) error {
				var t api.Token
				if err := json.Unmarshal(a.Body, &t); err != nil {
					return err
				}
				return e.Show(a.Body, func() { e.drawToken(t) })
			})
		},
	}
}

// tokenAnswer is the answer to a command on a token.
type tokenAnswer struct {
	Token       api.Token `json:"token"`
	Secret      string    `json:"secret"`
	Position    uint64    `json:"position"`
	SecretShown bool      `json:"secret_already_shown"`
}

// changed prints the answer to a command that changed a token, and its receipt if
// the command waited for it.
func (e *env) changed(a *client.Answer, done string, r *api.Receipt) error {
	var got tokenAnswer
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	e.replayed(a)
	return e.Show(a.Body, func() {
		e.Printf("%s at position %d%s\n\n", done, got.Position, receiptSummary(r, inForce))
		e.drawToken(got.Token)
	})
}

// secret prints the answer to a command that generated a secret, this once, or
// writes the secret to its file.
func (e *env) secret(a *client.Answer, done string, to secretOutput) error {
	var got tokenAnswer
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	e.replayed(a)
	if got.Secret == "" && (to.only || to.file.given() || e.Format == render.Table) {
		return e.noSecret(got)
	}
	if to.file.given() {
		return e.secretInFile(a, got, done, to.file)
	}
	var err error
	if to.only {
		if err = e.Print([]byte(got.Secret), "\n"); err == nil {
			e.Note("%s %s at position %d", render.Escape(got.Token.ID), done, got.Position)
			for _, s := range got.Token.Earlier {
				e.Note("earlier secret: %s", e.earlierSecret(s))
			}
		}
	} else {
		err = e.Show(a.Body, func() {
			e.Printf("%s at position %d\n\n", done, got.Position)
			e.drawToken(got.Token)
			e.Printf("\nThe secret, shown only this once:\n%s\n", got.Secret)
		})
	}
	switch {
	case err != nil:
		return exit.Failf(
			exit.Error,
			"output",
			"the secret of %s could not be written to standard output: %s. Create a new one with 'tokenledger token rotate "+
				"%[1]s'",
			got.Token.ID,
			exit.Cause(err),
		)
	case got.Secret == "":
		return e.noSecret(got)
	}
	return nil
}

// secretInFile writes a secret to its file and prints the rest of the answer.
func (e *env) secretInFile(a *client.Answer, got tokenAnswer, done string, file *secretFile) error {
	if err := file.store(e, got.Secret); err != nil {
		return err
	}
	body, err := file.answer(a.Body, "secret")
	if err != nil {
		return err
	}
	return e.Show(body, func() {
		e.Printf("%s at position %d\n\n", done, got.Position)
		e.drawToken(got.Token)
		e.Printf("\nThe secret is in %s\n", render.Escape(file.path))
	})
}

// noSecret returns the failure of a repeated command: the secret went to the first.
func (e *env) noSecret(got tokenAnswer) error {
	return exit.Failf(exit.Error, "secret_already_shown",
		"the secret of %s was shown to an earlier command with this idempotency key and is not stored. "+
			"If you do not have it, create a new one with 'tokenledger token rotate %[1]s'", got.Token.ID)
}

// drawToken prints a token for people.
func (e *env) drawToken(t api.Token) {
	g := e.Grid()
	g.Fact("id", t.ID)
	g.Fact("account", t.Account)
	state := t.State
	if t.Reason != "" {
		state += " (" + t.Reason + ")"
	}
	g.Fact("state", state)
	g.Fact("suspended by", t.StoppedBy)
	g.Fact("app", t.App)
	g.Fact("device", t.Device)
	scopes := e.scopesText(t.Scopes, "")
	if t.Inherit {
		scopes = "all that its account has"
	}
	g.Fact("scopes", scopes)
	g.Fact("may do now", e.scopesText(t.Effective, "nothing"))
	g.Fact("expires", e.expiry(t.ExpiresAt, t.ExpiresSoon))
	if c := t.Constraints; c != nil {
		g.Fact("from networks", strings.Join(c.CIDRs, ", "))
		g.Fact("from pages", strings.Join(c.Origins, ", "))
		g.Fact("methods", strings.Join(c.Methods, ", "))
		g.Fact("audience", strings.Join(c.Audience, ", "))
		if c.HeaderOnly {
			g.Fact("in URLs", "refused")
		}
		if c.Rate > 0 {
			g.Fact("rate", strconv.Itoa(c.Rate)+" requests a second")
		}
	}
	created := e.Time(t.CreatedAt)
	if by := t.CreatedBy; by != nil && by.Account != "" {
		created += " by " + by.Account
	}
	g.Fact("created", created)
	g.Fact("changed", e.Time(t.ChangedAt))
	g.Fact("revoked", e.TimePtr(t.RevokedAt))
	for _, s := range t.Earlier {
		g.Fact("earlier secret", e.earlierSecret(s))
	}
	g.Fact("version", strconv.FormatUint(t.Version, 10))
	g.End()
}

// earlierSecret says until when a secret works that a rotation has replaced.
func (e *env) earlierSecret(s api.EarlierSecret) string {
	return "that of " + e.Time(s.CreatedAt) + " works until " + e.Time(s.ValidUntil)
}

// expiry formats when a token expires, empty if it never does.
func (e *env) expiry(t *time.Time, soon bool) string {
	if soon {
		return e.TimePtr(t) + ", soon"
	}
	return e.TimePtr(t)
}

func scopesOf(t api.Token) string {
	if t.Inherit {
		return "(inherits)"
	}
	return render.Shorten(t.Scopes)
}
