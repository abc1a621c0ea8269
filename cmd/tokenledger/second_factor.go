package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newSecondFactorCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "second-factor",
		Aliases: []string{"2fa"},
		Short:   "Add, replace or remove your second factor (2FA)",
	}
	c.AddCommand(
		newSecondFactorAddCmd(e),
		newSecondFactorConfirmCmd(e),
		newSecondFactorCodesCmd(e),
		newSecondFactorRemoveCmd(e),
	)
	return c
}

// factor sends a request about the second factor of the person who is signed in.
func (e *env) factor(
	ctx context.Context,
	ledger *client.Client,
	what string,
	body map[string]any,
) (*client.Answer, error) {
	r := client.Request{Method: http.MethodPost, Path: []string{"v1", "second-factor"}}
	if what != "" {
		r.Path = append(r.Path, what)
	}
	if body != nil {
		r.Body = body
	}
	return ledger.Do(ctx, r)
}

// guarded sends a request that needs a code if the person has a second factor. It
// asks for the code only if the ledger requires it.
func (e *env) guarded(ctx context.Context, ledger *client.Client, what string) (*client.Answer, error) {
	a, err := e.factor(ctx, ledger, what, nil)
	if !wantsCode(err) {
		return a, err
	}
	code, err := e.input.Ask(ctx, "code, or a recovery code")
	if err != nil {
		return nil, err
	}
	return e.factor(ctx, ledger, what, map[string]any{"code": code})
}

// wantsCode reports whether a request failed for lack of a code.
func wantsCode(err error) bool {
	p := client.Problem(err)
	return p != nil &&
		slices.ContainsFunc(p.Errors, func(field api.FieldProblem) bool { return field.Location == "body.code" })
}

func newSecondFactorAddCmd(e *env) *cobra.Command {
	var file secretFile
	c := &cobra.Command{
		Use: "add", Short: "Add an authenticator app (TOTP) as your second factor", Args: takes(),
		Long: `Shows the secret for an authenticator app (TOTP), and asks for a code from the app.
From then on signing in needs a code. It then shows recovery codes once: keep them
apart from the app. Without a terminal, run 'tokenledger second-factor confirm' to
give the code.

If you have a second factor already, the command first asks for a code of it or
for a recovery code. The new one replaces it when you confirm it.`,
		Example: `  tokenledger second-factor add`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if file.given() && e.input.Terminal() == nil {
				return exit.Inputf("--recovery-file: there are no recovery codes without a terminal before " +
					"'tokenledger second-factor confirm', which takes the flag too")
			}
			ledger, err := e.person(ctx)
			if err != nil {
				return err
			}
			if err := file.open(); err != nil {
				return err
			}
			defer file.close()
			a, err := e.guarded(ctx, ledger, "")
			if err != nil {
				return err
			}
			var got struct {
				Secret string `json:"secret"`
				URI    string `json:"uri"`
			}
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			err = e.Show(a.Body, func() {
				g := e.Grid()
				g.Fact("secret", got.Secret)
				g.Fact("address", got.URI)
				g.End()
			})
			if err != nil {
				return err
			}
			if e.input.Terminal() == nil {
				e.Note("To activate it, run 'tokenledger second-factor confirm'.")
				return nil
			}
			return e.confirmFactor(ctx, ledger, &file)
		},
	}
	declareRecovery(c, &file)
	return c
}

// declareRecovery adds the flag that names a file for recovery codes.
func declareRecovery(c *cobra.Command, file *secretFile) {
	file.declare(c.Flags(), "recovery-file", "the recovery codes")
}

func newSecondFactorConfirmCmd(e *env) *cobra.Command {
	var file secretFile
	c := &cobra.Command{
		Use: "confirm", Short: "Confirm a new second factor with a code from its app", Args: takes(),
		Example: `  tokenledger second-factor confirm`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			if err := file.open(); err != nil {
				return err
			}
			defer file.close()
			return e.confirmFactor(c.Context(), ledger, &file)
		},
	}
	declareRecovery(c, &file)
	return c
}

func (e *env) confirmFactor(ctx context.Context, ledger *client.Client, file *secretFile) error {
	code, err := e.input.Ask(ctx, "code that the app shows")
	if err != nil {
		return err
	}
	a, err := e.factor(ctx, ledger, "confirm", map[string]any{"code": code})
	if err != nil {
		return err
	}
	return e.showRecovery(a, file)
}

func newSecondFactorCodesCmd(e *env) *cobra.Command {
	var file secretFile
	c := &cobra.Command{
		Use: "codes", Short: "Replace your recovery codes and show them once", Args: takes(),
		Long: `Creates new recovery codes in place of the old ones, and shows them once. It asks
for a code of the second factor, or for a recovery code.`,
		Example: `  tokenledger second-factor codes
  tokenledger second-factor codes --recovery-file recovery.txt`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.person(c.Context())
			if err != nil {
				return err
			}
			if err := file.open(); err != nil {
				return err
			}
			defer file.close()
			a, err := e.guarded(c.Context(), ledger, "recovery-codes")
			if err != nil {
				return err
			}
			return e.showRecovery(a, &file)
		},
	}
	declareRecovery(c, &file)
	return c
}

// showRecovery prints recovery codes, this once, or writes them to their file.
func (e *env) showRecovery(a *client.Answer, file *secretFile) error {
	var got struct {
		Codes []string `json:"recovery_codes"`
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	if file.given() {
		if err := file.store(e, strings.Join(got.Codes, "\n")); err != nil {
			return err
		}
		body, err := file.answer(a.Body, "recovery_codes")
		if err != nil {
			return err
		}
		return e.Show(body, func() { e.Printf("The recovery codes are in %s\n", render.Escape(file.path)) })
	}
	err := e.Show(a.Body, func() {
		e.Printf("The recovery codes, shown only this once; each works once:\n%s\n", strings.Join(got.Codes, "\n"))
	})
	if err != nil {
		return exit.Failf(exit.Error, "output",
			"the recovery codes could not be written to standard output: %s. Create new ones with 'tokenledger "+
				"second-factor codes'", exit.Cause(err))
	}
	return nil
}

func newSecondFactorRemoveCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "remove", Short: "Remove your second factor", Args: takes(),
		Example: `  tokenledger second-factor remove`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			ledger, err := e.person(ctx)
			if err != nil {
				return err
			}
			code, err := e.input.Ask(ctx, "code, or a recovery code")
			if err != nil {
				return err
			}
			a, err := e.factor(ctx, ledger, "remove", map[string]any{"code": code})
			if err != nil {
				return err
			}
			return e.Show(a.Body, func() { e.Printf("removed\n") })
		},
	}
}
