package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newNodesCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the verifiers: how far each has got, and what it knows", Args: takes(),
		Long: `Lists the verifiers: whether each answers checks, the position that it has
applied and how far that lags behind, for how long it may answer without hearing
from the log, by how much its clock is ahead of the ledgers' (+) or behind (-),
and a digest of its index at a position, which is the same on every
node that is well. A node that was not heard of for a lease is silent; one that
has no lease any more is gone.

COPY is a ledger's own copy of the log: whole, checking, damaged or refilling,
with the positions that it has. Look at it before you wipe or restore anything:
a damaged copy is replaced from the whole ones by itself.`,
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), client.Request{Method: http.MethodGet, Path: []string{"v1", "nodes"}})
			if err != nil {
				return err
			}
			var got struct {
				Items []api.Node `json:"items"`
			}
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			if e.Format == render.Lines {
				var raw client.Page
				if err := json.Unmarshal(a.Body, &raw); err != nil {
					return err
				}
				for _, item := range raw.Items {
					if err := e.Show(item, nil); err != nil {
						return err
					}
				}
				return nil
			}
			return e.Show(a.Body, func() {
				g := e.Grid("NAME", "READY", "POSITION", "LAG", "LEASE", "CLOCK", "DIGEST", "COPY", "VERSION", "ADDRESS", "HEARD", "WHY")
				for _, n := range got.Items {
					g.Row(n.Name, readyWord(n), strconv.FormatUint(n.Position, 10), strconv.FormatUint(n.Lag, 10), leaseLeft(n), clockOffset(n),
						shortDigest(n.Digest), copyWord(n.Copy), n.Version, n.Address, e.TimePtr(n.HeardAt), n.Why)
				}
				g.End()
				for _, n := range got.Items {
					if n.Warning != "" {
						e.Note("tokenledger: %s (process %s): %s.", render.Escape(n.Name), render.Escape(n.Instance), render.Escape(n.Warning))
					}
				}
			})
		},
	}
}

// readyWord says in a word whether a node answers checks.
func readyWord(n api.Node) string {
	switch {
	case n.Ready:
		return "yes"
	case n.State == "silent", n.State == "gone":
		return n.State
	}
	return "no"
}

// copyWord says which positions a ledger's own copy of the log has, and whether
// it is whole.
func copyWord(c *api.LogCopy) string {
	switch {
	case c == nil:
		return ""
	case c.Last == 0:
		return c.State
	}
	return c.State + " " + strconv.FormatUint(c.First, 10) + "-" + strconv.FormatUint(c.Last, 10)
}

// leaseLeft says for how long a node may answer without hearing from the log.
func leaseLeft(n api.Node) string {
	if n.LeaseMS <= 0 {
		return ""
	}
	return render.Elapsed(time.Duration(n.LeaseMS) * time.Millisecond)
}

// clockOffset says by how much a node's clock is ahead of the ledgers' or behind.
func clockOffset(n api.Node) string {
	if n.ClockMS == nil {
		return ""
	}
	offset := time.Duration(*n.ClockMS) * time.Millisecond
	if offset < 0 {
		return "-" + render.Elapsed(-offset)
	}
	return "+" + render.Elapsed(offset)
}

// shortDigest prints enough of a digest to see that two differ, and where.
func shortDigest(d *api.Digest) string {
	if d == nil {
		return ""
	}
	const enough = 8
	return d.Digest[:min(enough, len(d.Digest))] + "@" + strconv.FormatUint(d.Position, 10)
}
