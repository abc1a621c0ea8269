package main

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newAccountEditCmd(e *env) *cobra.Command {
	var (
		owner, name, mail textFlag
		self              onOff
		version           versionFlags
		key               keyFlag
	)
	c := &cobra.Command{
		Use: "edit ID|LOGIN", Short: "Change an account's owner, name or mail, or whether it manages its own tokens",
		Long: `Changes what is named, and leaves the rest. The owner of a service account is a
user, who manages its tokens. Where self-service is off, neither the account nor
its owner makes or widens tokens of it; they still see and end them. Name and
mail are kept apart from the log, which has only that they changed.`,
		Example: `  tokenledger account edit shop --owner anna
  tokenledger account edit shop --no-owner --self-service=off
  tokenledger account edit anna --name 'Anna Berg' --no-mail`,
		Args: takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			account, err := accountName(args[0])
			if err != nil {
				return err
			}
			body := map[string]any{}
			for _, f := range []*textFlag{&owner, &name, &mail} {
				if err := f.into(body, c.Flags()); err != nil {
					return err
				}
			}
			if c.Flags().Changed("self-service") {
				body["self_service"] = bool(self)
			}
			if len(body) == 0 {
				return usagef(c, "name something to change")
			}
			if err := version.check(); err != nil {
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
			var seen api.Account
			if err := ledger.Get(c.Context(), []string{"v1", "accounts", account}, &seen); err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), client.Request{
				Method: http.MethodPatch, Path: []string{"v1", "accounts", seen.ID}, Body: body, Key: key, IfMatch: version.ifMatch(seen.Version),
			})
			if err != nil {
				return err
			}
			return e.changedAccount(a, "changed", nil)
		},
	}
	flags := c.Flags()
	owner.declare(flags, "owner", "user who is to own it: id or login", "nobody owns it any more")
	name.declare(flags, "name", "of the person or service", "it has no name any more")
	mail.declare(flags, "mail", "of the person", "it has no mail any more")
	self.declare(flags, "self-service", "whether it manages its own tokens, and its owner does: on or off")
	version.declare(flags)
	key.declare(flags)
	e.completeFlag(c, "owner", e.accounts)
	e.completeFlag(c, "self-service", oneOf("on", "off"))
	return c
}

// textFlag is a field that a flag changes, and another one, with no- before its
// name, takes away.
type textFlag struct {
	field string
	value string
	none  bool
}

func (t *textFlag) declare(flags *pflag.FlagSet, field, usage, without string) {
	t.field = field
	flags.StringVar(&t.value, field, "", usage)
	flags.BoolVar(&t.none, "no-"+field, false, without)
}

// into puts the field into a request's body, where it is to change.
func (t *textFlag) into(body map[string]any, flags *pflag.FlagSet) error {
	given := flags.Changed(t.field)
	switch {
	case t.none && given:
		return exit.Inputf("--%s and --no-%s contradict each other", t.field, t.field)
	case given && t.value == "":
		return exit.Inputf("--%s is empty; --no-%s takes the %s away", t.field, t.field, t.field)
	case t.none || given:
		body[t.field] = t.value
	}
	return nil
}

func newAccountEraseCmd(e *env) *cobra.Command {
	var (
		yes     bool
		version versionFlags
		wait    waitFlags
		key     keyFlag
	)
	c := &cobra.Command{
		Use: "erase ID|LOGIN", Short: "End an account for ever, and forget its person",
		Long: `Ends an account and all of its tokens, deletes its login, name, mail and what its
person signs in with, and waits until no node accepts one of its tokens any more.
The log keeps the account's id and what it did. There is no way back, so the
login has to be typed, or given on standard input, unless --yes is there.

Where the command was interrupted, give it again with the account's id.`,
		Example: `  tokenledger account erase anna
  tokenledger account erase acc_01jd3qk8z5n0v7m2x4c6b8a9ef --yes`,
		Args: takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			if err := version.check(); err != nil {
				return err
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			var seen api.Account
			if err := ledger.Get(c.Context(), []string{"v1", "accounts", name}, &seen); err != nil {
				return err
			}
			if !yes && seen.State != "erased" {
				if err := e.confirmErase(c.Context(), seen); err != nil {
					return err
				}
			}
			r := client.Request{Method: http.MethodPost, Path: []string{"v1", "accounts", seen.ID, "erase"}}
			if seen.State != "erased" { // else it goes on with what was begun
				r.IfMatch = version.ifMatch(seen.Version)
			}
			return e.end(c, r, &wait, &key, "erased", "erasure")
		},
	}
	flags := c.Flags()
	flags.BoolVar(&yes, "yes", false, "do not ask for the login")
	version.declare(flags)
	wait.declare(flags, true)
	key.declare(flags)
	return c
}

// confirmErase has the account's login typed.
func (e *env) confirmErase(ctx context.Context, a api.Account) error {
	typed := ""
	if e.tokenFile != "-" { // else standard input is spoken for
		at := e.input.Terminal()
		if at != nil {
			_, _ = io.WriteString(e.Stderr, "This ends the account "+render.Escape(a.Login)+" and all of its tokens, for ever. Its login again: ")
		}
		var err error
		if typed, err = term.Interruptible(ctx, e.input.Line); err != nil {
			typed = ""
			if at != nil { // nobody typed Enter
				_, _ = io.WriteString(e.Stderr, "\n")
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if !strings.EqualFold(strings.TrimSpace(typed), a.Login) || a.Login == "" {
		return exit.Failf(exit.Usage, "needs_confirmation", "the account %s and all of its tokens would end, for ever. Give its login on standard input, or add --yes, if that is meant", render.Escape(a.Login))
	}
	return nil
}
