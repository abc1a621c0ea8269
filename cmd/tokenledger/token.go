package main

import (
	"cmp"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
	"github.com/tokenledger/tokenledger/ledger"
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

// tokenStates are the states that the ledger filters tokens by.
var tokenStates = ledger.TokenStates

func newTokenListCmd(e *env) *cobra.Command {
	f := tokenListFlags{order: order[api.Token]{keys: tokenOrders}}
	c := &cobra.Command{
		Use: "list", Short: "List tokens", Args: takes(),
		Long: `Lists the tokens that you may see. Those that are revoked or expired are only listed
with --all or --state.

STATE is active only if the token can do something now. Else it says why not:
"no scopes" if its account has none of its scopes any more, and "secret refused" if
the policy refuses secrets of its format. ENDS says "soon" as the policy's
warn-before says.

A table is cut to the width of the terminal. -o wide shows all columns in full.`,
		Example: `  tokenledger token list --site 3 --state active
  tokenledger token list --expiring 2w --sort expires
  tokenledger token list --legacy --unused-for 180d
  tokenledger token list --owner anna --all -o jsonl
  tokenledger token list --app report -o name
  tokenledger token list --jq '.items[] | select(.expires_soon) | .id'`,
		RunE: func(c *cobra.Command, _ []string) error {
			return list(c, e, listing[api.Token]{
				request: client.Request{Path: []string{"v1", "tokens"}, Query: f.query()},
				pages:   f.pages, columns: e.tokenColumns(), order: f.order,
			})
		},
	}
	f.declare(c.Flags())
	f.order.declare(e, c)
	c.Flags().Lookup("all").Usage = "list all tokens, also those that are revoked or expired"
	e.completeFlag(c, "account", e.accounts)
	e.completeFlag(c, "owner", e.accounts)
	e.completeFlag(c, "state", oneOf(tokenStates...))
	return c
}

// tokenListFlags say which tokens to list.
type tokenListFlags struct {
	account, owner, site, resource, state, app, device string
	expiring                                           durationFlag
	imported                                           importedFlags
	pages                                              pageFlags
	order                                              order[api.Token]
}

func (f *tokenListFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&f.account, "account", "", "tokens of this account, by ID or login")
	flags.StringVar(&f.owner, "owner", "", "tokens of the accounts that this user owns, by ID or login")
	flags.StringVar(&f.app, "app", "", "tokens with this app label")
	flags.StringVar(&f.device, "device", "", "tokens with this device label")
	flags.StringVar(&f.site, "site", "", "tokens that may do something on this site")
	flags.StringVar(&f.resource, "resource", "", "tokens that may do something on this resource, as in site/3")
	flags.Var(&f.expiring, "expiring", "tokens that work now and expire within this time, as in 2w")
	flags.StringVar(&f.state, "state", "", "tokens in this state: "+strings.Join(tokenStates, ", "))
	f.imported.declare(flags)
	group(flags, groupSelect, "account", "owner", "app", "device", "site", "resource", "expiring", "state")
	f.pages.declare(flags)
}

// query returns the request's query. The ledger leaves out tokens that have ended,
// so that pages are full.
func (f *tokenListFlags) query() url.Values {
	ended := "false"
	if f.pages.All || f.state != "" {
		ended = ""
	}
	return client.Query(append(f.imported.query(), "account", f.account, "owner", f.owner, "app", f.app,
		"device", f.device, "site", f.site, "resource", f.resource, "state", f.state, "expiring", f.expiring.String(), "ended", ended)...)
}

// tokenOrders are the orders of a list of tokens. A token without an end comes last.
var tokenOrders = map[string]func(a, b api.Token) int{
	"account": func(a, b api.Token) int {
		return cmp.Or(strings.Compare(a.Login, b.Login), strings.Compare(a.Account, b.Account))
	},
	"app":     func(a, b api.Token) int { return strings.Compare(a.App, b.App) },
	"device":  func(a, b api.Token) int { return strings.Compare(a.Device, b.Device) },
	"state":   func(a, b api.Token) int { return strings.Compare(a.State, b.State) },
	"created": func(a, b api.Token) int { return a.CreatedAt.Compare(b.CreatedAt) },
	"changed": func(a, b api.Token) int { return a.ChangedAt.Compare(b.ChangedAt) },
	"expires": func(a, b api.Token) int {
		switch {
		case a.ExpiresAt != nil && b.ExpiresAt != nil:
			return a.ExpiresAt.Compare(*b.ExpiresAt)
		case a.ExpiresAt != nil:
			return -1
		case b.ExpiresAt != nil:
			return 1
		}
		return 0
	},
}

// tokenColumns returns the columns of a list of tokens.
func (e *env) tokenColumns() []column[api.Token] {
	type tc = column[api.Token]
	wide := func(head string, cell func(api.Token) string) tc {
		return tc{render.Column{Head: head, Wide: true}, cell}
	}
	return []tc{
		{render.Column{Head: "ID", ID: true}, func(t api.Token) string { return t.ID }},
		{render.Column{Head: "ACCOUNT"}, func(t api.Token) string { return cmp.Or(t.Login, t.Account) }},
		{render.Column{Head: "STATE", Keep: true}, func(t api.Token) string { return t.State }},
		{render.Column{Head: "APP"}, func(t api.Token) string { return t.App }},
		{render.Column{Head: "DEVICE"}, func(t api.Token) string { return t.Device }},
		{render.Column{Head: "SCOPES"}, e.scopesOf},
		{render.Column{Head: "CREATED", Keep: true}, func(t api.Token) string { return e.Cell(&t.CreatedAt) }},
		{render.Column{Head: "ENDS", Keep: true}, func(t api.Token) string {
			return mark(e.Cell(t.ExpiresAt), t.ExpiresSoon)
		}},
		wide("ACCOUNT ID", func(t api.Token) string { return t.Account }),
		wide("MAY DO NOW", func(t api.Token) string { return strings.Join(t.Effective, ",") }),
		wide("CHANGED", func(t api.Token) string { return e.Cell(&t.ChangedAt) }),
		wide("OLD SECRET UNTIL", func(t api.Token) string { return e.Cell(t.GraceUntil) }),
		wide("IMPORTED", func(t api.Token) string {
			if t.Import == nil {
				return ""
			}
			return t.Import.Source
		}),
		wide("LAST USED THERE", func(t api.Token) string {
			if t.Import == nil {
				return ""
			}
			return e.Cell(t.Import.LastUsed)
		}),
		wide("REASON", func(t api.Token) string { return t.Reason }),
	}
}

func newTokenShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show TOKEN", Short: "Show a token",
		Long: `Shows a token. Times are given as from now on and exactly.

` + tokenHelp,
		Example: `  tokenledger token show tok_01jd3qk8z5n0v7m2x4c6b8a9ef
  tokenledger token show shop/report/desk`,
		Args:              takes(tokenArg),
		ValidArgsFunction: e.first(e.tokens(anyState)),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := e.tokenNamed(c.Context(), args[0])
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
	if got.Secret == "" && (to.only || to.file.given() || e.Format.Tabular()) {
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
	g.Fact("account", withID(t.Login, t.Account))
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
	return "that of " + e.Exact(s.CreatedAt) + " works until " + e.Exact(s.ValidUntil)
}

// withID returns a login with its id, or the id alone.
func withID(login, id string) string {
	if login == "" {
		return id
	}
	return login + " (" + id + ")"
}

// expiry formats when a token expires, empty if it never does.

// expiry formats when a token expires, empty if it never does.
func (e *env) expiry(t *time.Time, soon bool) string {
	return mark(e.TimePtr(t), soon)
}

// mark marks a time that is near.
func mark(t string, soon bool) string {
	if soon {
		return t + when.SoonMark
	}
	return t
}

// scopesOf returns a token's scopes for a table, all of them in the format wide.
func (e *env) scopesOf(t api.Token) string {
	switch {
	case t.Inherit:
		return "(inherits)"
	case e.Format == render.Wide:
		return strings.Join(t.Scopes, ",")
	}
	return render.Shorten(t.Scopes)
}
