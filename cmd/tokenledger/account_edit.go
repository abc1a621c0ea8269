package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
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
	allowEmpty(flags, field) // into refuses it, and names the other flag
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
