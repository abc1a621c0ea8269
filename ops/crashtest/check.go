package crashtest

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ops/testkit/disk"
)

// moments returns n different numbers of commands, in order.
func moments(rng *rand.Rand, n, commands int) []int64 {
	var list []int64
	for _, at := range rng.Perm(commands * 9 / 10)[:n] {
		list = append(list, int64(at+1))
	}
	slices.Sort(list)
	return list
}

// watch checks revoked secrets with every node until ctx ends. A node that has
// applied the revocation must refuse, and its position must never go back.
func watch(ctx context.Context, t testing.TB, w *workload, nodes []*machine) *sync.WaitGroup {
	var wg sync.WaitGroup
	for i, m := range nodes {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			var seen events.Position
			answers := 0
			tick := time.NewTicker(4 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					t.Logf("%s answered %d checks of revoked secrets", m.cfg.Name, answers)
					return
				case <-tick.C:
				}
				a, listens := m.addresses()
				revoked, any := w.anyRevoked(rng)
				if !listens || !any {
					continue
				}
				r, err := ask(ctx, a.Verify, revoked.secret)
				if err != nil || r.status != http.StatusOK {
					continue // the node is down, or has no lease
				}
				answers++
				if r.Allowed && r.Position >= revoked.position {
					t.Errorf(
						"%s at position %d accepts a secret that was revoked at %d",
						m.cfg.Name,
						r.Position,
						revoked.position,
					)
				}
				if r.Position < seen {
					t.Errorf("%s went back from position %d to %d", m.cfg.Name, seen, r.Position)
				}
				seen = max(seen, r.Position)
			}
		})
	}
	return &wg
}

// checkAnswers waits until every node has applied all acknowledged commands,
// and checks every secret.
func checkAnswers(t testing.TB, w *workload, nodes []*machine) {
	t.Helper()
	end, list := w.end(), w.expectations()
	accepted := 0
	for _, m := range nodes {
		p := m.process()
		p.WaitReady(t)
		verify := p.WaitListening(t).Verify
		w.applied(t, p, end)
		for _, want := range list {
			r, err := ask(t.Context(), verify, want.secret, want.need)
			if err != nil || r.status != http.StatusOK {
				t.Fatalf("%s: %v, %s", m.cfg.Name, err, r)
			}
			if r.Allowed != want.allowed {
				t.Errorf(
					"%s: %s for %s: allowed is %t (%s), want %t",
					m.cfg.Name,
					want.about,
					want.need,
					r.Allowed,
					r.Reason,
					want.allowed,
				)
			}
			if r.Allowed {
				accepted++
			}
		}
	}
	t.Logf("%d questions to each of %d nodes, %d accepted", len(list), len(nodes), accepted)
	if accepted == 0 {
		t.Error("no secret was accepted, so the refusals show nothing")
	}
}

// applied waits until a node has applied a position.
func (w *workload) applied(t testing.TB, p *process, at events.Position) {
	t.Helper()
	verify := p.WaitListening(t).Verify
	p.Until(t, fmt.Sprintf("it has applied position %d", at), func() error {
		r, err := ask(t.Context(), verify, w.root)
		if err == nil && r.Position < at {
			err = fmt.Errorf("it has applied position %d", r.Position)
		}
		return err
	})
}

// checkLogins reads each account by its login. Logins are not in the log, but
// in a bucket.
func checkLogins(t testing.TB, w *workload) {
	t.Helper()
	api := w.ledger.process().WaitListening(t).API
	for _, c := range w.clients {
		for _, a := range c.accounts {
			r, err := send(
				t.Context(),
				w.web,
				request{method: http.MethodGet, url: api + "/v1/accounts/" + a.login, secret: w.root},
			)
			if err != nil || r.ID != a.id {
				t.Errorf("account %s by its login: %v, %s", a.id, err, r)
			}
		}
	}
}

// dumpCopy dumps a copy of the index of a stopped or paused node. The node
// itself still has to recover the original.
func dumpCopy(t testing.TB, m *machine, what string) dump {
	t.Helper()
	to := filepath.Join(t.TempDir(), "index")
	disk.CopyTree(t, m.path("index"), to)
	return dumpIndex(t, what, to)
}

// secretShape matches every secret.
var secretShape = regexp.MustCompile(`tl[us]_[0-9A-Za-z]{38}`)

// checkSilence reports secrets in the standard error and in the data folders of
// stopped nodes.
func checkSilence(t testing.TB, nodes []*machine) {
	t.Helper()
	for _, m := range nodes {
		for _, p := range m.all {
			if secretShape.MatchString(p.out.String()) {
				t.Errorf("%s wrote a secret to standard error", m.cfg.Name)
			}
		}
		err := filepath.WalkDir(m.cfg.Data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "root.token" {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			return disk.VisitData(f, func(_ int64, b []byte) error {
				if secretShape.Match(b) {
					t.Errorf("%s holds a secret", path)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
