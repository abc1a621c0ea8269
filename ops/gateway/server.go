// Package gateway runs a Matomo gateway: its listener, and a process of its own for
// one that asks verifiers over HTTP.
//
// # Promise
//
// A stop refuses new connections and lets requests in flight end. A reload that is
// refused changes nothing.
package gateway

import (
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tokenledger/tokenledger/ops/connlimit"
	"github.com/tokenledger/tokenledger/ops/logsink"
)

// Limits of the listener. A report or an upload may take long, a URI has up to 64 KiB.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 10 * time.Minute
	answerTimeout = 15 * time.Minute
	idleTimeout   = 2 * time.Minute
	maxHeader     = 128 << 10
)

// NewServer returns a server for a gateway.
func NewServer(l net.Listener, h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: answerTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: logsink.HTTPErrors(log),
	}
	if limited, ok := l.(*connlimit.Listener); ok {
		s.ConnState = limited.State
	}
	return s
}
