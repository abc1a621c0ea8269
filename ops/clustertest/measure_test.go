package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/history"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// fixture is a cluster without load, with helpers for single commands.
type fixture struct {
	*Cluster
	t       *testing.T
	root    string
	account string

	leader, follower *Node // of [TestMeasure]
}

func newFixture(t *testing.T, o Options) *fixture {
	t.Helper()
	if o.Program == "" {
		o.Program = *programFlag
	}
	c := Start(t, o)
	d := &fixture{Cluster: c, t: t, root: c.Root(t)}
	d.account = d.makeAccount("alice")
	return d
}

// must sends a command to a ledger until it is acknowledged.
func (d *fixture) must(n *Node, method, path string, body any) Answer {
	d.t.Helper()
	a, err := d.send(n, method, path, body)
	if err != nil || a.Status >= 300 {
		d.t.Fatalf("%s %s at %s: %v, %s", method, path, n.Name, err, a)
	}
	return a
}

func (d *fixture) send(n *Node, method, path string, body any) (Answer, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), wait.Limit)
	defer cancel()
	return Send(ctx, Request{Method: method, URL: n.API + path, Secret: d.root, Body: body})
}

func (d *fixture) makeAccount(login string) string {
	d.t.Helper()
	return d.must(d.Nodes[0], http.MethodPost, "/v1/accounts", map[string]any{"login": login, "kind": "user", "grants": []string{"admin:site/*"}}).About()
}

// secret is a token and its secret.
type secret struct{ id, secret string }

// make creates tokens of an account, and waits until every node has applied the
// last one.
func (d *fixture) make(n int, account string) []secret {
	d.t.Helper()
	list := make([]secret, n)
	var highest atomic.Uint64
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range min(n, 32) {
		at := d.Ledgers()[i%len(d.Ledgers())]
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				a, err := d.send(at, http.MethodPost, "/v1/tokens", map[string]any{"account": account, "app": "desk", "scopes": []string{"view:site/1"}})
				if err != nil || a.Status != http.StatusCreated {
					d.t.Errorf("create a token at %s: %v, %s", at.Name, err, a)
					return
				}
				list[i] = secret{a.About(), a.Secret}
				for was := highest.Load(); was < uint64(a.Position) && !highest.CompareAndSwap(was, uint64(a.Position)); was = highest.Load() {
				}
			}
		})
	}
	wg.Wait()
	if d.t.Failed() {
		d.t.FailNow()
	}
	d.applied(events.Position(highest.Load()))
	return list
}

// applied waits until every running node has applied a position.
func (d *fixture) applied(at events.Position) {
	d.t.Helper()
	for _, n := range d.Nodes {
		if n.Process().Exited() {
			continue
		}
		n.Until(d.t, fmt.Sprintf("it has applied position %d", at), func() error {
			a, err := n.Check(d.t.Context(), d.root)
			if err == nil && a.Position < at {
				err = errors.New(a.String())
			}
			return err
		})
	}
}

// seen has the answers of a node about a secret, in checks without a pause. Times
// are relative to the acknowledgement of its end.
type seen struct {
	node    string
	allowed time.Duration // start of the last allowed check
	denied  time.Duration // end of the first denied check
}

// watch checks a secret with nodes, each without a pause, until each has denied
// it. It calls act once all nodes allow it. act returns the time of the
// acknowledgement.
func (d *fixture) watch(nodes []*Node, s secret, act func() time.Time) []seen {
	d.t.Helper()
	out := make([]seen, len(nodes))
	var asking, wg sync.WaitGroup
	type moment struct{ allowed, denied time.Time }
	found := make([]moment, len(nodes))
	for i, n := range nodes {
		asking.Add(1)
		wg.Go(func() {
			begun := false
			for d.t.Context().Err() == nil {
				began := time.Now()
				a, err := n.Check(d.t.Context(), s.secret, "view:site/1")
				switch {
				case err != nil || a.Status != http.StatusOK && a.Status != http.StatusServiceUnavailable:
					d.t.Errorf("%s: %v, %s", n.Name, err, a)
					return
				case a.Allowed:
					found[i].allowed = began
					if !begun {
						begun = true
						asking.Done()
					}
				default:
					found[i].denied = time.Now()
					if !begun {
						d.t.Errorf("%s denies a valid token: %s", n.Name, a)
						asking.Done()
					}
					return
				}
			}
		})
	}
	asking.Wait()
	acked := act()
	wg.Wait()
	for i, n := range nodes {
		out[i] = seen{n.Name, found[i].allowed.Sub(acked), found[i].denied.Sub(acked)}
	}
	return out
}

// quantiles describes durations.
func quantiles(list []time.Duration) string {
	slices.Sort(list)
	at := func(q float64) time.Duration {
		return list[min(len(list)-1, int(math.Ceil(q*float64(len(list)))))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, most %s (%d)", at(0.5), at(0.9), at(0.99), list[len(list)-1].Round(10*time.Microsecond), len(list))
}

// TestMeasure measures a healthy cluster. It asserts only what must hold on any
// machine.
func TestMeasure(t *testing.T) {
	long(t)
	d := newFixture(t, Options{Verifiers: 3})
	d.leader = d.Leader(t, events.StreamName)
	for _, n := range d.Ledgers() {
		if n != d.leader {
			d.follower = n
		}
	}
	for _, tt := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"acknowledged to refused", revokeToRefusal},
		{"asked to receipt", revokeToReceipt},
		{"200 at once", revokeAtOnce},
		{"new accounts are found", findCreated},
		{"the last token", revokeLast},
		{"an account of many tokens", suspendLarge},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, d.in(t)) })
	}
}

// revokeToRefusal measures the time from the acknowledgement of a revocation to the first
// refusal by each verifier.
func revokeToRefusal(t *testing.T, d *fixture) {
	const revocations = 1000
	tokens := d.make(revocations, d.account)
	var everywhere, each, took []time.Duration
	for i, s := range tokens {
		at := d.Ledgers()[i%len(d.Ledgers())]
		list := d.watch(d.Verifiers(), s, func() time.Time {
			began := time.Now()
			d.must(at, http.MethodPost, "/v1/tokens/"+s.id+"/revoke", nil)
			acked := time.Now()
			took = append(took, acked.Sub(began))
			return acked
		})
		last := time.Duration(0)
		for _, n := range list {
			each = append(each, max(0, n.denied))
			last = max(last, n.denied)
		}
		everywhere = append(everywhere, last)
	}
	t.Logf("%d revocations over 3 ledgers and %d verifiers, each verifier asked without a pause", revocations, len(d.Verifiers()))
	t.Logf("asked to acknowledged: %s", quantiles(took))
	t.Logf("acknowledged to refused by a verifier: %s", quantiles(each))
	t.Logf("acknowledged to refused by all: %s", quantiles(everywhere))
}

// revokeToReceipt measures the time from a revocation to its receipt.
func revokeToReceipt(t *testing.T, d *fixture) {
	for _, at := range []*Node{d.leader, d.follower} {
		var took []time.Duration
		for _, s := range d.make(300, d.account) {
			began := time.Now()
			a := d.must(at, http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=40s", nil)
			took = append(took, time.Since(began))
			if _, ok := a.Proof(); !ok {
				t.Errorf("no receipt: %s", a)
			}
		}
		t.Logf("revoked through %s (leader: %t), with receipt: %s", at.Name, at == d.leader, quantiles(took))
	}
}

// revokeAtOnce revokes many tokens concurrently. They share barriers.
func revokeAtOnce(t *testing.T, d *fixture) {
	tokens := d.make(200, d.account)
	before := d.Last(t, events.LeaseStreamName)
	began := time.Now()
	var wg sync.WaitGroup
	for i, s := range tokens {
		wg.Go(func() {
			a, err := d.send(d.Ledgers()[i%len(d.Ledgers())], http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=40s", nil)
			if err != nil {
				t.Errorf("%v", err)
			} else if _, ok := a.Proof(); !ok {
				t.Errorf("no receipt: %s", a)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	barriers := d.barriers(before)
	t.Logf("200 revocations at once: all have a receipt after %s, and rest on %d barriers", took.Round(time.Millisecond), barriers)
	if barriers >= len(tokens) {
		t.Errorf("%d revocations at once took %d barriers, want fewer", len(tokens), barriers)
	}
}

// findCreated checks I5 for accounts: each ledger finds a new account by its login.
func findCreated(t *testing.T, d *fixture) {
	const times = 400
	missed := 0
	for i := range times {
		login := fmt.Sprintf("found-%d", i)
		made := d.must(d.Ledgers()[i%3], http.MethodPost, "/v1/accounts", map[string]any{"login": login, "kind": "user", "grants": []string{}})
		for _, l := range d.Ledgers() {
			a, err := Send(t.Context(), Request{Method: http.MethodGet, URL: l.API + "/v1/accounts/" + login, Secret: d.root, MinPosition: made.Position})
			if err != nil || a.Status != http.StatusOK {
				if missed++; missed == 1 {
					t.Errorf("I5: account %s, made through %s at position %d, by its login through %s: %v, %s", login, d.Ledgers()[i%3].Name, made.Position, l.Name, err, a)
				}
			}
		}
	}
	if missed > 0 {
		t.Errorf("I5: %d of %d lookups by login did not find an account that was made before", missed, 3*times)
	}
}

// revokeLast revokes the only token of an account.
func revokeLast(t *testing.T, d *fixture) {
	account := d.makeAccount("alone")
	s := d.make(1, account)[0]
	a := d.must(d.follower, http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=40s", nil)
	if _, ok := a.Proof(); !ok {
		t.Errorf("no receipt: %s", a)
	}
	for _, n := range d.Nodes {
		if a, err := n.Check(t.Context(), s.secret); err != nil || a.Status != http.StatusOK || a.Allowed {
			t.Errorf("I3: %s: %v, %s", n.Name, err, a)
		}
	}
	if left := d.must(d.follower, http.MethodGet, "/v1/tokens?state=active&account="+account, nil); len(left.Items) > 0 {
		t.Errorf("%d tokens are left", len(left.Items))
	}
}

// suspendLarge compares the suspension of an account with many tokens with the revocation of
// one token.
func suspendLarge(t *testing.T, d *fixture) {
	many := 100_000
	big := d.makeAccount("big")
	began := time.Now()
	tokens := d.make(many, big)
	t.Logf("%d tokens made in %s", many, time.Since(began).Round(time.Second))
	var one, all, oneProof, allProof []time.Duration
	for range 20 {
		single := d.make(1, d.account)[0]
		for _, n := range d.watch(d.Verifiers(), single, func() time.Time {
			began := time.Now()
			d.must(d.leader, http.MethodPost, "/v1/tokens/"+single.id+"/revoke", nil)
			acked := time.Now()
			oneProof = append(oneProof, acked.Sub(began))
			return acked
		}) {
			one = append(one, max(0, n.denied))
		}
		s := tokens[len(one)%len(tokens)]
		for _, n := range d.watch(d.Verifiers(), s, func() time.Time {
			began := time.Now()
			d.must(d.leader, http.MethodPost, "/v1/accounts/"+big+"/suspend", nil)
			acked := time.Now()
			allProof = append(allProof, acked.Sub(began))
			return acked
		}) {
			all = append(all, max(0, n.denied))
		}
		d.applied(d.must(d.leader, http.MethodPost, "/v1/accounts/"+big+"/resume", nil).Position)
	}
	t.Logf("a token revoked: acknowledged after %s; then refused by a verifier: %s", quantiles(oneProof), quantiles(one))
	t.Logf("an account of %d tokens suspended: acknowledged after %s; then refused by a verifier: %s", many, quantiles(allProof), quantiles(all))
}

// in returns the fixture for a subtest.
func (d *fixture) in(t *testing.T) *fixture {
	other := *d
	other.t = t
	return &other
}

// barriers counts the barriers after a sequence in the stream of leases.
func (d *fixture) barriers(after uint64) (count int) {
	d.t.Helper()
	last := d.Last(d.t, events.LeaseStreamName)
	conn := d.Leader(d.t, events.LeaseStreamName).Connect(d.t)
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		d.t.Fatal(err)
	}
	stream, err := js.Stream(d.t.Context(), events.LeaseStreamName)
	if err != nil {
		d.t.Fatal(err)
	}
	for seq := after + 1; seq <= last; seq++ {
		m, err := history.Get(d.t.Context(), stream, seq)
		if err != nil {
			d.t.Fatalf("lease message %d: %v", seq, err)
		}
		if m.Subject == events.BarrierSubject {
			count++
		}
	}
	return count
}

// TestCutOff revokes a token while one verifier is cut off. The receipt arrives
// when the lease of that verifier has ended, and not before it has stopped
// answering.
func TestCutOff(t *testing.T) {
	long(t)
	for _, tt := range []struct {
		name  string
		lease time.Duration
		times int
	}{{"a short lease", shortLease, 5}, {"the lease that it has by itself", 30 * time.Second, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			d := newFixture(t, Options{Verifiers: 3, Lease: tt.lease})
			v := d.Node("v2")
			var took []time.Duration
			for range tt.times {
				took = append(took, d.revokeWithout(v, d.make(1, d.account)[0]))
			}
			const slack = 2 * time.Second // for a busy machine
			if most := slices.Max(took); most > tt.lease+time.Second+slack {
				t.Errorf("a receipt took %s, and the lease is %s", most, tt.lease)
			}
			t.Logf("with one node cut off and a lease of %s, receipts take %s", tt.lease, quantiles(took))
		})
	}
}

// revokeWithout revokes a token while a verifier is cut off, and returns the
// time until the receipt.
func (d *fixture) revokeWithout(v *Node, s secret) time.Duration {
	t := d.t
	t.Helper()
	if a, err := v.Check(t.Context(), s.secret, "view:site/1"); err != nil || !a.Allowed {
		t.Fatalf("before it is cut off: %v, %s", err, a)
	}
	d.Split(d.Ledgers(), []*Node{v})
	var last time.Time // start of the last allowed check
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			if a, err := v.Check(t.Context(), s.secret, "view:site/1"); err == nil && a.Allowed {
				last = began
			}
		}
	}()
	began := time.Now()
	a := d.must(d.Ledgers()[0], http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=60s", nil)
	ended := time.Now()
	close(stop)
	<-stopped
	if _, ok := a.Proof(); !ok {
		t.Errorf("no receipt: %s", a)
	} else {
		d.checkReceipt(a.Receipt, v)
	}
	t.Logf("answered after %s; the node that was cut off allowed it until %s after the revocation was asked for", ended.Sub(began).Round(time.Millisecond), last.Sub(began).Round(time.Millisecond))
	if last.After(ended) {
		t.Errorf("I3: the node that was cut off allowed the token %s after the receipt", last.Sub(ended))
	}
	d.Heal()
	v.WaitReady(t)
	return ended.Sub(began)
}

// checkReceipt checks a receipt: one node was cut off, and the others applied
// the event. Another ledger shows the same receipt.
func (d *fixture) checkReceipt(r *Receipt, off *Node) {
	d.t.Helper()
	for _, n := range d.Nodes {
		want := "applied"
		if n == off {
			want = "lease_ended"
		}
		if got := r.How(n.Name); !slices.Equal(got, []string{want}) {
			d.t.Errorf("the receipt has %[2]v for %[1]s, want %[3]s", n.Name, got, want)
		}
	}
	var shown Receipt
	other := d.Ledgers()[1]
	path := fmt.Sprintf("%s/v1/receipts/%d", other.API, r.Covers)
	a, err := Send(d.t.Context(), Request{Method: http.MethodGet, URL: path, Secret: d.root, MinPosition: r.Position, Into: &shown})
	if err != nil || a.Status != http.StatusOK || !shown.Complete || shown.Position != r.Position || len(shown.Nodes) != len(r.Nodes) {
		d.t.Errorf("%s shows %v, %s: %+v; want %+v", other.Name, err, a, shown, *r)
	}
}

// TestNoQuorum kills two of three ledgers. The third refuses commands, and no
// node answers past its lease.
func TestNoQuorum(t *testing.T) {
	long(t)
	d := newFixture(t, Options{Verifiers: 3, Lease: shortLease})
	s := d.make(1, d.account)[0]
	left := d.Ledgers()[0]
	for _, l := range d.Ledgers()[1:] {
		l.Kill(t)
	}
	killed := time.Now()
	a, err := d.send(left, http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=10s", nil)
	if err != nil || a.Status != http.StatusServiceUnavailable || a.Detail == "" {
		t.Errorf("revoke without a quorum: %v, %s; want 503 that says why", err, a)
	}
	t.Logf("without a quorum, after %s: %s", time.Since(killed).Round(time.Millisecond), a)
	for _, n := range append(d.Verifiers(), left) {
		var last time.Time
		n.Until(t, "it refuses", func() error {
			began := time.Now()
			a, err := n.Check(t.Context(), s.secret, "view:site/1")
			if err == nil && a.Status != http.StatusServiceUnavailable {
				last = began
				return errors.New(a.String())
			}
			return err
		})
		if late := last.Sub(killed) - shortLease; !last.IsZero() && late > 0 {
			t.Errorf("I11: %s answered %s past the lease", n.Name, late)
		}
		_, why := n.Ready(t.Context())
		t.Logf("%s refuses: %s", n.Name, why)
	}
	a, err = d.send(left, http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=10s", nil)
	t.Logf("past its lease: %v, %s", err, a)
	if err == nil && a.Status != http.StatusServiceUnavailable {
		t.Errorf("revoke without a quorum and without a lease: %s; want 503", a)
	}
	for _, l := range d.Ledgers()[1:] {
		l.Start(t)
	}
	for _, n := range d.Nodes {
		n.WaitReady(t)
	}
	if a := d.must(left, http.MethodPost, "/v1/tokens/"+s.id+"/revoke?wait=30s", nil); a.Receipt == nil || !a.Receipt.Complete {
		t.Errorf("with a quorum again: %s", a)
	}
}

// TestLeaderDies kills the leader of a cluster with the default lease. No check
// is refused while the others elect a new leader.
func TestLeaderDies(t *testing.T) {
	together(t)
	c := newHarness(t, Options{Verifiers: 2})
	leader := c.leader(t)
	since := c.load.Now()
	leader.Kill(t)
	c.load.Commands(t, 10)
	gap := c.load.Now() - since
	answers := 0
	for _, check := range c.load.Record().Checks {
		switch {
		case check.Node == leader.Name || check.Began < since:
		case check.Verdict == Unavailable:
			t.Errorf("refused while the leader was dead: %s", check)
		case check.Verdict.answered():
			answers++
		}
	}
	t.Logf("commands went on within %s of the leader's death; %d checks were answered meanwhile, and none refused", gap.Round(time.Millisecond), answers)
	if answers == 0 {
		t.Error("no check was answered, so the test shows nothing")
	}
	c.audit(t)
}
