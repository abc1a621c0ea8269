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
	expires     durationFlag
	at          timeFlag
	limits      constraintFlags
}

func (t *tokenEditFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&t.app, "app", "", "label: the app that uses the token. Labels stay in the log: do not name people")
	flags.StringVar(&t.device, "device", "", "label: the device that uses the token. Do not name people")
	flags.Var(&t.expires, "expires-in", "lifetime from now on, as in 90d or 1y")
	flags.Var(&t.at, "expires-at",
		"time when it expires, as in 2031-12-31 (UTC), \"2031-12-31 18:00 UTC\" or \"in 3 h\"")
	group(flags, groupLabels, "app", "device")
	group(flags, groupLifetime, "expires-in", "expires-at")
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
	switch {
	case flags.Changed("expires-in") && flags.Changed("expires-at"):
		return nil, exit.Inputf("--expires-in and --expires-at cannot be used together")
	case flags.Changed("expires-in"):
		body["expires_in"] = t.expires.String()
	case flags.Changed("expires-at") && t.at.relative:
		// The ledger's clock decides, and a repeated request stays the same.
		left := time.Until(t.at.at).Round(time.Second)
		if left <= 0 {
			return nil, exit.Inputf("--expires-at: must be in the future")
		}
		body["expires_in"] = left.String()
	case flags.Changed("expires-at"):
		body["expires_at"] = t.at.at
	}
	return body, nil
}
