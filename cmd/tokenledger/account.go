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
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

const accountArg = "the account's ID or login"

func newAccountCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "account", Short: "Create, show, change and erase accounts"}
	c.AddCommand(
		newAccountCreateCmd(e), newAccountListCmd(e), newAccountShowCmd(e),
		newAccountSetGrantsCmd(e), newAccountSuspendCmd(e), newAccountResumeCmd(e), newAccountInviteCmd(e),
		newAccountEditCmd(e), newAccountEraseCmd(e),
	)
	return c
}

func newAccountCreateCmd(e *env) *cobra.Command {
	var (
		kind, owner, name, mail string
		grants                  []string
		file                    scopesFile
		key                     keyFlag
	)
	c := &cobra.Command{
		Use: "create LOGIN", Short: "Create an account", Args: takes("a login"),
		Long: `Creates an account. The login, --name and --mail are stored apart from the log, so
that they can be erased. A user may own a service account and manage its tokens.`,
		Example: `  tokenledger account create shop --kind service --owner anna \
    --grant view:site/3,track:site/3
  tokenledger account create anna --kind user --name 'Anna Ek' \
    --mail anna@example.org --grant admin:site/3`,
		RunE: func(c *cobra.Command, args []string) error {
			grants, err := scopeList("--grant", grants)
			if err == nil {
				grants, err = file.add(c.Context(), e, grants)
			}
			if err != nil {
				return err
			}
			switch {
			case kind == "":
				return usagef(c, "--kind is missing: user for a person, or service")
			case kind != "user" && kind != "service":
				return exit.Inputf("--kind: must be user or service, not %s", events.Quote(kind))
			}
			body := map[string]any{"login": args[0], "kind": kind}
			if len(grants) > 0 {
				body["grants"] = grants
			}
			setGiven(body, map[string]string{"owner": owner, "name": name, "mail": mail})
			a, err := e.command(
				c,
				&key,
				client.Request{Method: http.MethodPost, Path: []string{"v1", "accounts"}, Body: body},
			)
			if err != nil {
				return err
			}
			return e.changedAccount(a, "created", nil)
		},
	}
	flags := c.Flags()
	flags.StringVar(&kind, "kind", "", "user, for a person, or service")
	flags.StringSliceVar(&grants, "grant", nil,
		"what it may do, as in admin:site/3; repeat the flag or separate with commas")
	file.declare(flags, "grants-file", "file with more grants, one a line or separated by commas; - for standard input")
	flags.StringVar(&owner, "owner", "", "user who owns a service account, by ID or login")
	flags.StringVar(&name, "name", "", "name of the person or service")
	flags.StringVar(&mail, "mail", "", "mail address of the person")
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
	orders := order[api.Account]{keys: accountOrders}
	c := &cobra.Command{
		Use: "list", Short: "List accounts", Args: takes(),
		Long: `Lists the accounts that you may see. Erased ones are only listed with --all. A table
is cut to the width of the terminal; -o wide shows all columns in full.`,
		Example: `  tokenledger account list --kind service
  tokenledger account list --all -o jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			erased := "false"
			if pages.All {
				erased = ""
			}
			return list(c, e, listing[api.Account]{
				request: client.Request{
					Path: []string{"v1", "accounts"}, Query: client.Query("kind", kind, "erased", erased),
				},
				pages: pages, columns: e.accountColumns(), order: orders,
			})
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "only accounts of this kind: user or service")
	pages.declare(c.Flags())
	orders.declare(e, c)
	c.Flags().Lookup("all").Usage = "list all accounts, also those that are erased"
	e.completeFlag(c, "kind", oneOf("user", "service"))
	return c
}

var accountOrders = map[string]func(a, b api.Account) int{
	"login":   func(a, b api.Account) int { return strings.Compare(a.Login, b.Login) },
	"kind":    func(a, b api.Account) int { return strings.Compare(a.Kind, b.Kind) },
	"state":   func(a, b api.Account) int { return strings.Compare(a.State, b.State) },
	"created": func(a, b api.Account) int { return a.CreatedAt.Compare(b.CreatedAt) },
	"changed": func(a, b api.Account) int { return a.ChangedAt.Compare(b.ChangedAt) },
}

// accountColumns returns the columns of a list of accounts.
func (e *env) accountColumns() []column[api.Account] {
	type ac = column[api.Account]
	wide := func(head string, cell func(api.Account) string) ac {
		return ac{render.Column{Head: head, Wide: true}, cell}
	}
	return []ac{
		{render.Column{Head: "ID", ID: true}, func(a api.Account) string { return a.ID }},
		{render.Column{Head: "LOGIN"}, func(a api.Account) string { return a.Login }},
		{render.Column{Head: "KIND", Keep: true}, func(a api.Account) string { return a.Kind }},
		{render.Column{Head: "STATE", Keep: true}, func(a api.Account) string { return a.State }},
		{render.Column{Head: "GRANTS"}, func(a api.Account) string {
			if e.Format == render.Wide {
				return strings.Join(a.Grants, ",")
			}
			return render.Shorten(a.Grants)
		}},
		{render.Column{Head: "CREATED", Keep: true}, func(a api.Account) string { return e.Cell(&a.CreatedAt) }},
		wide("CHANGED", func(a api.Account) string { return e.Cell(&a.ChangedAt) }),
		wide("OWNER", func(a api.Account) string { return a.Owner }),
		wide("NAME", func(a api.Account) string { return a.Name }),
		wide("MAIL", func(a api.Account) string { return a.Mail }),
		wide("REASON", func(a api.Account) string { return a.Reason }),
	}
}

func newAccountShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show ID|LOGIN", Short: "Show an account",
		Example: `  tokenledger account show anna`,
		Args:    takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			return e.read(c, []string{"v1", "accounts", name}, func(a *client.Answer) error {
				var got api.Account
				if err := json.Unmarshal(a.Body, &got); err != nil {
					return err
				}
				return e.Show(a.Body, func() { e.drawAccount(got) })
			})
		},
	}
}

func newAccountSuspendCmd(e *env) *cobra.Command {
	return e.ending(ending{
		verb: "suspend", done: "suspended", noun: "suspension",
		short: "Suspend all tokens of an account until you resume it",
		use:   "suspend ID|LOGIN", arg: accountArg, check: e.accountNamed,
		path: []string{"v1", "accounts"}, complete: e.accounts,
		example: "  tokenledger account suspend shop --reason 'contract ended'",
	})
}

func newAccountResumeCmd(e *env) *cobra.Command {
	var f resumeFlags
	c := &cobra.Command{
		Use: "resume ID|LOGIN", Short: "Let the tokens of a suspended account work again",
		Example: `  tokenledger account resume shop`,
		Args:    takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			a, err := e.resume(c, &f, "accounts", name)
			if err != nil {
				return err
			}
			return e.changedAccount(a, "resumed", nil)
		},
	}
	f.declare(c.Flags())
	return c
}

// changedAccount prints the answer to a command that changed an account, and its
// receipt if the command waited for it.
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
		e.Printf("%s at position %d%s\n\n", done, got.Position, receiptSummary(r, inForce))
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
	grants := e.scopesText(a.Grants, "nothing")
	if a.Partial {
		grants += " (your token's part; a token sees no more of its account)"
	}
	g.Fact("may do", grants)
	if !a.SelfService {
		g.Fact("self-service", "off")
	}
	g.Fact("tokens revoked", e.cutOff(a.NotBefore, a.NotBeforePosition))
	g.Fact("created", e.Time(a.CreatedAt))
	g.Fact("changed", e.Time(a.ChangedAt))
	g.Fact("version", strconv.FormatUint(a.Version, 10))
	g.End()
}

// cutOff describes which tokens a bulk revocation of all tokens has revoked.
func (e *env) cutOff(notBefore *time.Time, position uint64) string {
	var before []string
	if notBefore != nil {
		before = append(before, e.Exact(*notBefore))
	}
	if position != 0 {
		before = append(before, "position "+strconv.FormatUint(position, 10))
	}
	if before == nil {
		return ""
	}
	return "all created before " + strings.Join(before, " or ")
}
