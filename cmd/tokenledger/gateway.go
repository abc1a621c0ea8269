package main

import (
	"net/netip"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/ops/gateway"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
)

func newGatewayCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: "gateway", Short: "Run a gateway in front of an application, without a node", Args: cobra.NoArgs,
		Example: "  tokenledger gateway matomo --upstream http://127.0.0.1:8080 \\\n    --listen :8081 --verifier http://127.0.0.1:7601",
	}
	c.AddCommand(newGatewayMatomoCmd(e))
	return c
}

// gatewaySettings are the settings of a gateway in a process of its own.
type gatewaySettings struct {
	matomo              matomoSettings
	verifiers, audit    stringFlag
	origins, trusted    stringFlag
	tlsCert, tlsKey     stringFlag
	metricsAddr         stringFlag
	maxConnections      countFlag
	logFormat, logLevel stringFlag
}

func newGatewayMatomoCmd(e *env) *cobra.Command {
	s := gatewaySettings{logFormat: "text", logLevel: "info"}
	c := &cobra.Command{
		Use: "matomo", Short: "Check the tokens of requests to Matomo, at verifiers over HTTP", Args: cobra.NoArgs,
		Long: `Runs a gateway in front of a Matomo until SIGINT or SIGTERM. It checks the token of
each request at a verifier (POST /v1/verify), and passes on what the token may do.
If a verifier does not answer within a second, it asks the next. SIGHUP reads all
files again.

A node can be a gateway itself: tokenledger serve --matomo-upstream. Then a check is
no request. A gateway of its own passes a token on for up to a second after its
revocation has a receipt.

Without --audit-token-file, verifiers do not tell a token that was revoked from the
token of a session of Matomo's user interface. Forms of the user interface are then
refused.`,
		Example: `  tokenledger gateway matomo --upstream http://127.0.0.1:8080 \
    --listen 0.0.0.0:8081 --matomo-token-file own.token \
    --verifier http://10.0.0.1:7601,http://10.0.0.2:7601`,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(e, c) },
	}
	flags := c.Flags()
	s.matomo.declareAlone(e, flags)
	for _, d := range []struct {
		name, group, help string
		value             pflag.Value
	}{
		{"verifier", groupChecks, "URLs of verifiers, separated by commas", &s.verifiers},
		{
			"audit-token-file", groupChecks,
			"file with a token that has the permission audit, for the user interface of Matomo", &s.audit,
		},
		{"cors-origins", groupChecks, "pages whose scripts may call, separated by commas", &s.origins},
		{
			"trusted-proxies", groupListen,
			"networks of reverse proxies, separated by commas, that are believed about the client", &s.trusted,
		},
		{"metrics-addr", groupListen, "host:port of metrics and health (default none)", &s.metricsAddr},
		{"tls-cert", groupListen, "certificate of the gateway, a PEM file; it is read again when it changes", &s.tlsCert},
		{"tls-key", groupListen, "key of --tls-cert, a PEM file", &s.tlsKey},
		{
			"max-connections", groupListen, "most connections (default what the limit of open files allows)",
			&s.maxConnections,
		},
		{"log-format", groupUpkeep, "format of log lines on standard error: text or json", &s.logFormat},
		{"log-level", groupUpkeep, "least level that is logged: debug, info, warn or error", &s.logLevel},
	} {
		e.declare(flags, setting{name: d.name, help: d.help}, d.value)
		group(flags, d.group, d.name)
	}
	return c
}

// run runs the gateway.
func (s *gatewaySettings) run(e *env, c *cobra.Command) error {
	if logFormats[string(s.logFormat)] == nil {
		return exit.Inputf("--log-format: must be text or json, not %s", events.Quote(string(s.logFormat)))
	}
	level, err := logLevel(string(s.logLevel))
	if err != nil {
		return err
	}
	var trusted []netip.Prefix
	if s.trusted != "" {
		if trusted, err = prefixes(string(s.trusted)); err != nil {
			return err
		}
	}
	cfg := gateway.Config{
		Upstream: string(s.matomo.upstream), Listen: string(s.matomo.listen), Verifiers: splitList(string(s.verifiers)),
		AuditFile: string(s.audit), Files: s.matomo.files(), MaxBody: int64(s.matomo.maxBody),
		Origins: splitList(string(s.origins)), Trusted: trusted,
		TLS:         tlsfiles.Config{CertFile: string(s.tlsCert), KeyFile: string(s.tlsKey)},
		MetricsAddr: string(s.metricsAddr), MaxConnections: int(s.maxConnections),
	}
	if err := cfg.Validate(); err != nil {
		return usagef(c, "%s", exit.Text(err))
	}
	e.jsonLog = e.jsonLog || s.logFormat == "json"
	log := e.openLog(string(s.logFormat))
	log.level.Set(level)
	ctx, signals, done := watchSignals(c.Context(), log.log, e.abandonNode())
	defer done()
	cfg.Logger, cfg.Reload = log.log, signals.reload
	cfg.Rule = disk.SecretRule{AnyMode: e.anyFileMode, Warn: func(path string, exposed *disk.ExposedError) {
		log.log.Warn("a key file is exposed and was read all the same", "file", path, "why", exposed.Error())
	}}
	if err := gateway.Run(ctx, cfg); err != nil {
		return err
	}
	log.log.Info("stopped")
	return nil
}
