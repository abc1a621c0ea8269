package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newNodesCmd(e *env) *cobra.Command {
	var local bool
	c := &cobra.Command{
		Use: "nodes", Short: "List the nodes: position, lag, lease and state of each", Args: takes(),
		Long: `Lists the nodes that answer checks, and the ledgers:

  STATE     serving; not ready; late if three reports are missing, but it may
            still answer; gone if its lease has expired; retired if it released
            its lease; missing if it is a ledger that this ledger has not
            heard of
  ROLE      leader for the ledger that leads the log, ledger or verifier
  POSITION  the last position of the log that it applied, and LAG how many
            positions that is behind
  LEASE     how long it may answer without a new lease from the log, as far as
            this ledger knows
  HEARD     when it last reported; nodes report once a second
  COPY      a ledger's own copy of the log: whole, checking, damaged or
            refilling, with the positions that it has

With -o wide also:

  CLOCK     how far its clock is ahead of the ledgers' clocks (+) or behind (-)
  DIGEST    a checksum of its index at a position; healthy nodes at the same
            position show the same value

With --local the node on the data folder tells what it knows by itself, without a
token and without a majority of ledgers: its own state, which ledgers it is
connected with, which are missing, and which one leads.

Look at COPY before you wipe or restore anything: a damaged copy is replaced from
the whole ones automatically.`,
		Example: `  tokenledger nodes
  tokenledger nodes --local
  tokenledger nodes -o wide
  tokenledger nodes -o jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			if local {
				return e.localNodes(c.Context())
			}
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
	c.Flags().BoolVar(&local, "local", false, "ask only the node on the data folder, and need no token and no majority")
	return c
}

// drawNodes draws nodes as rows, and then why some do not answer, and warnings.
func (e *env) drawNodes(nodes []api.Node) {
	g := e.Table(
		render.Column{Head: "NAME"},
		render.Column{Head: "STATE", Keep: true},
		render.Column{Head: "ROLE"},
		render.Column{Head: "POSITION", Keep: true},
		render.Column{Head: "LAG", Keep: true},
		render.Column{Head: "LEASE", Keep: true},
		render.Column{Head: "HEARD", Keep: true},
		render.Column{Head: "COPY"},
		render.Column{Head: "CLOCK", Wide: true},
		render.Column{Head: "DIGEST", Wide: true},
		render.Column{Head: "VERSION", Wide: true},
		render.Column{Head: "ADDRESS", Wide: true},
		render.Column{Head: "INSTANCE", Wide: true},
	)
	for _, n := range nodes {
		g.Row(
			n.Name,
			strings.ReplaceAll(n.State, "_", " "),
			nodeRole(n),
			strconv.FormatUint(n.Position, 10),
			strconv.FormatUint(n.Lag, 10),
			leaseLeft(n),
			e.heard(n),
			copyWord(n.Copy),
			clockOffset(n),
			shortDigest(n.Digest),
			n.Version,
			n.Address,
			n.Instance,
		)
	}
	g.End()
	e.remarkVersions(nodes)
	for _, n := range nodes {
		if n.Why != "" {
			e.Note("tokenledger: %s: %s.", render.Escape(n.Name), render.Escape(strings.TrimSuffix(n.Why, ".")))
		}
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

// nodeRole returns what a node runs, and whether it leads the log.
func nodeRole(n api.Node) string {
	switch {
	case n.Leader:
		return "leader"
	case slices.Contains(n.Roles, "ledger"):
		return "ledger"
	}
	return strings.Join(n.Roles, ",")
}

// heard returns how long ago a node last reported.
func (e *env) heard(n api.Node) string {
	if n.HeardMS == nil {
		return ""
	}
	return render.Elapsed(time.Duration(*n.HeardMS)*time.Millisecond) + " ago"
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
