package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

type revokeTokensInput struct {
	Idempotent
	Waiting
	Body struct {
		Account string `json:"account,omitempty" minLength:"1" maxLength:"128" doc:"tokens of this account: id or login"`
		App     string `json:"app,omitempty" minLength:"1" maxLength:"100" doc:"tokens with this app label"`
		Device  string `json:"device,omitempty" minLength:"1" maxLength:"100" doc:"tokens with this device label"`
		Scope   string `json:"scope,omitempty" minLength:"1" maxLength:"200" doc:"tokens that can do this, by own or inherited scopes; a wider scope counts, also superuser" example:"admin:site/3"`
		ImportFilter
		CreatedBefore *time.Time `json:"created_before,omitempty" doc:"tokens that were created before this time"`
		Reason        string     `json:"reason,omitempty" maxLength:"100" doc:"why; do not name people, because the log keeps it forever"`
		DryRun        bool       `json:"dry_run,omitempty" doc:"change nothing; return what would be revoked"`
		IncludeSelf   bool       `json:"include_self,omitempty" doc:"also revoke the token that sends this request, if it matches"`
		Cursor        string     `json:"cursor,omitempty" maxLength:"200" doc:"next_cursor of the previous answer, to continue there"`
	}
}

// Revocations is the result of a request to revoke many tokens.
type Revocations struct {
	Position  uint64   `json:"position" doc:"log position from which on the tokens are revoked"`
	Event     uint64   `json:"event,omitempty" doc:"position of the one event that revoked all tokens; absent if each has its own event, or none was revoked"`
	Matched   int      `json:"matched" doc:"number of tokens that match"`
	Revoked   int      `json:"revoked" doc:"number of matching tokens that this request revoked; with dry_run, that it would revoke"`
	Already   int      `json:"already" doc:"number of matching tokens that were already revoked"`
	Tokens    []string `json:"tokens" doc:"ids of revoked tokens; the first 100 at most"`
	SelfSpare bool     `json:"self_spared,omitempty" doc:"the token that sent the request matches and was not revoked; use include_self to revoke it too"`
	Uncounted bool     `json:"uncounted,omitempty" doc:"more tokens were revoked than were counted"`
	DryRun    bool     `json:"dry_run,omitempty" doc:"nothing was changed"`
	// NextCursor is set if the request stopped before the end.
	NextCursor string   `json:"next_cursor,omitempty" doc:"more tokens match: send the request again with this cursor"`
	Receipt    *Receipt `json:"receipt,omitempty" doc:"with ?wait=: when the revocations took effect on every node"`
}

type revokeTokensOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"log position that the answer reflects"`
	Replayed string `header:"Idempotency-Replayed" doc:"true if an earlier request with the same key was carried out"`
	Body     Revocations
}

func (a *api) revocationRoutes(h huma.API) {
	op := operation("tokens")(http.MethodPost, "/v1/revocations", "revoke-tokens", "Revoke many tokens permanently")
	op.Description = `Revokes every token that matches all filters. ` +
		`Send at least one of account, app, device, scope, created_before, source, legacy, migrated and unused_for.` +
		"\n\n" +
		`With account, created_before or both, one event revokes all tokens, however many there are. ` +
		`With any other filter, each token gets an event of its own: ` +
		`up to 10,000 per request, which takes 30 seconds at most. ` +
		`If next_cursor is present, more tokens match. ` +
		`A repeated request continues with the remaining tokens.`
	register(a, h, op, a.revokeTokens)
}

func (a *api) revokeTokens(ctx context.Context, in *revokeTokensInput) (*revokeTokensOutput, error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	b := in.Body
	r := ledger.RevokeMany{
		Account: b.Account, App: b.App, Device: b.Device, Scope: b.Scope, Reason: b.Reason,
		IncludeSelf: b.IncludeSelf, DryRun: b.DryRun, StartReceipt: wait > 0 && !b.DryRun,
	}
	if b.CreatedBefore != nil {
		r.CreatedBefore = b.CreatedBefore.UTC()
		if r.CreatedBefore.IsZero() {
			return nil, fieldError("created_before", "not a valid time; send one such as 2027-01-31T00:00:00Z")
		}
	}
	if r.Import, err = b.ImportFilter.parse(); err != nil {
		return nil, err
	}
	filter := []any{r.Account, r.App, r.Device, r.Scope, r.CreatedBefore, r.Import}
	caller := callerFrom(ctx)
	after, err := Page{Cursor: b.Cursor}.decodeCursor("revocations", perCaller(caller, filter))
	if err != nil {
		return nil, locatedAt("body.cursor", err)
	}
	r.After = events.TokenID(after)
	got, err := a.ledger.RevokeMany(ctx, caller, in.Key, r)
	if err != nil {
		return nil, err
	}
	out := &revokeTokensOutput{Position: uint64(got.Position), Replayed: replayed(got.Replayed)}
	out.Body = Revocations{
		Position: uint64(got.Position), Event: uint64(got.At),
		Matched: got.Matched, Revoked: got.Revoked, Already: got.Already,
		Tokens: make([]string, len(got.Tokens)), SelfSpare: got.Spared, Uncounted: got.Uncounted, DryRun: b.DryRun,
	}
	for i, id := range got.Tokens {
		out.Body.Tokens[i] = string(id)
	}
	if got.Next != "" {
		out.Body.NextCursor = encodeCursor("revocations", perCaller(caller, filter), string(got.Next))
	}
	if !b.DryRun && got.Next == "" {
		out.Body.Receipt = a.awaitReceipt(ctx, got.Position, wait, &out.Position)
	}
	return out, nil
}
