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
		Use: "nodes", Short: "List the nodes: position, lag, lease and state of each", Args: takes(),
		Long: `Lists the nodes that answer checks:

  READY     yes; no; silent if it has not reported for the length of a lease;
            gone if it has no lease any more
  POSITION  the last position of the log that it applied, and LAG how many
            positions that is behind
  LEASE     how long it may answer without a new lease from the log
  CLOCK     how far its clock is ahead of the ledgers' clocks (+) or behind (-)
  DIGEST    a checksum of its index at a position; healthy nodes at the same
            position show the same value
  COPY      a ledger's own copy of the log: whole, checking, damaged or
            refilling, with the positions that it has

Look at COPY before you wipe or restore anything: a damaged copy is replaced from
the whole ones automatically.`,
		Example: `  tokenledger nodes
  tokenledger nodes -o jsonl`,
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
				return e.showLines(raw.Items)
			}
			return e.Show(a.Body, func() { e.drawNodes(got.Items) })
		},
	}
}

// drawNodes draws nodes as rows, and then their warnings.
func (e *env) drawNodes(nodes []api.Node) {
	g := e.Grid(
		"NAME", "READY", "POSITION", "LAG", "LEASE", "CLOCK",
		"DIGEST", "COPY", "VERSION", "ADDRESS", "HEARD", "WHY",
	)
	for _, n := range nodes {
		g.Row(
			n.Name,
			readyWord(n),
			strconv.FormatUint(n.Position, 10),
			strconv.FormatUint(n.Lag, 10),
			leaseLeft(n),
			clockOffset(n),
			shortDigest(n.Digest),
			copyWord(n.Copy),
			n.Version,
			n.Address,
			e.TimePtr(n.HeardAt),
			n.Why,
		)
	}
	g.End()
	for _, n := range nodes {
		if n.Warning != "" {
			e.Note(
				"tokenledger: %s (process %s): %s.",
				render.Escape(n.Name),
				render.Escape(n.Instance),
				render.Escape(n.Warning),
			)
		}
	}
}

// readyWord returns in a word whether a node answers checks.
func readyWord(n api.Node) string {
	switch {
	case n.Ready:
		return "yes"
	case n.State == "silent", n.State == "gone":
		return n.State
	}
	return "no"
}

// copyWord returns the state and the positions of a ledger's own copy of the log.
func copyWord(c *api.LogCopy) string {
	switch {
	case c == nil:
		return ""
	case c.Last == 0:
		return c.State
	}
	return c.State + " " + strconv.FormatUint(c.First, 10) + "-" + strconv.FormatUint(c.Last, 10)
}

// leaseLeft returns how long a node may answer without a new lease.
func leaseLeft(n api.Node) string {
	if n.LeaseMS <= 0 {
		return ""
	}
	return render.Elapsed(time.Duration(n.LeaseMS) * time.Millisecond)
}

// clockOffset returns how far a node's clock is ahead of the ledgers' clocks or
// behind.
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

// shortDigest returns enough of a digest to see that two differ, and its position.
func shortDigest(d *api.Digest) string {
	if d == nil {
		return ""
	}
	const enough = 8
	return d.Digest[:min(enough, len(d.Digest))] + "@" + strconv.FormatUint(d.Position, 10)
}
