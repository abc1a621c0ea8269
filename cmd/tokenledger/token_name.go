package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// tokenArg is how commands take a token, in help and in errors.
const (
	tokenArg  = "the token's ID or name"
	tokenHelp = `A token is named by its ID, by a beginning of its ID that no other token has, or
by ACCOUNT/APP/DEVICE with its account's login or ID and its labels.`
)

// tokenNamed returns the id of the token that an argument names: its id, or the
// beginning of it, or account/app/device. A whole id is not looked up.
func (e *env) tokenNamed(ctx context.Context, arg string) (string, error) {
	if _, err := events.ParseTokenID(arg); err == nil {
		return arg, nil
	} else if len(arg) == tokenIDLength {
		return "", exit.Inputf("%s", err)
	}
	prefix := strings.TrimSuffix(arg, "…") // as narrow tables show it
	labels := strings.SplitN(arg, "/", 3)
	switch {
	case strings.HasPrefix(prefix, "tok_") && len(prefix) < ledger.MinTokenPrefix:
		return "", exit.Inputf("%s is too short to name a token: give its ID, or at least 4 characters after tok_",
			events.Quote(arg))
	case !strings.HasPrefix(prefix, "tok_") && len(labels) < 2:
		return "", exit.Inputf("%s does not name a token: give its ID (tok_ and 26 characters), the beginning of it, "+
			"or ACCOUNT/APP/DEVICE", events.Quote(arg))
	}
	from, err := e.ledger(ctx)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(prefix, "tok_") {
		return oneToken(arg, func() ([]api.Token, error) {
			return findTokens(ctx, from, client.Query("prefix", prefix, "limit", strconv.Itoa(mostCandidates+1)))
		})
	}
	account, err := accountName(labels[0])
	if err != nil {
		return "", err
	}
	return oneToken(arg, func() ([]api.Token, error) { return labelled(ctx, from, account, labels[1:]) })
}

const tokenIDLength = len("tok_00000000000000000000000000")

// labelled returns the tokens of an account with labels. Those that have ended
// count only if there are no others. No device means any, an empty one none.
func labelled(ctx context.Context, from *client.Client, account string, labels []string) ([]api.Token, error) {
	q := client.Query("account", account, "app", labels[0], "limit", strconv.Itoa(client.MaxPage))
	if len(labels) > 1 && labels[1] != "" {
		q.Set("device", labels[1])
	}
	for _, ended := range []string{"false", "true"} {
		q.Set("ended", ended)
		found, err := findTokens(ctx, from, q)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(t api.Token) bool {
			return t.App != labels[0] || len(labels) > 1 && t.Device != labels[1]
		})
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

func findTokens(ctx context.Context, from *client.Client, q url.Values) ([]api.Token, error) {
	a, err := from.Do(ctx, client.Request{Method: http.MethodGet, Path: []string{"v1", "tokens"}, Query: q})
	if err != nil {
		return nil, err
	}
	var got struct {
		Items []api.Token `json:"items"`
	}
	return got.Items, json.Unmarshal(a.Body, &got)
}

// mostCandidates is how many tokens the refusal of an ambiguous name lists.
const mostCandidates = 5

// oneToken returns the id of the only token that a name finds.
func oneToken(name string, find func() ([]api.Token, error)) (string, error) {
	found, err := find()
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", exit.Failf(exit.NotFound, "not_found",
			"no token is named %s, or you may not see it", events.Quote(name))
	case len(found) == 1:
		return found[0].ID, nil
	}
	var lines, ids []string
	for _, t := range found[:min(mostCandidates, len(found))] {
		lines, ids = append(lines, t.ID+" ("+labelsOf(t)+", "+t.State+")"), append(ids, t.ID)
	}
	text := "more than one token is named " + events.Quote(name) + ", so nothing was done: " + strings.Join(lines, "; ")
	if len(found) > mostCandidates {
		text += "; and more"
	}
	f := exit.Failf(exit.Usage, "ambiguous", "%s. Name one by its ID", text)
	if f.Problem, err = json.Marshal(map[string]any{"code": f.Name, "detail": f.Text, "candidates": ids}); err != nil {
		return "", err
	}
	return "", f
}

// labelsOf returns a token's account and labels, as commands take them.
func labelsOf(t api.Token) string {
	account := t.Login
	if account == "" {
		account = t.Account
	}
	return account + "/" + t.App + "/" + t.Device
}
