package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// patience bounds what a test waits for.
const patience = wait.Limit

// servers are the servers of one log, whose folders a test can read.
type servers struct {
	t       *testing.T
	configs []embedded.Config
	running []*embedded.Server
	conn    *nats.Conn
	js      jetstream.JetStream
}

// start starts one or three servers with empty folders.
func start(t *testing.T, n int) *servers {
	t.Helper()
	s := &servers{t: t}
	if n == 1 {
		key, err := embedded.LoadOrCreateKey(filepath.Join(t.TempDir(), "ledger.nk"))
		if err != nil {
			t.Fatal(err)
		}
		s.configs = []embedded.Config{{Dir: t.TempDir(), LedgerKey: key}}
	} else {
		var requests []embedded.Request
		var routes []string
		for i := range n {
			requests = append(requests, embedded.Request{Name: fmt.Sprintf("l%d", i+1), Role: embedded.RoleLedger, Hosts: []string{"127.0.0.1"}})
			routes = append(routes, addrtest.Free(t))
		}
		dir := t.TempDir()
		if _, err := embedded.Issue(dir, requests); err != nil {
			t.Fatal(err)
		}
		for i, r := range requests {
			creds, err := embedded.LoadCredentials(filepath.Join(dir, "nodes", r.Name))
			if err != nil {
				t.Fatal(err)
			}
			s.configs = append(s.configs, embedded.Config{
				Dir: t.TempDir(), Listen: "127.0.0.1:0", Credentials: creds, Cluster: &embedded.Cluster{Listen: routes[i], Routes: routes},
			})
		}
	}
	for i := range s.configs {
		s.configs[i].MaxStore = 1 << 30
	}
	s.run()
	t.Cleanup(s.stop)
	return s
}

// run starts the servers and connects to one of them.
func (s *servers) run() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, cfg := range s.configs {
		cfg.Logger = ledgertest.Logger(s.t)
		server, err := embedded.Start(ctx, cfg)
		if err != nil {
			s.t.Fatal(err)
		}
		s.running = append(s.running, server)
	}
	var err error
	if s.conn, err = s.running[0].Connect(); err != nil {
		s.t.Fatal(err)
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the servers answer", func() error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // what has no leader is not answered
		defer cancel()
		_, err := s.js.AccountInfo(ctx)
		return err
	})
}

// stop stops the servers as an operator does.
func (s *servers) stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, server := range s.running {
		if err := server.Shutdown(ctx); err != nil {
			s.t.Error(err)
		}
	}
	s.running = nil
}

// crash restarts the servers on the present content of their folders, as after
// kill -9.
func (s *servers) crash() {
	s.t.Helper()
	s.settle()
	var after []string
	for _, cfg := range s.configs {
		var dir string
		s.eventually("no file is replaced while it is copied", func() error {
			dir = s.t.TempDir()
			return os.CopyFS(dir, os.DirFS(cfg.Dir))
		})
		after = append(after, dir)
	}
	s.stop()
	for i, dir := range after {
		s.configs[i].Dir = dir
	}
	s.run()
}

// restart stops the servers and starts them again. Each writes a snapshot of its
// state when it stops, and drops its Raft log.
func (s *servers) restart() {
	s.t.Helper()
	s.settle()
	s.stop()
	s.run()
}

// settle waits until all servers have applied everything that the leader has.
func (s *servers) settle() {
	s.t.Helper()
	s.eventually("all copies are whole", func() error {
		stream, err := s.js.Stream(s.t.Context(), "KV_TEST")
		if err != nil || len(s.running) == 1 {
			return err
		}
		cluster := stream.CachedInfo().Cluster
		if cluster == nil || cluster.Leader == "" || len(cluster.Replicas) != len(s.running)-1 {
			return fmt.Errorf("cluster is %+v", cluster)
		}
		for _, r := range cluster.Replicas {
			if !r.Current || r.Lag > 0 {
				return fmt.Errorf("copy %+v", r)
			}
		}
		return nil
	})
}

func (s *servers) eventually(what string, ok func() error) {
	s.t.Helper()
	var err error
	if !wait.For(patience, func() bool { err = ok(); return err == nil }) {
		s.t.Fatalf("waiting until %s: %v", what, err)
	}
}

func (s *servers) open(open func(context.Context, jetstream.JetStream, bucket.Config) (*bucket.Bucket, error)) *bucket.Bucket {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	b, err := open(ctx, s.js, bucket.Config{Name: "TEST", Replicas: len(s.configs)})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// holds returns the files that contain a text, of the bucket's stream or of the
// whole folders.
func (s *servers) holds(text string, all bool) (files []string) {
	s.t.Helper()
	for _, cfg := range s.configs {
		err := filepath.WalkDir(cfg.Dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // the server has just removed it
			case err != nil || d.IsDir() || !all && !strings.Contains(path, "/streams/KV_TEST/"):
				return err
			}
			raw, err := os.ReadFile(path)
			if err == nil && bytes.Contains(raw, []byte(text)) {
				files = append(files, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return files
}

// write puts some revisions of a key, each with a text of its own.
func (s *servers) write(b *bucket.Bucket, key string, revisions int) {
	s.t.Helper()
	e, err := b.Get(s.t.Context(), key)
	if err != nil && !errors.Is(err, bucket.ErrNotFound) {
		s.t.Fatal(err)
	}
	for i := range revisions {
		if e.Revision, err = b.Put(s.t.Context(), key, []byte(text(key, i)), e.Revision); err != nil {
			s.t.Fatal(err)
		}
	}
}

func text(key string, i int) string { return fmt.Sprintf("text-of-%s-%d.", key, i) }

// TestEndedStaysEnded removes some records and crashes, several times. No
// removed record comes back, and none of its bytes are left.
func TestEndedStaysEnded(t *testing.T) {
	for _, n := range []int{1, 3} {
		for _, between := range []string{"nothing", "a restart"} {
			t.Run(fmt.Sprintf("%d servers, %s in between", n, between), func(t *testing.T) {
				t.Parallel()
				testEnded(t, n, between != "nothing")
			})
		}
	}
}

func testEnded(t *testing.T, n int, restart bool) {
	s := start(t, n)
	b := s.open(bucket.Create)
	ctx := t.Context()
	ended := map[string]int{"one.a": 1, "two.a": 2, "five.a": 5, "one.b": 1, "two.b": 2, "five.b": 5}
	s.write(b, "kept.c", 3)
	for key, revisions := range ended {
		s.write(b, key, revisions)
		s.write(b, "kept.d", 2)
	}
	if restart {
		s.restart()
		b = s.open(bucket.Load)
	}
	for _, keys := range []string{"one.a", "two.a", "five.a", "*.b"} {
		if err := b.Remove(ctx, keys); err != nil {
			t.Fatal(err)
		}
		s.write(b, "kept.c", 3)
	}
	check := func(when string) {
		t.Helper()
		for key := range ended {
			if e, err := b.Get(ctx, key); !errors.Is(err, bucket.ErrNotFound) {
				t.Errorf("%s, Get(%q) = %q, %v, want ErrNotFound", when, key, e.Value, err)
			}
		}
		for key, want := range map[string]string{"kept.c": text("kept.c", 2), "kept.d": text("kept.d", 1)} {
			if e, err := b.Get(ctx, key); err != nil || string(e.Value) != want {
				t.Errorf("%s, Get(%q) = %q, %v, want %q", when, key, e.Value, err, want)
			}
		}
		keys, err := b.Keys(ctx, ">")
		if err != nil || len(keys) != 2 {
			t.Errorf("%s, Keys = %q, %v, want the two that were kept", when, keys, err)
		}
		for key, revisions := range ended {
			for i := range revisions {
				if files := s.holds(text(key, i), n == 1); len(files) > 0 {
					t.Errorf("%s, revision %d of %s is still in %q", when, i, key, files)
				}
			}
		}
		if files := s.holds(text("kept.c", 0), n == 1); len(files) > 0 {
			t.Errorf("%s, a superseded revision is still in %q", when, files)
		}
	}
	s.settle()
	check("before a crash")
	if restart {
		s.restart()
		b = s.open(bucket.Load)
		check("after a restart")
	}
	for i := range 2 {
		s.crash()
		b = s.open(bucket.Load)
		check(fmt.Sprintf("after crash %d", i+1))
		s.write(b, "kept.c", 3)
	}
}
