package node

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"

	"github.com/tokenledger/tokenledger/ops/logsink"
	"github.com/tokenledger/tokenledger/ops/metrics"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// A setting is one value of the configuration, by the name that operators know.
type setting struct {
	name string
	of   func(Config) any
	live bool // a reload changes it; others need a restart
}

// settings are all that a reload compares.
var settings = []setting{
	{"policies", func(c Config) any { return c.Policies }, true},
	{"trusted_proxies", func(c Config) any { return c.TrustedProxies }, true},
	{"log_level", func(c Config) any { return c.LogLevel }, true},
	{"max_connections", func(c Config) any { return c.MaxConnections }, true},
	{"tls_cert", func(c Config) any { return c.TLS.CertFile }, true},
	{"tls_key", func(c Config) any { return c.TLS.KeyFile }, true},
	{"matomo_methods", func(c Config) any { return c.Matomo.Files.Methods }, true},
	{"matomo_token_file", func(c Config) any { return c.Matomo.Files.Token }, true},
	{"matomo_widget_token_file", func(c Config) any { return c.Matomo.Files.WidgetToken }, true},
	{"tls_self_signed", func(c Config) any { return c.TLS.SelfSigned }, false},
	{"data", func(c Config) any { return c.Data }, false},
	{"roles", func(c Config) any { return c.Roles }, false},
	{"name", func(c Config) any { return c.Name }, false},
	{"nats", func(c Config) any { return c.NATS }, false},
	{"nats_key", func(c Config) any { return c.NATSKey }, false},
	{"nats_listen", func(c Config) any { return c.NATSListen }, false},
	{"nats_cluster", func(c Config) any { return c.NATSCluster }, false},
	{"nats_cluster_listen", func(c Config) any { return c.NATSClusterListen }, false},
	{"nats_credentials", func(c Config) any { return c.NATSCredentials }, false},
	{"nats_replicas", func(c Config) any { return c.NATSReplicas }, false},
	{"api_addr", func(c Config) any { return c.APIAddr }, false},
	{"verify_addr", func(c Config) any { return c.VerifyAddr }, false},
	{"metrics_addr", func(c Config) any { return c.MetricsAddr }, false},
	{"matomo_upstream", func(c Config) any { return c.Matomo.Upstream }, false},
	{"matomo_listen", func(c Config) any { return c.Matomo.Listen }, false},
	{"matomo_max_body", func(c Config) any { return c.Matomo.MaxBody }, false},
	{"lease", func(c Config) any { return c.Lease }, false},
	{"resident", func(c Config) any { return c.Resident }, false},
	{"scrub", func(c Config) any { return c.Scrub }, false},
	{"secret_prefix", func(c Config) any { return c.SecretPrefix }, false},
	{"model", func(c Config) any { return c.Model.Digest() }, false},
	{"matomo_salt_file", func(c Config) any { return c.MatomoSaltFile }, false},
	{"stale", func(c Config) any { return c.Stale }, false},
	{"log_format", func(c Config) any { return c.LogFormat }, false},
	{"recover_root", func(c Config) any { return c.RecoverRoot }, false},
}

// changes returns which settings differ: those that a reload changes, and those
// that need a restart.
func changes(was, now Config) (live, restart []string) {
	for _, s := range settings {
		a, b := s.of(was), s.of(now)
		if reflect.DeepEqual(a, b) || empty(a) && empty(b) {
			continue
		}
		turned := strings.HasPrefix(s.name, "tls_") && was.TLS.On() != now.TLS.On() // which needs a restart
		if s.live && !turned {
			live = append(live, s.name)
		} else {
			restart = append(restart, s.name)
		}
	}
	return live, restart
}

// empty reports whether a list or a map has no entries.
func empty(v any) bool {
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Slice || r.Kind() == reflect.Map) && r.Len() == 0
}

// reloads records the results of the reloads of a node's configuration.
type reloads struct {
	mu      sync.Mutex
	current Config // guarded by mu; what is in force
	done    uint64 // guarded by mu
	refused uint64 // guarded by mu
	failing bool   // guarded by mu; the last one was refused
}

// config returns the configuration that is in force.
func (r *reloads) config() Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

func (r *reloads) count() metrics.Reloads {
	r.mu.Lock()
	defer r.mu.Unlock()
	return metrics.Reloads{Done: r.done, Refused: r.refused, Failing: r.failing}
}

// watchReloads reloads the configuration when it is asked to, until ctx ends.
func (n *Node) watchReloads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.cfg.Control.Reload:
			n.reload(ctx)
		}
	}
}

// reload reads the configuration again. All of it is checked before any of it takes
// effect: a configuration that is refused changes nothing.
func (n *Node) reload(ctx context.Context) {
	ctx = logsink.Always(ctx) // an operator asked for it, and waits for the result
	r := &n.reloads
	next, err := n.cfg.Control.Load()
	var commit func()
	if err == nil {
		next = next.withDefaults()
		commit, err = n.prepare(next)
	}
	r.mu.Lock()
	was := r.current
	r.failing = err != nil
	if err != nil {
		r.refused++
	} else {
		r.done++
		r.current = merged(was, next)
		commit()
	}
	r.mu.Unlock()
	n.setLimits()
	if err != nil {
		n.log.ErrorContext(ctx, "configuration was not reloaded; the old one stays in force", "err", oneLine(err))
		return
	}
	live, restart := changes(was, next)
	n.log.InfoContext(ctx, "configuration reloaded", "changed", list(live))
	if len(restart) > 0 {
		n.log.WarnContext(ctx, "some settings that changed take effect only after a restart", "settings", list(restart))
	}
}

// prepare checks a configuration, and returns what puts it into force.
func (n *Node) prepare(next Config) (commit func(), err error) {
	if err := next.Validate(); err != nil {
		return nil, err
	}
	var proxies *proxy.Handler
	if n.cfg.has(RoleVerifier) {
		// The model stays what it is until a restart, so the policies must fit it.
		if proxies, err = n.newProxies(next); err != nil {
			return nil, err
		}
	}
	gateway, err := n.prepareGateway(next)
	if err != nil {
		return nil, err
	}
	certificate := func() {}
	if n.certs != nil && next.TLS.On() && next.TLS.SelfSigned == n.cfg.TLS.SelfSigned {
		if certificate, err = n.certs.Prepare(next.TLS); err != nil {
			return nil, err
		}
	}
	return func() {
		certificate()
		gateway()
		n.trusted.Store((*forwarded.Trusted)(&next.TrustedProxies))
		if proxies != nil {
			n.proxies.Store(proxies)
		}
		if n.cfg.LevelVar != nil {
			n.cfg.LevelVar.Set(next.LogLevel)
		}
	}, nil
}

// merged returns the configuration after a reload: what needs a restart is as
// before.
func merged(was, next Config) Config {
	was.Policies, was.TrustedProxies, was.LogLevel = next.Policies, next.TrustedProxies, next.LogLevel
	was.MaxConnections, was.Matomo.Files = next.MaxConnections, next.Matomo.Files
	if was.TLS.On() == next.TLS.On() && was.TLS.SelfSigned == next.TLS.SelfSigned {
		was.TLS = next.TLS
	}
	return was
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// newProxies returns the handler of proxies' questions.
func (n *Node) newProxies(cfg Config) (*proxy.Handler, error) {
	return proxy.New(proxy.Config{
		Verifier: n.verify, Policies: cfg.Policies, Trusted: cfg.TrustedProxies, Logger: n.log,
	})
}

var errNoLoad = errors.New("node: Control.Reload needs Control.Load")

// validate reports what is wrong with a Control.
func (c Control) validate() error {
	if c.Reload != nil && c.Load == nil {
		return errNoLoad
	}
	return nil
}

// Logging is how a node's log is written.
type Logging struct {
	// LogFormat is the log's format. A reload reports that it changed.
	LogFormat string
	// LogLevel is the least level that is logged, and LevelVar what a reload sets
	// it on. Nil means that a reload does not change the level.
	LogLevel slog.Level
	LevelVar *slog.LevelVar
	// Lines counts what becomes of log lines. Nil means that nothing does.
	Lines metrics.LogLines
}
