package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/deploy"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

func newSnippetCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "snippet",
		Short: "Print a configuration for a proxy",
	}
	c.AddCommand(newSnippetNginxCmd(e), newSnippetMatomoCmd(e))
	return c
}

func newSnippetMatomoCmd(e *env) *cobra.Command {
	var m deploy.Matomo
	c := &cobra.Command{
		Use:   "matomo",
		Short: "Print a configuration for nginx in front of gateways for Matomo",
		Long: `Prints a file for the http block of nginx, for example
/etc/nginx/conf.d/tokenledger-matomo.conf. nginx passes every request to a gateway.
If none is there, and --direct names Matomo, nginx passes files of the tracker and
hits without a token to Matomo itself, and refuses the rest with 502, 503 or 504.`,
		Example: `  tokenledger snippet matomo --listen 80 --gateway http://127.0.0.1:7605 \
    --direct http://127.0.0.1:8081 > tokenledger-matomo.conf
  tokenledger snippet matomo --listen 80 --gateway http://10.0.0.1:7605 \
    --gateway http://10.0.0.2:7605 --path /analytics/`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var text bytes.Buffer
			if err := m.Write(&text); err != nil {
				return usagef(c, "%s", exit.Text(err))
			}
			_, err := text.WriteTo(e.Stdout)
			return err
		},
	}
	flags := c.Flags()
	flags.StringVar(&m.Listen, "listen", "127.0.0.1:8080", "address that nginx listens on: host:port or port")
	flags.StringSliceVar(&m.Gateways, "gateway", []string{"http://127.0.0.1:7605"}, "URL of a gateway; repeat for more")
	flags.StringVar(&m.Direct, "direct", "",
		"URL of Matomo, for files of the tracker and hits without a token while no gateway is there")
	flags.StringVar(&m.Path, "path", "/", "path of Matomo, as in /analytics/")
	flags.StringVar(&m.AccessLog, "access-log", deploy.DefaultAccessLog,
		"access log, written without query strings: an absolute path, or off; the error log is beside it")
	return c
}

func newSnippetNginxCmd(e *env) *cobra.Command {
	n := deploy.Nginx{}
	var config stringFlag
	c := &cobra.Command{
		Use:   "nginx",
		Short: "Print a configuration with which nginx asks a verifier",
		Long: `Prints a file for the http block of nginx, for example
/etc/nginx/conf.d/tokenledger.conf. The policy is one of the verifier's: any, site,
need/SCOPE, or one from its configuration file. The command asks the verifiers
whether they have the policy, or looks into the file that --config names.`,
		Example: `  tokenledger snippet nginx --listen 8080 \
    --upstream http://127.0.0.1:3000 > tokenledger.conf
  tokenledger snippet nginx --policy need/view:site/3 \
    --upstream http://127.0.0.1:3000`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(n.Verifiers) == 0 {
				verifier, _, err := e.config().FindVerifier(e.vars[setting{name: "verifier"}.variable()])
				if err != nil {
					return err
				}
				n.Verifiers = []string{verifier.String()}
			}
			var text bytes.Buffer
			if err := n.Write(&text); err != nil {
				return usagef(c, "%s", exit.Text(err))
			}
			if err := e.checkPolicy(c, n, string(config)); err != nil {
				return err
			}
			_, err := text.WriteTo(e.Stdout)
			return err
		},
	}
	flags := c.Flags()
	flags.StringVar(&n.Listen, "listen", "127.0.0.1:8080", "address that nginx listens on: host:port or port")
	flags.StringVar(&n.Upstream, "upstream", "http://127.0.0.1:3000", "URL of the application")
	flags.StringSliceVar(&n.Verifiers, "verifier", nil,
		"URL of a verifier to ask; repeat for more (default the one on the data folder)")
	flags.StringVar(&n.AccessLog, "access-log", deploy.DefaultAccessLog,
		"access log, written without query strings: an absolute path, or off")
	flags.StringVar(&n.Policy, "policy", "site", "policy that the verifier applies to requests")
	e.declare(flags, setting{
		name: "config", help: "configuration file of the verifiers, to check the policy without asking them",
	}, &config)
	flags.DurationVar(&n.Timeout, "timeout", deploy.DefaultTimeout,
		"how long nginx waits for an answer of a verifier; it discards a later one")
	return c
}

// checkPolicy refuses a policy that the configuration file does not define, or
// that one of the verifiers does not have. A built-in policy passes with a warning
// if no verifier answers, another one does not.
func (e *env) checkPolicy(c *cobra.Command, n deploy.Nginx, config string) error {
	if config != "" {
		names, err := e.policiesIn(config, n.Policy)
		if err != nil {
			return usagef(c, "%s", exit.Text(err))
		}
		return noPolicy(names, "configuration file "+config)
	}
	answers, failures := askPolicies(c.Context(), n.Verifiers, n.Policy)
	asked := 0
	var silent []string
	for i, v := range n.Verifiers {
		if failures[i] != nil {
			silent = append(silent, v+": "+exit.Text(failures[i]))
			continue
		}
		asked++
		if err := noPolicy(answers[i], "the verifier at "+v); err != nil {
			return err
		}
	}
	_, builtin := proxy.Builtin[n.Policy]
	builtin = builtin || strings.Contains(n.Policy, "/") // need/SCOPE
	switch unasked := strings.Join(silent, "; "); {
	case unasked == "":
	case asked > 0 || builtin:
		e.warn("tokenledger: the policy %s was not checked with every verifier: %s", n.Policy, unasked)
	default:
		return exit.Failf(exit.Unavailable, "policy_unchecked",
			"--policy: cannot check whether the policy %s exists, so nothing was printed: %s. Start a verifier, or name "+
				"its configuration file with --config", events.Quote(n.Policy), unasked)
	}
	return nil
}

// noPolicy returns the error if a policy does not exist.
func noPolicy(names proxy.Names, where string) error {
	if names.Problem == "" {
		return nil
	}
	return exit.Inputf("--policy: %s: %s", where, names.Problem)
}

// policiesIn returns the policies of a verifier with a configuration file.
func (e *env) policiesIn(path, asked string) (proxy.Names, error) {
	file, err := node.ReadFile(path, fileFlags(newServeCmd(e).Flags()))
	if err != nil {
		return proxy.Names{}, err
	}
	model := file.Model
	if model == nil {
		name := file.Flags["model"]
		if name == "" {
			name = "matomo"
		}
		if model, err = events.ModelNamed(name); err != nil {
			return proxy.Names{}, fmt.Errorf("configuration file %s: model: %w", path, err)
		}
	}
	if err := proxy.Validate(file.Policies, model); err != nil {
		return proxy.Names{}, fmt.Errorf("configuration file %s: %w", path, err)
	}
	return proxy.NamesOf(file.Policies, model, asked), nil
}

// askPolicies asks each verifier for its policies, all at once.
func askPolicies(ctx context.Context, verifiers []string, asked string) ([]proxy.Names, []error) {
	const patience = 3 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers, failures := make([]proxy.Names, len(verifiers)), make([]error, len(verifiers))
	var wg sync.WaitGroup
	for i, v := range verifiers {
		wg.Go(func() { answers[i], failures[i] = askPolicy(ctx, v, asked) })
	}
	wg.Wait()
	return answers, failures
}

// askPolicy asks a verifier, at the address that nginx will ask, for its policies.
func askPolicy(ctx context.Context, verifier, asked string) (names proxy.Names, err error) {
	to := verifier + proxy.Prefix + "?" + url.Values{"policy": {asked}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return names, err
	}
	// nginx asks directly, whatever HTTP_PROXY says.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	var failed *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return names, errors.New("no answer in time")
	case errors.As(err, &failed):
		return names, failed.Err
	case err != nil:
		return names, err
	}
	defer func() { _ = resp.Body.Close() }()
	const longest = 1 << 20
	switch body, err := io.ReadAll(io.LimitReader(resp.Body, longest)); {
	case err != nil:
		return names, err
	case resp.StatusCode == http.StatusForbidden:
		return names, errors.New("it does not trust this machine (trusted_proxies)")
	case resp.StatusCode != http.StatusOK || json.Unmarshal(body, &names) != nil || len(names.Policies) == 0:
		return names, fmt.Errorf("HTTP %d, not a verifier of this version", resp.StatusCode)
	}
	return names, nil
}
