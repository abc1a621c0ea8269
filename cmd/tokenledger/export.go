package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/manifest"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"

	"go.yaml.in/yaml/v3"
)

func newExportCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Print accounts and tokens as a file for 'tokenledger apply'", Args: takes(),
		Long: `Prints the accounts that you may see, with their grants and tokens, as YAML that
'tokenledger apply' accepts and that then changes nothing; with -o json as JSON.
Secrets are not in it. Left out are root, erased accounts, and tokens that are
revoked or expired. Names and mail addresses are in it if the accounts have them:
think before you keep the file where they cannot be erased.`,
		Example: `  tokenledger export > tokens.yaml
  tokenledger export -o json`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			state, err := readState(c.Context(), ledger, (*manifest.State).Exported)
			if err != nil {
				return err
			}
			text, err := manifest.Export(state)
			if err != nil {
				return err
			}
			for _, a := range state.Accounts {
				if a.Partial {
					e.Note("tokenledger: your token sees only a part of the account %s, which is left out.", render.Escape(a.ID))
				}
			}
			if !e.Format.Machine() || e.Format == render.YAML {
				return e.Print(text, "")
			}
			var v any
			if err := yaml.Unmarshal(text, &v); err != nil {
				return err
			}
			body, err := json.Marshal(v)
			if err != nil {
				return err
			}
			return e.Show(body, nil)
		},
	}
}
