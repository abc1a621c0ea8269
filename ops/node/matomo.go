package node

import (
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/gateway"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
	"github.com/tokenledger/tokenledger/verifier/matomo"
)

// Matomo configures the gateway in front of a Matomo. The zero value means none.
type Matomo struct {
	Upstream string // URL of Matomo
	Listen   string // host:port; port 0 picks one
	Files    matomo.Files
	// MaxBody is the largest body that is read, in bytes. Zero means
	// [matomo.DefaultMaxBody].
	MaxBody int64
}

// gatewayListener is the name of the gateway's listener.
const gatewayListener = "matomo"

func (m Matomo) on() bool { return m.Upstream != "" }

// validate reports what is wrong with the gateway's configuration.
func (c Config) validateMatomo(bad func(format string, args ...any)) {
	m := c.Matomo
	switch {
	case !m.on():
		if m.Listen != "" || m.Files != (matomo.Files{}) || m.MaxBody != 0 {
			bad("matomo-upstream: name the URL of Matomo, or leave the other --matomo flags out")
		}
		return
	case m.Listen == "":
		bad("matomo-listen: name the host:port of the gateway")
	case !c.has(RoleVerifier):
		bad("matomo-upstream: the gateway checks tokens at the verifier of this node, so give it that role")
	}
	if err := gateway.CheckURL(m.Upstream); err != nil {
		bad("matomo-upstream: %w", err)
	}
	if c.Model.Check(events.MustScope("track:site/1")) != nil || c.Model.Check(events.MustScope("read:site/1")) != nil {
		bad("matomo-upstream: the gateway needs the permission model matomo")
	}
	if m.MaxBody < 0 {
		bad("matomo-max-body: %d is less than 0", m.MaxBody)
	}
}

// openGateway makes the gateway. It is nil if none is configured.
func (n *Node) openGateway() error {
	if !n.cfg.Matomo.on() {
		return nil
	}
	upstream, err := url.Parse(n.cfg.Matomo.Upstream)
	if err != nil {
		return err
	}
	settings, err := n.cfg.Matomo.Files.Load(n.cfg.secretRule())
	if err != nil {
		return err
	}
	n.gateway, err = matomo.New(matomo.Config{
		Upstream: upstream, Checker: matomo.Local{Verifier: n.verify}, Settings: settings, Model: n.cfg.Model,
		CORSOrigins: n.verify.CORSOrigins, Trusted: func() forwarded.Trusted { return n.trustedProxies() },
		MaxBody: n.cfg.Matomo.MaxBody, Logger: n.log,
	})
	return err
}

// serveGateway starts the gateway, if there is one. Until this node has a lease, it
// passes requests on that have no token, and hits without theirs.
func (n *Node) serveGateway(start func(net.Listener, http.Handler)) {
	if n.gateway != nil {
		start(n.matomoListener, n.gateway)
	}
}

// closeGateway closes the connections to Matomo.
func (n *Node) closeGateway() {
	if n.gateway != nil {
		n.gateway.Close()
	}
}

// prepareGateway reads the gateway's files again, and returns what puts them into
// force.
func (n *Node) prepareGateway(next Config) (commit func(), err error) {
	if n.gateway == nil || !next.Matomo.on() {
		return func() {}, nil
	}
	settings, err := next.Matomo.Files.Load(next.secretRule())
	if err != nil {
		return nil, fmt.Errorf("the gateway keeps its methods and tokens: %w", err)
	}
	return func() { n.gateway.Set(settings) }, nil
}

// shareWithGateway gives the gateway a part of the verifier's connections. Each of
// its own has another one to Matomo.
func (n *Node) shareWithGateway(limits map[string]int) {
	if n.cfg.Matomo.on() {
		const parts = 3
		limits["verify"] = max(1, limits["verify"]/parts)
		limits[gatewayListener] = limits["verify"]
	}
}
