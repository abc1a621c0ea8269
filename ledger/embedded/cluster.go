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

// clusterName is the same for all clusters: certificates decide which servers belong
// to one.
const clusterName = "tokenledger"

// Cluster makes the server a member of a cluster that replicates the log.
type Cluster struct {
	// Listen is the host:port that the other servers connect to. Required.
	Listen string
	// Routes are the URLs of all servers, this one included, such as
	// nats://host:7604. Three or five are required.
	Routes []string
	// Hold keeps the streams closed. The server connects to the others and forwards
	// messages between their clients, but does not vote on which streams exist: an
	// empty server would vote for an empty log.
	Hold bool
}

// CheckRoutes reports whether the URLs of a cluster are valid.
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
			return nil, fmt.Errorf(
				"URL %d of the cluster has no host and port: use one such as nats://10.0.0.1:7604",
				len(urls)+1,
			)
		case u.User != nil:
			return nil, fmt.Errorf(
				"URL %d of the cluster has a user or password: remove it, because servers use their certificates",
				len(urls)+1,
			)
		case seen[u.Host]:
			return nil, fmt.Errorf("URL %d of the cluster: %s is repeated", len(urls)+1, u.Host)
		}
		seen[u.Host] = true
		u.Scheme, u.Path = "nats-route", ""
		urls = append(urls, u)
	}
	// An even number of servers survives the loss of no more servers than the odd
	// number below it.
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

// own returns host and port of this server's route, empty if it is ambiguous.
func (c *Cluster) own(hosts []string, port int) string {
	routes, _ := parseRoutes(c.Routes) // validate reports errors
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

// options sets the options of a member of the cluster.
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
		// A verifier's certificate is accepted only on the port for clients, because
		// permissions do not apply to servers.
		TLSConfig:      creds.serverTLS(),
		TLSPinnedCerts: server.PinnedCertSet(creds.Members.pins()),
		// Clients have the servers in their configuration.
		NoAdvertise: true,
		// The servers tell each other where the others are. By default they use
		// addresses, which a certificate for a host name does not cover.
		Advertise: c.own(creds.Hosts, port),
	}
	// The loop that listens for clients also starts the routes, so the server
	// listens from the start. Server.Listen explains why that is safe.
	opts.DontListen = false
	return nil
}

// SetMembers changes the nodes that may connect. The server disconnects nodes that are
// no longer members. The servers of the cluster can change only with a restart.
func (s *Server) SetMembers(members Members) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Credentials == nil {
		return errors.New("change members: the server has no credentials")
	}
	own, ok := members.Named(s.cfg.Credentials.Name)
	if !ok || own.Key != s.cfg.Credentials.Key.Public() {
		return fmt.Errorf("change members: this node, %s, is not in the list", s.cfg.Credentials.Name)
	}
	if !maps.Equal(members.pins(), s.cfg.Credentials.Members.pins()) {
		return errors.New(
			"change members: the list has other ledgers than before: restart the ledgers one after the other with the new list",
		)
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

// reloadLocked applies cfg to the running server and stores it. The caller holds s.mu.
func (s *Server) reloadLocked(cfg Config) error {
	if s.stopping {
		return errors.New("change log server: the server is shutting down")
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

// HasStore reports whether dir has streams of a cluster's server.
func HasStore(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, server.JetStreamStoreDir, systemAccount))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Current reports whether a server's copies of all streams are complete, as their
// leaders report it. Until then the server cannot replace another one that is
// stopped.
func Current(ctx context.Context, js jetstream.JetStream, server string) (bool, error) {
	names := map[string]bool{events.StreamName: true, events.LeaseStreamName: true}
	list := js.StreamNames(ctx)
	for name := range list.Name() {
		names[name] = true // the directory's, too
	}
	if err := list.Err(); err != nil {
		return false, fmt.Errorf("list the streams: %w", err)
	}
	for name := range names {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return false, fmt.Errorf("check the copies of stream %s: %w", name, err)
		}
		cluster := stream.CachedInfo().Cluster
		if cluster == nil {
			return false, fmt.Errorf("check the copies of stream %s: the stream is not replicated", name)
		}
		if cluster.Leader != server && !slices.ContainsFunc(cluster.Replicas, func(p *jetstream.PeerInfo) bool {
			return p.Name == server && p.Current && !p.Offline
		}) {
			return false, nil
		}
	}
	return true, nil
}
