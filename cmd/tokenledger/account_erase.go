package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newAccountEraseCmd(e *env) *cobra.Command {
	var (
		yes, dry bool
		owned    ownedFlags
		f        changeFlags
	)
	c := &cobra.Command{
		Use: "erase ID|LOGIN", Short: "End an account forever and delete its personal data",
		Long: `Ends an account and all of its tokens, deletes its login, name, mail and sign-in
data, and waits until no node accepts one of its tokens any more. The log keeps the
account's ID and what it did. This cannot be undone, so the command asks for the
login, at the terminal or on standard input, unless you give --yes.

If the account owns service accounts, --service-accounts says what happens to them
first: keep (their tokens stay valid), suspend, revoke (all of their tokens), or
transfer to the user that --transfer-to names. There is no default; --dry-run lists
them.

If the command was interrupted, run it again with the account's ID.`,
		Example: `  tokenledger account erase anna
  tokenledger account erase anna --dry-run
  tokenledger account erase anna --service-accounts transfer --transfer-to ben
  tokenledger account erase acc_01jd3qk8z5n0v7m2x4c6b8a9ef --yes`,
		Args: takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err == nil {
				err = owned.check()
			}
			if err != nil {
				return err
			}
			if dry {
				return e.dryErase(c, name, owned)
			}
			return e.change(c, change{
				flags: &f, noun: "erasure", read: []string{"v1", "accounts", name},
				request: func(ctx context.Context, ledger *client.Client, seen current) (client.Request, error) {
					r := eraseRequest(seen.ID, owned, false)
					if seen.State == "erased" { // the command continues what was begun
						f.version = versionFlags{force: true}
						return r, nil
					}
					plan, err := planErase(ctx, ledger, seen.ID, owned)
					if err != nil {
						return r, err
					}
					if err := owned.decided(seen.Login, plan.ServiceAccounts); err != nil || yes {
						return r, err
					}
					return r, e.confirmErase(ctx, seen.Login, owned, plan.ServiceAccounts)
				},
				show: func(a *client.Answer, got proven) error { return e.ended(a, "erased", got) },
			})
		},
	}
	flags := c.Flags()
	flags.BoolVar(&yes, "yes", false, "do not ask for the login")
	flags.BoolVar(&dry, "dry-run", false, "change nothing, and list the service accounts that it owns")
	owned.declare(flags)
	f.version.declare(flags)
	f.wait.declare(flags, true)
	f.key.declare(flags)
	e.completeFlag(c, "service-accounts", oneOf(ownedChoices...))
	e.completeFlag(c, "transfer-to", e.accounts)
	return c
}

// ownedFlags say what happens to the service accounts of an account that is erased.
type ownedFlags struct{ choice, to string }

var ownedChoices = []string{"keep", "suspend", "revoke", "transfer"}

func (o *ownedFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&o.choice, "service-accounts", "",
		"what happens to the service accounts that it owns: keep, suspend, revoke or transfer")
	flags.StringVar(&o.to, "transfer-to", "", "with transfer: user who owns them from now on, by ID or login")
}

func (o *ownedFlags) check() error {
	switch {
	case o.choice != "" && !slices.Contains(ownedChoices, o.choice):
		return exit.Inputf("--service-accounts: must be keep, suspend, revoke or transfer, not %s", events.Quote(o.choice))
	case o.choice == "transfer" && o.to == "":
		return exit.Inputf("--service-accounts transfer needs --transfer-to, the user who owns them from now on")
	case o.choice != "transfer" && o.to != "":
		return exit.Inputf("--transfer-to is for --service-accounts transfer")
	}
	return nil
}

// decided returns nil unless a choice is missing.
func (o *ownedFlags) decided(login string, list []api.OwnedAccount) error {
	if len(list) == 0 || o.choice != "" {
		return nil
	}
	return exit.Failf(exit.Usage, "needs_choice",
		"%s owns service accounts, whose tokens would stay valid: %s. Nothing was changed. Say what happens to them with "+
			"--service-accounts: keep, suspend, revoke, or transfer with --transfer-to USER",
		render.Escape(login), ownedList(list))
}

// ownedList lists service accounts in a sentence.
func ownedList(list []api.OwnedAccount) string {
	const most = 8
	var out []string
	for _, o := range list[:min(len(list), most)] {
		tokens := fmt.Sprintf("%d active tokens", o.Tokens)
		switch {
		case o.More:
			tokens = "more than " + tokens
		case o.Tokens == 1:
			tokens = "1 active token"
		}
		if o.State != "active" {
			tokens = o.State + ", " + tokens
		}
		out = append(out, fmt.Sprintf("%s (%s)", render.Escape(o.Login), tokens))
	}
	if n := len(list) - most; n > 0 {
		out = append(out, fmt.Sprintf("%d more", n))
	}
	return strings.Join(out, ", ")
}

// erasePlan is what an erasure is about.
type erasePlan struct {
	Account         api.Account        `json:"account"`
	ServiceAccounts []api.OwnedAccount `json:"service_accounts"`
}

func eraseRequest(account string, owned ownedFlags, dry bool) client.Request {
	body := map[string]any{}
	setGiven(body, map[string]string{"service_accounts": owned.choice, "transfer_to": owned.to})
	if dry {
		body["dry_run"] = true
	}
	path := []string{"v1", "accounts", account, "erase"}
	return client.Request{Method: http.MethodPost, Path: path, Body: body, Asks: dry}
}

func planErase(ctx context.Context, to *client.Client, account string, owned ownedFlags) (plan erasePlan, err error) {
	a, err := to.Do(ctx, eraseRequest(account, owned, true))
	if err == nil {
		err = json.Unmarshal(a.Body, &plan)
	}
	return plan, err
}

// dryErase shows what an erasure would be about.
func (e *env) dryErase(c *cobra.Command, account string, owned ownedFlags) error {
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	a, err := ledger.Do(c.Context(), eraseRequest(account, owned, true))
	if err != nil {
		return err
	}
	var plan erasePlan
	if err := json.Unmarshal(a.Body, &plan); err != nil {
		return err
	}
	return e.Show(a.Body, func() {
		e.Printf("would erase %s; nothing was changed\n", render.Escape(plan.Account.Login))
		if len(plan.ServiceAccounts) == 0 {
			e.Printf("it owns no service accounts\n")
			return
		}
		done := map[string]string{
			"keep": "stay as they are", "suspend": "would be suspended", "revoke": "would lose all of their tokens",
			"transfer": "would go to " + render.Escape(owned.to),
		}[owned.choice]
		if done == "" {
			done = "need --service-accounts keep, suspend, revoke or transfer"
		}
		e.Printf("its service accounts %s:\n\n", done)
		g := e.Grid("ID", "LOGIN", "STATE", "ACTIVE TOKENS")
		for _, o := range plan.ServiceAccounts {
			tokens := fmt.Sprint(o.Tokens)
			if o.More {
				tokens = "more than " + tokens
			}
			g.Row(o.ID, o.Login, o.State, tokens)
		}
		g.End()
	})
}

// drawOwned prints after a change what the service accounts of the account are now.
func (e *env) drawOwned(a *client.Answer, done string) {
	var got erasePlan
	if json.Unmarshal(a.Body, &got) != nil || len(got.ServiceAccounts) == 0 {
		return
	}
	text := "its service accounts: "
	if done == "suspended" {
		text = "the tokens of service accounts that it owns stay valid: "
	}
	e.Printf("%s%s\n", text, ownedList(got.ServiceAccounts))
}

// confirmErase asks for the account's login, and fails if another text is given.
func (e *env) confirmErase(ctx context.Context, login string, o ownedFlags, list []api.OwnedAccount) error {
	typed := ""
	if e.tokenFile != "-" { // else standard input is spoken for
		at := e.input.Terminal()
		if at != nil {
			_, _ = fmt.Fprintf(
				e.Stderr,
				"This ends the account %s and all of its tokens, forever.%s Type its login to confirm: ",
				render.Escape(login), o.sentence(list),
			)
		}
		var err error
		if typed, err = term.Interruptible(ctx, e.input.Line); err != nil {
			typed = ""
			if at != nil { // Enter was not typed
				_, _ = io.WriteString(e.Stderr, "\n")
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if !strings.EqualFold(strings.TrimSpace(typed), login) || login == "" {
		return exit.Failf(
			exit.Usage,
			"needs_confirmation",
			"this ends the account %s and all of its tokens forever. To confirm, give its login on standard input, or add "+
				"--yes",
			render.Escape(login),
		)
	}
	return nil
}

// sentence says what happens to service accounts.
func (o *ownedFlags) sentence(list []api.OwnedAccount) string {
	if len(list) == 0 {
		return ""
	}
	choice := strings.TrimSpace(o.choice + " " + render.Escape(o.to))
	return fmt.Sprintf(" Service accounts that it owns (%s): %s.", choice, ownedList(list))
}
