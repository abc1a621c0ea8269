package main

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier"
)

// serveSettings are what a node can be told by flag, by environment variable
// and in its configuration file.
type serveSettings struct {
	roles, name                     text
	nats, natsKey, natsListen       text
	apiAddr, verifyAddr, metricsAdr text
	lease                           span
	secretPrefix, logFormat         text
}

func newServeCmd(e *env) *cobra.Command {
	s := serveSettings{
		roles:   text(strings.Join([]string{node.RoleLedger, node.RoleVerifier}, ",")),
		apiAddr: node.DefaultAPIAddr, verifyAddr: node.DefaultVerifyAddr, metricsAdr: node.DefaultMetricsAddr,
		lease: span(verifier.DefaultLease), secretPrefix: "tl", logFormat: "text",
	}
	var config text
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node: the ledger with its log, a verifier, or both",
		Long: `Runs a node until it is stopped (SIGINT, SIGTERM). The first start makes the data
folder, begins the log and writes the secret of the first token to root.token
there. A folder whose log is gone is refused.

Every setting can also stand in the configuration file, under its name with _
for -, beside policies and trusted_proxies. A flag goes before its environment
variable, and that before the file.`,
		Example: `  tokenledger serve
  tokenledger serve --nats-listen 127.0.0.1:7603
  tokenledger serve --roles verifier --nats nats://127.0.0.1:7603 --nats-key /path/to/verifier.nk --data ./v2 --verify-addr 127.0.0.1:7611 --metrics-addr 127.0.0.1:7612`,
		Args: cobra.NoArgs,
	}
	flags := c.Flags()
	e.declare(flags, setting{name: "config", help: "configuration file, in YAML"}, &config)
	for _, d := range []struct {
		setting
		value pflag.Value
	}{
		{setting{name: "roles", help: "what the node is: ledger, verifier, or both"}, &s.roles},
		{setting{name: "name", help: "the node's name among the others; by default one that the data folder keeps"}, &s.name},
		{setting{name: "nats", help: "URL of the log, for a verifier without a ledger"}, &s.nats},
		{setting{name: "nats-key", help: "file of the key to connect to the log with: a copy of verifier.nk from the ledger's data folder"}, &s.natsKey},
		{setting{name: "nats-listen", help: "host:port where verifiers in other processes reach this ledger's log; without it nothing listens"}, &s.natsListen},
		{setting{name: "api-addr", help: "host:port of the API"}, &s.apiAddr},
		{setting{name: "verify-addr", help: "host:port where checks are answered"}, &s.verifyAddr},
		{setting{name: "metrics-addr", help: "host:port of metrics and health"}, &s.metricsAdr},
		{setting{name: "lease", help: "how long checks are answered without hearing from the log"}, &s.lease},
		{setting{name: "secret-prefix", help: "what secrets begin with: this and u_ or s_"}, &s.secretPrefix},
		{setting{name: "log-format", help: "form of the log on standard error: text or json"}, &s.logFormat},
	} {
		e.declare(flags, d.setting, d.value)
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := s.read(e, c, string(config))
		if err != nil {
			return usagef(c, "%s", plain(err))
		}
		n, err := node.New(cfg)
		if err != nil {
			return err
		}
		return n.Run(c.Context())
	}
	return c
}

// read puts file, environment and flags together.
func (s *serveSettings) read(e *env, c *cobra.Command, path string) (node.Config, error) {
	var file node.File
	if path != "" {
		var names []string
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "config" && f.Name != "help" {
				names = append(names, f.Name)
			}
		})
		names = append(names, "data")
		var err error
		if file, err = node.ReadFile(path, names); err != nil {
			return node.Config{}, err
		}
		for name, value := range file.Flags {
			f := c.Flag(name)
			if f.Changed || e.vars[setting{name: name}.variable()] != "" {
				continue
			}
			if err := f.Value.Set(value); err != nil {
				return node.Config{}, failf(exitUsage, "usage", "configuration file %s: %s: %s", path, name, err)
			}
		}
	}
	handler, ok := map[text]func() slog.Handler{
		"text": func() slog.Handler { return slog.NewTextHandler(e.stderr, nil) },
		"json": func() slog.Handler { return slog.NewJSONHandler(e.stderr, nil) },
	}[s.logFormat]
	if !ok {
		return node.Config{}, failf(exitUsage, "usage", "--log-format is text or json, not %s", quote(string(s.logFormat)))
	}
	cfg := node.Config{
		Data: string(e.dataDir), Roles: splitList(string(s.roles)), Name: string(s.name),
		NATS: string(s.nats), NATSKey: string(s.natsKey), NATSListen: string(s.natsListen),
		APIAddr: string(s.apiAddr), VerifyAddr: string(s.verifyAddr), MetricsAddr: string(s.metricsAdr),
		Lease: time.Duration(s.lease), SecretPrefix: string(s.secretPrefix),
		Policies: file.Policies, TrustedProxies: file.TrustedProxies,
		Version: buildVersion().Version, Logger: slog.New(handler()),
	}
	return cfg, cfg.Validate()
}

// splitList reads a list with commas.
func splitList(s string) []string {
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}
