package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
)

func newAccountEditCmd(e *env) *cobra.Command {
	var (
		owner, name, mail textFlag
		self              onOff
		f                 changeFlags
	)
	c := &cobra.Command{
		Use: "edit ID|LOGIN", Short: "Change the owner, name, mail or self-service of an account",
		Long: `Changes what the flags name and keeps the rest. The owner of a service account is a
user, who manages its tokens. With self-service off, neither the account nor its
owner can create or widen its tokens; they still see and revoke them. Name and mail
are stored apart from the log, which records only that they changed.`,
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
				return usagef(c, "give at least one flag that changes something")
			}
			return e.change(c, change{
				flags: &f, noun: "change", read: []string{"v1", "accounts", account},
				request: func(_ context.Context, _ *client.Client, seen current) (client.Request, error) {
					return client.Request{
						Method: http.MethodPatch,
						Path:   []string{"v1", "accounts", seen.ID},
						Body:   body,
					}, nil
				},
				show: func(a *client.Answer, _ proven) error { return e.changedAccount(a, "changed", nil) },
			})
		},
	}
	flags := c.Flags()
	owner.declare(flags, "owner", "user who owns it from now on, by ID or login", "remove its owner")
	name.declare(flags, "name", "name of the person or service", "remove its name")
	mail.declare(flags, "mail", "mail address of the person", "remove its mail address")
	self.declare(flags, "self-service", "whether the account and its owner manage its tokens")
	f.version.declare(flags)
	f.key.declare(flags)
	e.completeFlag(c, "owner", e.accounts)
	e.completeFlag(c, "self-service", oneOf("on", "off"))
	return c
}

// textFlag is a field that one flag changes, and another one, with "no-" before its
// name, removes.
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

// into puts the field into a request's body if it changes.
func (t *textFlag) into(body map[string]any, flags *pflag.FlagSet) error {
	given := flags.Changed(t.field)
	switch {
	case t.none && given:
		return exit.Inputf("--%s and --no-%s cannot be used together", t.field, t.field)
	case given && t.value == "":
		return exit.Inputf("--%s is empty; use --no-%s to remove the %s", t.field, t.field, t.field)
	case t.none || given:
		body[t.field] = t.value
	}
	return nil
}

func newAccountEraseCmd(e *env) *cobra.Command {
	var (
		yes bool
		f   changeFlags
	)
	c := &cobra.Command{
		Use: "erase ID|LOGIN", Short: "End an account forever and delete its personal data",
		Long: `Ends an account and all of its tokens, deletes its login, name, mail and sign-in
data, and waits until no node accepts one of its tokens any more. The log keeps the
account's ID and what it did. This cannot be undone, so the command asks for the
login, at the terminal or on standard input, unless you give --yes.

If the command was interrupted, run it again with the account's ID.`,
		Example: `  tokenledger account erase anna
  tokenledger account erase acc_01jd3qk8z5n0v7m2x4c6b8a9ef --yes`,
		Args: takes(accountArg), ValidArgsFunction: e.first(e.accounts),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := accountName(args[0])
			if err != nil {
				return err
			}
			return e.change(c, change{
				flags: &f, noun: "erasure", read: []string{"v1", "accounts", name},
				request: func(ctx context.Context, _ *client.Client, seen current) (client.Request, error) {
					r := client.Request{Method: http.MethodPost, Path: []string{"v1", "accounts", seen.ID, "erase"}}
					switch {
					case seen.State == "erased": // the command continues what was begun
						f.version = versionFlags{force: true}
					case !yes:
						return r, e.confirmErase(ctx, seen.Login)
					}
					return r, nil
				},
				show: func(a *client.Answer, got proven) error { return e.ended(a, "erased", got) },
			})
		},
	}
	flags := c.Flags()
	flags.BoolVar(&yes, "yes", false, "do not ask for the login")
	f.version.declare(flags)
	f.wait.declare(flags, true)
	f.key.declare(flags)
	return c
}

// confirmErase asks for the account's login, and fails if another text is given.
func (e *env) confirmErase(ctx context.Context, login string) error {
	typed := ""
	if e.tokenFile != "-" { // else standard input is spoken for
		at := e.input.Terminal()
		if at != nil {
			_, _ = fmt.Fprintf(
				e.Stderr,
				"This ends the account %s and all of its tokens, forever. Type its login to confirm: ",
				render.Escape(login),
			)
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
