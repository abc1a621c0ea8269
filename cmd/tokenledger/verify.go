package main

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/events/clock"
)

func newVerifyCmd(e *env) *cobra.Command {
	var (
		verifier                text
		need                    []string
		address, origin, method string
		explain                 bool
	)
	c := &cobra.Command{
		Use: "verify --need SCOPE < SECRET", Short: "Ask a verifier what a token may do", Args: takes(),
		Long: `Reads a token's secret from standard input, without echo where that is a
terminal, and asks a verifier whether it may do all that is needed. Exits with 0
where it may and with 7 where not.

What clients are told does not say why a token is not good. --explain does; it
sends your own token too, which needs the permission audit.`,
		Example: `  tokenledger verify --need view:site/3 < secret
  tokenledger verify --need view:site/3,write:site/4 --address 192.0.2.7 --explain < secret`,
		RunE: func(c *cobra.Command, _ []string) error {
			need, err := scopeList("--need", need)
			if err != nil {
				return err
			}
			if len(need) == 0 {
				return usagef(c, "say what is needed with --need, as in --need view:site/3")
			}
			if _, err := netip.ParseAddr(address); err != nil && address != "" {
				return inputf("--address: want an IP address")
			}
			if explain && e.tokenFile == "-" {
				return inputf("standard input holds the secret to verify; with --explain, your own token comes from a file (--token-file)")
			}
			base, from, err := e.findVerifier(verifier)
			if err != nil {
				return err
			}
			to := e.client("the verifier", base, from)
			if explain {
				if err := to.signIn(c.Context()); err != nil {
					return err
				}
			}
			secret, err := e.readSecret(c.Context())
			if err != nil {
				return err
			}
			body := map[string]any{"token": secret, "need": need}
			for name, value := range map[string]string{"address": address, "origin": origin, "method": method} {
				if value != "" {
					body[name] = value
				}
			}
			if explain {
				body["explain"] = true
			}
			a, err := askInTime(clock.Boottime, func() (*answer, error) {
				return to.do(c.Context(), request{method: http.MethodPost, path: []string{"v1", "verify"}, body: body})
			})
			if err != nil {
				return err
			}
			return e.verdict(a)
		},
	}
	flags := c.Flags()
	e.declare(flags, setting{name: "verifier", help: "URL of the verifier; by default the one that runs on the data folder, else " + defaultVerifier}, &verifier)
	flags.StringSliceVar(&need, "need", nil, "what the token has to be allowed, as in view:site/3; again or with commas for more")
	flags.StringVar(&address, "address", "", "address of the client that sent it")
	flags.StringVar(&origin, "origin", "", "page that sent it, as in https://example.org")
	flags.StringVar(&method, "method", "", "HTTP method that it was sent with")
	flags.BoolVar(&explain, "explain", false, "say exactly why; needs the permission audit")
	e.completeFlag(c, "need", e.scopes)
	return c
}

// A verifier's answer that was on its way for longer than answerWithin is
// discarded, and the verifier asked again, mostAsks times in all. The answer was
// right when it left, and a token may have been revoked since.
const (
	answerWithin = time.Second
	mostAsks     = 5
)

// askInTime returns the first answer that comes in time, by a clock that counts
// while the machine is suspended.
func askInTime(now func() time.Duration, ask func() (*answer, error)) (*answer, error) {
	for range mostAsks {
		asked := now()
		a, err := ask()
		if err != nil || now()-asked <= answerWithin {
			return a, err
		}
	}
	return nil, failf(exitUnavailable, "late_answer", "the verifier's answers took longer than %s, %d times, and were discarded: a token may be revoked meanwhile; ask again, or another verifier", answerWithin, mostAsks)
}

// verdict prints a verifier's answer, and fails where it is no.
func (e *env) verdict(a *answer) error {
	var got struct {
		Allowed  *bool    `json:"allowed"`
		Reason   string   `json:"reason"`
		Token    string   `json:"token_id"`
		Account  string   `json:"account"`
		App      string   `json:"app"`
		Scopes   []string `json:"scopes"`
		Lacking  string   `json:"lacking"`
		Position uint64   `json:"position"`

		ExpiresAt   *time.Time `json:"expires_at"`
		ExpiresSoon bool       `json:"expires_soon"`
		RetryAfter  int        `json:"retry_after_s"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		return err
	}
	if got.Allowed == nil {
		return failf(exitError, "foreign_answer", "the verifier's answer does not say whether the token is allowed")
	}
	err := e.show(a.body, func() {
		g := e.grid()
		if *got.Allowed {
			g.fact("allowed", "yes")
		} else {
			g.fact("allowed", "no: "+got.Reason)
		}
		if got.RetryAfter > 0 {
			g.fact("again in", strconv.Itoa(got.RetryAfter)+" s")
		}
		g.fact("lacking", got.Lacking)
		g.fact("token", got.Token)
		g.fact("account", got.Account)
		g.fact("app", got.App)
		g.fact("may do", strings.Join(got.Scopes, ", "))
		g.fact("expires", e.expiry(got.ExpiresAt, got.ExpiresSoon))
		g.fact("as of position", strconv.FormatUint(got.Position, 10))
		g.end()
	})
	if err == nil && !*got.Allowed {
		err = &failure{exit: exitDenied} // standard output says it
	}
	return err
}
