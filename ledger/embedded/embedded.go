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
)

// DefaultMaxStore is the size that all streams together may reserve where
// Config names none. It is fixed: were none set, the server would go by the
// space that is free when it starts.
const DefaultMaxStore = 64 << 30

// maxPayload leaves room for headers around the largest event.
const maxPayload = 128 << 10

// maxMemory is for what consumers keep in memory; no stream is kept there.
// Were it not set, the server would take three quarters of the machine's.
const maxMemory = 64 << 20

// Config says where the server keeps its streams and who may connect.
type Config struct {
	// Dir is the folder that holds the streams. Required. It is made when it
	// does not exist.
	Dir string
	// Listen is the host:port that verifiers in other processes connect to,
	// once [Server.Listen] is called; port 0 picks a free one. Empty means that
	// nothing listens. Without Credentials there is no encryption: an address
	// that others can reach needs a protected network.
	Listen string
	// MaxStore is the size in bytes that all streams together may reserve.
	// Zero means DefaultMaxStore.
	MaxStore int64
	// LedgerKey is what Connect signs with. Required without Credentials. The
	// server is told its public half only.
	LedgerKey Key
	// VerifierKey is the public key that verifiers connect with. Required when
	// Listen is set and there are no Credentials; empty means that no verifier
	// can connect.
	VerifierKey string
	// Credentials take the place of both keys: each member connects with its
	// own, over TLS, and shows a certificate.
	Credentials *Credentials
	// Cluster makes the server one of several. It needs Credentials. Nil means
	// that it is alone.
	Cluster *Cluster
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
			problem("VerifierKey is set beside Credentials: verifiers have keys of their own there")
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
	listen string // host:port, empty where nothing is to listen
	// Whether it is one of several, and whether it speaks TLS.
	clustered, encrypted bool

	failed chan error
	down   chan struct{} // closed when the server has stopped and its folder is free

	mu       sync.Mutex
	cfg      Config       // guarded by mu
	stopping bool         // guarded by mu
	conns    []*nats.Conn // guarded by mu; made by Connect, drained by Shutdown
}

// Start starts the server and returns when it accepts connections from this
// process; others have to wait for [Server.Listen]. When ctx ends first, the
// server is stopped in the background, and its folder stays locked until that is
// done.
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

// listening waits until the server listens for clients and for the other
// servers, which it begins in the background.
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

// checkListen reports an address that the server could not listen on, before
// anything is begun.
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

// explain adds what to do to why an address cannot be listened on.
func explain(err error, listen string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("another process listens on %s: stop it, or listen elsewhere: %w", listen, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine: listen on one that is: %w", listen, err)
	default:
		return err
	}
}

func options(cfg Config) (*server.Options, error) {
	opts := &server.Options{}
	if err := opts.ProcessConfigString(accountsText(users(cfg))); err != nil {
		return nil, err
	}

	// A name of its own for each run: servers tell each other apart by it.
	opts.ServerName = "tokenledger-" + rand.Text()
	opts.NoSigs = true // signals are the command's
	opts.NoLog = true  // the logger is set by hand
	opts.DisableJetStreamBanner = true
	opts.ReconnectErrorReports = server.DEFAULT_CONNECT_ERROR_REPORTS // not at every try
	opts.MaxPayload = maxPayload

	opts.JetStream = cfg.Cluster == nil || !cfg.Cluster.Hold
	opts.StoreDir = cfg.Dir
	opts.JetStreamMaxStore = cfg.MaxStore
	opts.JetStreamMaxMemory = maxMemory
	// The default is to sync every two minutes, and a power cut then loses
	// what was acknowledged.
	opts.SyncAlways = true

	opts.DontListen = true // before Listen
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
		port = server.RANDOM_PORT // its zero is the default port
	}
	opts.Host, opts.Port = host, port
	return opts, nil
}

// users are the keys that may connect.
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

// checkLoaded returns an error when a stream is on disk that the server does
// not serve. The server passes over a stream that it cannot read with a
// warning, and then lets one of the same name be made in its place.
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
		return fmt.Errorf("list the streams that are served: %w", err)
	}
	var lost []string
	for _, e := range entries {
		// The server marks a stream that it is deleting with a dot.
		if loaded[e.Name()] || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		// A crash while a stream was made leaves a folder without messages,
		// and nothing is lost with that.
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

// Connect connects in process as the ledger. Later options override those of
// [LedgerOptions]. Shutdown drains the connection.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	base := append(LedgerOptions(s.key), nats.InProcessServer(s),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			s.log.Warn("ledger's connection to the log", "subject", subject, "err", err)
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

// Listen lets verifiers in other processes connect, where the configuration has
// an address for them. It is called once, when the log is known to be whole: a
// verifier that has read nothing yet takes what it is given for all there is.
//
// In a cluster it does nothing, because the server listens from the start: the
// others need it for their majority before it has read anything itself. What a
// verifier reads there proves nothing either way, since a server that is cut off
// goes on to answer from what it has. A verifier answers checks only under a
// lease, and gets one only through a write that a majority committed and a
// barrier read behind it, whose floor no log that was cut short or begun anew can
// reach: a ledger whose index is past the log's end refuses it and writes none.
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

// InProcessConn returns a bare connection to the server, which still asks for
// a key.
func (s *Server) InProcessConn() (net.Conn, error) {
	c, err := s.ns.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &pipeConn{Conn: c}, nil
}

// URL returns where clients connect, with the port that was picked; it is
// empty while nothing listens.
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

// Failed gives one error when the server can no longer do its work, as when
// the disk is full. It answers no append from then on, also when there is
// space again, until it is started anew.
func (s *Server) Failed() <-chan error { return s.failed }

// Shutdown drains the connections that Connect made, stops the server and
// waits until its files are closed and its folder is free. When ctx ends first
// it returns an error, and the server goes on stopping.
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

// drain lets what conns have sent and received be dealt with, and closes what
// is not done when ctx ends.
func drain(ctx context.Context, conns []*nats.Conn) {
	for _, nc := range conns {
		// It goes on in the background. Where it fails the connection is
		// closed or about to be, which is what is waited for.
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
