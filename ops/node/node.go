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
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ledger/signin"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/ops/metrics"
	"github.com/tokenledger/tokenledger/projector/follow"
	"github.com/tokenledger/tokenledger/projector/replica"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/lease"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// Roles of a node.
const (
	RoleLedger   = "ledger"
	RoleVerifier = "verifier"
)

// Config says what a node does and where.
type Config struct {
	Data  string   // data folder; required
	Roles []string // none means both
	Name  string   // among the others; empty means one that the data folder keeps

	// RecoverRoot lets a ledger that has started make a token with superuser and
	// write its secret to root.token, unless that file's is one. It is for when
	// nobody has superuser any more, and for one start.
	RecoverRoot bool

	// NATS is the URL of the log, and NATSKey the file of the key to connect
	// with. Required without the role ledger, which has the log itself.
	NATS    string
	NATSKey string
	// AnyFileMode reads NATSKey, and the keys in NATSCredentials, also if other
	// users can read the files. Each one is logged as a warning.
	AnyFileMode bool
	// NATSListen is where other nodes reach this one's log. Empty means that
	// nothing listens.
	NATSListen string
	// NATSCluster are the route URLs of all ledgers that keep the log together,
	// this one's included, and NATSClusterListen is where the others reach this
	// one. Empty means that this ledger keeps the log alone, or uses NATS.
	NATSCluster       []string
	NATSClusterListen string
	// NATSCredentials is the folder that nats init made for this node. Required
	// in a cluster; elsewhere it takes the place of NATSKey.
	NATSCredentials string
	// NATSReplicas is how many copies of the log there are to be on servers of
	// one's own. Zero means DefaultNATSReplicas.
	NATSReplicas int

	// Addresses to listen on, as host:port; port 0 picks one. Empty means the
	// default.
	APIAddr     string
	VerifyAddr  string
	MetricsAddr string

	// Lease is how long checks are answered without hearing from the log. Zero
	// means [verifier.DefaultLease].
	Lease time.Duration
	// Resident is how many bytes the table in memory may take that checks are
	// answered from. Zero means [DefaultResident], less than zero that all checks
	// are answered from the disk.
	Resident int64
	// SecretPrefix is what secrets begin with. Empty means "tl".
	SecretPrefix string
	// Scrub is how often a ledger reads its own copy of the log through, to find
	// damage. Zero means [DefaultScrub].
	Scrub time.Duration
	// Policies are what proxies may ask about, besides the built-in ones.
	Policies map[string]proxy.Policy
	// TrustedProxies are the networks that proxies ask from. None means
	// loopback.
	TrustedProxies []netip.Prefix

	// Model is the order of permissions, the same on all nodes. Nil means
	// [events.Matomo].
	Model *events.Model
	// Stale: permission -> how long past its lease the node goes on to answer
	// for it. None means that it answers nothing.
	Stale map[string]time.Duration

	Version string
	// Logger receives changes of state. Nil discards them.
	Logger *slog.Logger
}

// Default addresses.
const (
	DefaultAPIAddr     = "127.0.0.1:7600"
	DefaultVerifyAddr  = "127.0.0.1:7601"
	DefaultMetricsAddr = "127.0.0.1:7602"
)

// DefaultResident is how many bytes the table of secrets in memory may take:
// enough for fifteen million.
const DefaultResident = 2 << 30

// DefaultNATSReplicas is how many copies of the log servers of one's own keep.
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

// Validate reports everything that is wrong with a configuration.
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
	problems = append(problems, proxy.Validate(c.Policies, c.Model), verifier.CheckStale(c.Model, c.Stale))
	return errors.Join(problems...)
}

// Addresses are where a running node is reached, as URLs; empty for what it
// does not serve.
type Addresses struct {
	PID     int    `json:"pid"`
	Name    string `json:"name"`
	API     string `json:"api,omitempty"`
	Verify  string `json:"verify,omitempty"`
	Metrics string `json:"metrics"`
	NATS    string `json:"nats,omitempty"`
}

// Node is one process's parts.
type Node struct {
	cfg    Config
	log    *slog.Logger
	name   string
	format events.Format
	model  string // digest of the permission model
	dir    *datadir.Dir
	logParts
	index   *replica.Replica
	fetched atomic.Int64  // bytes of a snapshot that were read
	moves   atomic.Uint64 // switches to another server of the log
	quiet   atomic.Bool   // the last of them was not logged
	holder  events.Holder // who this process is to the others
	lease   *lease.Keeper
	parts   *background
	ledger  *ledger.Ledger // nil without the role ledger
	people  *signin.SignIn // likewise
	verify  *verifier.Verifier

	apiListener, verifyListener, metricsListener net.Listener
	socket                                       net.Listener // nil where there can be none

	ready chan struct{} // closed once everything listens
	addrs Addresses     // set before ready is closed
}

// New takes the data folder. It starts nothing.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	format, err := events.NewFormat(cfg.SecretPrefix)
	if err != nil {
		return nil, err
	}
	creds, err := cfg.credentials()
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
		model:    cfg.Model.Digest(),
		dir:      dir,
		logParts: logParts{creds: creds},
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

// Addresses returns where the node is reached, once it is ready.
func (n *Node) Addresses() Addresses { return n.addrs }

// Verifier returns the node's verifier, once it is ready.
func (n *Node) Verifier() *verifier.Verifier { return n.verify }

// Position returns the position that the node has applied.
func (n *Node) Position() events.Position { return n.index.Position() }

// writeTimeout is how long an answer may take. The longest wait for a receipt is
// two minutes, and a revocation of many tokens may work a minute before that.
const writeTimeout = 4 * time.Minute

// shutdownTimeout is how long requests under way may take to end.
const shutdownTimeout = 8 * time.Second

// Run runs the node until ctx ends or a part fails, and gives the data folder
// back. A port that is taken is said before anything is begun; then the parts
// start in order of need, and stop in reverse: listeners, then the lease, then
// the index, then the connection to the log, then the log.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.dir.Close()) }()

	if err := n.listen(); err != nil {
		return err
	}
	defer n.closeListeners()
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
	// The index outlives ctx: requests that are under way still need it.
	indexCtx, stopIndex := context.WithCancel(context.WithoutCancel(ctx))
	indexDone := make(chan error, 1)
	go func() { indexDone <- n.index.Run(indexCtx) }()
	defer func() {
		stopIndex()
		err = errors.Join(err, <-indexDone)
	}()
	n.parts = newBackground(ctx)
	defer func() { err = errors.Join(err, n.parts.end()) }()
	if err := n.keepLease(); err != nil {
		return err
	}
	if n.verify, err = verifier.New(verifier.Config{
		Index: n.index, Lease: n.lease, Stale: n.cfg.Stale, Format: n.format, Model: n.cfg.Model, Logger: n.log,
	}); err != nil {
		return err
	}
	n.parts.run("report", n.report)
	if n.server == nil {
		n.parts.run("watch the log's server", n.watchServer)
	} else {
		n.parts.run("own copy of the log", n.watchCopy)
		n.parts.run("scrub of the log", n.scrubCopy)
	}
	err = n.serve(ctx)
	n.giveUpLease() // nothing is answered any more
	return err
}

// openLedger opens the write side, once this node has read the whole log, and
// begins the log where it is new.
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
	// Past this point the log goes on from all that this node knows of it, and
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
		err = n.beginLog(ctx, info.Epoch)
	}
	if err == nil && n.cfg.RecoverRoot {
		err = n.recoverRoot(ctx)
	}
	return err
}

// catchUp waits until the index holds the log and the log is known to be the
// one that the index was made from, saying now and then how far it is. A log
// that ends before the index was cut off; appending to it would give positions
// away that once stood for other events.
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
			// Others may have written since the end was asked for.
			info, err := n.endOf(ctx)
			if err != nil {
				return err
			}
			if at > info.Last {
				return fmt.Errorf(
					"%w: it ends at position %d, and this node's index has position %d; restore it from a backup",
					genesis.ErrLogGone,
					info.Last,
					at,
				)
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
			return fmt.Errorf("the index does not come up to the log: %w", errors.Join(n.index.Err()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// endOf asks for the log's end. A leader that has just been elected may answer
// with an old one for a moment.
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

// listen opens the listeners.
func (n *Node) listen() (err error) {
	open := func(what, addr string) net.Listener {
		if err != nil {
			return nil
		}
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err != nil {
			err = fmt.Errorf("listen for %s: %w; name another address with --%s-addr", what, err, what)
			return nil
		}
		return l
	}
	if n.cfg.has(RoleLedger) {
		n.apiListener = open("api", n.cfg.APIAddr)
	}
	if n.cfg.has(RoleVerifier) {
		n.verifyListener = open("verify", n.cfg.VerifyAddr)
	}
	n.metricsListener = open("metrics", n.cfg.MetricsAddr)
	if err != nil {
		n.closeListeners()
		return err
	}
	if n.socket, err = listenSocket(n.dir); err != nil {
		n.log.Warn(
			"cannot listen on a socket in the data folder; name --server to commands on this machine",
			"socket",
			n.dir.File(datadir.Socket),
			"err",
			err,
		)
	}
	return nil
}

// closeListeners closes what a server has not closed.
func (n *Node) closeListeners() {
	for _, l := range []net.Listener{n.apiListener, n.verifyListener, n.metricsListener, n.socket} {
		if l != nil {
			_ = l.Close() // at worst it is closed already
		}
	}
	removeSocket(n.dir.Path())
}

// serve answers until ctx ends or a part fails. Health and checks are answered
// at once, if only to say that nothing is known yet; the API and the node are
// ready when the ledger is.
func (n *Node) serve(ctx context.Context) error {
	failed := make(chan error, 5)
	var servers []*http.Server
	start := func(l net.Listener, h http.Handler) {
		s := n.newServer(h)
		servers = append(servers, s)
		go func() { failed <- s.Serve(l) }()
	}
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	start(n.metricsListener, n.opsHandler())
	var checks http.Handler
	if n.cfg.has(RoleVerifier) {
		h, err := n.verifyHandler()
		if err != nil {
			cancel()
			return errors.Join(err, n.shutdown(servers))
		}
		checks = h
		start(n.verifyListener, h)
	}
	opened := make(chan error, 1)
	parts.Go(func() {
		if n.cfg.has(RoleLedger) {
			err := n.openLedger(ctx)
			if err == nil {
				n.awaitLease(ctx)
			}
			opened <- err
			return
		}
		opened <- nil
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
				start(n.apiListener, commands)
			}
			if n.socket != nil {
				start(n.socket, local(commands, checks))
			}
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
	stopped := ctx.Err() != nil // by whoever runs the node
	cancel()
	parts.Wait()
	if stopped && errors.Is(err, context.Canceled) {
		err = nil // it was opening the ledger
	}
	err = errors.Join(err, n.shutdown(servers))
	if n.ledger != nil {
		err = errors.Join(err, n.ledger.Close())
	}
	return err
}

// newServer returns a server of the node that answers with h.
func (n *Node) newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: writeTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
}

// apiHandler serves the API. The ledger must be open.
func (n *Node) apiHandler() http.Handler {
	return api.New(api.Config{
		Ledger:       n.ledger,
		Authenticate: n.authenticate,
		Confirm:      n.confirm,
		SignIn:       n.people,
		Logger:       n.log,
	})
}

// shutdown ends the servers, and lets requests under way end first.
func (n *Node) shutdown(servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	var problems []error
	for _, s := range servers {
		err := s.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			// A client that sends nothing more must not make an orderly stop fail.
			n.log.Warn("requests under way were cut off", "waited", shutdownTimeout)
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

// announce tells where the node is reached.
func (n *Node) announce() {
	n.addrs = n.addresses()
	if err := n.writeRun(); err != nil {
		n.log.Warn("cannot write where this node listens", "err", err)
	}
	n.log.Info(
		"ready",
		"name",
		n.name,
		"api",
		n.addrs.API,
		"verify",
		n.addrs.Verify,
		"metrics",
		n.addrs.Metrics,
		"nats",
		n.addrs.NATS,
		"model",
		n.model,
	)
	close(n.ready)
}

// authenticate tells the API who sent a token.
func (n *Node) authenticate(_ context.Context, c api.Credential) (authz.Principal, error) {
	switch d := n.verify.Check(c.Token, request(c)); d.Reason {
	case verifier.Allowed:
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

// confirm tells the API whether a token that was accepted still is.
func (n *Node) confirm(_ context.Context, c api.Credential) error {
	switch n.verify.Still(c.Token, request(c)) {
	case verifier.Allowed:
		return nil
	case verifier.Unavailable:
		return ledger.ErrUnavailable
	}
	return api.ErrUnauthenticated
}

// request is what a check of the API's caller is about.
func request(c api.Credential) verifier.Request {
	r := verifier.Request{Method: c.Method, Origin: c.Origin}
	if a, err := netip.ParseAddr(c.Address); err == nil {
		r.Address = a
	}
	return r
}

// verifyHandler routes proxies' questions by the raw path, before the mux would
// redirect some of them.
func (n *Node) verifyHandler() (http.Handler, error) {
	proxies, err := proxy.New(
		proxy.Config{Verifier: n.verify, Policies: n.cfg.Policies, Trusted: n.cfg.TrustedProxies, Logger: n.log},
	)
	if err != nil {
		return nil, err
	}
	const single = "/v1/verify"
	checks, mux := n.verify.Handler(), http.NewServeMux()
	mux.Handle(single, checks)
	mux.Handle("/v1/verify/batch", n.verify.BatchHandler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.EscapedPath(); {
		case path == single: // as most ask, and the mux would do the same at a cost
			checks.ServeHTTP(w, r)
		case strings.HasPrefix(path, proxy.Prefix):
			proxies.ServeHTTP(w, r)
		default:
			mux.ServeHTTP(w, r)
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
		Stale: n.verify.StaleCount,
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
		Ready: n.unopened,
	})
}

// unrecorded returns what counts the receipts that could not be recorded, nil
// where the node is no ledger.
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
