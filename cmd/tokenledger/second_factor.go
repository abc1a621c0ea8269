package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/ledger/api"
)

func newSecondFactorCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "second-factor", Short: "Add or remove your second factor"}
	c.AddCommand(newSecondFactorAddCmd(e), newSecondFactorConfirmCmd(e), newSecondFactorCodesCmd(e), newSecondFactorRemoveCmd(e))
	return c
}

// factor sends a request about the second factor of whoever is signed in.
func (e *env) factor(ctx context.Context, ledger *client, what string, body map[string]any) (*answer, error) {
	r := request{method: http.MethodPost, path: []string{"v1", "second-factor"}}
	if what != "" {
		r.path = append(r.path, what)
	}
	if body != nil {
		r.body = body
	}
	return ledger.do(ctx, r)
}

// guarded sends a request that takes a code where a second factor is there. It
// asks for the code only when the ledger does.
func (e *env) guarded(ctx context.Context, ledger *client, what string) (*answer, error) {
	a, err := e.factor(ctx, ledger, what, nil)
	if !wantsCode(err) {
		return a, err
	}
	code, err := e.ask(ctx, "code, or a recovery code")
	if err != nil {
		return nil, err
	}
	return e.factor(ctx, ledger, what, map[string]any{"code": code})
}

// wantsCode reports whether a request failed because it had no code.
func wantsCode(err error) bool {
	var f *failure
	var p api.Problem
	return errors.As(err, &f) && f.problem != nil && json.Unmarshal(f.problem, &p) == nil &&
		slices.ContainsFunc(p.Errors, func(field api.FieldProblem) bool { return field.Location == "body.code" })
}

func newSecondFactorAddCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "add", Short: "Add an app that makes codes", Args: takes(),
		Long: `Shows what an app for codes (TOTP) needs, and asks for a code of it, from which on
signing in takes one. Recovery codes are then shown once: keep them where the
app is not. Without a terminal, 'second-factor confirm' asks for the code.

If you have a second factor already, the command first asks for a code of it or
for a recovery code. The new one replaces it when you confirm it.`,
		Example: `  tokenledger second-factor add`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			ledger, err := e.person(ctx)
			if err != nil {
				return err
			}
			a, err := e.guarded(ctx, ledger, "")
			if err != nil {
				return err
			}
			var got struct {
				Secret string `json:"secret"`
				URI    string `json:"uri"`
			}
			if err := json.Unmarshal(a.body, &got); err != nil {
				return err
			}
			err = e.show(a.body, func() {
				g := e.grid()
				g.fact("secret", got.Secret)
				g.fact("address", got.URI)
				g.end()
			})
			if err != nil {
				return err
			}
			if e.terminal() == nil {
				e.note("It counts once it is confirmed: tokenledger second-factor confirm")
				return nil
			}
			return e.confirmFactor(ctx, ledger)
		},
	}
}

func newSecondFactorConfirmCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "confirm", Short: "Confirm a second factor by a code of its app", Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			return e.confirmFactor(c.Context(), ledger)
		},
	}
}

func (e *env) confirmFactor(ctx context.Context, ledger *client) error {
	code, err := e.ask(ctx, "code that the app shows")
	if err != nil {
		return err
	}
	a, err := e.factor(ctx, ledger, "confirm", map[string]any{"code": code})
	if err != nil {
		return err
	}
	return e.showRecovery(a)
}

func newSecondFactorCodesCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "codes", Short: "Replace the recovery codes, and show them once", Args: takes(),
		Long: `Makes new recovery codes in the place of those that are left, and shows them once.
Asks for a code of the second factor, or for a recovery code.`,
		Example: `  tokenledger second-factor codes`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			a, err := e.guarded(c.Context(), ledger, "recovery-codes")
			if err != nil {
				return err
			}
			return e.showRecovery(a)
		},
	}
}

func (e *env) showRecovery(a *answer) error {
	var got struct {
		Codes []string `json:"recovery_codes"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		return err
	}
	err := e.show(a.body, func() {
		e.printf("The recovery codes, shown now and never again; each is good once:\n%s\n", strings.Join(got.Codes, "\n"))
	})
	if err != nil {
		return failf(exitError, "output", "the recovery codes could not be written to standard output: %s. Make new ones: tokenledger second-factor codes", plain(err))
	}
	return nil
}

func newSecondFactorRemoveCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "remove", Short: "Sign in without a second factor again", Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			ledger, err := e.person(ctx)
			if err != nil {
				return err
			}
			code, err := e.ask(ctx, "code, or a recovery code")
			if err != nil {
				return err
			}
			a, err := e.factor(ctx, ledger, "remove", map[string]any{"code": code})
			if err != nil {
				return err
			}
			return e.show(a.body, func() { e.printf("removed\n") })
		},
	}
}
