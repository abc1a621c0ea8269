package follow_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/addrtest"
)

// newCluster starts a log with three replicas. The servers listen for clients
// too: otherwise they would not listen for each other.
func newCluster(t *testing.T) []*log {
	const n = 3
	var routes []*url.URL
	var ports []int
	for range n {
		route := must(url.Parse("nats://" + addrtest.Free(t)))
		ports = append(ports, must(strconv.Atoi(route.Port())))
		routes = append(routes, route)
	}
	var nodes []*log
	for i := range n {
		l := &log{tb: t, dir: t.TempDir(), endpoint: &endpoint{}, replicas: n, listen: true}
		l.cluster = func(o *server.Options) {
			o.ServerName = fmt.Sprintf("log-%d", i)
			o.Cluster = server.ClusterOpts{Name: "logs", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = routes
		}
		nodes = append(nodes, l)
	}
	var wg sync.WaitGroup
	for _, l := range nodes {
		wg.Go(l.start)
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, l := range nodes {
			l.stop()
		}
	})
	for _, l := range nodes {
		l.admin = l.connect(adminUser)
		l.js = must(jetstream.New(l.admin))
	}
	nodes[0].open()
	return nodes
}

// replicaOf returns the index of a server that does not lead the log.
func replicaOf(t *testing.T, nodes []*log) int {
	leader := must(nodes[0].js.Stream(t.Context(), events.StreamName)).CachedInfo().Cluster.Leader
	return slices.IndexFunc(nodes, func(l *log) bool { return l.options().ServerName != leader })
}

// TestLeadersChange publishes while leaders step down.
func TestLeadersChange(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	nodes := newCluster(t)
	var readers []*reader
	for _, l := range nodes {
		cfg := quick(l.connect(readerUser))
		cfg.GapTimeout = 5 * time.Second
		readers = append(readers, newReader(t).run(cfg))
	}
	end := nodes[0].publish(1000)
	for range 5 {
		if _, err := nodes[0].admin.Request("$JS.API.STREAM.LEADER.STEPDOWN."+events.StreamName, nil, time.Second); err != nil {
			t.Log(err) // there is no leader at the moment
		}
		// An event without an acknowledgement may be stored or not. All readers
		// must agree.
		for range 200 {
			subject, data := event(0)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if ack, err := nodes[0].js.Publish(ctx, subject, data, jetstream.WithRetryAttempts(0)); err == nil {
				end = events.Position(ack.Sequence)
			}
			cancel()
		}
	}
	for _, r := range readers {
		r.waitFresh(end)
	}
	end = nodes[1].publish(100)
	for i, r := range readers {
		r.waitFresh(end)
		r.stop()
		for j := range r.data {
			if string(r.data[j]) != string(readers[0].data[j]) {
				t.Fatalf("readers 0 and %d differ at position %d", i, j+1)
			}
		}
		t.Logf("%+v, %d readings, unreachable %d times", r.f.Stats(), len(r.told()), r.left)
	}
}

// TestQuorumLost stops two nodes of three, with a reader connected to the third.
func TestQuorumLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	nodes := newCluster(t)
	p := nodes[0].publish(100)
	i := replicaOf(t, nodes)
	survivor, rest := nodes[i], slices.Delete(slices.Clone(nodes), i, i+1)
	r := newReader(t).run(quick(survivor.connect(readerUser)))
	r.waitFresh(p)
	for _, l := range rest {
		l.stop()
	}
	r.wait("the disconnection", func() bool { return r.away })
	for _, l := range rest {
		l.start()
	}
	r.waitFresh(p)
	var ack *jetstream.PubAck
	for ack == nil {
		subject, data := event(0)
		ack, _ = survivor.js.Publish(t.Context(), subject, data)
	}
	r.waitFresh(events.Position(ack.Sequence))
}

// TestDamagedReplica flips a bit in one replica of three. Any of them may answer
// a fetch.
func TestDamagedReplica(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	nodes := newCluster(t)
	p := nodes[0].publish(1000)
	for _, l := range nodes { // until all have it
		newReader(t).run(quick(l.connect(readerUser))).waitFresh(p)
	}
	replica := nodes[replicaOf(t, nodes)]
	// The replica answers once it has caught up. If its shutdown was not clean, it
	// reads all blocks, finds the damage and repairs it from the others first.
	// Then it is damaged again.
	rounds := 0
	for damaged := false; !damaged; rounds++ {
		if rounds == 6 {
			t.Fatal("no replica reports that it lacks the message")
		}
		replica.stop()
		replica.flip(500)
		replica.start()
		for began := time.Now(); !damaged && time.Since(began) < 15*time.Second; {
			m, err := nodes[0].admin.Request("$JS.API.DIRECT.GET."+events.StreamName, []byte(`{"seq":500}`), patience)
			if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrDisconnected) {
				continue // this connection's server may be the restarted one
			}
			if err != nil {
				t.Fatal(err)
			}
			damaged = m.Header.Get("Status") == "404"
		}
	}
	var lacked int
	for i := range 12 {
		cfg := quick(nodes[i%3].connect(readerUser))
		cfg.GapTimeout = 5 * time.Second
		cfg.Batch = 100
		r := newReader(t).run(cfg)
		r.waitFresh(p)
		r.stop()
		r.check(int(p))
		r.mu.Lock()
		lacked += r.lacked
		r.mu.Unlock()
	}
	t.Logf("damaged %d times; 12 readers, %d found the message missing at first", rounds, lacked)
}
