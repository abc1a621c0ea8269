package main

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/verifier"
)

// serveSettings are what a node can be told by flag, by environment variable
// and in its configuration file.
type serveSettings struct {
	roles, name                     stringFlag
	nats, natsKey, natsListen       stringFlag
	natsCluster, natsClusterListen  stringFlag
	natsCredentials                 stringFlag
	natsReplicas                    countFlag
	apiAddr, verifyAddr, metricsAdr stringFlag
	lease                           durationFlag
	scrub                           durationFlag
	resident                        sizeFlag
	secretPrefix, model, logFormat  stringFlag
	recoverRoot                     onOff
}

func newServeCmd(e *env) *cobra.Command {
	s := serveSettings{
		roles:   stringFlag(strings.Join([]string{node.RoleLedger, node.RoleVerifier}, ",")),
		apiAddr: node.DefaultAPIAddr, verifyAddr: node.DefaultVerifyAddr, metricsAdr: node.DefaultMetricsAddr,
		lease: durationFlag(verifier.DefaultLease), scrub: durationFlag(node.DefaultScrub), resident: node.DefaultResident, secretPrefix: "tl", model: "matomo", logFormat: "text",
	}
	var config stringFlag
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node: the ledger with its log, a verifier, or both",
		Long: `Runs a node until it is stopped (SIGINT, SIGTERM). The first start makes the data
folder, begins the log and writes the secret of the first token to root.token
there. A folder whose log is gone is refused.

A ledger keeps its log alone, or together with others: give each of three ledgers
the route URLs of all (--nats-cluster), the address among them that is its own
(--nats-cluster-listen), one for verifiers (--nats-listen), and the folder that
tokenledger nats init made for it. The log is begun once all of them are there,
by one of them, and that one writes root.token.

Where the first token is lost, or nobody has superuser any more, one start of one
ledger with --recover-root writes another one to root.token.

Every setting can also stand in the configuration file, under its name with _
for -, beside policies, trusted_proxies and stale, and a permission model of your
own under model. A flag goes before its environment variable, and that before the
file.`,
		Example: `  tokenledger serve
  tokenledger serve --nats-listen 127.0.0.1:7603
  tokenledger serve --nats-cluster nats://10.0.0.1:7604,nats://10.0.0.2:7604,nats://10.0.0.3:7604 --nats-cluster-listen 10.0.0.1:7604 --nats-listen 10.0.0.1:7603 --nats-credentials nats/nodes/l1
  tokenledger serve --roles verifier --nats tls://10.0.0.1:7603,tls://10.0.0.2:7603,tls://10.0.0.3:7603 --nats-credentials nats/nodes/v1
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
		{setting{name: "nats", help: "URLs of the log, with commas between them: for a verifier without a ledger, or a ledger whose log is on servers of your own"}, &s.nats},
		{setting{name: "nats-cluster", help: "route URLs of the three or five ledgers that keep the log together, this one's included, as in nats://10.0.0.1:7604"}, &s.natsCluster},
		{setting{name: "nats-cluster-listen", help: "host:port where the other ledgers of --nats-cluster reach this one"}, &s.natsClusterListen},
		{setting{name: "nats-credentials", help: "folder of this node that tokenledger nats init made: key, certificate and members"}, &s.natsCredentials},
		{setting{name: "nats-replicas", help: "copies of a log that is begun on servers of your own: 1, 3 or 5 (default 3)"}, &s.natsReplicas},
		{setting{name: "nats-key", help: "file of the key to connect to the log with: a copy of verifier.nk from the ledger's data folder"}, &s.natsKey},
		{setting{name: "nats-listen", help: "host:port where verifiers in other processes reach this ledger's log; without it nothing listens"}, &s.natsListen},
		{setting{name: "api-addr", help: "host:port of the API"}, &s.apiAddr},
		{setting{name: "verify-addr", help: "host:port where checks are answered"}, &s.verifyAddr},
		{setting{name: "metrics-addr", help: "host:port of metrics and health"}, &s.metricsAdr},
		{setting{name: "lease", help: "how long checks are answered without hearing from the log"}, &s.lease},
		{setting{name: "scrub", help: "how often a ledger reads its own copy of the log through, to find damage"}, &s.scrub},
		{setting{name: "resident", help: "memory that the table of secrets may take, from which checks are answered: about 105 bytes each; what finds no room is read from the disk, with 0 all"}, &s.resident},
		{setting{name: "secret-prefix", help: "what secrets begin with: this and u_ or s_"}, &s.secretPrefix},
		{setting{name: "model", help: "permission model, the same on all nodes: matomo or plain; the configuration file may describe another"}, &s.model},
		{setting{name: "log-format", help: "form of the log on standard error: text or json"}, &s.logFormat},
		{setting{name: "recover-root", help: "for one start of a ledger, when nobody has superuser any more: make a new token that has, and write its secret to root.token, unless that file's has"}, &s.recoverRoot},
	} {
		e.declare(flags, d.setting, d.value)
	}
	recoverRoot := flags.Lookup("recover-root")
	recoverRoot.NoOptDefVal, recoverRoot.DefValue = "on", ""
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := s.read(e, c, string(config))
		if err != nil {
			return usagef(c, "%s", exit.Text(err))
		}
		return node.Serve(c.Context(), cfg)
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
		if said(e, c, "model") {
			file.Model = nil
		}
		for name, value := range file.Flags {
			f := c.Flag(name)
			if said(e, c, name) {
				continue
			}
			if err := f.Value.Set(value); err != nil {
				return node.Config{}, exit.Failf(exit.Usage, "usage", "configuration file %s: %s: %s", path, name, err)
			}
		}
	}
	handler, ok := map[stringFlag]func() slog.Handler{
		"text": func() slog.Handler { return slog.NewTextHandler(e.Stderr, nil) },
		"json": func() slog.Handler { return slog.NewJSONHandler(e.Stderr, nil) },
	}[s.logFormat]
	if !ok {
		return node.Config{}, exit.Failf(exit.Usage, "usage", "--log-format is text or json, not %s", events.Quote(string(s.logFormat)))
	}
	model := file.Model
	if model == nil {
		var err error
		if model, err = events.ModelNamed(string(s.model)); err != nil {
			return node.Config{}, exit.Failf(exit.Usage, "usage", "--model: %s", err)
		}
	}
	cfg := node.Config{
		Data: string(e.dataDir), Roles: splitList(string(s.roles)), Name: string(s.name), RecoverRoot: bool(s.recoverRoot),
		NATS: string(s.nats), NATSKey: string(s.natsKey), NATSListen: string(s.natsListen),
		NATSCluster: splitList(string(s.natsCluster)), NATSClusterListen: string(s.natsClusterListen),
		NATSCredentials: string(s.natsCredentials), NATSReplicas: int(s.natsReplicas),
		APIAddr: string(s.apiAddr), VerifyAddr: string(s.verifyAddr), MetricsAddr: string(s.metricsAdr),
		Lease: time.Duration(s.lease), Scrub: time.Duration(s.scrub), Resident: s.resident.limit(), SecretPrefix: string(s.secretPrefix),
		Policies: file.Policies, TrustedProxies: file.TrustedProxies, Stale: file.Stale, Model: model,
		Version: buildVersion().Version, Logger: slog.New(handler()),
	}
	return cfg, cfg.Validate()
}

// said reports whether a flag or its environment variable was given.
func said(e *env, c *cobra.Command, name string) bool {
	return c.Flag(name).Changed || e.vars[setting{name: name}.variable()] != ""
}

// splitList reads a list with commas.
func splitList(s string) []string {
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}
