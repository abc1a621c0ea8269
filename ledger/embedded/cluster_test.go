package embedded

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// begin creates the log, once the servers have a quorum.
func (k *clusterFixture) begin() jetstream.JetStream {
	k.t.Helper()
	nc, err := k.servers[0].Connect()
	if err != nil {
		k.t.Fatal(err)
	}
	js := newJetStream(k.t, nc)
	beginLog(k.t, js)
	return js
}

// beginLog creates the log on servers that are starting.
func beginLog(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for ctx := testContext(t); ; {
		step, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := CreateStream(step, js, StreamLimits{MaxBytes: 1 << 28, Epoch: "first", Replicas: 3})
		if errors.Is(err, ErrStreamExists) { // an earlier try, whose answer was lost
			if _, err = OpenStream(step, js); err == nil {
				_, err = EnsureLeases(step, js, LeaseLimits{Epoch: "first", Replicas: 3})
			}
		}
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestHeldStore starts a server that keeps its streams closed, and then one
// that opens them.
func TestHeldStore(t *testing.T) {
	k := newCluster(t)
	for i := range k.configs {
		k.configs[i].Cluster.Hold = true
		k.start(i)
	}
	nc, err := k.servers[0].Connect()
	if err != nil {
		t.Fatal(err)
	}
	heard, err := nc.SubscribeSync("node.x")
	if err != nil {
		t.Fatal(err)
	}
	other, err := k.servers[1].Connect()
	if err != nil {
		t.Fatal(err)
	}
	for ctx := testContext(t); ; { // until the servers have found each other
		if err := other.Publish("node.x", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := heard.NextMsg(50 * time.Millisecond); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for i, s := range k.servers {
		if s.ns.JetStreamEnabled() {
			t.Errorf("server %d has its streams open", i)
		}
		if has, err := HasStore(k.configs[i].Dir); has || err != nil {
			t.Errorf("server %d has written to its store: %v, %v", i, has, err)
		}
	}
	for i, s := range k.servers {
		if err := s.Shutdown(testContext(t)); err != nil {
			t.Fatal(err)
		}
		k.configs[i].Cluster.Hold = false
		k.start(i)
	}
	js := k.begin()
	if got := mustPublish(t, js, "ledger.token.aa.created", "one"); got != 1 {
		t.Errorf("the first event has position %d", got)
	}
	if has, err := HasStore(k.configs[1].Dir); !has || err != nil {
		t.Errorf("HasStore = %v, %v, want it to have one", has, err)
	}
}

// TestLeaderDies stops the leader of the log. Acknowledged events are kept, and
// another server takes over. The test logs how long that takes.
func TestLeaderDies(t *testing.T) {
	k := newCluster(t)
	links := map[[2]int]*link{} // from one server to another
	for i := range k.configs {
		routes := slices.Clone(k.configs[i].Cluster.Routes)
		for j := range k.configs {
			if i != j {
				links[[2]int{i, j}] = newLink(t, k.configs[j].Cluster.Listen)
				routes[j] = links[[2]int{i, j}].l.Addr().String()
			}
		}
		k.configs[i].Cluster.Routes = routes
	}
	for i := range k.configs {
		k.start(i)
	}
	js := k.begin()
	stream, err := js.Stream(testContext(t), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	leader := slices.IndexFunc(k.servers, func(s *Server) bool { return s.ns.Name() == stream.CachedInfo().Cluster.Leader })
	nc, err := k.servers[(leader+1)%3].Connect()
	if err != nil {
		t.Fatal(err)
	}
	js = newJetStream(t, nc)
	var acked uint64
	for range 20 {
		acked = mustPublish(t, js, "ledger.token.aa.created", "before")
	}
	// As in a crash: the network is gone at once, and no leadership is handed
	// over.
	died := time.Now()
	for ends, l := range links {
		if slices.Contains(ends[:], leader) {
			l.end()
		}
	}
	go func() { _ = k.servers[leader].Shutdown(context.Background()) }() // waited for below
	var next uint64
	for ctx, try := testContext(t), 0; ; try++ {
		step, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		ack, err := js.Publish(step, "ledger.token.aa.created", []byte("after"), jetstream.WithMsgID("after"))
		cancel()
		if err == nil {
			t.Logf("writes paused for %s (%d tries)", time.Since(died).Round(time.Millisecond), try+1)
			next = ack.Sequence
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if next != acked+1 {
		t.Errorf("the next event has position %d, and %d was acknowledged before", next, acked)
	}
	if err := k.servers[leader].Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for i := range k.configs {
		if i != leader {
			k.configs[leader].Cluster.Routes[i] = k.configs[i].Cluster.Listen
		}
	}
	k.start(leader)
	for ctx := testContext(t); ; {
		other, err := k.servers[leader].Connect()
		if err != nil {
			t.Fatal(err)
		}
		step, cancel := context.WithTimeout(ctx, time.Second)
		info, err := OpenStream(step, newJetStream(t, other))
		cancel()
		if err == nil && uint64(info.Last) == next {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the one that is back has %+v, %v", info, err)
		}
	}
}

func TestClusterConfig(t *testing.T) {
	creds := issued(t, t.TempDir(), ledgerOn("l1", "127.0.0.1"), verifierNamed("v1"))
	three := []string{"nats://a:1", "nats://b:1", "c:1"}
	for name, tt := range map[string]struct {
		cfg  Config
		want []string
	}{
		"no credentials":         {Config{Cluster: &Cluster{Listen: "127.0.0.1:1", Routes: three}}, []string{"Cluster needs Credentials"}},
		"a verifier's":           {Config{Credentials: creds["v1"]}, []string{"not those of a ledger"}},
		"two":                    {Config{Credentials: creds["l1"], Cluster: &Cluster{Listen: "127.0.0.1:1", Routes: three[:2]}}, []string{"three or five"}},
		"none":                   {Config{Credentials: creds["l1"], Cluster: &Cluster{}}, []string{"three or five", "Cluster.Listen"}},
		"one twice":              {Config{Credentials: creds["l1"], Cluster: &Cluster{Listen: "127.0.0.1:1", Routes: []string{"a:1", "a:1", "b:1"}}}, []string{"is repeated"}},
		"no port":                {Config{Credentials: creds["l1"], Cluster: &Cluster{Listen: "127.0.0.1:1", Routes: []string{"a", "b:1", "c:1"}}}, []string{"URL 1 of the cluster"}},
		"a password":             {Config{Credentials: creds["l1"], Cluster: &Cluster{Listen: "127.0.0.1:1", Routes: []string{"nats://u:hush@a:1", "b:1", "c:1"}}}, []string{"has a user or password"}},
		"listens on any port":    {Config{Credentials: creds["l1"], Cluster: &Cluster{Listen: "127.0.0.1:0", Routes: three}}, []string{"Cluster.Listen"}},
		"a shared key beside it": {Config{Credentials: creds["l1"], VerifierKey: newKey(t).Public()}, []string{"has its own key"}},
	} {
		tt.cfg.Dir = t.TempDir()
		_, err := Start(testContext(t), tt.cfg)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error quotes a password", name)
		}
	}
}

// TestKindsOfStore starts servers on a store of the other kind, which they
// would delete or take for complete.
func TestKindsOfStore(t *testing.T) {
	k := newCluster(t)
	alone := k.configs[0]
	alone.Cluster = nil
	s, err := Start(testContext(t), alone)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	mustCreateStream(t, newJetStream(t, nc))
	if err := s.Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(testContext(t), k.configs[0]); err == nil || !strings.Contains(err.Error(), "of a single ledger") {
		t.Errorf("a cluster on the store of a ledger alone: %v", err)
	}
	k.configs[0].Dir = t.TempDir()
	for i := range k.configs {
		k.start(i)
	}
	k.begin()
	if err := k.servers[1].Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	alone = k.configs[1]
	alone.Cluster = nil
	if _, err := Start(testContext(t), alone); err == nil || !strings.Contains(err.Error(), "member of the cluster") {
		t.Errorf("a ledger alone on a cluster's copy: %v", err)
	}
}
