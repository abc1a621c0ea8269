package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
)

// clusterName is the same for all: who belongs to a cluster is told by its
// certificates.
const clusterName = "tokenledger"

// Cluster makes the server one of several that keep the log together.
type Cluster struct {
	// Listen is the host:port that the other servers connect to. Required.
	Listen string
	// Routes are the URLs where all of them listen, this one included, as in
	// nats://host:7604. Required, three or five of them.
	Routes []string
	// Hold leaves the streams closed. The server connects to the others and
	// carries messages between their clients, and has no say in which streams
	// there are: an empty one that had would vote with the emptiness of its disk.
	Hold bool
}

// CheckRoutes reports what is wrong with the URLs of a cluster.
func CheckRoutes(routes []string) error {
	_, err := parseRoutes(routes)
	return err
}

func parseRoutes(routes []string) ([]*url.URL, error) {
	var urls []*url.URL
	seen := map[string]bool{}
	for _, r := range routes {
		raw := r
		if !strings.Contains(raw, "://") {
			raw = "nats://" + raw
		}
		u, err := url.Parse(raw)
		// The URL is not quoted: a password in it must not reach an error text.
		switch {
		case err != nil || u.Hostname() == "" || u.Port() == "" || u.Port() == "0" || strings.Trim(u.Path, "/") != "":
			return nil, fmt.Errorf("URL %d of the cluster: want host and port, as in nats://10.0.0.1:7604", len(urls)+1)
		case u.User != nil:
			return nil, fmt.Errorf("URL %d of the cluster: servers know each other by their certificates: leave the password out", len(urls)+1)
		case seen[u.Host]:
			return nil, fmt.Errorf("URL %d of the cluster: %s stands there twice", len(urls)+1, u.Host)
		}
		seen[u.Host] = true
		u.Scheme, u.Path = "nats-route", ""
		urls = append(urls, u)
	}
	// An even number needs as many servers for a majority as the odd one above
	// it, and survives the loss of no more than the odd one below it.
	if n := len(urls); n != 3 && n != 5 {
		return nil, fmt.Errorf("the cluster has %d URLs: name three or five, this node's included", n)
	}
	return urls, nil
}

func (c *Cluster) validate() error {
	var problems []error
	if _, port, err := splitListen(c.Listen); err != nil || port == 0 {
		problems = append(problems, fmt.Errorf("Cluster.Listen is %q, want host:port of one of the routes", c.Listen))
	}
	problems = append(problems, CheckRoutes(c.Routes))
	return errors.Join(problems...)
}

// own returns host and port of the route that leads to this server, empty where
// that cannot be told.
func (c *Cluster) own(hosts []string, port int) string {
	routes, _ := parseRoutes(c.Routes) // validate says what is wrong with them
	var here, same []string            // by host, and by port as well
	for _, u := range routes {
		if !slices.Contains(hosts, u.Hostname()) {
			continue
		}
		here = append(here, u.Host)
		if u.Port() == strconv.Itoa(port) {
			same = append(same, u.Host)
		}
	}
	switch {
	case len(same) == 1: // there may be several servers on one machine
		return same[0]
	case len(here) == 1:
		return here[0]
	}
	return ""
}

// options makes opts those of a server in the cluster.
func (c *Cluster) options(opts *server.Options, creds *Credentials) error {
	host, port, err := splitListen(c.Listen)
	if err != nil {
		return err
	}
	if opts.Routes, err = parseRoutes(c.Routes); err != nil {
		return err
	}
	opts.ServerName = creds.Name
	opts.Cluster = server.ClusterOpts{
		Name: clusterName,
		Host: host,
		Port: port,
		// A verifier's certificate is good for the port of clients alone:
		// permissions do not bind a server.
		TLSConfig:      creds.serverTLS(),
		TLSPinnedCerts: server.PinnedCertSet(creds.Members.pins()),
		// Clients know the servers by their configuration.
		NoAdvertise: true,
		// The servers tell each other where the others are. They would do so by
		// addresses, for which a certificate that names a host is not good.
		Advertise: c.own(creds.Hosts, port),
	}
	// Routes are begun by the loop that listens for clients, so the server
	// listens from the start. What is said of Server.Listen is kept in another
	// way: see there.
	opts.DontListen = false
	return nil
}

// SetMembers changes who may connect. Whoever is not among them any more is
// disconnected. Which servers there are is fixed until the server is started
// anew.
func (s *Server) SetMembers(members Members) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Credentials == nil {
		return errors.New("change members: the server has no credentials")
	}
	own, ok := members.Named(s.cfg.Credentials.Name)
	if !ok || own.Key != s.cfg.Credentials.Key.Public() {
		return fmt.Errorf("change members: %s, which this node is, is not among them", s.cfg.Credentials.Name)
	}
	if !maps.Equal(members.pins(), s.cfg.Credentials.Members.pins()) {
		return errors.New("change members: other ledgers than before: stop the ledgers one after the other and start them with the new list")
	}
	if err := members.validate(); err != nil {
		return fmt.Errorf("change members: %w", err)
	}
	cfg := s.cfg
	creds := *cfg.Credentials
	creds.Members = members
	cfg.Credentials = &creds
	return s.reloadLocked(cfg)
}

// reloadLocked makes a running server follow cfg, which becomes its own. The
// caller holds s.mu.
func (s *Server) reloadLocked(cfg Config) error {
	if s.stopping {
		return errors.New("change log server: it is shutting down")
	}
	opts, err := options(cfg)
	if err != nil {
		return fmt.Errorf("change log server: %w", err)
	}
	opts.ServerName = s.ns.Name()
	if err := s.ns.ReloadOptions(opts); err != nil {
		return fmt.Errorf("change log server: %w", err)
	}
	s.cfg = cfg
	return nil
}

// HasStore reports whether a server of a cluster has kept streams in dir before.
func HasStore(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, server.JetStreamStoreDir, systemAccount))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Current reports whether a server's copies of the log and of its leases are
// whole, as their leaders see it. Until then the server does not make up for
// another one that is stopped.
func Current(ctx context.Context, js jetstream.JetStream, server string) (bool, error) {
	for _, name := range []string{events.StreamName, events.LeaseStreamName} {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return false, fmt.Errorf("look at the copies of stream %s: %w", name, err)
		}
		cluster := stream.CachedInfo().Cluster
		if cluster == nil {
			return false, fmt.Errorf("look at the copies of stream %s: there is one alone", name)
		}
		if cluster.Leader != server && !slices.ContainsFunc(cluster.Replicas, func(p *jetstream.PeerInfo) bool {
			return p.Name == server && p.Current && !p.Offline
		}) {
			return false, nil
		}
	}
	return true, nil
}
