package main

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// completer proposes values of an argument or a flag.
type completer = cobra.CompletionFunc

// completionWait is how long a shell waits for live values. If the ledger does not
// answer, or refuses, there are none.
const completionWait = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// first completes the first argument with one completer, and those after it
// with rest.
func (e *env) first(first completer, rest ...completer) completer {
	return func(c *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return first(c, args, prefix)
		case len(rest) > 0:
			return rest[0](c, args, prefix)
		}
		return nil, noFiles
	}
}

// completeFlag gives a flag its completer.
func (e *env) completeFlag(c *cobra.Command, flag string, with completer) {
	if err := c.RegisterFlagCompletionFunc(flag, with); err != nil {
		panic(err) // the flag is declared a few lines above
	}
}

// oneOf completes one of a few words.
func oneOf(words ...string) completer { return cobra.FixedCompletions(words, noFiles) }

// scopes completes a scope's permission and type. It does not ask which model the
// ledger has: it assumes Matomo's, unless the environment variable of serve --model
// names another built-in model.
func (e *env) scopes(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	model, err := events.ModelNamed(e.vars[setting{name: "model"}.variable()])
	if err != nil {
		model = events.Matomo
	}
	var out []cobra.Completion
	for _, p := range model.Permissions() {
		if s := (events.Scope{Permission: p}); model.Check(s) == nil {
			out = append(out, p)
			continue
		}
		for _, typ := range model.Types() {
			if typ == events.AnyType {
				out = append(out, p+":")
			} else {
				out = append(out, p+":"+typ+"/")
			}
		}
	}
	return out, noFiles | cobra.ShellCompDirectiveNoSpace
}

func anyState(string) bool { return true }

// unended reports whether a token in a state can still be changed.
func unended(state string) bool { return state != "revoked" }

// tokens completes ids of tokens in some states, and names once a / is typed.
func (e *env) tokens(want func(state string) bool) completer {
	return func(c *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return live(c.Context(), e, "tokens", func(t api.Token) (cobra.Completion, bool) {
			if name := labelsOf(t); strings.Contains(prefix, "/") && !strings.ContainsAny(name, " \t") {
				ok := strings.HasPrefix(name, prefix) && want(t.State)
				return cobra.CompletionWithDesc(name, render.Escape(t.ID+" "+t.State)), ok
			}
			about := strings.Trim(t.App+" "+t.Device, " ")
			ok := strings.HasPrefix(t.ID, prefix) && want(t.State)
			return cobra.CompletionWithDesc(t.ID, render.Escape(strings.Trim(about+" "+t.State, " "))), ok
		})
	}
}

// accounts completes logins, and ids once one is begun.
func (e *env) accounts(c *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return live(c.Context(), e, "accounts", func(a api.Account) (cobra.Completion, bool) {
		if a.Login == "" || strings.HasPrefix(prefix, "acc_") {
			return cobra.CompletionWithDesc(a.ID, render.Escape(a.Login)), strings.HasPrefix(a.ID, prefix)
		}
		return cobra.CompletionWithDesc(a.Login, a.ID), strings.HasPrefix(a.Login, prefix)
	})
}

// live completes what the ledger lists, from the first page of the list.
func live[T any](
	ctx context.Context, e *env, what string, propose func(T) (cobra.Completion, bool),
) ([]cobra.Completion, cobra.ShellCompDirective) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	e.retry.Patience = 0
	ledger, err := e.ledger(ctx)
	if err != nil {
		return nil, noFiles
	}
	var out []cobra.Completion
	err = ledger.Pages(
		ctx,
		client.Request{Path: []string{"v1", what}},
		client.Extent{Limit: client.MaxPage},
		func(p client.Page) error {
			for _, item := range p.Items {
				var one T
				if err := json.Unmarshal(item, &one); err != nil {
					return err
				}
				if c, ok := propose(one); ok {
					out = append(out, c)
				}
			}
			return nil
		},
	)
	if err != nil {
		return nil, noFiles
	}
	return out, noFiles
}
