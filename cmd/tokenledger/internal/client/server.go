package client

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
)

// The servers to ask if nothing names others.
const (
	DefaultServer   = "http://127.0.0.1:7600"
	DefaultVerifier = "http://127.0.0.1:7601"
)

// ByDefault is the source of an address that nothing names.
const ByDefault = "the default"

// Config says which servers to ask, and with which credential. Paths are empty
// if there is none.
type Config struct {
	DataDir    string
	DataGiven  bool     // the user named DataDir
	Servers    []string // URLs of the API; none for the node on the data folder
	Context    Context  // settings that the user named; flags go before them
	ContextErr error    // why there is no such context
	// Fingerprint is that of the servers' certificate, empty for any that a known
	// authority signed.
	Fingerprint string
	TokenFile   string // file of the caller's token, "-" for standard input
	SessionFile string
	AnyFileMode bool          // read these files also if others can read them, with a warning
	Timeout     time.Duration // of a request with all its retries
	Retry       Retry
	Version     string // of this program, for the servers' logs
	Input       *term.Input

	People bool                             // people read the output: tell them as whom a change is made
	Note   func(format string, args ...any) // tells the user something
	Trace  func(format string, args ...any) // reports each request
	Warn   func(format string, args ...any) // warns the user, whatever the output format
}

// Ledger returns a client of the API that sends the caller's credential: the
// token of --token-file, or else the session of login, or else the token in the
// data folder. Who has signed in meant to: the data folder's token, which is
// root's, never takes the place of a session.
func (cfg *Config) Ledger(ctx context.Context) (*Client, error) {
	if cfg.TokenFile == "" {
		if _, err := cfg.ReadSession(); !errors.Is(err, ErrSignedOut) {
			return cfg.Person(ctx)
		}
	}
	bases, from, err := cfg.findServers([]string{DefaultServer})
	if err != nil {
		return nil, err
	}
	c := cfg.cluster("the ledger", bases, from)
	return c, c.SignIn(ctx)
}

// Person returns a client of the API for the commands of people. It sends the
// session of login, unless a token file is named.
func (cfg *Config) Person(ctx context.Context) (*Client, error) {
	c, err := cfg.Anonymous()
	if err != nil {
		return nil, err
	}
	if cfg.TokenFile != "" {
		c.secret, c.owner, err = cfg.credential(ctx)
		return c, err
	}
	return c, c.useSession()
}

// Anonymous returns a client of the API that sends no credential.
func (cfg *Config) Anonymous() (*Client, error) {
	fallback := []string{DefaultServer}
	if s, err := cfg.ReadSession(); err == nil {
		fallback = s.servers()
	}
	bases, from, err := cfg.findServers(fallback)
	if err != nil {
		return nil, err
	}
	c := cfg.cluster("the ledger", bases, from)
	c.warnUnencrypted("what you send")
	return c, nil
}

// Verifier returns a client of a verifier that sends no credential. Given is the
// value of --verifier.
func (cfg *Config) Verifier(given string) (*Client, error) {
	base, from, err := cfg.FindVerifier(given)
	if err == nil && from == ByDefault && cfg.DataGiven {
		err = cfg.noNode("--verifier")
	}
	if err == nil {
		err = cfg.checkPinned(base, from)
	}
	if err != nil {
		return nil, err
	}
	return cfg.client("the verifier", base, from), nil
}

// At returns a client of a server at an address that this process knows.
func (cfg *Config) At(what string, base *url.URL, secret string) *Client {
	return &Client{cfg: cfg, http: &http.Client{}, base: base, what: what, from: "this process", secret: secret}
}

// findServers returns the URLs of the API, and how they are known: from --server, or
// else from the context, or else from the node that runs on the data folder, or else
// the fallback.
func (cfg *Config) findServers(fallback []string) (bases []*url.URL, from string, err error) {
	list, from := cfg.Servers, "--server"
	if len(list) == 0 {
		if cfg.ContextErr != nil {
			return nil, "", cfg.ContextErr
		}
		list, from = cfg.Context.Servers, cfg.Context.from()
	}
	if len(list) == 0 {
		at, path, err := cfg.running()
		if err != nil {
			return nil, "", err
		}
		if list, from = []string{at.API}, path; at.API == "" {
			list, from = fallback, ByDefault
		}
	}
	for _, address := range list {
		base, err := parseServer(address, from, DefaultServer)
		if err != nil {
			return nil, "", err
		}
		if err := cfg.checkPinned(base, from); err != nil {
			return nil, "", err
		}
		bases = append(bases, base)
	}
	return bases, from, nil
}

// FindVerifier returns the URL of a verifier, and how it is known.
func (cfg *Config) FindVerifier(given string) (base *url.URL, from string, err error) {
	if given == "" && cfg.Context.Verifier != "" {
		base, err = parseServer(cfg.Context.Verifier, cfg.Context.from(), DefaultVerifier)
		return base, cfg.Context.from(), err
	}
	return cfg.find("--verifier", given, func(a node.Addresses) string { return a.Verify }, DefaultVerifier)
}

// FindMetrics returns the URL of a node's health, and how it is known.
func (cfg *Config) FindMetrics(given string) (base *url.URL, from string, err error) {
	base, from, err = cfg.find(
		"--metrics-addr",
		given,
		func(a node.Addresses) string { return a.Metrics },
		"http://"+node.DefaultMetricsAddr,
	)
	if err == nil && from == ByDefault && cfg.DataGiven {
		err = cfg.noNode("--metrics-addr")
	}
	return base, from, err
}

// find returns the URL of one server: from the flag, or else from the node that
// runs on the data folder, or else the fallback.
func (cfg *Config) find(
	flag, given string,
	of func(node.Addresses) string,
	fallback string,
) (base *url.URL, from string, err error) {
	address, from := given, flag
	if address == "" {
		at, path, err := cfg.running()
		if err != nil {
			return nil, "", err
		}
		if address, from = of(at), path; address == "" {
			address, from = fallback, ByDefault
		}
	}
	base, err = parseServer(address, from, fallback)
	return base, from, err
}

// parseServer returns a server's URL. Example is a URL for the error.
func parseServer(address, from, example string) (*url.URL, error) {
	base, err := url.Parse(address)
	switch {
	case err != nil,
		base.Scheme != "http" && base.Scheme != "https",
		base.Host == "", base.RawQuery != "", base.Fragment != "":
		return nil, exit.Inputf("%s: must be a URL such as %s", from, example)
	case base.User != nil:
		return nil, exit.Inputf("%s: a name or password in the URL is not used. Give your token in a file "+
			"(--token-file)", from)
	}
	return base, nil
}

// noNode returns the failure of a question to the node on a data folder that the
// user named, where none runs. A node elsewhere says nothing of it.
func (cfg *Config) noNode(flag string) error {
	why := "it has no " + datadir.Run
	if _, err := os.Stat(cfg.DataDir); err != nil {
		why = exit.Cause(err, cfg.DataDir)
	}
	return exit.Failf(exit.Unavailable, "no_node",
		"no node runs on the data folder %s: %s. Start it, or name another one with %s", cfg.DataDir, why, flag)
}

// source returns how the server's URL is known, for messages.
func (c *Client) source() string { return Source(c.from) }

// Source returns where an address is from, for messages.
func Source(from string) string {
	if from == ByDefault {
		return "the default"
	}
	return "from " + from
}

// running returns the addresses of the node that runs on the data folder. They
// are empty if none runs there.
func (cfg *Config) running() (at node.Addresses, path string, err error) {
	if cfg.DataDir == "" {
		return at, "", nil
	}
	path = filepath.Join(cfg.DataDir, datadir.Run)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return at, path, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &at)
	}
	if err != nil {
		return at, path, exit.Failf(exit.Error, "data",
			"cannot read the addresses of the node from %s: %s", path, exit.Cause(err, path))
	}
	return at, path, nil
}

// client returns a client of the API or of a verifier. The node on the data
// folder is reached through the folder's socket.
func (cfg *Config) client(what string, base *url.URL, from string) *Client {
	c := cfg.PortClient(what, base, from)
	c.useSocket(c.http.Transport.(*http.Transport))
	return c
}

// cluster returns a client of the API of several servers, which it tries in turn.
func (cfg *Config) cluster(what string, bases []*url.URL, from string) *Client {
	c := cfg.client(what, bases[0], from)
	c.others = bases[1:]
	return c
}

// PortClient returns a client that connects to a port, whatever program listens
// there. Send it no secret that is not meant for that port.
func (cfg *Config) PortClient(what string, base *url.URL, from string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // the program ends after a request or two
	pin := cfg.pinFor(base, from)
	if pin != "" {
		transport.TLSClientConfig = tlsfiles.Pinned(pin)
	}
	return &Client{
		cfg: cfg, base: base, what: what, from: from, pin: pin,
		http: &http.Client{
			Transport: transport,
			// A redirect would carry the token to another place.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// checkPinned returns an error if a certificate is to be compared, and a server has
// none. The node on the data folder is reached without a network.
func (cfg *Config) checkPinned(base *url.URL, from string) error {
	if base.Scheme != "http" || from == filepath.Join(cfg.DataDir, datadir.Run) {
		return nil
	}
	if cfg.Fingerprint == "" && (cfg.Context.Fingerprint == "" || from != cfg.Context.from()) {
		return nil
	}
	return exit.Inputf("--server-fingerprint: %s (%s) has no certificate to compare, because it is not encrypted. Use https, or "+
		"leave the fingerprint out", base, Source(from))
}

// pinFor returns the fingerprint that a server's certificate must have, empty for
// none: the given one, that of the context, that of the node on the data folder, or
// that of the server that the person signed in to.
func (cfg *Config) pinFor(base *url.URL, from string) string {
	if cfg.Fingerprint != "" {
		return cfg.Fingerprint
	}
	if cfg.Context.Fingerprint != "" && from == cfg.Context.from() {
		return cfg.Context.Fingerprint
	}
	if at, path, err := cfg.running(); err == nil && path == from {
		return at.Fingerprint
	}
	s, err := cfg.ReadSession()
	if err == nil && s.of(base) {
		return s.Fingerprint
	}
	return ""
}

// useSocket makes the client reach the node on the data folder through the
// folder's socket. Another user's program may listen on the port by now.
func (c *Client) useSocket(transport *http.Transport) {
	if c.from != filepath.Join(c.cfg.DataDir, datadir.Run) {
		return
	}
	if c.socket = node.SocketIn(c.cfg.DataDir); c.socket == "" {
		return
	}
	transport.Proxy = nil
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return node.DialSocket(ctx, c.socket)
	}
	transport.DialTLSContext = transport.DialContext // the socket has no TLS, whatever the port has
}

// LocalNode returns a client of the node on the data folder, by the folder's socket
// and without a credential. It works while the node is starting.
func (cfg *Config) LocalNode() (*Client, error) {
	if cfg.DataDir == "" {
		return nil, exit.Inputf("there is no data folder to look in; name it with --data")
	}
	run := filepath.Join(cfg.DataDir, datadir.Run)
	c := cfg.client("the node", &url.URL{Scheme: "http", Host: "localhost"}, run)
	c.folder = cfg.DataDir
	if c.socket == "" {
		return nil, exit.Failf(exit.Unavailable, "no_node",
			"no node runs on the data folder %s (it has no %s). Start it, or name another folder with --data",
			cfg.DataDir, datadir.Socket)
	}
	return c, nil
}

// SignIn makes the client send the caller's own token.
func (c *Client) SignIn(ctx context.Context) (err error) {
	secret, owner, err := c.cfg.credential(ctx)
	if err != nil {
		return err
	}
	// The token of the data folder goes only to the node on that folder, or to the
	// address that the command names. Another user's program may have the port.
	if c.cfg.tokenFile() == "" && c.socket == "" && !strings.HasPrefix(c.from, "--") {
		if c.from == c.cfg.Context.from() {
			return exit.Failf(exit.NotAllowed, "credential", "there is no token to send to %s (%s): run 'tokenledger login', or "+
				"name a file with your token (--token-file)", c.base, c.source())
		}
		return exit.Failf(
			exit.Unavailable,
			"no_node",
			"no node runs on the data folder %s (it has no %s), so the token in %s was not sent. Start the node, or name "+
				"its URL with --server",
			c.cfg.DataDir,
			datadir.Socket,
			owner,
		)
	}
	c.secret, c.owner = secret, owner
	c.warnUnencrypted("your token")
	return nil
}

// warnUnencrypted warns if what is sent travels unencrypted.
func (c *Client) warnUnencrypted(what string) {
	for _, base := range c.servers() {
		if c.socket == "" && base.Scheme == "http" && !loopback(base.Hostname()) {
			c.cfg.Note("tokenledger: %s is sent unencrypted to %s; use https.", what, base.Host)
		}
	}
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (a.IsLoopback() || a.IsUnspecified())
}
