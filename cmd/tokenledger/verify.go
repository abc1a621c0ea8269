package main

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
)

func newVerifyCmd(e *env) *cobra.Command {
	var (
		verifier                stringFlag
		need                    []string
		address, origin, method string
		explain                 bool
	)
	c := &cobra.Command{
		Use: "verify --need SCOPE < SECRET", Short: "Check whether a token may do something", Args: takes(),
		Long: `Reads a token's secret from standard input, without echo at a terminal, and asks a
verifier whether the token may do all that --need lists. Exits with 0 if it may and
with 7 if not.

The usual answer does not tell why a token is refused. --explain does; it also
sends your own token, which needs the permission audit.`,
		Example: `  tokenledger verify --need view:site/3 < secret
  tokenledger verify --need view:site/3,write:site/4 --address 192.0.2.7 \
    --explain < secret`,
		RunE: func(c *cobra.Command, _ []string) error {
			need, err := scopeList("--need", need)
			if err != nil {
				return err
			}
			if len(need) == 0 {
				return usagef(c, "--need is missing: the scopes to check, as in --need view:site/3")
			}
			if _, err := netip.ParseAddr(address); err != nil && address != "" {
				return exit.Inputf("--address: must be an IP address, not %s", events.Quote(address))
			}
			if explain && e.tokenFile == "-" {
				return exit.Inputf(
					"standard input holds the secret to verify, so with --explain your own token must be in a " +
						"file (--token-file)",
				)
			}
			secret, err := client.ReadSecret(c.Context(), e.input)
			if err != nil {
				return err
			}
			to, err := e.config().Verifier(string(verifier))
			if err != nil {
				return err
			}
			if explain {
				if err := to.SignIn(c.Context()); err != nil {
					return err
				}
			}
			body := map[string]any{"token": secret, "need": need}
			setGiven(body, map[string]string{"address": address, "origin": origin, "method": method})
			if explain {
				body["explain"] = true
			}
			if e.Format != render.Table || c.Flags().Changed("jq") {
				body["all_scopes"] = true
			}
			a, err := askInTime(clock.Boottime, func() (*client.Answer, error) {
				return to.Do(
					c.Context(),
					client.Request{Method: http.MethodPost, Path: []string{"v1", "verify"}, Body: body, Asks: true},
				)
			})
			if err != nil {
				return err
			}
			return e.verdict(a)
		},
	}
	flags := c.Flags()
	e.declare(flags, setting{
		name: "verifier", help: "URL of the verifier (default the one on the data folder, or else " + client.DefaultVerifier + ")",
	}, &verifier)
	flags.StringSliceVar(&need, "need", nil,
		"what the token must be allowed to do, as in view:site/3; repeat the flag or separate with commas")
	flags.StringVar(&address, "address", "", "address of the client that sent the token")
	flags.StringVar(&origin, "origin", "", "origin of the page that sent the token, as in https://example.org")
	flags.StringVar(&method, "method", "", "HTTP method that the token was sent with")
	flags.BoolVar(&explain, "explain", false, "tell exactly why; needs the permission audit")
	e.completeFlag(c, "need", e.scopes)
	return c
}

// An answer of a verifier that takes longer than answerWithin is discarded, and
// the verifier asked again, up to maxAsks times in all. The answer was right when
// it was sent, but the token may have been revoked since.
const (
	answerWithin = time.Second
	maxAsks      = 5
)

// askInTime returns the first answer that comes in time, by a clock that also runs
// while the machine is suspended.
func askInTime(now func() time.Duration, ask func() (*client.Answer, error)) (*client.Answer, error) {
	for range maxAsks {
		asked := now()
		a, err := ask()
		if err != nil || now()-asked <= answerWithin {
			return a, err
		}
	}
	return nil, exit.Failf(exit.Unavailable, "late_answer",
		"the verifier's answers took longer than %s, %d times, and were discarded, because the token may have been "+
			"revoked since. Try again, or use another verifier", answerWithin, maxAsks)
}

// verdict prints a verifier's answer, and fails if the token is refused.
func (e *env) verdict(a *client.Answer) error {
	var got struct {
		Allowed  *bool    `json:"allowed"`
		Reason   string   `json:"reason"`
		Token    string   `json:"token_id"`
		Account  string   `json:"account"`
		App      string   `json:"app"`
		Scopes   []string `json:"scopes"`
		Omitted  int      `json:"scopes_omitted"`
		Lacking  string   `json:"lacking"`
		Position uint64   `json:"position"`

		ExpiresAt   *time.Time `json:"expires_at"`
		ExpiresSoon bool       `json:"expires_soon"`
		RetryAfter  int        `json:"retry_after_s"`
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	if got.Allowed == nil {
		return exit.Failf(
			exit.Error,
			"foreign_answer",
			"the verifier's answer does not say whether the token is allowed",
		)
	}
	err := e.Show(a.Body, func() {
		g := e.Grid()
		if *got.Allowed {
			g.Fact("allowed", "yes")
		} else {
			g.Fact("allowed", "no: "+got.Reason)
		}
		if got.RetryAfter > 0 {
			g.Fact("again in", strconv.Itoa(got.RetryAfter)+" s")
		}
		g.Fact("lacking", got.Lacking)
		g.Fact("token", got.Token)
		g.Fact("account", got.Account)
		g.Fact("app", got.App)
		may := e.scopesText(got.Scopes, "")
		if got.Omitted > 0 {
			may = strconv.Itoa(got.Omitted) + " scopes (-o json lists them)"
		}
		g.Fact("may do", may)
		g.Fact("expires", e.expiry(got.ExpiresAt, got.ExpiresSoon))
		g.Fact("as of position", strconv.FormatUint(got.Position, 10))
		g.End()
	})
	if err == nil && !*got.Allowed {
		err = &exit.Failure{Code: exit.Denied} // standard output says it
	}
	return err
}
