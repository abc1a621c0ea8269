package main

import (
	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/ops/deploy"
)

func newSnippetCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "snippet",
		Short: "Print the configuration of a proxy",
	}
	c.AddCommand(newSnippetNginxCmd(e))
	return c
}

func newSnippetNginxCmd(e *env) *cobra.Command {
	n := deploy.Nginx{}
	c := &cobra.Command{
		Use:   "nginx",
		Short: "Print the configuration with which nginx asks a verifier",
		Long: `Prints a file for the http block of nginx, as in
/etc/nginx/conf.d/tokenledger.conf. The policy is one of the verifier's: any,
site, need/SCOPE, or one from its configuration file.`,
		Example: `  tokenledger snippet nginx --listen 8080 --upstream http://127.0.0.1:3000 > tokenledger.conf
  tokenledger snippet nginx --policy need/view:site/3 --upstream http://127.0.0.1:3000`,
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
	flags.StringVar(&n.Listen, "listen", "127.0.0.1:8080", "where nginx listens: host:port or port")
	flags.StringVar(&n.Upstream, "upstream", "http://127.0.0.1:3000", "the application")
	flags.StringSliceVar(&n.Verifiers, "verifier", nil, "verifier to ask, can be repeated; by default the one on the data folder")
	flags.StringVar(&n.AccessLog, "access-log", deploy.DefaultAccessLog, "access log, which is written without queries: an absolute path, or off")
	flags.StringVar(&n.Policy, "policy", "site", "policy that requests fall under")
	flags.DurationVar(&n.Timeout, "timeout", deploy.DefaultTimeout, "how long nginx waits for a verifier's answer; a later one is discarded")
	return c
}
