package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/ledger/embedded"
)

// logServer is the log's server in this process. Another one may take its place
// while connections to it live on.
type logServer struct {
	failed chan error    // has room for one: the first error is the cause
	closed chan struct{} // closed by shutdown

	mu    sync.Mutex
	known bool             // guarded by mu; the copy on the disk was checked
	store bool             // guarded by mu; there is one, and it is whole
	cfg   embedded.Config  // guarded by mu
	now   *embedded.Server // guarded by mu; nil while one takes the place of another
}

// startLogServer starts the server.
func startLogServer(ctx context.Context, cfg embedded.Config) (*logServer, error) {
	s := &logServer{failed: make(chan error, 1), closed: make(chan struct{}), cfg: cfg}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *logServer) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	server, err := embedded.Start(ctx, s.cfg)
	if err != nil {
		return err
	}
	s.now = server
	go func() {
		select {
		case err := <-server.Failed():
			select {
			case s.failed <- err:
			default:
			}
		case <-s.closed:
		}
	}()
	return nil
}

// current returns the server, nil while there is none.
func (s *logServer) current() *embedded.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// held reports whether the server holds its streams closed.
func (s *logServer) held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Cluster != nil && s.cfg.Cluster.Hold
}

// checked notes that the copy on the disk was checked, and whether there is one
// that is whole.
func (s *logServer) checked(store bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.store = true, store
}

// stored reports whether there is a copy on the disk that is whole. Before the
// copy was checked, that is not known.
func (s *logServer) stored() (store, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store, s.known
}

// openStore puts a server that has its streams open in the place of one that
// held them closed. Connections find to it by themselves.
func (s *logServer) openStore(ctx context.Context) error {
	s.mu.Lock()
	server := s.now
	s.now = nil
	cluster := *s.cfg.Cluster
	cluster.Hold = false
	s.cfg.Cluster = &cluster
	s.mu.Unlock()
	if err := server.Shutdown(ctx); err != nil {
		return err
	}
	return s.start(ctx)
}

// membersEvery is how often the list of members is looked at.
const membersEvery = 2 * time.Second

// watchMembers makes the server follow the list of members until ctx ends: a
// verifier that is added to it can connect, one that is taken out is
// disconnected.
func (s *logServer) watchMembers(ctx context.Context, creds *embedded.Credentials, log *slog.Logger) {
	have, said := creds.Members, ""
	for clock.Sleep(ctx, membersEvery) {
		members, err := creds.ReadMembers()
		if err == nil && reflect.DeepEqual(members, have) {
			said = ""
			continue
		}
		if err == nil {
			err = s.setMembers(members)
		}
		if err == nil {
			have = members
			log.Info("members changed", "members", len(members))
		} else if said != err.Error() {
			log.Error("members are as before", "err", err)
			said = err.Error()
		}
	}
}

func (s *logServer) setMembers(members embedded.Members) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return errors.New("the log's server is being started")
	}
	if err := s.now.SetMembers(members); err != nil {
		return err
	}
	creds := *s.cfg.Credentials
	creds.Members = members
	s.cfg.Credentials = &creds
	return nil
}

// InProcessConn makes it a [nats.InProcessConnProvider].
func (s *logServer) InProcessConn() (net.Conn, error) {
	if server := s.current(); server != nil {
		return server.InProcessConn()
	}
	return nil, errors.New("the log's server is being started")
}

// connect connects as the ledger.
func (s *logServer) connect(opts ...nats.Option) (*nats.Conn, error) {
	s.mu.Lock()
	key := s.cfg.LedgerKey
	if s.cfg.Credentials != nil {
		key = s.cfg.Credentials.Key
	}
	s.mu.Unlock()
	return nats.Connect("", append(append(embedded.LedgerOptions(key), nats.InProcessServer(s)), opts...)...)
}

// listen lets others connect, see [embedded.Server.Listen].
func (s *logServer) listen() error { return s.current().Listen() }

// url returns where clients connect, empty while nothing listens.
func (s *logServer) url() string {
	if server := s.current(); server != nil {
		return server.URL()
	}
	return ""
}

// shutdown stops the server.
func (s *logServer) shutdown(ctx context.Context) error {
	close(s.closed)
	if server := s.current(); server != nil {
		return server.Shutdown(ctx)
	}
	return nil
}
