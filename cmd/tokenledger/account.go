package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

const accountArg = "the account's ID or login"

func newAccountCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "account", Short: "Make, look at and change accounts"}
	c.AddCommand(
		newAccountCreateCmd(e), newAccountListCmd(e), newAccountShowCmd(e),
		newAccountGrantCmd(e), newAccountSuspendCmd(e), newAccountResumeCmd(e), newAccountInviteCmd(e),
		newAccountEditCmd(e), newAccountEraseCmd(e),
	)
	return c
}

func newAccountCreateCmd(e *env) *cobra.Command {
	var (
		kind, owner, name, mail string
		grants                  []string
		key                     keyFlag
	)
	c := &cobra.Command{
		Use: "create LOGIN", Short: "Make an account", Args: takes("a login"),
		Long: `Makes an account. Login, --name and --mail are kept apart from the log, from where
they can be erased. A service account may be owned by a user, who manages its
tokens.`,
		Example: `  tokenledger account create shop --kind service --owner anna --grant view:site/3,track:site/3
  tokenledger account create anna --kind user --name 'Anna Ek' --mail anna@example.org --grant admin:site/3`,
		RunE: func(c *cobra.Command, args []string) error {
			grants, err := scopeList("--grant", grants)
			if err != nil {
				return err
			}
			switch {
			case kind == "":
				return usagef(c, "say what it is with --kind: user, for a person, or service")
			case kind != "user" && kind != "service":
				return exit.Inputf("--kind: want user or service")
			}
			body := map[string]any{"login": args[0], "kind": kind}
			if len(grants) > 0 {
				body["grants"] = grants
			}
			for field, value := range map[string]string{"owner": owner, "name": name, "mail": mail} {
				if value != "" {
					body[field] = value
				}
			}
			a, err := e.command(c, &key, client.Request{Method: http.MethodPost, Path: []string{"v1", "accounts"}, Body: body})
			if err != nil {
				return err
			}
			return e.changedAccount(a, "made", nil)
		},
	}
	flags := c.Flags()
	flags.StringVar(&kind, "kind", "", "user, for a person, or service")
	flags.StringSliceVar(&grants, "grant", nil, "what it may do, as in admin:site/3; again or with commas for more")
	flags.StringVar(&owner, "owner", "", "user who owns a service account: id or login")
	flags.StringVar(&name, "name", "", "of the person or service")
	flags.StringVar(&mail, "mail", "", "of the person")
	key.declare(flags)
	c.ValidArgsFunction = cobra.NoFileCompletions
	e.completeFlag(c, "kind", oneOf("user", "service"))
	e.completeFlag(c, "owner", e.accounts)
	e.completeFlag(c, "grant", e.scopes)
	return c
}

func newAccountListCmd(e *env) *cobra.Command {
	var pages pageFlags
	var kind string
	c := &cobra.Command{
		Use: "list", Short: "List accounts", Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			g := gridOf[api.Account]{
				header: []string{"ID", "LOGIN", "KIND", "STATE", "GRANTS", "CREATED"},
				row: func(a api.Account) []string {
					return []string{a.ID, a.Login, a.Kind, a.State, render.Shorten(a.Grants), e.Time(a.CreatedAt)}
				},
			}
			return list(c, e, client.Request{Path: []string{"v1", "accounts"}, Query: client.Query("kind", kind)}, pages, g)
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "only those that are user or service")
	pages.declare(c.Flags())
	e.completeFlag(c, "kind", oneOf("user", "service"))
	return c
}

func newAccountShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show ID|LOGIN", Short: "Show an account", Args: takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), client.Request{Method: http.MethodGet, Path: []string{"v1", "accounts", name}})
			if err != nil {
				return err
			}
			var got api.Account
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			return e.Show(a.Body, func() { e.drawAccount(got) })
		},
	}
}

func newAccountGrantCmd(e *env) *cobra.Command {
	var (
		none    bool
		version versionFlags
		wait    waitFlags
		key     keyFlag
	)
	c := &cobra.Command{
		Use: "grant ID|LOGIN SCOPE...", Short: "Replace what an account may do",
		Long: `Replaces an account's grants with the scopes that are named. All of its tokens
follow at once: none may do more than its account. With --wait the command ends
when no node goes by the old grants any more; it exits with 6 where that takes
longer.`,
		Example: `  tokenledger account grant shop view:site/3 track:site/3`,
		Args: func(c *cobra.Command, args []string) error {
			if none {
				return takes(accountArg)(c, args)
			}
			return takes(accountArg, "its new grants, as in view:site/3, or --none...")(c, args)
		},
		ValidArgsFunction: e.first(e.accounts, e.scopes),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			grants, err := scopeList("grants", args[1:])
			if err != nil {
				return err
			}
			if len(grants) == 0 && !none {
				return usagef(c, "name the account's new grants, as in view:site/3, or --none")
			}
			if err := version.check(); err != nil {
				return err
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			key, err := key.key()
			if err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			var seen struct {
				ID      string `json:"id"`
				Version uint64 `json:"version"`
			}
			if err := ledger.Get(c.Context(), []string{"v1", "accounts", name}, &seen); err != nil {
				return err
			}
			if grants == nil {
				grants = []string{}
			}
			a, got, err := wait.change(c.Context(), e, ledger, client.Request{
				Method: http.MethodPut, Path: []string{"v1", "accounts", seen.ID, "grants"},
				Body: map[string]any{"grants": grants}, Key: key, IfMatch: version.ifMatch(seen.Version),
			})
			if err != nil {
				return err
			}
			if err := e.changedAccount(a, "changed", got.Receipt); err != nil {
				return err
			}
			return wait.unproven(e, got, "change")
		},
	}
	flags := c.Flags()
	flags.BoolVar(&none, "none", false, "take all grants away")
	version.declare(flags)
	wait.declare(flags, false)
	key.declare(flags)
	return c
}

func newAccountSuspendCmd(e *env) *cobra.Command {
	c := e.ending(ending{
		verb: "suspend", done: "suspended", what: "suspension", short: "Stop all of an account's tokens until it is resumed",
		arg: accountArg, check: accountName, path: []string{"v1", "accounts"}, complete: e.accounts,
	})
	c.Use = "suspend ID|LOGIN"
	return c
}

func newAccountResumeCmd(e *env) *cobra.Command {
	var key keyFlag
	c := &cobra.Command{
		Use: "resume ID|LOGIN", Short: "Let a suspended account's tokens work again",
		Args: takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			a, err := e.command(c, &key, client.Request{Method: http.MethodPost, Path: []string{"v1", "accounts", name, "resume"}})
			if err != nil {
				return err
			}
			return e.changedAccount(a, "resumed", nil)
		},
	}
	key.declare(c.Flags())
	return c
}

// changedAccount prints the answer to a command that changed an account, with
// the receipt where one was waited for.
func (e *env) changedAccount(a *client.Answer, done string, r *api.Receipt) error {
	var got struct {
		Account  api.Account `json:"account"`
		Position uint64      `json:"position"`
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	e.replayed(a)
	return e.Show(a.Body, func() {
		e.Printf("%s at position %d%s\n\n", done, got.Position, effect(r, inForce))
		e.drawAccount(got.Account)
	})
}

// drawAccount prints an account for people.
func (e *env) drawAccount(a api.Account) {
	g := e.Grid()
	g.Fact("id", a.ID)
	g.Fact("login", a.Login)
	g.Fact("name", a.Name)
	g.Fact("mail", a.Mail)
	g.Fact("kind", a.Kind)
	g.Fact("owner", a.Owner)
	state := a.State
	if a.Reason != "" {
		state += " (" + a.Reason + ")"
	}
	g.Fact("state", state)
	grants := strings.Join(a.Grants, ", ")
	if grants == "" {
		grants = "nothing"
	}
	if a.Partial {
		grants += " (your token's part; a token sees no more of its account)"
	}
	g.Fact("may do", grants)
	if !a.SelfService {
		g.Fact("self-service", "off")
	}
	g.Fact("tokens revoked", e.until(a.TokensBefore))
	g.Fact("tokens revoked until", positionOrNone(a.TokensUntil))
	g.Fact("created", e.Time(a.CreatedAt))
	g.Fact("changed", e.Time(a.ChangedAt))
	g.Fact("version", strconv.FormatUint(a.Version, 10))
	g.End()
}

// until says that all tokens from before a time are revoked.
func (e *env) until(t *time.Time) string {
	if t == nil {
		return ""
	}
	return "all that were made before " + e.Time(*t)
}

// positionOrNone prints the position until which tokens are revoked, nothing for
// zero.
func positionOrNone(at uint64) string {
	if at == 0 {
		return ""
	}
	return "position " + strconv.FormatUint(at, 10)
}
