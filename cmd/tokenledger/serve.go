package main

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
	"github.com/tokenledger/tokenledger/verifier"
)

// serveSettings are the settings of a node, by flag, by environment variable or in
// its configuration file.
type serveSettings struct {
	config                          stringFlag
	roles, name                     stringFlag
	nats, natsKey, natsListen       stringFlag
	natsCluster, natsClusterListen  stringFlag
	natsCredentials                 stringFlag
	natsReplicas                    countFlag
	apiAddr, verifyAddr, metricsAdr stringFlag
	maxConnections                  countFlag
	tlsCert, tlsKey, trustedProxies stringFlag
	tlsSelfSigned                   onOff
	lease                           durationFlag
	scrub                           durationFlag
	resident                        sizeFlag
	secretPrefix, model             stringFlag
	matomoSalt                      stringFlag
	logFormat, logLevel             stringFlag
	recoverRoot                     onOff
	matomo                          matomoSettings
}

func newServeCmd(e *env) *cobra.Command {
	s := serveSettings{
		roles:   stringFlag(strings.Join([]string{node.RoleLedger, node.RoleVerifier}, ",")),
		apiAddr: node.DefaultAPIAddr, verifyAddr: node.DefaultVerifyAddr, metricsAdr: node.DefaultMetricsAddr,
		lease: durationFlag(
			verifier.DefaultLease,
		), scrub: durationFlag(node.DefaultScrub), resident: node.DefaultResident,
		secretPrefix: "tl", model: "matomo", logFormat: "text", logLevel: "info",
	}
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node: the ledger with its log, a verifier, or both",
		Long: `Runs a node until SIGINT, SIGTERM, SIGQUIT or SIGABRT. SIGHUP reads the
configuration again. The first start creates the data folder
and the log, and writes the secret of the first token to root.token in that folder.
A node refuses a data folder whose log is gone.

A ledger keeps its log alone or in a cluster. For a cluster, give each of three or
five ledgers the route URLs of all of them (--nats-cluster), its own address among
them (--nats-cluster-listen), an address for verifiers (--nats-listen), and the
folder that 'tokenledger nats init' created for it (--nats-credentials). Once all of
them run, one creates the log and writes root.token.

If the first token is lost, or no token has superuser any more, start one ledger
once with --recover-root: it writes a new one to root.token.

Every setting can also be in the configuration file, under its name with _ for -,
with policies, trusted_proxies, stale, and a permission model of your own under
model. A flag takes precedence over its environment variable, and that over the
file.`,
		Example: `  tokenledger serve
  tokenledger serve --nats-listen 127.0.0.1:7603

  # A ledger of a cluster:
  tokenledger serve --nats-credentials nats/nodes/l1 \
    --nats-cluster nats://10.0.0.1:7604,nats://10.0.0.2:7604,nats://10.0.0.3:7604 \
    --nats-cluster-listen 10.0.0.1:7604 --nats-listen 10.0.0.1:7603

  # A verifier of that cluster:
  tokenledger serve --roles verifier --nats-credentials nats/nodes/v1 \
    --nats tls://10.0.0.1:7603,tls://10.0.0.2:7603,tls://10.0.0.3:7603

  # A second node on one machine:
  tokenledger serve --roles verifier --data ./v2 --nats nats://127.0.0.1:7603 \
    --nats-key /path/to/verifier.nk --verify-addr 127.0.0.1:7611 \
    --metrics-addr 127.0.0.1:7612`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.serve(e, c)
		},
	}
	s.declare(e, c.Flags())
	return c
}

// serve runs the node.
func (s *serveSettings) serve(e *env, c *cobra.Command) error {
	given, dataDir := *s, e.dataDir // by flags and environment variables
	cfg, err := s.read(e, c)
	e.jsonLog = e.jsonLog || s.logFormat == "json"
	if err != nil {
		return usagef(c, "%s", exit.Text(err))
	}
	log := e.openLog(cfg.LogFormat)
	log.level.Set(cfg.LogLevel)
	ctx, signals, done := watchSignals(c.Context(), log.log, e.abandonNode())
	defer done()
	cfg.Logger, cfg.LevelVar, cfg.Lines = log.log, &log.level, log.sink
	log.log.Debug("starting", "version", cfg.Version, "config", string(s.config), "data", cfg.Data, "roles", cfg.Roles,
		"api_addr", cfg.APIAddr, "verify_addr", cfg.VerifyAddr, "metrics_addr", cfg.MetricsAddr,
		"nats", cfg.NATS, "nats_cluster", cfg.NATSCluster, "nats_listen", cfg.NATSListen)
	cfg.Control = node.Control{
		Reload: signals.reload, Hurry: signals.hurry, Overdue: signals.overdue,
		Load: func() (node.Config, error) {
			*s, e.dataDir = given, dataDir
			return s.read(e, c)
		},
	}
	if err := node.Serve(ctx, cfg); err != nil {
		return err
	}
	log.log.Info("stopped")
	return nil
}

// declare adds the flags.
func (s *serveSettings) declare(e *env, flags *pflag.FlagSet) {
	for _, d := range []struct {
		name, group, help string
		value             pflag.Value
	}{
		{"config", "", "configuration file, in YAML", &s.config},
		{"roles", "", "roles of the node: ledger, verifier, or both", &s.roles},
		{"name", "", "name of the node, unique among all nodes (default a random one, kept in the data folder)", &s.name},
		{"api-addr", groupListen, "host:port of the API", &s.apiAddr},
		{"verify-addr", groupListen, "host:port for checks", &s.verifyAddr},
		{"metrics-addr", groupListen, "host:port of metrics and health", &s.metricsAdr},
		{
			"nats", groupLog,
			"URLs of the log, separated by commas: for a verifier without a ledger, or a ledger whose log is on NATS " +
				"servers of your own", &s.nats,
		},
		{
			"nats-cluster", groupLog,
			"route URLs of the three or five ledgers of the cluster, including this one, as in " +
				"nats://10.0.0.1:7604", &s.natsCluster,
		},
		{
			"nats-cluster-listen", groupLog,
			"host:port at which the other ledgers of --nats-cluster reach this one", &s.natsClusterListen,
		},
		{
			"nats-credentials", groupLog,
			"folder that tokenledger nats init created for this node: key, certificate and members", &s.natsCredentials,
		},
		{
			"nats-replicas", groupLog,
			"copies of a log that this node creates on NATS servers of your own: 1, 3 or 5 (default 3)", &s.natsReplicas,
		},
		{
			"nats-key", groupLog,
			"file of the key for the log: a copy of verifier.nk from the ledger's data folder", &s.natsKey,
		},
		{
			"nats-listen", groupLog,
			"host:port at which verifiers in other processes reach this ledger's log (default none)", &s.natsListen,
		},
		{"lease", groupChecks, "how long a verifier may answer checks after it last renewed its lease at the log", &s.lease},
		{
			"resident", groupChecks,
			"memory for the table of secrets, about 140 bytes each; secrets that do not fit are read from disk, with 0 all " +
				"of them", &s.resident,
		},
		{
			"matomo-salt-file", groupChecks,
			"file with the salt of each Matomo installation whose tokens were imported, one a line ([General] salt in " +
				"config.ini.php); \"\" stands for an empty one", &s.matomoSalt,
		},
		{"secret-prefix", groupChecks, "prefix of secrets, before u_ or s_", &s.secretPrefix},
		{
			"model", groupChecks,
			"permission model, the same on all nodes: matomo or plain; the configuration file can describe another", &s.model,
		},
		{"log-format", groupUpkeep, "format of log lines on standard error: text or json", &s.logFormat},
		{"log-level", groupUpkeep, "least level that is logged: debug, info, warn or error", &s.logLevel},
		{"scrub", groupUpkeep, "how often a ledger reads its whole copy of the log to find damage", &s.scrub},
		{
			"recover-root", groupUpkeep,
			"for one start of a ledger, if no token has superuser any more: create one and write its secret to root.token, " +
				"unless the token in that file has superuser", &s.recoverRoot,
		},
	} {
		e.declare(flags, setting{name: d.name, help: d.help}, d.value)
		allowEmpty(flags, d.name) // in place of a value in the configuration file
		if d.group != "" {
			group(flags, d.group, d.name)
		}
	}
	s.declareListeners(e, flags)
	s.matomo.declare(e, flags)
	recoverRoot := flags.Lookup("recover-root")
	recoverRoot.NoOptDefVal, recoverRoot.DefValue = "on", ""
}

// declareListeners adds the flags of how the listeners are protected.
func (s *serveSettings) declareListeners(e *env, flags *pflag.FlagSet) {
	for _, d := range []struct {
		name, group, help string
		value             pflag.Value
	}{
		{
			"tls-cert", groupListen,
			"certificate of API, verifier and metrics, a PEM file; it is read again when it changes", &s.tlsCert,
		},
		{"tls-key", groupListen, "key of --tls-cert, a PEM file", &s.tlsKey},
		{
			"tls-self-signed", groupListen,
			"create a certificate in the data folder, for a first try; the log shows its fingerprint", &s.tlsSelfSigned,
		},
		{
			"trusted-proxies", groupListen,
			"networks of reverse proxies, separated by commas: the API takes the client's address from their " +
				"X-Forwarded-For or Forwarded, and they may ask the verifier", &s.trustedProxies,
		},
		{
			"max-connections", groupListen,
			"most connections to each listener (default what the limit of open files allows)", &s.maxConnections,
		},
	} {
		e.declare(flags, setting{name: d.name, help: d.help}, d.value)
		allowEmpty(flags, d.name)
		group(flags, d.group, d.name)
	}
	flags.Lookup("tls-self-signed").NoOptDefVal, flags.Lookup("tls-self-signed").DefValue = "on", ""
}

// read combines the configuration file, environment variables and flags.
func (s *serveSettings) read(e *env, c *cobra.Command) (node.Config, error) {
	file, err := s.readFile(e, c)
	if err != nil {
		return node.Config{}, err
	}
	if logFormats[string(s.logFormat)] == nil {
		return node.Config{}, exit.Inputf(
			"--log-format: must be text or json, not %s",
			events.Quote(string(s.logFormat)),
		)
	}
	if e.verbose && !given(e, c, "log-level") {
		s.logLevel = "debug"
	}
	level, err := logLevel(string(s.logLevel))
	if err != nil {
		return node.Config{}, err
	}
	model := file.Model
	if model == nil {
		if model, err = events.ModelNamed(string(s.model)); err != nil {
			return node.Config{}, exit.Inputf("--model: %s", err)
		}
	}
	trusted := file.TrustedProxies
	if s.trustedProxies != "" {
		if trusted, err = prefixes(string(s.trustedProxies)); err != nil {
			return node.Config{}, err
		}
	}
	cfg := node.Config{
		Data: string(
			e.dataDir,
		), Roles: splitList(string(s.roles)), Name: string(s.name), RecoverRoot: bool(s.recoverRoot),
		NATS: string(s.nats), NATSKey: string(s.natsKey), NATSListen: string(s.natsListen),
		NATSCluster: splitList(string(s.natsCluster)), NATSClusterListen: string(s.natsClusterListen),
		NATSCredentials: string(s.natsCredentials), NATSReplicas: int(s.natsReplicas),
		AnyFileMode: e.anyFileMode,
		APIAddr:     string(s.apiAddr), VerifyAddr: string(s.verifyAddr), MetricsAddr: string(s.metricsAdr),
		TLS: tlsfiles.Config{
			CertFile: string(s.tlsCert), KeyFile: string(s.tlsKey), SelfSigned: bool(s.tlsSelfSigned),
		},
		MaxConnections: int(s.maxConnections),
		Lease:          time.Duration(s.lease), Scrub: time.Duration(s.scrub), Resident: s.resident.limit(),
		SecretPrefix: string(s.secretPrefix), MatomoSaltFile: string(s.matomoSalt),
		Policies: file.Policies, TrustedProxies: trusted, Stale: file.Stale, Model: model,
		Matomo:  s.matomo.config(),
		Version: buildVersion().name(), Logging: node.Logging{LogFormat: string(s.logFormat), LogLevel: level},
	}
	return cfg, cfg.Validate()
}

// readFile reads the configuration file, if one is named, and applies its settings
// to the flags that neither the command line nor the environment gives.
func (s *serveSettings) readFile(e *env, c *cobra.Command) (node.File, error) {
	path := string(s.config)
	if path == "" {
		return node.File{}, nil
	}
	file, err := node.ReadFile(path, fileFlags(c.LocalFlags()))
	if err != nil {
		if format := file.Flags["log-format"]; format != "" && !given(e, c, "log-format") {
			s.logFormat = stringFlag(format) // of the line that says what is wrong
		}
		return file, err
	}
	if given(e, c, "model") {
		file.Model = nil
	}
	for name, value := range file.Flags {
		if given(e, c, name) {
			continue
		}
		if err := c.Flag(name).Value.Set(value); err != nil {
			return file, exit.Inputf("configuration file %s: %s: %s", path, name, err)
		}
	}
	return file, nil
}

// fileFlags lists the flags of serve that a configuration file may set.
func fileFlags(serve *pflag.FlagSet) []string {
	names := []string{"data", "allow-insecure-file-mode"}
	serve.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" && f.Name != "trusted-proxies" { // the last is a list there
			names = append(names, f.Name)
		}
	})
	return names
}

// given reports whether a flag or its environment variable was given.
func given(e *env, c *cobra.Command, name string) bool {
	return c.Flag(name).Changed || e.vars[setting{name: name}.variable()] != ""
}

// splitList splits a list at commas.
func splitList(s string) []string {
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// prefixes returns the networks in a list.
func prefixes(list string) (networks []netip.Prefix, err error) {
	for _, s := range splitList(list) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, exit.Inputf("--trusted-proxies: %s is not a network such as 10.0.0.0/8", events.Quote(s))
		}
		networks = append(networks, p)
	}
	return networks, nil
}
