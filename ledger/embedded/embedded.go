package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events"
)

// DefaultMaxStore is the default size in bytes that all streams together may reserve.
// Without one, the server would use the free disk space at its start.
const DefaultMaxStore = 64 << 30

// maxPayload leaves room for headers around the largest event, also for those that
// the server adds when it hands the event to followers.
const maxPayload = events.MaxSize + 64<<10

// maxMemory is the memory in bytes for consumers; no stream is in memory. Without it
// the server would take three quarters of the machine's memory.
const maxMemory = 64 << 20

// Config configures a [Server].
type Config struct {
	// Dir is the folder for the streams. Required. It is created if it does not
	// exist.
	Dir string
	// Listen is the host:port that verifiers in other processes connect to, after
	// [Server.Listen]; port 0 picks a free one. Empty means that the server does
	// not listen. Without Credentials there is no encryption: use an address that
	// others can reach only on a protected network.
	Listen string
	// MaxStore is the size in bytes that all streams together may reserve.
	// Zero means DefaultMaxStore.
	MaxStore int64
	// LedgerKey is the key of Connect. Required without Credentials. The server
	// knows only its public half.
	LedgerKey Key
	// VerifierKey is the public key that verifiers connect with. Required when
	// Listen is set and there are no Credentials; empty means that no verifier
	// can connect.
	VerifierKey string
	// Credentials replace both keys: each member connects with its own key over
	// TLS and presents a certificate.
	Credentials *Credentials
	// Cluster makes the server a member of a cluster. It needs Credentials. Nil
	// means that the server is alone.
	Cluster *Cluster
	// MaxConnections bounds the connections of clients. Zero means the server's own
	// limit.
	MaxConnections int
	// Logger receives the server's warnings and errors. Nil discards them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.MaxStore == 0 {
		c.MaxStore = DefaultMaxStore
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Credentials != nil && c.LedgerKey.Public() == "" {
		c.LedgerKey = c.Credentials.Key
	}
	if c.Cluster != nil && c.Listen == "" {
		// It has to listen for clients to connect to the other servers.
		c.Listen = "127.0.0.1:0"
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format, args...))
	}
	if c.Dir == "" {
		problem("Dir is required")
	}
	if c.MaxStore < 0 {
		problem("MaxStore is %d, want a size in bytes", c.MaxStore)
	}
	if c.LedgerKey.Public() == "" {
		problem("LedgerKey is required")
	}
	if c.Listen != "" {
		if _, _, err := splitListen(c.Listen); err != nil {
			problems = append(problems, err)
		}
		if c.VerifierKey == "" && c.Credentials == nil {
			problem("VerifierKey is required to listen: nobody could connect")
		}
	}
	if c.Credentials != nil {
		if c.VerifierKey != "" {
			problem("VerifierKey and Credentials are both set: with Credentials, each verifier has its own key")
		}
		if c.Credentials.Role != RoleLedger || c.LedgerKey.Public() != c.Credentials.Key.Public() {
			problem("Credentials are not those of a ledger")
		}
	}
	if c.Cluster != nil {
		if c.Credentials == nil {
			problem("Cluster needs Credentials")
		}
		problems = append(problems, c.Cluster.validate())
	}
	if c.VerifierKey != "" {
		if !nkeys.IsValidPublicUserKey(c.VerifierKey) {
			// A seed given by mistake must not reach an error text.
			problem("VerifierKey is not the public half of a user key")
		} else if c.VerifierKey == c.LedgerKey.Public() {
			problem("VerifierKey is the ledger's key: a verifier needs one of its own")
		}
	}
	return errors.Join(problems...)
}

func splitListen(listen string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("embedded: Listen is %q, want host:port", listen)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("embedded: Listen is %q, want a port from 0 to 65535", listen)
	}
	return host, port, nil
}

// Server is a running server. It is a [nats.InProcessConnProvider]: a verifier
// in this process connects with
//
//	nats.Connect("", append(embedded.VerifierOptions(key), nats.InProcessServer(s))...)
type Server struct {
	ns     *server.Server
	log    *slog.Logger
	key    Key
	listen string // host:port; empty if the server does not listen
	// clustered: it is a member of a cluster. encrypted: it uses TLS.
	clustered, encrypted bool

	failed chan error
	down   chan struct{} // closed when the server has stopped and its folder is free

	mu       sync.Mutex
	cfg      Config       // guarded by mu
	stopping bool         // guarded by mu
	conns    []*nats.Conn // opened by Connect, drained by Shutdown; guarded by mu
}

// Start starts the server and returns when it accepts connections from this process.
// Other processes can connect after [Server.Listen]. If ctx ends first, the server is
// stopped in the background, and its folder stays locked until that is done.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure log server: %w", err)
	}
	s, err := start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start log server: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	release, err := takeDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	// From here on the server's goroutine releases the folder if it has started.
	running := false
	defer func() {
		if !running {
			release()
		}
	}()
	if err := checkStart(ctx, cfg); err != nil {
		return nil, err
	}
	if opts.JetStream {
		if err := breakSeal(cfg.Dir); err != nil {
			return nil, err
		}
	}
	s := newServer(cfg)
	if s.ns, err = server.NewServer(opts); err != nil {
		return nil, err
	}
	log := &serverLog{log: cfg.Logger, failed: s.failed, starting: true}
	s.ns.SetLoggerV2(log, false, false, false)
	running = true
	if err := s.run(ctx, opts.JetStream, log, release); err != nil {
		return nil, err
	}
	if err := s.checkStarted(ctx, log); err != nil {
		s.ns.Shutdown()
		<-s.down
		return nil, err
	}
	return s, nil
}

func newServer(cfg Config) *Server {
	return &Server{
		log:    cfg.Logger,
		key:    cfg.LedgerKey,
		listen: cfg.Listen,
		cfg:    cfg,

		clustered: cfg.Cluster != nil,
		encrypted: cfg.Credentials != nil,
		failed:    make(chan error, 1),
		down:      make(chan struct{}),
	}
}

// checkStart checks the folder and the addresses of a server before it starts.
func checkStart(ctx context.Context, cfg Config) error {
	if err := checkKind(cfg.Dir, cfg.Cluster != nil); err != nil {
		return err
	}
	if err := checkListen(cfg.Listen); err != nil {
		return err
	}
	if cfg.Cluster != nil {
		return checkListen(cfg.Cluster.Listen)
	}
	// A server alone has no other copy that could replace a damaged one.
	_, err := CheckCopy(ctx, cfg.Dir, 1)
	if errors.Is(err, ErrCopyDamaged) {
		err = fmt.Errorf("%w: the server does not start: restore the log from a backup", err)
	}
	return err
}

// run starts the server in the background and waits until it has started. When the
// server has stopped, the store is sealed and the folder released. If ctx ends first,
// the server is stopped in the background.
func (s *Server) run(ctx context.Context, seal bool, log *serverLog, release func()) error {
	started, dir := make(chan struct{}), s.cfg.Dir
	go func() {
		s.ns.Start()
		close(started)
		s.ns.WaitForShutdown()
		if seal && !log.reported() {
			if err := writeSeal(dir); err != nil {
				s.log.Warn("cannot seal the store of the log", "err", err)
			}
		}
		release()
		close(s.down)
	}()
	select {
	case <-started:
		return nil
	case <-ctx.Done():
		go func() {
			// An earlier shutdown would miss what Start has yet to open.
			<-started
			s.ns.Shutdown()
		}()
		return ctx.Err()
	}
}

// checkStarted checks that a server that has started works: it has loaded its
// streams, or in a cluster listens.
func (s *Server) checkStarted(ctx context.Context, log *serverLog) error {
	warnings := log.started()
	select {
	case err := <-s.failed:
		return err
	default:
	}
	if s.cfg.Cluster != nil {
		// The cluster decides which streams exist, and it has not come together
		// yet. A copy that cannot be loaded is restored from the others, and a
		// ledger that creates a log asks all of them first.
		return s.listening(ctx, s.cfg.Cluster.Listen)
	}
	return s.checkLoaded(ctx, s.cfg.Dir, warnings)
}

// listening waits until the server, in the background, listens for clients and for the
// other servers.
func (s *Server) listening(ctx context.Context, listen string) error {
	for {
		if s.ns.ReadyForConnections(10 * time.Millisecond) {
			return nil
		}
		select {
		case err := <-s.failed:
			return explain(err, listen)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
}

// checkListen reports an address that the server cannot listen on, before it starts.
func checkListen(listen string) error {
	if listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return explain(err, listen)
	}
	return l.Close()
}

// explain adds what to do to an error about an address to listen on.
func explain(err error, listen string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("another process listens on %s: stop it, or use another address: %w", listen, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine: use one that is: %w", listen, err)
	default:
		return err
	}
}

func options(cfg Config) (*server.Options, error) {
	opts := &server.Options{}
	if err := opts.ProcessConfigString(accountsText(users(cfg))); err != nil {
		return nil, err
	}

	// Servers identify each other by name, so each run has a new one.
	opts.ServerName = "tokenledger-" + rand.Text()
	opts.NoSigs = true // the command handles signals
	opts.NoLog = true  // the logger is set later
	opts.DisableJetStreamBanner = true
	opts.ReconnectErrorReports = server.DEFAULT_CONNECT_ERROR_REPORTS // not at every attempt
	opts.MaxPayload = maxPayload

	opts.JetStream = cfg.Cluster == nil || !cfg.Cluster.Hold
	opts.StoreDir = cfg.Dir
	opts.JetStreamMaxStore = cfg.MaxStore
	opts.JetStreamMaxMemory = maxMemory
	// The default is to sync every two minutes. A power cut would then lose
	// acknowledged appends.
	opts.SyncAlways = true

	opts.DontListen = true // before Listen
	if cfg.MaxConnections > 0 {
		opts.MaxConn = cfg.MaxConnections
	}
	if cfg.Credentials != nil {
		opts.TLS, opts.TLSVerify, opts.TLSConfig = true, true, cfg.Credentials.serverTLS()
	}
	if cfg.Cluster != nil {
		if err := cfg.Cluster.options(opts, cfg.Credentials); err != nil {
			return nil, err
		}
	}
	if cfg.Listen == "" {
		return opts, nil
	}
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = server.RANDOM_PORT // 0 would mean the default port
	}
	opts.Host, opts.Port = host, port
	return opts, nil
}

// users returns the keys that may connect.
func users(cfg Config) []user {
	if cfg.Credentials != nil {
		return cfg.Credentials.Members.users()
	}
	users := []user{ledgerUser(cfg.LedgerKey.Public(), "")}
	if cfg.VerifierKey != "" {
		users = append(users, verifierUser(cfg.VerifierKey, ""))
	}
	return users
}

// checkLoaded returns an error if a stream on disk is not served. The server only
// warns about a stream that it cannot read, and would let a new one with the same name
// be created.
func (s *Server) checkLoaded(ctx context.Context, dir string, warnings []string) error {
	streams := filepath.Join(dir, server.JetStreamStoreDir, ledgerAccount, "streams")
	entries, err := os.ReadDir(streams)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the streams on disk: %w", err)
	}
	nc, err := s.Connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	loaded := make(map[string]bool)
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		loaded[name] = true
	}
	if err := names.Err(); err != nil {
		return fmt.Errorf("list the served streams: %w", err)
	}
	var lost []string
	for _, e := range entries {
		// The server puts a dot before the name of a stream that it deletes.
		if loaded[e.Name()] || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		// A crash during the creation of a stream leaves a folder without messages.
		// Nothing is lost with that.
		blocks, err := filepath.Glob(filepath.Join(streams, e.Name(), "msgs", "*.blk"))
		if err != nil {
			return fmt.Errorf("list the files of stream %s: %w", e.Name(), err)
		}
		if slices.ContainsFunc(blocks, func(name string) bool {
			info, err := os.Stat(name)
			return err != nil || info.Size() > 0
		}) {
			lost = append(lost, e.Name())
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return fmt.Errorf("%s: on disk, but the server cannot load it: restore it from a backup; the server said: %s",
		strings.Join(lost, ", "), strings.Join(warnings, "; "))
}

// Connect opens a connection of the ledger inside the process. The options override
// those of [LedgerOptions]. Shutdown drains the connection.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	base := append(LedgerOptions(s.key), nats.InProcessServer(s),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			s.log.Warn("error on the ledger's connection to the log", "subject", subject, "err", err)
		}))
	nc, err := nats.Connect("", append(base, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the log server in this process: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		nc.Close()
		return nil, errors.New("connect to the log server in this process: it is shutting down")
	}
	s.conns = slices.DeleteFunc(s.conns, (*nats.Conn).IsClosed)
	s.conns = append(s.conns, nc)
	return nc, nil
}

// Listen lets verifiers in other processes connect, if the configuration has an
// address. Call it once, after the log has been checked: a verifier that has read
// nothing takes whatever it reads for the whole log.
//
// In a cluster it does nothing, because the server listens from the start: the other
// servers need it for their majority before it has read the log. What a verifier reads
// is not sufficient there in any case, because a server that is cut off continues to
// answer from its copy. A verifier answers checks only with a lease. A lease needs a
// write that a majority has committed, and a later barrier whose floor the verifier has
// applied. A truncated or new log cannot reach that floor: a ledger whose index is
// ahead of the log refuses the log and writes no barrier.
func (s *Server) Listen() error {
	if s.listen == "" || s.clustered {
		return nil
	}
	s.ns.AcceptLoop(make(chan struct{}))
	if s.ns.Addr() != nil {
		return nil
	}
	err := errors.New("the server is shutting down")
	select {
	case err = <-s.failed:
	default:
	}
	return fmt.Errorf("listen for verifiers: %w", explain(err, s.listen))
}

// InProcessConn returns a connection to the server, which still requires a key.
func (s *Server) InProcessConn() (net.Conn, error) {
	c, err := s.ns.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &pipeConn{Conn: c}, nil
}

// URL returns the URL that clients connect to, empty while the server does not listen.
func (s *Server) URL() string {
	addr := s.ns.Addr()
	if addr == nil {
		return ""
	}
	if s.encrypted {
		return "tls://" + addr.String()
	}
	return "nats://" + addr.String()
}

// Failed delivers one error if the server can no longer work, for example because the
// disk is full. The server then answers no append until it is restarted, even after
// space is free again.
func (s *Server) Failed() <-chan error { return s.failed }

// Shutdown drains the connections that Connect opened, stops the server, and waits until
// its files are closed and its folder is released. If ctx ends first it returns an
// error, and the server continues to stop.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.stopping
	s.stopping = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	if first {
		drain(ctx, conns)
		go s.ns.Shutdown()
	}
	select {
	case <-s.down:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shut down log server: %w", ctx.Err())
	}
}

// drain lets connections process what they have sent and received. It closes those that
// are not done when ctx ends.
func drain(ctx context.Context, conns []*nats.Conn) {
	for _, nc := range conns {
		// It continues in the background. If it fails, the connection is closed or
		// about to be, which is what the loop below waits for.
		_ = nc.Drain()
	}
	for _, nc := range conns {
		closed := nc.StatusChanged(nats.CLOSED)
		if nc.IsClosed() {
			continue
		}
		select {
		case <-closed:
		case <-ctx.Done():
			nc.Close()
		}
	}
}
