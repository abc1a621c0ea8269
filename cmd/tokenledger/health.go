package main

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/node"
)

func newHealthCmd(e *env) *cobra.Command {
	var (
		address stringFlag
		live    bool
	)
	c := &cobra.Command{
		Use: "health", Short: "Check whether the node on this machine is ready", Args: takes(),
		Long: `Asks the node that runs on the data folder whether it answers checks, or with
--live only whether it runs. Exits with 0 if so, or else with 6 and says why. It
asks once and needs no token.

Use it where a supervisor can only run a program, for example as the health check
of a container.`,
		Example: `  tokenledger health
  tokenledger health --live --metrics-addr 127.0.0.1:7612 --timeout 2s`,
		RunE: func(c *cobra.Command, _ []string) error {
			base, from, err := e.findMetrics(string(address))
			if err != nil {
				return err
			}
			return e.health(c.Context(), base, from, live)
		},
	}
	flags := c.Flags()
	e.declare(flags, setting{
		name: "metrics-addr",
		help: "host:port of the node's metrics and health (default that of the node on the data folder, or else " +
			node.DefaultMetricsAddr + ")",
	}, &address)
	flags.BoolVar(&live, "live", false, "ask only whether the node runs")
	return c
}

// findMetrics returns the URL of a node's health, and how it is known. The address
// that serve was given determines it, except for port 0: the data folder then
// tells the port.
func (e *env) findMetrics(address string) (base *url.URL, from string, err error) {
	given := ""
	if address != "" {
		_, port, err := net.SplitHostPort(address)
		if err != nil || port == "" {
			return nil, "", exit.Inputf("--metrics-addr: %s is not host:port, such as "+
				"%s", events.Quote(address), node.DefaultMetricsAddr)
		}
		if port != "0" {
			given = "http://" + address
		}
	}
	return e.config().FindMetrics(given)
}

// health asks once. An address such as 0.0.0.0 or [::], with which a node listens
// on every interface, is dialled as this machine's loopback.
func (e *env) health(ctx context.Context, base *url.URL, from string, live bool) error {
	path, good := "readyz", "ready"
	if live {
		path, good = "livez", "live"
	}
	c := e.config().PortClient("the node", base, from)
	status, said, err := c.GetText(ctx, path)
	if err != nil {
		return err
	}
	if e.dataDir != "" && from == client.ByDefault {
		e.Note("tokenledger: no node runs on the data folder %s; asked %s, the default "+
			"address.", render.Escape(string(e.dataDir)), base)
	}
	switch reason, unready := strings.CutPrefix(said, "not ready: "); {
	case status == http.StatusOK && said == "ok":
		b, err := render.Encode(map[string]bool{good: true})
		if err != nil {
			return err
		}
		return e.Show(b, func() { e.Printf("%s\n", good) })
	case status == http.StatusServiceUnavailable && unready:
		return exit.Failf(exit.Unavailable, "not_ready", "the node at %s is not ready: %s", base, reason)
	}
	return c.NotThe(ctx, exit.Unavailable, status)
}
