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

// logServer is the log's server in this process. It can be replaced by another
// server; connections in this process then reconnect to that one.
type logServer struct {
	failed chan error    // has room for one: the first error is the cause
	closed chan struct{} // closed by shutdown

	mu    sync.Mutex
	known bool             // guarded by mu; the copy on disk was checked
	store bool             // guarded by mu; there is a copy, and it is whole
	cfg   embedded.Config  // guarded by mu
	now   *embedded.Server // guarded by mu; nil while one replaces another
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

// current returns the server, or nil while there is none.
func (s *logServer) current() *embedded.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// held reports whether the server keeps its streams closed.
func (s *logServer) held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Cluster != nil && s.cfg.Cluster.Hold
}

// checked notes that the copy on disk was checked, and whether it is there and
// whole.
func (s *logServer) checked(store bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.store = true, store
}

// stored reports whether there is a whole copy on disk. That is unknown before the
// copy was checked.
func (s *logServer) stored() (store, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store, s.known
}

// openStore replaces a server that keeps its streams closed by one that opens
// them. Connections move to the new one by themselves.
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

// membersEvery is the time between two reads of the list of members.
const membersEvery = 2 * time.Second

// watchMembers applies changes of the list of members to the server until ctx
// ends: a verifier that was added can connect, and one that was removed is
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
			log.Error("cannot change the members; the old list stays", "err", err)
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

// InProcessConn implements [nats.InProcessConnProvider].
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

// listen lets other processes connect, see [embedded.Server.Listen].
func (s *logServer) listen() error { return s.current().Listen() }

// url returns the URL for clients, empty before the server listens.
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
