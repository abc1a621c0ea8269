package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

type revokeManyInput struct {
	Keyed
	Waiting
	Body struct {
		Account       string     `json:"account,omitempty" minLength:"1" maxLength:"128" doc:"tokens of this account: id or login"`
		App           string     `json:"app,omitempty" minLength:"1" maxLength:"100" doc:"tokens that name this app"`
		Device        string     `json:"device,omitempty" minLength:"1" maxLength:"100" doc:"tokens that name this device"`
		Scope         string     `json:"scope,omitempty" minLength:"1" maxLength:"200" doc:"tokens that may do this, by a scope of their own or one that they inherit: a wider one counts, superuser too" example:"admin:site/3"`
		CreatedBefore *time.Time `json:"created_before,omitempty" doc:"tokens that were made before"`
		Reason        string     `json:"reason,omitempty" maxLength:"100" doc:"do not name people, the log cannot forget"`
		DryRun        bool       `json:"dry_run,omitempty" doc:"change nothing, and say what would be"`
		IncludeSelf   bool       `json:"include_self,omitempty" doc:"revoke the token that this request is sent with, too, where it matches"`
		Cursor        string     `json:"cursor,omitempty" maxLength:"200" doc:"next_cursor of the answer before, to go on from there"`
	}
}

// Revocations is what became of a request to revoke many tokens.
type Revocations struct {
	Position  uint64   `json:"position" doc:"from here on in the log they are revoked"`
	Event     uint64   `json:"event,omitempty" doc:"position of the one event that ended all of them; absent where each was ended by one of its own, or none was"`
	Matched   int      `json:"matched" doc:"tokens that match"`
	Revoked   int      `json:"revoked" doc:"of them, revoked by this request; with dry_run, those that would be"`
	Already   int      `json:"already" doc:"of them, revoked before"`
	Tokens    []string `json:"tokens" doc:"ids of some of those that were revoked, 100 at most"`
	SelfSpare bool     `json:"self_spared,omitempty" doc:"the token that the request was sent with matches, and was left; include_self revokes it too"`
	Uncounted bool     `json:"uncounted,omitempty" doc:"more were revoked than were counted here"`
	DryRun    bool     `json:"dry_run,omitempty" doc:"nothing was changed"`
	// NextCursor is there where the request stopped before the end.
	NextCursor string   `json:"next_cursor,omitempty" doc:"there are tokens left: send the request again with this as cursor"`
	Receipt    *Receipt `json:"receipt,omitempty" doc:"where the request waited"`
}

type revokeManyOutput struct {
	Position uint64 `header:"Ledger-Position" doc:"position that the answer rests on"`
	Replayed string `header:"Idempotency-Replayed" doc:"true where an earlier request with the same key did it"`
	Body     Revocations
}

func (a *api) revocationRoutes(h huma.API) {
	op := operation("tokens")(http.MethodPost, "/v1/revocations", "revoke-tokens", "End many tokens for ever", http.StatusOK)
	op.Description = `Ends every token that matches all that is named; at least one of account, app, device, scope and created_before is.

All of an account's tokens, or all that were made before a time, end by one event, however many they are. With app, device or scope each token ends by an event of its own: up to 10,000 in a request, which takes half a minute at most; next_cursor says that there are more. A request that is sent again goes on with those that are left.`
	huma.Register(h, op, a.revokeMany)
}

func (a *api) revokeMany(ctx context.Context, in *revokeManyInput) (*revokeManyOutput, error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	b := in.Body
	r := ledger.RevokeMany{
		Account: b.Account, App: b.App, Device: b.Device, Scope: b.Scope, Reason: b.Reason,
		IncludeSelf: b.IncludeSelf, DryRun: b.DryRun, Prove: wait > 0 && !b.DryRun,
	}
	if b.CreatedBefore != nil {
		r.Before = b.CreatedBefore.UTC()
		if r.Before.IsZero() {
			return nil, a.fault(ctx, &ledger.FieldError{Field: "created_before", Problem: "is not a time in this era"}, false)
		}
	}
	filter := []any{r.Account, r.App, r.Device, r.Scope, r.Before}
	caller := callerFrom(ctx)
	after, err := Page{Cursor: b.Cursor}.after("revocations", callersOwn(caller, filter))
	if err != nil {
		return nil, a.fault(ctx, &located{err, "body.cursor"}, false)
	}
	r.After = events.TokenID(after)
	got, err := a.ledger.RevokeMany(ctx, caller, in.Key, r)
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	out := &revokeManyOutput{Position: uint64(got.Position), Replayed: replayed(got.Replayed)}
	out.Body = Revocations{
		Position: uint64(got.Position), Event: uint64(got.At), Matched: got.Matched, Revoked: got.Revoked, Already: got.Already,
		Tokens: make([]string, len(got.Tokens)), SelfSpare: got.Spared, Uncounted: got.Uncounted, DryRun: b.DryRun,
	}
	for i, id := range got.Tokens {
		out.Body.Tokens[i] = string(id)
	}
	if got.Next != "" {
		out.Body.NextCursor = cursor("revocations", callersOwn(caller, filter), string(got.Next))
	}
	if !b.DryRun {
		out.Body.Receipt = a.prove(ctx, got.Position, wait, &out.Position)
	}
	return out, nil
}
