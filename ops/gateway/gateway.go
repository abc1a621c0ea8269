package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/ops/connlimit"
	"github.com/tokenledger/tokenledger/ops/logsink"
	"github.com/tokenledger/tokenledger/ops/metrics"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// Config configures a gateway in a process of its own.
type Config struct {
	Upstream  string   // URL of Matomo; required
	Listen    string   // host:port; required
	Verifiers []string // URLs; required
	// AuditFile has a token with the permission audit, with which verifiers tell a
	// token that was revoked from the token of a session. Empty means none.
	AuditFile string
	Files     matomo.Files
	MaxBody   int64 // zero means [matomo.DefaultMaxBody]
	// Origins are the pages whose scripts may call. The verifiers' policy does not
	// tell it to a gateway.
	Origins []string
	// Trusted are the networks of proxies that are believed about the client.
	Trusted        []netip.Prefix
	TLS            tlsfiles.Config // without a self-signed certificate
	MetricsAddr    string          // host:port; empty means none
	MaxConnections int             // zero means what the limit of open files allows
	Rule           disk.SecretRule // for the files of tokens

	Logger *slog.Logger
	// Reload asks for all files to be read again.
	Reload <-chan struct{}
	// Listening is called with the URL of the gateway.
	Listening func(string)
}

// Validate reports every problem of a configuration.
func (c Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Upstream == "" {
		bad("upstream: name the URL of Matomo")
	} else if err := CheckURL(c.Upstream); err != nil {
		bad("upstream: %w", err)
	}
	if c.Listen == "" {
		bad("listen: name the host:port of the gateway")
	}
	if _, err := matomo.NewRemote(matomo.RemoteConfig{URLs: c.Verifiers}); err != nil {
		bad("verifier: %w", err)
	}
	for _, o := range c.Origins {
		if err := (&events.Constraints{Origins: []string{o}}).Validate(); err != nil {
			bad("cors-origins: %w", err)
		}
	}
	return errors.Join(append(problems, c.TLS.Validate())...)
}

// CheckURL reports a text that is not the URL of a Matomo. The error does not repeat
// it: it may have a password.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		u = nil
	}
	return matomo.CheckUpstream(u)
}

// process is a running gateway.
type process struct {
	cfg     Config
	gateway *matomo.Gateway
	remote  *matomo.Remote
	audit   *secretFile
	certs   *tlsfiles.Source // nil without TLS
	limited *connlimit.Listener
}

// Run runs a gateway until ctx ends or a listener fails.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &process{cfg: cfg, audit: &secretFile{name: cfg.AuditFile, rule: cfg.Rule}}
	settings, err := cfg.Files.Load(cfg.Rule)
	if err = errors.Join(err, p.audit.load()); err != nil {
		return err
	}
	if err := p.open(settings); err != nil {
		return err
	}
	defer p.remote.Close()
	defer p.gateway.Close()
	if cfg.TLS.On() {
		if p.certs, err = tlsfiles.Open(cfg.TLS, tlsfiles.SelfSigned{}, cfg.Logger); err != nil {
			return err
		}
	}
	return p.serve(ctx)
}

// open makes the gateway and the client of the verifiers.
func (p *process) open(settings matomo.Settings) (err error) {
	p.remote, err = matomo.NewRemote(matomo.RemoteConfig{URLs: p.cfg.Verifiers, Audit: p.audit.secret})
	if err != nil {
		return err
	}
	upstream, err := url.Parse(p.cfg.Upstream)
	if err != nil {
		return err
	}
	origins := events.NewOrigins(p.cfg.Origins)
	p.gateway, err = matomo.New(matomo.Config{
		Upstream: upstream, Checker: p.remote, Settings: settings, MaxBody: p.cfg.MaxBody, Logger: p.cfg.Logger,
		CORSOrigins: func() events.Origins { return origins },
		Trusted:     func() forwarded.Trusted { return p.cfg.Trusted },
	})
	return err
}

// shutdownTimeout bounds the time for requests in flight at a stop.
const shutdownTimeout = 8 * time.Second

// serve answers until ctx ends.
func (p *process) serve(ctx context.Context) error {
	l, err := net.Listen("tcp", p.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w; name another address with --listen", err)
	}
	p.limited = connlimit.New(l, "matomo", p.limit(), p.cfg.Logger)
	servers := []*http.Server{NewServer(p.limited, p.gateway, p.cfg.Logger)}
	failed := make(chan error, 2)
	scheme := "http"
	if p.certs != nil {
		scheme = "https"
		servers[0].TLSConfig = p.certs.TLS()
		servers[0].Protocols = new(http.Protocols)
		servers[0].Protocols.SetHTTP1(true)
		go func() { failed <- servers[0].ServeTLS(p.limited, "", "") }()
	} else {
		go func() { failed <- servers[0].Serve(p.limited) }()
	}
	if p.cfg.MetricsAddr != "" {
		m, err := net.Listen("tcp", p.cfg.MetricsAddr)
		if err != nil {
			err = fmt.Errorf("listen for metrics: %w; name another address with --metrics-addr", err)
			return errors.Join(err, servers[0].Close())
		}
		s := &http.Server{
			Handler: p.metrics(), ReadHeaderTimeout: headerTimeout, ErrorLog: logsink.HTTPErrors(p.cfg.Logger),
		}
		servers = append(servers, s)
		go func() { failed <- s.Serve(m) }()
	}
	at := scheme + "://" + l.Addr().String()
	p.cfg.Logger.Info("ready", "listen", at, "upstream", p.cfg.Upstream, "verifiers", strings.Join(p.cfg.Verifiers, ","))
	if p.cfg.Listening != nil {
		p.cfg.Listening(at)
	}
	return p.run(ctx, servers, failed)
}

// run waits for the end, and for reloads.
func (p *process) run(ctx context.Context, servers []*http.Server, failed <-chan error) (err error) {
	if p.certs != nil {
		watch, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- p.certs.Watch(watch) }()
		defer func() { stop(); <-done }()
	}
	tick := time.NewTicker(connlimit.RecountEvery)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case err = <-failed:
			running = false
		case <-tick.C:
			p.limited.SetLimit(p.limit())
		case <-p.cfg.Reload:
			p.reload()
		}
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(stop) != nil {
			p.cfg.Logger.Warn("requests in flight were closed at shutdown", "limit", shutdownTimeout)
			_ = s.Close() // a client that sends nothing must not make a stop fail
		}
	}
	return err
}

// limit returns the most connections. Each has another one to Matomo, and one to a
// verifier for a moment.
func (p *process) limit() int {
	files, used, ok := connlimit.OpenFiles()
	if !ok {
		files, used = connlimit.UnknownFiles, 0
	}
	if p.limited != nil {
		used -= 2 * p.limited.Counts().Open
	}
	const perConnection, least = 3, 8
	n := max(least, (files-used-connlimit.Spare)/perConnection)
	if p.cfg.MaxConnections > 0 {
		n = min(n, p.cfg.MaxConnections)
	}
	return min(n, connlimit.MaxPerListener)
}

// reload reads the files again. If one is bad, all stay as they are.
func (p *process) reload() {
	ctx := logsink.Always(context.Background())
	settings, err := p.cfg.Files.Load(p.cfg.Rule)
	if err = errors.Join(err, p.audit.load()); err != nil {
		text := strings.ReplaceAll(err.Error(), "\n", "; ")
		p.cfg.Logger.ErrorContext(ctx, "files were not reloaded; the old ones stay in force", "err", text)
		return
	}
	p.gateway.Set(settings)
	p.cfg.Logger.InfoContext(ctx, "files reloaded", "methods_added", settings.Methods.Added())
}

// metrics serves the metrics of the gateway.
func (p *process) metrics() http.Handler {
	return metrics.GatewayHandler(p.gateway.Stats, metrics.Process{Connections: func() map[string]metrics.Connections {
		return map[string]metrics.Connections{"matomo": metrics.Connections(p.limited.Counts())}
	}})
}
