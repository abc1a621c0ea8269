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
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

func newAuthCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "auth", Short: "Ask what you may do"}
	c.AddCommand(newCanICmd(e))
	return c
}

// canIFlags say what the operation would be done to.
type canIFlags struct {
	account string
	scopes  []string
	file    scopesFile
	inherit bool
	expires durationFlag
}

func newCanICmd(e *env) *cobra.Command {
	var f canIFlags
	c := &cobra.Command{
		Use: "can-i VERB WHAT [ID]", Short: "Ask whether you may do something, without doing it",
		Long: `Asks the ledger whether it would allow a command of yours. The ledger decides with
the rules that the command itself is checked against, and changes nothing. Prints
yes, or no and why. Exits with 0 for yes and with 4 for no.

  create|widen|show|edit|rotate|suspend|resume|revoke token
  create|show|edit|suspend|resume|erase|invite|revoke account
                                  (revoke account: revoke all of its tokens)
  set grants, list|end sessions   of an account
  show|set policy, show nodes, show receipts, revoke everything

ID is the token's ID, or the account's ID or login. Without it, an account is your
own. "no" may also mean that you have to re-authenticate first; the reason says so.`,
		Example: `  tokenledger auth can-i create token --account shop --scope view:site/3
  tokenledger auth can-i rotate token tok_01jd3qk8z5n0v7m2x4c6b8a9ef
  tokenledger auth can-i erase account anna && tokenledger account erase anna`,
		Args:              takesVerb,
		ValidArgsFunction: completeVerb,
		RunE: func(c *cobra.Command, args []string) error {
			body, err := f.body(c.Context(), e, args)
			if err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), client.Request{
				Method: http.MethodPost, Path: []string{"v1", "can-i"}, Body: body, Asks: true,
			})
			if err != nil {
				return err
			}
			return e.showMay(a)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.account, "account", "", "account of the token to create, by ID or login (default your own)")
	flags.StringSliceVar(&f.scopes, "scope", nil,
		"scopes of the token to create or to widen; repeat the flag or separate with commas")
	f.file.declare(flags, "scopes-file", "file with more scopes, one a line or separated by commas; - for standard input")
	flags.BoolVar(&f.inherit, "inherit", false, "the token would inherit all grants of its account, in place of --scope")
	flags.Var(&f.expires, "expires-in", "lifetime that the token would have, as in 90d or 1y")
	e.completeFlag(c, "account", e.accounts)
	e.completeFlag(c, "scope", e.scopes)
	return c
}

// verbOf returns the operation that arguments name, and the rest of them.
func verbOf(args []string) (verb string, rest []string, ok bool) {
	if len(args) < 2 {
		return "", nil, false
	}
	verb = strings.ToLower(args[0] + " " + args[1])
	if plain := strings.TrimSuffix(verb, "s"); !slices.Contains(authz.Verbs(), verb) { // "revoke tokens"
		verb = plain
	}
	_, ok = authz.OperationFor(verb)
	return verb, args[2:], ok
}

func takesVerb(c *cobra.Command, args []string) error {
	verb, rest, ok := verbOf(args)
	switch {
	case len(args) < 2:
		return usagef(c, "%s needs a verb and what it acts on, as in create token", c.CommandPath())
	case !ok:
		return usagef(c, "there is no operation %s", events.Quote(args[0]+" "+args[1]))
	case len(rest) > 1:
		return usagef(c, "%s does not take %s", c.CommandPath(), events.Quote(rest[1]))
	case len(rest) == 0 && strings.HasSuffix(verb, " token") && verb != "create token":
		return usagef(c, "%s needs the token's ID", c.CommandPath()+" "+verb)
	}
	return nil
}

func (f *canIFlags) body(ctx context.Context, e *env, args []string) (map[string]any, error) {
	verb, rest, _ := verbOf(args)
	scopes, err := scopeList("--scope", f.scopes)
	if err != nil {
		return nil, err
	}
	if scopes, err = f.file.add(ctx, e, scopes); err != nil {
		return nil, err
	}
	body := map[string]any{"verb": verb}
	onToken := strings.HasSuffix(verb, " token") && verb != "create token"
	switch {
	case f.account != "" && len(rest) > 0:
		return nil, exit.Inputf("--account and %s cannot be used together", events.Quote(rest[0]))
	case f.account != "":
		body["account"] = f.account
	case len(rest) > 0 && onToken:
		if body["token"], err = e.tokenNamed(ctx, rest[0]); err != nil {
			return nil, err
		}
	case len(rest) > 0:
		if body["account"], err = accountName(rest[0]); err != nil {
			return nil, err
		}
	}
	if len(scopes) > 0 {
		body["scopes"] = scopes
	}
	if f.inherit {
		body["inherit"] = true
	}
	if f.expires != 0 {
		body["expires_in"] = f.expires.String()
	}
	return body, nil
}

// showMay prints the answer to can-i, and fails if it is no.
func (e *env) showMay(a *client.Answer) error {
	var got struct {
		Allowed bool   `json:"allowed"`
		Reason  string `json:"reason"`
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	err := e.Show(a.Body, func() {
		if got.Allowed {
			e.Printf("yes\n")
		} else {
			e.Printf("no: %s\n", got.Reason)
		}
	})
	if err == nil && !got.Allowed {
		err = &exit.Failure{Code: exit.NotAllowed} // standard output says it
	}
	return err
}

// completeVerb completes the words of an operation.
func completeVerb(_ *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	for _, v := range append(authz.Verbs(), "resume account") {
		verb, noun, _ := strings.Cut(v, " ")
		word := verb
		switch {
		case len(args) > 1 || len(args) == 1 && args[0] != verb:
			continue
		case len(args) == 1:
			word = noun
		}
		if strings.HasPrefix(word, prefix) && !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	return out, noFiles
}
