package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

func newTokenScopeCmd(e *env) *cobra.Command {
	var (
		inherit, admin bool
		version        versionFlags
		wait           waitFlags
		key            keyFlag
	)
	c := &cobra.Command{
		Use: "scope ID SCOPE...", Short: "Replace what a token may do",
		Long: `Replaces a token's scopes with those that are named, or with --inherit by all
that its account has. With --wait the command ends when no node goes by the old
ones any more; it exits with 6 where that takes longer.`,
		Example: `  tokenledger token scope tok_01jd3qk8z5n0v7m2x4c6b8a9ef view:site/3 write:site/4`,
		Args: func(c *cobra.Command, args []string) error {
			if inherit {
				return takes("the token's ID")(c, args)
			}
			return takes("the token's ID", "its new scopes, as in view:site/3, or --inherit...")(c, args)
		},
		ValidArgsFunction: e.first(e.tokens(unended), e.scopes),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := tokenID(args[0])
			if err != nil {
				return err
			}
			scopes, err := scopeList("scopes", args[1:])
			if err != nil {
				return err
			}
			if err := version.check(); err != nil {
				return err
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			if len(scopes) == 0 && !inherit {
				return usagef(c, "name the token's new scopes, as in view:site/3")
			}
			if err := confirmScopes(admin, scopes); err != nil {
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
				Version uint64 `json:"version"`
				Account string `json:"account"`
			}
			if err := ledger.Get(c.Context(), []string{"v1", "tokens", id}, &seen); err != nil {
				return err
			}
			body := map[string]any{"scopes": scopes}
			if inherit {
				if err := confirmInherit(c.Context(), ledger, admin, seen.Account); err != nil {
					return err
				}
				body = map[string]any{"inherit": true}
			}
			a, got, err := wait.change(c.Context(), e, ledger, client.Request{
				Method: http.MethodPatch, Path: []string{"v1", "tokens", id}, Body: body, Key: key, IfMatch: version.ifMatch(seen.Version),
			})
			if err != nil {
				return err
			}
			if err := e.changed(a, "changed", got.Receipt); err != nil {
				return err
			}
			return wait.unproven(e, got, "change")
		},
	}
	flags := c.Flags()
	flags.BoolVar(&inherit, "inherit", false, "it may do all that its account may, now and later; instead of scopes")
	declareAdmin(flags, &admin)
	version.declare(flags)
	wait.declare(flags, false)
	key.declare(flags)
	return c
}

func newTokenEditCmd(e *env) *cobra.Command {
	var (
		app, device, at string
		expires         durationFlag
		limits          constraintFlags
		version         versionFlags
		wait            waitFlags
		key             keyFlag
	)
	c := &cobra.Command{
		Use: "edit ID", Short: "Change a token's labels, expiry or constraints",
		Long: `Changes what is named, and leaves the rest. An empty value takes a label or a
constraint away, as in --cidr "".`,
		Example: `  tokenledger token edit tok_01jd3qk8z5n0v7m2x4c6b8a9ef --expires-in 30d --cidr 192.0.2.0/24,198.51.100.7`,
		Args:    takes("the token's ID"), ValidArgsFunction: e.first(e.tokens(unended)),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := tokenID(args[0])
			if err != nil {
				return err
			}
			if err := version.check(); err != nil {
				return err
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			flags, body := c.Flags(), map[string]any{}
			if flags.Changed("app") {
				body["app"] = app
			}
			if flags.Changed("device") {
				body["device"] = device
			}
			switch {
			case flags.Changed("expires-in") && flags.Changed("expires-at"):
				return exit.Inputf("--expires-in and --expires-at contradict each other")
			case flags.Changed("expires-in"):
				body["expires_in"] = expires.String()
			case flags.Changed("expires-at"):
				t, err := time.Parse(time.RFC3339, at)
				if err != nil {
					return exit.Inputf("--expires-at: want a time such as 2031-12-31T18:00:00Z")
				}
				body["expires_at"] = t
			}
			narrows := limits.changed(flags)
			if len(body) == 0 && !narrows {
				return usagef(c, "name something to change")
			}
			if err := limits.change(flags, constraints{}); err != nil {
				return err // before anything is sent
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
				Version     uint64      `json:"version"`
				Constraints constraints `json:"constraints"`
			}
			if err := ledger.Get(c.Context(), []string{"v1", "tokens", id}, &seen); err != nil {
				return err
			}
			if narrows {
				// The API replaces all constraints together.
				if seen.Constraints == nil {
					seen.Constraints = constraints{}
				}
				if err := limits.change(flags, seen.Constraints); err != nil {
					return err
				}
				body["constraints"] = seen.Constraints
			}
			a, got, err := wait.change(c.Context(), e, ledger, client.Request{
				Method: http.MethodPatch, Path: []string{"v1", "tokens", id}, Body: body, Key: key, IfMatch: version.ifMatch(seen.Version),
			})
			if err != nil {
				return err
			}
			if err := e.changed(a, "changed", got.Receipt); err != nil {
				return err
			}
			return wait.unproven(e, got, "change")
		},
	}
	flags := c.Flags()
	flags.StringVar(&app, "app", "", "what uses it; do not name people")
	flags.StringVar(&device, "device", "", "where; do not name people")
	flags.Var(&expires, "expires-in", "how long it lives from now on, as in 90d")
	flags.StringVar(&at, "expires-at", "", "when it ends, as in 2031-12-31T18:00:00Z")
	limits.declare(flags)
	version.declare(flags)
	wait.declare(flags, false)
	key.declare(flags)
	return c
}
