package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// ImportedToken is a token of a Matomo installation, as Matomo stores it.
type ImportedToken struct {
	Account    string     `json:"account" maxLength:"64" doc:"id of the account that the token belongs to"`
	Hash       string     `json:"hash" minLength:"128" maxLength:"128" pattern:"^[0-9a-f]{128}$" doc:"SHA-512 of token and salt, as in user_token_auth.password"`
	App        string     `json:"app,omitempty" maxLength:"100" doc:"label: the description in Matomo"`
	Scopes     []string   `json:"scopes,omitempty" maxItems:"2000" doc:"narrow the token; default: it inherits all grants"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty" doc:"default: never"`
	HeaderOnly bool       `json:"header_only,omitempty" doc:"refuse the token in a URL"`
	CreatedAt  *time.Time `json:"created_at,omitempty" doc:"in Matomo"`
	LastUsed   *time.Time `json:"last_used,omitempty" doc:"in Matomo"`
	Migrated   bool       `json:"migrated,omitempty" doc:"Matomo 4 made it of the one token that a user had before"`
}

type importTokensInput struct {
	Body struct {
		Source string          `json:"source" maxLength:"64" doc:"name of the installation: letters, digits, -, _ and dots" example:"matomo"`
		Tokens []ImportedToken `json:"tokens" minItems:"1" maxItems:"500"`
		DryRun bool            `json:"dry_run,omitempty" doc:"change nothing; return what would become of each token"`
	}
}

// ImportResult is the result of importing one token.
type ImportResult struct {
	Outcome string `json:"outcome" enum:"created,updated,unchanged,ended,refused" doc:"unchanged: it was imported before; ended: it was imported and revoked, and stays so"`
	ID      string `json:"id,omitempty" doc:"of the token; absent if it was refused, or would be created"`
	Problem string `json:"problem,omitempty" doc:"why it was refused"`
}

type importTokensOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Body     struct {
		Position uint64         `json:"position" doc:"position of the last event of this import, or of the answer if it changed nothing"`
		Results  []ImportResult `json:"results" doc:"in the order of the request"`
		DryRun   bool           `json:"dry_run,omitempty" doc:"nothing was changed"`
	}
}

func (a *api) importRoutes(h huma.API) {
	op := operation("tokens")(http.MethodPost, "/v1/imports/matomo", "import-tokens", "Import tokens of Matomo")
	op.Description = `Creates tokens with the hashes that a Matomo installation stores, so that clients keep their ` +
		`tokens. Nodes need the installation's salt to accept them (--matomo-salt-file); the ledger does not.` +
		"\n\n" +
		`A hash belongs forever to the token that had it first. A repeated import finds that token, and narrows it if ` +
		`Matomo has narrowed it; it never widens a token, and a revoked one does not come back.`
	register(a, h, op, a.importTokens)
}

func (a *api) importTokens(ctx context.Context, in *importTokensInput) (*importTokensOutput, error) {
	r := ledger.ImportTokens{
		Source: in.Body.Source, DryRun: in.Body.DryRun, Tokens: make([]ledger.ImportToken, len(in.Body.Tokens)),
	}
	for i, t := range in.Body.Tokens {
		hash, err := events.ParseMatomoHash(t.Hash)
		if err != nil {
			return nil, fieldError(fmt.Sprintf("tokens[%d].hash", i), err.Error())
		}
		r.Tokens[i] = ledger.ImportToken{
			Account: t.Account, Hash: hash, App: t.App, Scopes: t.Scopes, Expires: utc(t.ExpiresAt),
			HeaderOnly: t.HeaderOnly, Created: utc(t.CreatedAt), LastUsed: utc(t.LastUsed), Migrated: t.Migrated,
		}
	}
	at := a.ledger.Position()
	got, err := a.ledger.ImportTokens(ctx, callerFrom(ctx), r)
	if err != nil {
		return nil, err
	}
	out := &importTokensOutput{}
	out.Body.DryRun, out.Body.Results = r.DryRun, make([]ImportResult, len(got))
	for i, t := range got {
		at = max(at, t.Position)
		out.Body.Results[i] = ImportResult{Outcome: string(t.Outcome), ID: string(t.ID)}
		if t.Problem != nil {
			out.Body.Results[i].Problem = t.Problem.Error()
		}
	}
	out.Position, out.Body.Position = uint64(at), uint64(at)
	return out, nil
}

// utc returns a time in UTC, zero for none.
func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// ImportFilter is the part of a request that selects imported tokens.
type ImportFilter struct {
	Source    string `query:"source" json:"source,omitempty" maxLength:"64" doc:"tokens that were imported from the installation with this name"`
	Legacy    bool   `query:"legacy" json:"legacy,omitempty" doc:"imported tokens that still inherit all grants of their account"`
	Migrated  bool   `query:"migrated" json:"migrated,omitempty" doc:"imported tokens that Matomo 4 made of those of version 3"`
	UnusedFor string `query:"unused_for" json:"unused_for,omitempty" maxLength:"32" doc:"imported tokens that Matomo, at the last import, had not seen in use for this time" example:"180d"`
}

// parse returns the ledger's filter, as of now.
func (f ImportFilter) parse() (ledger.ImportFilter, error) {
	out := ledger.ImportFilter{Source: f.Source, Legacy: f.Legacy, Migrated: f.Migrated}
	if f.UnusedFor != "" {
		d, err := ParseDuration(f.UnusedFor)
		if err != nil || d <= 0 {
			return out, fieldError("unused_for", "not a positive duration; send one such as 180d")
		}
		out.UnusedFor = d
	}
	return out, nil
}
