package main

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

func newTokenEditCmd(e *env) *cobra.Command {
	var (
		edit tokenEditFlags
		f    changeFlags
	)
	c := &cobra.Command{
		Use: "edit TOKEN", Short: "Change the labels, the expiry or the constraints of a token",
		Long: `Changes what the flags name and keeps the rest. An empty value removes a label or
a constraint, as in --cidr "".

` + tokenHelp,
		Example: `  tokenledger token edit tok_01jd3qk8z5n0v7m2x4c6b8a9ef --expires-in 30d
  tokenledger token edit tok_01jd3qk8z5n0v7m2x4c6b8a9ef --cidr 192.0.2.0/24,198.51.100.7`,
		Args: takes(tokenArg), ValidArgsFunction: e.first(e.tokens(unended)),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := e.tokenNamed(c.Context(), args[0])
			if err != nil {
				return err
			}
			body, err := edit.body(c.Flags())
			if err != nil {
				return err
			}
			narrows := edit.limits.changed(c.Flags())
			if len(body) == 0 && !narrows {
				return usagef(c, "give at least one flag that changes something")
			}
			if err := edit.limits.change(c.Flags(), constraints{}); err != nil {
				return err // before anything is sent
			}
			path := []string{"v1", "tokens", id}
			return e.change(c, change{
				flags: &f, noun: "change", read: path,
				request: func(_ context.Context, _ *client.Client, seen current) (client.Request, error) {
					r := client.Request{Method: http.MethodPatch, Path: path, Body: body}
					if !narrows {
						return r, nil
					}
					// The API replaces all constraints together.
					if seen.Constraints == nil {
						seen.Constraints = constraints{}
					}
					body["constraints"] = seen.Constraints
					return r, edit.limits.change(c.Flags(), seen.Constraints)
				},
				show: func(a *client.Answer, got proven) error { return e.changed(a, "changed", got.Receipt) },
			})
		},
	}
	edit.declare(c.Flags())
	f.declare(c.Flags())
	return c
}

// tokenEditFlags change the labels, the expiry and the constraints of a token.
type tokenEditFlags struct {
	app, device string
	lifetime    lifetimeFlags
	limits      constraintFlags
}

func (t *tokenEditFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&t.app, "app", "", "label: the app that uses the token. Labels stay in the log: do not name people")
	flags.StringVar(&t.device, "device", "", "label: the device that uses the token. Do not name people")
	group(flags, groupLabels, "app", "device")
	t.lifetime.declare(flags, "lifetime from now on, as in 90d or 1y")
	t.limits.declare(flags)
	allowEmpty(flags, "app", "device", "cidr", "origin", "method", "audience") // they remove it
}

// body returns the members of the request that flags change, except for the
// constraints.
func (t *tokenEditFlags) body(flags *pflag.FlagSet) (map[string]any, error) {
	body := map[string]any{}
	if flags.Changed("app") {
		body["app"] = t.app
	}
	if flags.Changed("device") {
		body["device"] = t.device
	}
	return body, t.lifetime.into(body, flags)
}

// lifetimeFlags say when a token expires: after a time, or at one.
type lifetimeFlags struct {
	in durationFlag
	at timeFlag
}

func (l *lifetimeFlags) declare(flags *pflag.FlagSet, in string) {
	flags.Var(&l.in, "expires-in", in)
	flags.Var(&l.at, "expires-at",
		"time when it expires, as in 2031-12-31 (UTC), \"2031-12-31 18:00 UTC\" or \"in 3 h\"")
	group(flags, groupLifetime, "expires-in", "expires-at")
}

// into puts the expiry into a request's body if a flag gives it.
func (l *lifetimeFlags) into(body map[string]any, flags *pflag.FlagSet) error {
	switch {
	case flags.Changed("expires-in") && flags.Changed("expires-at"):
		return exit.Inputf("--expires-in and --expires-at cannot be used together")
	case flags.Changed("expires-in"):
		body["expires_in"] = l.in.String()
	case flags.Changed("expires-at") && l.at.relative:
		// The ledger's clock decides, and a repeated request stays the same.
		left := time.Until(l.at.at).Round(time.Second)
		if left <= 0 {
			return exit.Inputf("--expires-at: must be in the future")
		}
		body["expires_in"] = left.String()
	case flags.Changed("expires-at"):
		body["expires_at"] = l.at.at
	}
	return nil
}
