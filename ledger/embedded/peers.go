package embedded

import (
	"fmt"
	"slices"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tokenledger/tokenledger/events"
)

// Peers is what a server of a cluster knows of the others without asking them.
type Peers struct {
	// Connected are the names of the servers that it has a connection with, sorted.
	Connected []string
	// Leader is the name of the server that leads the log, empty if it knows none.
	Leader string
}

// Peers returns the servers that this one is connected with, and the log's leader.
// It works without a majority.
func (s *Server) Peers() (Peers, error) {
	var p Peers
	routes, err := s.ns.Routez(&server.RoutezOptions{})
	if err != nil {
		return p, fmt.Errorf("read the connections between the log's servers: %w", err)
	}
	for _, r := range routes.Routes {
		p.Connected = append(p.Connected, r.RemoteName)
	}
	slices.Sort(p.Connected)
	p.Connected = slices.Compact(p.Connected)
	detail, err := s.ns.JszAccount(&server.JSzOptions{Account: ledgerAccount, Streams: true})
	if err != nil {
		return p, nil // its streams are not open yet
	}
	for _, stream := range detail.Streams {
		if stream.Name == events.StreamName && stream.Cluster != nil {
			p.Leader = stream.Cluster.Leader
		}
	}
	return p, nil
}
