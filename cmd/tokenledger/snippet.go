package main

import (
	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/ops/deploy"
)

func newSnippetCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "snippet",
		Short: "Print a configuration for a proxy",
	}
	c.AddCommand(newSnippetNginxCmd(e))
	return c
}

func newSnippetNginxCmd(e *env) *cobra.Command {
	n := deploy.Nginx{}
	c := &cobra.Command{
		Use:   "nginx",
		Short: "Print a configuration with which nginx asks a verifier",
		Long: `Prints a file for the http block of nginx, for example
/etc/nginx/conf.d/tokenledger.conf. The policy is one of the verifier's: any, site,
need/SCOPE, or one from its configuration file.`,
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
			if err := n.Write(e.Stdout); err != nil {
				return usagef(c, "%s", exit.Text(err))
			}
			return nil
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
	flags.DurationVar(&n.Timeout, "timeout", deploy.DefaultTimeout,
		"how long nginx waits for an answer of a verifier; it discards a later one")
	return c
}
