package node

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/tokenledger/tokenledger/events/problem"
	"github.com/tokenledger/tokenledger/ledger"
)

// LocalNodesPath is where a node tells its owner what it knows by itself: on the
// socket in its data folder only, without a credential, and without a majority of
// ledgers.
const LocalNodesPath = "/v1/local/nodes"

// LocalNodes is what a node knows of itself and of the ledgers without asking
// another machine.
type LocalNodes struct {
	Self ledger.NodeReport `json:"self"`
	// Server is the server of the log that the node is connected with, empty if
	// there is none.
	Server string `json:"server,omitempty"`
	// Leader is the ledger that leads the log, empty if this node knows none.
	Leader string `json:"leader,omitempty"`
	// Ledgers are those that this node's credentials list.
	Ledgers []LocalLedger `json:"ledgers"`
}

// LocalLedger is a ledger as another node sees it.
type LocalLedger struct {
	Name string `json:"name"`
	// State is self, connected, missing, or unknown if this node cannot know.
	State string `json:"state"`
}

// localNodes returns what this node knows now.
func (n *Node) localNodes() LocalNodes {
	out := LocalNodes{Self: n.nodeReport(n.index.Position()), Ledgers: []LocalLedger{}}
	if err := n.unopened(); err != nil {
		out.Self.Ready, out.Self.Why = false, err.Error()
	}
	serverName := ""
	if n.server != nil {
		out.Server = n.server.url()
	} else if n.conn.IsConnected() {
		out.Server, serverName = n.conn.ConnectedUrlRedacted(), n.conn.ConnectedServerName()
	}
	if n.creds == nil {
		return out
	}
	var connected []string
	knows := false
	if n.server != nil {
		if s := n.server.current(); s != nil {
			if peers, err := s.Peers(); err == nil {
				connected, knows = peers.Connected, true
				// For some seconds a server takes one that it has lost for the leader.
				if peers.Leader == n.name || slices.Contains(connected, peers.Leader) {
					out.Leader = peers.Leader
				}
			}
		}
	}
	for _, name := range n.creds.Members.Ledgers() {
		l := LocalLedger{Name: name, State: "unknown"}
		switch {
		case name == n.name:
			l.State = "self"
		case slices.Contains(connected, name), name == serverName:
			l.State = "connected"
		case knows:
			l.State = "missing"
		}
		out.Ledgers = append(out.Ledgers, l)
	}
	return out
}

// localHandler answers on the socket in the data folder: what the node knows by
// itself at any time, and commands and checks once the node is open.
type localHandler struct {
	node *Node
	open atomic.Pointer[http.Handler]
}

// serveLocal serves the socket, if there is one.
func (n *Node) serveLocal(start func(net.Listener, http.Handler)) *localHandler {
	l := &localHandler{node: n}
	if n.socket != nil {
		start(n.socket, l)
	}
	return l
}

// opened sets the handler of commands and checks.
func (l *localHandler) opened(h http.Handler) { l.open.Store(&h) }

func (l *localHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.EscapedPath() == LocalNodesPath && r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(l.node.localNodes()) // the client may be gone
		return
	}
	if h := l.open.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	why := "the node is starting"
	if err := l.node.unopened(); err != nil {
		why += ": " + strings.TrimSuffix(err.Error(), ".")
	}
	w.Header().Set("Retry-After", "1")
	problem.Write(w, problem.Unavailable.Status, problem.New(problem.Unavailable, why))
}
