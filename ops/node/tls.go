package node

import (
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/metrics"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
)

// openCertificate reads the certificate of the listeners.
func (n *Node) openCertificate() error {
	if !n.cfg.TLS.On() {
		return nil
	}
	var hosts []string
	for _, address := range []string{n.cfg.APIAddr, n.cfg.VerifyAddr, n.cfg.Matomo.Listen, n.cfg.MetricsAddr} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			hosts = append(hosts, host)
		}
	}
	var err error
	n.certs, err = tlsfiles.Open(n.cfg.TLS, tlsfiles.SelfSigned{
		CertFile: n.dir.File(datadir.TLSCert), KeyFile: n.dir.File(datadir.TLSKey), Hosts: hosts,
	}, n.log)
	if err != nil {
		return err
	}
	text := "listening with TLS"
	if n.cfg.TLS.SelfSigned {
		text = "listening with a self-signed certificate; clients need --server-fingerprint"
	}
	n.log.Info(text, "fingerprint", n.certs.Fingerprint(), "expires", n.certs.Expires().UTC().Format(time.RFC3339))
	return nil
}

// warnUnprotected warns of listeners that other machines reach, on which secrets
// can be read on their way.
func (n *Node) warnUnprotected() {
	if n.cfg.TLS.On() || len(n.cfg.TrustedProxies) > 0 {
		return
	}
	for name, l := range map[string]net.Listener{
		"api": n.apiListener, "verify": n.verifyListener, gatewayListener: n.matomoListener,
	} {
		if l != nil && !onLoopback(l.Addr().String()) {
			n.log.Warn("other machines reach this listener, and it has no TLS: use --tls-cert and --tls-key, or a proxy with "+
				"TLS and --trusted-proxies", "listener", name, "address", l.Addr().String())
		}
	}
}

// onLoopback reports whether only this machine reaches an address.
func onLoopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().IsLoopback()
}

// serveOn serves a listener, with TLS if the node has a certificate. The socket in
// the data folder never has TLS.
func (n *Node) serveOn(s *http.Server, l net.Listener) error {
	if n.certs == nil || l == n.socket {
		return s.Serve(l)
	}
	s.TLSConfig = n.certs.TLS()
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true) // as without TLS: limits and deadlines are those of HTTP/1.1
	return s.ServeTLS(l, "", "")
}

// trustedProxies returns the proxies whose word the API takes for a client's
// address.
func (n *Node) trustedProxies() forwarded.Trusted {
	if t := n.trusted.Load(); t != nil {
		return *t
	}
	return n.cfg.TrustedProxies
}

// tlsState returns what the metrics show of the certificate, nil without TLS.
func (n *Node) tlsState() *metrics.Certificate {
	if n.certs == nil {
		return nil
	}
	return &metrics.Certificate{Expires: n.certs.Expires(), Failing: n.certs.Failing()}
}
