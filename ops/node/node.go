package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/cors"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ledger/signin"
	"github.com/tokenledger/tokenledger/ops/apidocs"
	"github.com/tokenledger/tokenledger/ops/connlimit"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/metrics"
	"github.com/tokenledger/tokenledger/ops/tlsfiles"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/projector/replica"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/forwarded"
	"github.com/tokenledger/tokenledger/verifier/lease"
	"github.com/tokenledger/tokenledger/verifier/matomo"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// Roles of a node.
const (
	RoleLedger   = "ledger"
	RoleVerifier = "verifier"
)

// Config configures a node.
type Config struct {
	Data  string   // data folder; required
	Roles []string // none means both
	Name  string   // unique among the nodes; empty means the name in the data folder

	// RecoverRoot makes a ledger create a token with superuser at its start and
	// write the secret to root.token, unless the secret in that file has
	// superuser. It is for one start, after the last superuser was lost.
	RecoverRoot bool

	// NATS is the URL of the log, and NATSKey the file of the key to connect
	// with. They are required without the role ledger: a ledger can keep the log
	// itself.
	NATS    string
	NATSKey string
	// AnyFileMode reads NATSKey, and the keys in NATSCredentials, also if other
	// users can read the files. Each one is logged as a warning.
	AnyFileMode bool
	// NATSListen is the address on which other nodes reach this node's log.
	// Empty means that the log server does not listen.
	NATSListen string
	// NATSCluster are the route URLs of all ledgers that keep the log together,
	// this one included. NATSClusterListen is the address on which the others
	// reach this one. Empty means that this ledger keeps the log alone, or uses
	// NATS.
	NATSCluster       []string
	NATSClusterListen string
	// NATSCredentials is the folder that nats init created for this node. It is
	// required in a cluster. Elsewhere it replaces NATSKey.
	NATSCredentials string
	// NATSReplicas is the number of copies of the log on external servers. Zero
	// means DefaultNATSReplicas.
	NATSReplicas int

	// Addresses to listen on, as host:port; port 0 picks one. Empty means the
	// default.
	APIAddr     string
	VerifyAddr  string
	MetricsAddr string

	// TLS is the certificate of the listeners. The zero Config means no TLS.
	TLS tlsfiles.Config
	// MaxConnections bounds the connections to each listener. Zero means as many as
	// the limit of open files allows.
	MaxConnections int

	// Lease is how long the node answers checks without contact to the log. Zero
	// means [verifier.DefaultLease].
	Lease time.Duration
	// Resident is the maximum size in bytes of the table in memory from which
	// checks are answered. Zero means [DefaultResident]. Below zero there is no
	// table, and checks read the disk.
	Resident int64
	// SecretPrefix is the prefix of secrets. Empty means "tl".
	SecretPrefix string
	// MatomoSaltFile is a file with the salts of the Matomo installations whose
	// tokens were imported, one a line. It is read at the start, under the rule of
	// AnyFileMode. Empty means none: imported tokens are then refused.
	MatomoSaltFile string
	// Scrub is the time between two reads of a ledger's whole copy of the log,
	// to find damage. Zero means [DefaultScrub].
	Scrub time.Duration
	// Policies are the proxy policies besides the built-in ones.
	Policies map[string]proxy.Policy
	// TrustedProxies are the networks of reverse proxies. They may ask the
	// verifier (none means loopback), and the API takes the client's address
	// from their headers (none: of no address).
	TrustedProxies []netip.Prefix

	// Matomo is the gateway in front of a Matomo.
	Matomo Matomo

	// Model is the permission model. It must be the same on all nodes. Nil means
	// [events.Matomo].
	Model *events.Model
	// Stale: permission -> how long after the end of its lease the node still
	// answers for it. None means not at all.
	Stale map[string]time.Duration

	Version string
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
	Logging
	Control Control `json:"-"` // has channels and functions
}

// Default addresses.
const (
	DefaultAPIAddr     = "127.0.0.1:7600"
	DefaultVerifyAddr  = "127.0.0.1:7601"
	DefaultMetricsAddr = "127.0.0.1:7602"
)

// DefaultResident is the maximum size in bytes of the table of secrets in
// memory: enough for fifteen million.
const DefaultResident = 2 << 30

// DefaultNATSReplicas is the number of copies of the log on external servers.
const DefaultNATSReplicas = 3

func (c Config) withDefaults() Config {
	if len(c.Roles) == 0 {
		c.Roles = []string{RoleLedger, RoleVerifier}
	}
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&c.APIAddr, DefaultAPIAddr)
	def(&c.VerifyAddr, DefaultVerifyAddr)
	def(&c.MetricsAddr, DefaultMetricsAddr)
	def(&c.SecretPrefix, "tl")
	if c.Lease == 0 {
		c.Lease = verifier.DefaultLease
	}
	if c.Scrub == 0 {
		c.Scrub = DefaultScrub
	}
	if c.Resident == 0 {
		c.Resident = DefaultResident
	}
	if c.Model == nil {
		c.Model = events.Matomo
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) has(role string) bool { return slices.Contains(c.Roles, role) }

// Validate reports every problem of a configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Data == "" {
		bad("data: name the data folder")
	}
	for _, r := range c.Roles {
		if r != RoleLedger && r != RoleVerifier {
			bad("roles: %s is not a role; known are %s and %s", events.Quote(r), RoleLedger, RoleVerifier)
		}
	}
	c.validateLog(bad)
	c.validateMatomo(bad)
	if c.RecoverRoot && !c.has(RoleLedger) {
		bad("recover-root: a verifier cannot write to the log; start a ledger with it")
	}
	if c.Name != "" {
		if err := datadir.CheckName(c.Name); err != nil {
			bad("name: %w", err)
		}
	}
	if c.Lease < time.Second {
		bad("lease: %s is less than a second", c.Lease)
	}
	if _, err := events.NewFormat(c.SecretPrefix); err != nil {
		bad("secret-prefix: %w", err)
	}
	problems = append(problems, c.Control.validate(), c.TLS.Validate())
	problems = append(problems, proxy.Validate(c.Policies, c.Model), verifier.CheckStale(c.Model, c.Stale))
	return errors.Join(problems...)
}

// Addresses are the URLs of a running node. One that it does not serve is empty.
type Addresses struct {
	PID     int    `json:"pid"`
	Name    string `json:"name"`
	API     string `json:"api,omitempty"`
	Verify  string `json:"verify,omitempty"`
	Metrics string `json:"metrics"`
	Matomo  string `json:"matomo,omitempty"` // of the gateway in front of a Matomo
	// Fingerprint is that of the listeners' certificate, empty without TLS.
	Fingerprint string `json:"fingerprint,omitempty"`
	NATS        string `json:"nats,omitempty"`
}

// Node is one process's parts.
type Node struct {
	cfg    Config
	log    *slog.Logger
	name   string
	format events.Format
	salts  []events.MatomoSalt // of imported tokens
	model  string              // digest of the permission model
	dir    *datadir.Dir
	logParts
	index   *replica.Replica
	fetched atomic.Int64  // bytes read of a snapshot
	moves   atomic.Uint64 // switches to another server of the log
	quiet   atomic.Bool   // the latest switch was not logged
	holder  events.Holder // identity of this process in the lease stream
	lease   *lease.Keeper
	parts   *background
	ledger  *ledger.Ledger // nil without the role ledger
	people  *signin.SignIn // nil without the role ledger
	verify  *verifier.Verifier
	gateway *matomo.Gateway // nil if none is configured

	apiListener, verifyListener, metricsListener net.Listener
	matomoListener                               net.Listener // nil without a gateway
	socket                                       net.Listener // nil if it cannot be created
	limited                                      []*connlimit.Listener
	certs                                        *tlsfiles.Source // nil without TLS

	proxies atomic.Pointer[proxy.Handler]     // of the policies in force; nil without the role verifier
	trusted atomic.Pointer[forwarded.Trusted] // of a reload; nil before the first
	reloads reloads
	ending  ending

	ready chan struct{} // closed once everything listens
	addrs Addresses     // set before ready is closed
}

// New locks the data folder. It starts nothing.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	format, err := events.NewFormat(cfg.SecretPrefix)
	if err != nil {
		return nil, err
	}
	if _, err := cfg.Matomo.Files.Load(cfg.secretRule()); err != nil { // before anything is created
		return nil, err
	}
	creds, err := cfg.credentials()
	if err != nil {
		return nil, err
	}
	salts, err := cfg.loadSalts()
	if err != nil {
		return nil, err
	}
	dir, err := datadir.Open(cfg.Data)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:      cfg,
		log:      cfg.Logger,
		format:   format,
		salts:    salts,
		model:    cfg.Model.Digest(),
		dir:      dir,
		logParts: logParts{creds: creds},
		reloads:  reloads{current: cfg},
		ready:    make(chan struct{}),
	}
	n.name = cfg.Name
	if creds != nil {
		n.name = creds.Name
	}
	if n.name == "" {
		if n.name, err = dir.NodeName(); err != nil {
			return nil, errors.Join(err, dir.Close())
		}
	}
	return n, nil
}

// Ready is closed once the node listens.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Addresses returns the node's URLs, once it is ready.
func (n *Node) Addresses() Addresses { return n.addrs }

// Verifier returns the node's verifier, once it is ready.
func (n *Node) Verifier() *verifier.Verifier { return n.verify }

// Position returns the last position that the node has applied.
func (n *Node) Position() events.Position { return n.index.Position() }

// writeTimeout bounds the time to answer a request. The longest wait for a
// receipt is two minutes, after up to a minute of work for a bulk revocation.
const writeTimeout = 4 * time.Minute

// shutdownTimeout bounds the time for requests in flight at shutdown.
const shutdownTimeout = 8 * time.Second

// Run runs the node until ctx ends or a part fails, and unlocks the data folder.
// It listens first, so that a port in use is reported before anything is
// created. The parts start in order of need and stop in reverse: listeners,
// lease, index, connection to the log, log.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.dir.Close()) }()
	defer n.ending.end()
	defer n.catch("run the node", &err)
	defer context.AfterFunc(ctx, func() { n.ending.begin(n.cfg.Control.Overdue) })()

	if err := n.listen(); err != nil {
		return err
	}
	defer n.closeListeners()
	defer n.closeGateway()
	if err := n.openLog(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.closeLog()) }()

	n.index = replica.New(replica.Config{
		Name: n.name, Dir: n.dir.File(datadir.Index), Fetch: n.fetchSnapshot, Logger: n.log,
		Resident: max(0, n.cfg.Resident), Reserve: datadir.IndexReserve,
		Follow: func() (*follow.Follower, error) {
			return follow.New(follow.Config{Conn: n.conn, GapTimeout: n.cfg.gapTimeout(), Logger: n.log})
		},
	})
	// The index outlives ctx: requests in flight still need it.
	indexCtx, stopIndex := context.WithCancel(context.WithoutCancel(ctx))
	indexDone, indexFailed := make(chan error, 1), make(chan error, 1)
	go func() {
		err := n.caught("keep the index", func() error { return n.index.Run(indexCtx) })
		indexFailed <- err
		indexDone <- err
	}()
	defer func() {
		stopIndex()
		err = errors.Join(err, <-indexDone)
	}()
	n.parts = newBackground(ctx, n.caught)
	defer func() { err = errors.Join(err, n.parts.end()) }()
	if err := n.keepLease(); err != nil {
		return err
	}
	defer n.releaseLease() // the node has answered its last check, however it ends
	if n.verify, err = verifier.New(verifier.Config{
		Index: n.index, Lease: n.lease, Stale: n.cfg.Stale, Format: n.format, Model: n.cfg.Model, Logger: n.log,
		Salts: n.salts,
	}); err != nil {
		return err
	}
	if err := n.openGateway(); err != nil {
		return err
	}
	n.parts.run("report", n.report)
	n.parts.run("reload the configuration", n.watchReloads)
	n.parts.run("limit connections", n.watchLimits)
	if n.certs != nil {
		n.parts.run("watch the certificate", n.certs.Watch)
	}
	if n.server == nil {
		n.parts.run("watch the log's server", n.watchServer)
	} else {
		n.parts.run("own copy of the log", n.watchCopy)
		n.parts.run("scrub of the log", n.scrubCopy)
	}
	n.parts.run("watch the index", func(ctx context.Context) error {
		select {
		case err := <-indexFailed:
			return err // it runs until after the last part
		case <-ctx.Done():
			return nil
		}
	})
	return n.serve(ctx)
}

// openLedger opens the write side after this node has read the whole log. It
// creates the first events of a new log.
func (n *Node) openLedger(ctx context.Context) error {
	info, err := n.awaitStream(ctx)
	if err != nil {
		return err
	}
	if err := n.catchUp(ctx, info.Last); err != nil {
		return err
	}
	if err := n.checkFloor(ctx, info.Epoch); err != nil {
		return err
	}
	// Past this point the log contains everything that this node knows of it, and
	// others may read it.
	if n.server != nil {
		if err := n.server.listen(); err != nil {
			return err
		}
	}
	note, err := n.dir.ReadNote()
	if err != nil {
		return err
	}
	barriers, err := n.keepBarriers(info.Epoch, n.leases.Lease)
	if err != nil {
		return err
	}
	n.ledger, err = ledger.Open(ctx, ledger.Config{
		Conn: n.conn, View: n.index, Barriers: barriers, Epoch: info.Epoch,
		Format: n.format, Model: n.cfg.Model, Room: n.dir.CheckSpace, Logger: n.log,
		Clock:  n.lease.ClockErr,
		Forget: []func(context.Context, events.AccountID) error{n.forget},
	})
	if err == nil {
		err = n.openSignIn(ctx)
	}
	if err == nil {
		err = n.publishSnapshots()
	}
	if err == nil && !note.Known() {
		err = n.bootstrap(ctx, info.Epoch)
	}
	if err == nil && n.cfg.RecoverRoot {
		err = n.recoverRoot(ctx)
	}
	return err
}

// catchUp waits until the index has applied the whole log and was compared with
// it. It logs its progress. A log that ends before the index was cut off: new
// events would reuse positions of other events.
func (n *Node) catchUp(ctx context.Context, end events.Position) error {
	const patience = 15 * time.Second // without any progress
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	fetched := int64(0)
	for began, last, said := time.Now(), events.Position(0), time.Now(); ; {
		at := n.index.Position()
		if now := n.fetched.Load(); now != fetched {
			began, fetched = time.Now(), now
		}
		_, fresh := n.index.FreshAsOf()
		switch {
		case at > end:
			// Others may have appended since the end was read.
			info, err := n.endOf(ctx)
			if err != nil {
				return err
			}
			if at > info.Last {
				return fmt.Errorf(
					"%w: it ends at position %d, and this node's index has position %d; restore it from a backup",
					genesis.ErrLogGone, info.Last, at)
			}
			end = info.Last
			continue
		case fresh && at == end:
			return nil
		case at != last:
			began, last = time.Now(), at
			if time.Since(said) > time.Second {
				n.log.Info("reading the log", "position", at, "end", end)
				said = time.Now()
			}
		case time.Since(began) > patience, follow.IsFatal(n.index.Err()):
			return fmt.Errorf("the index does not catch up with the log: %w", errors.Join(n.index.Err()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// endOf reads the log's end. A newly elected leader may report an old end for a
// moment.
func (n *Node) endOf(ctx context.Context) (embedded.StreamInfo, error) {
	js, err := jetstream.New(n.conn)
	if err != nil {
		return embedded.StreamInfo{}, err
	}
	info, err := embedded.OpenStream(ctx, js)
	for deadline := time.Now().Add(goneAfter); n.cfg.replicated() && (err != nil || info.Last < n.index.Position()) &&
		(time.Now().Before(deadline) || n.othersDamage(err)); {
		if !clock.Sleep(ctx, askEvery) {
			return info, ctx.Err()
		}
		info, err = embedded.OpenStream(ctx, js)
	}
	return info, err
}

// serve answers requests until ctx ends or a part fails. Health and checks are
// answered at once, with an error until the index is ready. The API and the node
// are ready when the ledger is.
func (n *Node) serve(ctx context.Context) error {
	failed := make(chan error, 6)
	var servers []*http.Server
	start := func(l net.Listener, h http.Handler) {
		s := n.newServer(l, h)
		servers = append(servers, s)
		go func() { failed <- n.serveOn(s, l) }()
	}
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	start(n.metricsListener, n.opsHandler())
	here := n.serveLocal(start)
	var checks http.Handler
	if n.cfg.has(RoleVerifier) {
		h, err := n.verifyHandler()
		if err != nil {
			cancel()
			return errors.Join(err, n.shutdown(servers))
		}
		checks = h
		start(n.verifyListener, h)
		n.serveGateway(start)
	}
	opened := make(chan error, 1)
	parts.Go(func() {
		opened <- n.caught("open the ledger", func() error {
			if !n.cfg.has(RoleLedger) {
				return nil
			}
			err := n.openLedger(ctx)
			if err == nil {
				n.awaitLease(ctx)
			}
			return err
		})
	})
	var serverFailed <-chan error
	if n.server != nil {
		serverFailed = n.server.failed
	}
	var err error
	for running := true; running; {
		select {
		case err = <-opened:
			if err != nil {
				running = false
				break
			}
			opened = nil
			var commands http.Handler
			if n.ledger != nil {
				commands = n.apiHandler()
				start(n.apiListener, forwarded.Handler(commands, n.trustedProxies))
			}
			here.opened(local(commands, checks))
			n.announce()
		case <-ctx.Done():
			running = false
		case err = <-failed:
			running = false
		case err = <-n.parts.failed:
			running = false
		case err = <-serverFailed:
			err = fmt.Errorf("the log's server failed: %w", err)
			running = false
		}
	}
	stopped := ctx.Err() != nil // by the caller of Run
	n.ending.begin(n.cfg.Control.Overdue)
	cancel()
	parts.Wait()
	if stopped && errors.Is(err, context.Canceled) {
		err = nil // the ledger was being opened
	}
	err = errors.Join(err, n.shutdown(servers))
	if n.ledger != nil {
		err = errors.Join(err, n.ledger.Close())
	}
	return err
}

// apiHandler serves the API. The ledger must be open.
func (n *Node) apiHandler() http.Handler {
	handler := api.New(api.Config{
		Ledger:       n.ledger,
		Authenticate: n.authenticate,
		Confirm:      n.confirm,
		SignIn:       n.people,
		Logger:       n.log,
	})
	handler = cors.Handler(n.verify.CORSOrigins, handler)
	return apidocs.New(apidocs.Config{Problems: api.ProblemsText}).Or(handler)
}

// shutdown stops the servers after the requests in flight have ended.
func (n *Node) shutdown(servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	ctx, done := n.hurried(ctx)
	defer done()
	var problems []error
	for _, s := range servers {
		err := s.Shutdown(ctx)
		if err != nil && ctx.Err() != nil {
			// A client that sends nothing must not make a clean shutdown fail.
			n.log.Warn("requests in flight were closed at shutdown", "limit", shutdownTimeout)
			err = s.Close()
		} else if err != nil {
			err = errors.Join(err, s.Close())
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// announce publishes the addresses and makes the node ready.
func (n *Node) announce() {
	n.addrs = n.addresses()
	if err := n.writeRun(); err != nil {
		n.log.Warn("cannot write the addresses of this node", "file", n.dir.File(datadir.Run), "err", err)
	}
	n.log.Info(
		"ready", "name", n.name, "api", n.addrs.API, "verify", n.addrs.Verify,
		"metrics", n.addrs.Metrics, "nats", n.addrs.NATS, "model", n.model)
	if n.gateway != nil {
		n.log.Info("gateway in front of Matomo", "listen", n.addrs.Matomo, "upstream", n.cfg.Matomo.Upstream)
	}
	close(n.ready)
}

// authenticate returns the principal of a token that the API received.
func (n *Node) authenticate(_ context.Context, c api.Credential) (authz.Principal, error) {
	switch d := n.verify.Check(c.Token, request(c)); d.Reason {
	case verifier.Allowed:
		if d.Imported() {
			// It was made for Matomo, and may be in URLs and logs. It must not become
			// the right to command the ledger.
			return authz.Principal{}, api.ErrUnauthenticated
		}
		digest, _ := n.format.DigestOf(c.Token) // it was accepted, so it has one
		return authz.Principal{
			Account: d.Account(), Token: d.Token(), Secret: digest, Address: c.Address,
			Scopes: d.Scopes(), Inherit: d.Inherit,
		}, nil
	case verifier.RateLimited:
		return authz.Principal{}, &api.RateLimitedError{After: d.Retry}
	case verifier.Unavailable:
		return authz.Principal{}, ledger.ErrUnavailable
	}
	return authz.Principal{}, api.ErrUnauthenticated
}

// confirm reports whether a token that was accepted is still valid.
func (n *Node) confirm(_ context.Context, c api.Credential) error {
	switch n.verify.Still(c.Token, request(c)) {
	case verifier.Allowed:
		return nil
	case verifier.Unavailable:
		return ledger.ErrUnavailable
	}
	return api.ErrUnauthenticated
}

// request returns the check for a caller of the API.
func request(c api.Credential) verifier.Request {
	r := verifier.Request{Method: c.Method, Origin: c.Origin}
	if a, err := netip.ParseAddr(c.Address); err == nil {
		r.Address = a
	}
	return r
}

// verifyHandler serves checks. It routes requests of proxies by the raw path,
// because the mux would redirect some of them.
func (n *Node) verifyHandler() (http.Handler, error) {
	proxies, err := n.newProxies(n.cfg)
	if err != nil {
		return nil, err
	}
	n.proxies.CompareAndSwap(nil, proxies) // a reload may have been first
	const single = "/v1/verify"
	checks, mux := n.verify.Handler(), http.NewServeMux()
	checks = cors.Handler(n.verify.CORSOrigins, checks)
	mux.Handle(single, checks)
	mux.Handle("/v1/verify/batch", cors.Handler(n.verify.CORSOrigins, n.verify.BatchHandler()))
	docs := apidocs.New(apidocs.Config{Description: verifier.Description, Problems: api.ProblemsText}).Or(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.EscapedPath(); {
		case path == single: // the most frequent path skips the slower mux
			checks.ServeHTTP(w, r)
		case strings.HasPrefix(path, proxy.Prefix):
			n.proxies.Load().ServeHTTP(w, r)
		default:
			docs.ServeHTTP(w, r)
		}
	}), nil
}

// opsHandler serves metrics and health.
func (n *Node) opsHandler() http.Handler {
	return metrics.Handler(metrics.Source{
		Name: n.name, Version: n.cfg.Version,
		Checks: n.verify.Counts,
		Applied: func() uint64 {
			return uint64(n.index.Position())
		},
		Lease: n.verify.Lease,
		Stale: n.verify.StaleCount, NoSalt: n.verify.NoSaltCount,
		Moves: n.moves.Load,
		Resident: func() metrics.Resident {
			r := n.index.Resident()
			return metrics.Resident{Secrets: r.Secrets, Spilled: r.OnDisk, Bytes: r.Bytes, Limit: r.Limit}
		},
		Unrecorded: n.unrecorded(),
		Clock: func() (float64, bool) {
			c := n.lease.Status().Clock
			return c.By.Seconds(), c.Known
		},
		Ready:  n.unopened,
		Matomo: n.gateway,
		Process: metrics.Process{
			Lines: n.cfg.Lines, Reloads: n.reloads.count, Connections: n.connections, TLS: n.tlsState,
		},
	})
}

// unrecorded returns a counter of receipts that could not be recorded. It is nil
// on a node without the role ledger.
func (n *Node) unrecorded() func() uint64 {
	if !n.cfg.has(RoleLedger) {
		return nil
	}
	return func() uint64 {
		select {
		case <-n.ready:
			return n.ledger.UnrecordedReceipts()
		default:
			return 0
		}
	}
}
