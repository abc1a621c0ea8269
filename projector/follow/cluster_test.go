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

// newCluster starts a log with three replicas. A server that does not listen
// for clients does not listen for the other servers either.
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
		l := &log{tb: t, dir: t.TempDir(), door: &door{}, replicas: n, listen: true}
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

// replicaOf returns which of the servers is one that does not lead the log.
func replicaOf(t *testing.T, nodes []*log) int {
	leader := must(nodes[0].js.Stream(t.Context(), events.StreamName)).CachedInfo().Cluster.Leader
	return slices.IndexFunc(nodes, func(l *log) bool { return l.options().ServerName != leader })
}

// TestLeadersChange publishes while the leader steps down time and again.
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
			t.Log(err) // between two leaders nobody answers
		}
		// What is not acknowledged may be stored or not: it has to be the same
		// for all.
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
		t.Logf("%+v, %d readings, out of reach %d times", r.f.Stats(), len(r.told()), r.left)
	}
}

// TestQuorumLost stops two nodes of three under a reader of the third.
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
	r.wait("the loss", func() bool { return r.away })
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

// TestDamagedReplica flips a bit in one replica of three. Whoever asks is
// answered by any of them.
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
	// It takes part in answering once it has caught up. Where it could not leave
	// its state in time it reads all of its blocks, finds the damage, and has the
	// others mend it before that: then it is damaged once more.
	rounds := 0
	for damaged := false; !damaged; rounds++ {
		if rounds == 6 {
			t.Fatal("no replica answers that it lacks the message")
		}
		replica.stop()
		replica.flip(500)
		replica.start()
		for began := time.Now(); !damaged && time.Since(began) < 15*time.Second; {
			m, err := nodes[0].admin.Request("$JS.API.DIRECT.GET."+events.StreamName, []byte(`{"seq":500}`), patience)
			if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrDisconnected) {
				continue // the server of this connection may be the one that comes back
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
