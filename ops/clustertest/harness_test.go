package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// harness is a cluster under load, for one fault after another.
type harness struct {
	*Cluster
	load  *Load
	rng   *rand.Rand
	lease time.Duration
	told  map[string]bool // violations that were already reported
}

// newHarness starts a cluster with load.
func newHarness(t *testing.T, o Options) *harness {
	t.Helper()
	seed, rng := seeded(t)
	if o.Program == "" {
		o.Program = *programFlag
	}
	c := &harness{Cluster: Start(t, o), rng: rng, lease: o.Lease, told: map[string]bool{}}
	if c.lease == 0 {
		c.lease = 30 * time.Second
	}
	c.load = Begin(t, c.Cluster, LoadOptions{
		Seed: seed, Clients: 14, Wait: 2*c.lease + 3*time.Second,
		Roamers: 2, RoamPause: 20 * time.Millisecond, Actors: 1, Workers: 3, WorkPause: 20 * time.Millisecond,
	})
	c.load.Proofs(t, 5)
	t.Logf("%d ledgers and %d verifiers are under load after %s", len(c.Ledgers()), len(c.Verifiers()), c.load.Now().Round(time.Millisecond))
	return c
}

// fault injects one fault, ends it, and checks the invariants.
func (c *harness) fault(t *testing.T, name string, do func(t *testing.T)) {
	t.Helper()
	mended := false
	t.Run(name, func(t *testing.T) {
		c.Journal.Note("test", "---- %s", name)
		began, before := c.load.Now(), c.load.Tally()
		do(t)
		c.recover(t)
		mended = true
		c.audit(t)
		after := c.load.Tally()
		t.Logf("%s in %s: %d commands acknowledged, %d proved, %d given up, %d times refused; checks: %d allowed, %d denied, %d refused",
			name, (c.load.Now() - began).Round(100*time.Millisecond),
			after.Done-before.Done, after.Proved-before.Proved, after.Unknown-before.Unknown, after.Refusals-before.Refusals,
			after.Allowed-before.Allowed, after.Denied-before.Denied, after.Unavailable-before.Unavailable)
		if after.Allowed == before.Allowed || after.Denied == before.Denied || after.Proved == before.Proved {
			t.Error("no check was allowed or denied, or no receipt was given, so the test shows nothing")
		}
	})
	if !mended {
		c.audit(t)
		t.Fatal("the cluster did not recover; later faults would show nothing")
	}
}

// recover ends every fault, and waits until all nodes work again.
func (c *harness) recover(t *testing.T) {
	t.Helper()
	c.Heal()
	began := c.load.Now()
	for _, n := range c.Nodes {
		if n.Process().Exited() {
			n.Start(t)
		}
	}
	for _, n := range c.Nodes {
		n.WaitReady(t)
	}
	ready := c.load.Now()
	c.load.Proofs(t, 3)
	for _, conn := range c.Bypasses(t) {
		t.Errorf("a connection bypasses the proxies, so faults did not cut the nodes off: %s", conn)
	}
	t.Logf("all nodes ready %s after the end of it, proofs come after %s more", (ready - began).Round(time.Millisecond), (c.load.Now() - ready).Round(time.Millisecond))
}

// audit reports the violations in the history so far.
func (c *harness) audit(t *testing.T) {
	t.Helper()
	c.show(t, c.load.Record().Violations())
	for text, n := range c.load.Problems() {
		t.Errorf("%d times: %s", n, text)
	}
	c.load.forgive()
}

// show reports each violation once, and prints a few of each invariant.
func (c *harness) show(t testing.TB, found []Violation) {
	t.Helper()
	const most = 5
	fresh := map[string]int{}
	for _, v := range found {
		if c.told[v.String()] {
			continue
		}
		c.told[v.String()] = true
		if fresh[v.Invariant]++; fresh[v.Invariant] <= most {
			t.Errorf("VIOLATION of %s", v)
		}
	}
	for _, invariant := range slices.Sorted(maps.Keys(fresh)) {
		if n := fresh[invariant]; n > most {
			t.Errorf("... and %d more of %s", n-most, invariant)
		}
	}
}

// forgive clears the problems that were reported.
func (l *Load) forgive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.problems)
}

// secretShape matches every secret.
var secretShape = regexp.MustCompile(`tl[us]_[0-9A-Za-z]{38}`)

// finish ends the load, and compares the log and every index with what clients
// saw.
func (c *harness) finish(t *testing.T) {
	t.Helper()
	c.load.End()
	// The ledger records a receipt even if its client has disconnected, and
	// does so before later receipts.
	for _, l := range c.Ledgers() {
		a, err := Send(t.Context(), Request{
			Method: http.MethodPost, URL: l.API + "/v1/accounts", Secret: c.Root(t),
			Body: map[string]any{"login": "last." + l.Name, "kind": "user", "grants": []string{}},
		})
		if err == nil && a.Status == http.StatusCreated {
			a, err = Send(t.Context(), Request{Method: http.MethodPost, URL: l.API + "/v1/accounts/" + a.About() + "/suspend?wait=60s", Secret: c.Root(t)})
		}
		if _, ok := a.Proof(); err != nil || !ok {
			t.Errorf("at the end, through %s: %v, %s", l.Name, err, a)
		}
	}
	last := c.level(t)
	log := c.ReadLog(t)
	if len(log) != int(last) {
		t.Errorf("the log has %d events, but every node is at position %d", len(log), last)
	}
	c.digests(t, last)
	c.checkGhosts(t, log)
	for _, n := range slices.Backward(c.Nodes) { // the ledgers last
		n.Stop(t)
	}
	for text, n := range c.load.Problems() {
		t.Errorf("%d times: %s", n, text)
	}
	record := c.load.Record()
	c.show(t, record.Violations())
	c.show(t, record.LogViolations(log, rootAccount(t, log)))
	writeLog(t, log)
	c.CompareIndexes(t, log)
	if leak := secretShape.FindString(c.Journal.tail(0)); leak != "" {
		t.Errorf("I13: a node wrote a secret: %s...", leak[:8])
	}
	for _, what := range []string{"DATA RACE", "panic:", "fatal error:"} {
		for _, n := range c.Nodes {
			if c.Journal.has(n.Name, 0, what) {
				t.Errorf("%s wrote %q", n.Name, what)
			}
		}
	}
	tally := c.load.Tally()
	t.Logf("%d events in the log; %d commands acknowledged, %d proved, %d given up; %d checks recorded, %d of them allowed",
		len(log), tally.Done, tally.Proved, tally.Unknown, len(record.Checks), tally.Allowed)
}

// writeLog saves the log of a failed test, one event on each line. The log
// contains digests, not secrets.
func writeLog(t *testing.T, log []events.Message) {
	t.Helper()
	if !t.Failed() {
		return
	}
	var b bytes.Buffer
	for _, m := range log {
		fmt.Fprintf(&b, "%d %s\n", m.Position, m.Data)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), "events.log"), b.Bytes(), 0o600); err != nil {
		t.Logf("the log is lost: %v", err)
	}
}

// checkGhosts checks tokens that must not exist with every node. The nodes have
// applied the whole log.
func (c *harness) checkGhosts(t *testing.T, log []events.Message) {
	t.Helper()
	ghosts := c.load.Record().ghosts(newReference(log), rootAccount(t, log))
	var found violations
	const most = 200 // thousands would show no more
	for _, ghost := range ghosts[:min(len(ghosts), most)] {
		for _, l := range c.Ledgers() {
			url := l.API + "/v1/tokens/" + ghost.ID
			a, err := Send(t.Context(), Request{Method: http.MethodGet, URL: url, Secret: c.Root(t)})
			if err != nil || a.Status != http.StatusNotFound {
				found.add("I14", "%s knows token %s, which an ended actor created: %v, %s", l.Name, ghost.ID, err, a)
			}
		}
		if ghost.Secret == "" {
			continue // no client knows the secret
		}
		for _, n := range c.Nodes {
			if check := c.load.Ask(t.Context(), n, ghost, scope(1)); check.Verdict != Denied {
				found.add("I14", "%s; an ended actor created the token", check)
			}
		}
	}
	c.show(t, found)
	t.Logf("%d tokens that ended actors asked for; none of them may exist", len(ghosts))
}

// level waits until every node has applied the whole log, and returns its last
// position.
func (c *harness) level(t *testing.T) events.Position {
	t.Helper()
	root := c.Root(t)
	for {
		last := events.Position(c.Last(t, events.StreamName))
		for _, n := range c.Nodes {
			n.Until(t, fmt.Sprintf("it has applied position %d", last), func() error {
				a, err := n.Check(t.Context(), root)
				if err == nil && (a.Status != http.StatusOK || a.Position < last) {
					err = errors.New(a.String())
				}
				return err
			})
		}
		// A ledger may still be recording receipts.
		c.sleep(t, 300*time.Millisecond)
		if events.Position(c.Last(t, events.StreamName)) == last {
			return last
		}
	}
}

// digests waits until every ledger lists every node as ready at a position, and
// compares the checksums of their indexes.
func (c *harness) digests(t *testing.T, at events.Position) {
	t.Helper()
	type listed struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Digest struct {
			Position events.Position `json:"position"`
			Digest   string          `json:"digest"`
		} `json:"digest"`
	}
	for _, l := range c.Ledgers() {
		var by map[string][]string // digest -> nodes
		l.Until(t, fmt.Sprintf("it lists every node at position %d", at), func() error {
			var list struct {
				Items []listed `json:"items"`
			}
			by = map[string][]string{}
			a, err := Send(t.Context(), Request{Method: http.MethodGet, URL: l.API + "/v1/nodes", Secret: c.Root(t), Into: &list})
			if err != nil || a.Status != http.StatusOK {
				return fmt.Errorf("%w, %s", err, a)
			}
			for _, n := range list.Items {
				if n.State == "serving" && n.Digest.Position == at {
					by[n.Digest.Digest] = append(by[n.Digest.Digest], n.Name)
				}
			}
			if n := len(slices.Concat(slices.Collect(maps.Values(by))...)); n != len(c.Nodes) {
				return fmt.Errorf("it lists %d: %+v", n, list.Items)
			}
			return nil
		})
		if len(by) != 1 {
			t.Errorf("I6: at position %d nodes have different indexes: %v", at, by)
		}
	}
}

func rootAccount(t *testing.T, log []events.Message) events.AccountID {
	t.Helper()
	for _, m := range log {
		if e, err := events.DecodeMessage(m); err == nil && e.Change.Kind() == events.KindAccountCreated {
			return events.AccountID(e.About)
		}
	}
	t.Fatal("the log has no account")
	return ""
}

// cut records that nodes are cut off from the log. Call the function that it
// returns before they are connected again.
func (c *harness) cut(nodes ...*Node) (end func()) {
	from := c.load.Now()
	return func() {
		to := c.load.Now()
		for _, n := range nodes {
			c.load.Cut(Outage{Node: n.Name, Lease: c.lease, From: from, To: to})
		}
	}
}

// waitRefusing waits until a node answers that it has no lease.
func (c *harness) waitRefusing(t *testing.T, n *Node) {
	t.Helper()
	began := c.load.Now()
	n.Until(t, "it refuses", func() error {
		if ready, _ := n.Ready(t.Context()); ready {
			return errors.New("it is ready")
		}
		return nil
	})
	_, why := n.Ready(t.Context())
	t.Logf("%s refuses after %s: %s", n.Name, (c.load.Now() - began).Round(time.Millisecond), why)
}

// inFlight starts checks of tokens that have ended with a receipt, and returns
// when the requests were sent. The function that it returns waits for the
// answers.
func (c *harness) inFlight(t *testing.T, n *Node, checks int) (answered func()) {
	t.Helper()
	c.load.mu.Lock()
	ended := slices.Clone(c.load.ended[max(0, len(c.load.ended)-checks):])
	c.load.mu.Unlock()
	var sent, done sync.WaitGroup
	for _, e := range ended {
		sent.Add(1)
		var once sync.Once
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { once.Do(sent.Done) },
		})
		done.Go(func() {
			c.load.Ask(ctx, n, e.token, e.need)
			once.Do(sent.Done) // the request was never sent
		})
	}
	sent.Wait()
	return done.Wait
}

// follower returns a ledger that does not lead the log.
func (c *harness) follower(t *testing.T) *Node {
	t.Helper()
	leader := c.Leader(t, events.StreamName)
	list := slices.DeleteFunc(c.Ledgers(), func(n *Node) bool { return n == leader })
	return list[c.rng.IntN(len(list))]
}

// any returns one of the verifiers.
func (c *harness) anyVerifier() *Node {
	list := c.Verifiers()
	return list[c.rng.IntN(len(list))]
}

// pause waits for a random time.
func (c *harness) pause(ctx context.Context, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(c.rng.Int64N(int64(most)))):
	}
}
