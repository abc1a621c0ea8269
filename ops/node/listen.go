package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ops/connlimit"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/gateway"
	"github.com/tokenledger/tokenledger/ops/logsink"
	"github.com/tokenledger/tokenledger/ops/metrics"
)

// listen opens the listeners.
func (n *Node) listen() (err error) {
	if err := n.openCertificate(); err != nil {
		return err
	}
	open := func(what, flag, addr string) net.Listener {
		if err != nil {
			return nil
		}
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err != nil {
			err = fmt.Errorf("listen for %s: %w; name another address with --%s", what, err, flag)
			return nil
		}
		return n.limit(l, what)
	}
	if n.cfg.has(RoleLedger) {
		n.apiListener = open("api", "api-addr", n.cfg.APIAddr)
	}
	if n.cfg.has(RoleVerifier) {
		n.verifyListener = open("verify", "verify-addr", n.cfg.VerifyAddr)
	}
	if n.cfg.Matomo.on() {
		n.matomoListener = open(gatewayListener, "matomo-listen", n.cfg.Matomo.Listen)
	}
	n.metricsListener = open("metrics", "metrics-addr", n.cfg.MetricsAddr)
	if err != nil {
		n.closeListeners()
		return err
	}
	n.warnUnprotected()
	if n.socket, err = listenSocket(n.dir); err != nil {
		n.log.Warn(
			"cannot listen on a socket in the data folder; name --server to commands on this machine",
			"socket", n.dir.File(datadir.Socket), "err", err)
	}
	return nil
}

// closeListeners closes the listeners that no server has closed.
func (n *Node) closeListeners() {
	for _, l := range []net.Listener{n.apiListener, n.verifyListener, n.matomoListener, n.metricsListener, n.socket} {
		if l != nil {
			_ = l.Close() // it may be closed already
		}
	}
	removeSocket(n.dir.Path())
}

// newServer returns a server of the node that answers with h.
func (n *Node) newServer(l net.Listener, h http.Handler) *http.Server {
	if l == n.matomoListener && l != nil {
		return gateway.NewServer(l, h, n.log)
	}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: writeTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: logsink.HTTPErrors(n.log),
	}
	if limited, ok := l.(*connlimit.Listener); ok {
		s.ConnState = limited.State
	}
	return s
}

// limit limits the connections of a listener.
func (n *Node) limit(l net.Listener, name string) net.Listener {
	limited := connlimit.New(l, name, n.connectionLimits()[name], n.log)
	n.limited = append(n.limited, limited)
	return limited
}

// connectionLimits returns the limits of the listeners and of the log's clients,
// from the files that are open now for other things than connections to listeners.
func (n *Node) connectionLimits() map[string]int {
	files, used, ok := connlimit.OpenFiles()
	if !ok {
		files, used = connlimit.UnknownFiles, 0
	}
	for _, l := range n.limited {
		used -= l.Counts().Open
	}
	limits := connlimit.Limits(files, used, n.reloads.config().MaxConnections)
	n.shareWithGateway(limits)
	return limits
}

// setLimits makes the listeners follow the files that are open.
func (n *Node) setLimits() {
	limits := n.connectionLimits()
	for _, l := range n.limited {
		l.SetLimit(limits[l.Name()])
	}
}

// watchLimits makes the limits follow the files that the log and the index open,
// until ctx ends.
func (n *Node) watchLimits(ctx context.Context) error {
	n.setLimits()
	for clock.Sleep(ctx, connlimit.RecountEvery) {
		n.setLimits()
	}
	return nil
}

// connections returns what the metrics show of each listener.
func (n *Node) connections() map[string]metrics.Connections {
	m := map[string]metrics.Connections{}
	for _, l := range n.limited {
		m[l.Name()] = metrics.Connections(l.Counts())
	}
	return m
}
