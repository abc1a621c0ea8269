package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newReceiptCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "receipt", Short: "Show the proof that a change is in force on every node"}
	c.AddCommand(newReceiptShowCmd(e))
	return c
}

func newReceiptShowCmd(e *env) *cobra.Command {
	var wait waitFlags
	c := &cobra.Command{
		Use: "show POSITION", Short: "Show the first receipt that covers a position of the log",
		Long: `Shows proof that every node has applied the log up to POSITION or has stopped
answering: when, and how, for each node. Every command that changes something
prints its position.

STOPPED BY says how a node stopped answering from before the position: it applied
the log up to there, gave up its lease, or its lease ended. STALE UNTIL is the time
until which its configuration lets it answer for some permissions without the log.

Exits with 3 if there is no receipt yet. With --wait the command waits for it, and
exits with 6 if it does not come in time.`,
		Example: `  tokenledger receipt show 42 --wait 1m`,
		Args:    takes("a position of the log"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			at, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || at == 0 {
				return exit.Inputf(
					"%s is not a position of the log. Commands that change something print a position, such as "+
						"42",
					events.Quote(args[0]),
				)
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			first := wait.length()
			if e.watched() {
				first = min(first, firstWait)
			}
			a, err := ledger.AskReceipt(c.Context(), at, first)
			progress := client.Progress(err)
			if rest := wait.length() - first; wait.on && progress != nil && rest > 0 {
				stop := e.watch(progress)
				a, err = ledger.AskReceipt(c.Context(), at, rest)
				stop()
				progress = client.Progress(err)
			}
			if wait.on && progress != nil {
				return exit.Failf(exit.Unavailable, "not_in_time",
					"there is no receipt for position %d yet: waiting for %s", at, waitingFor(progress, 0))
			}
			if err != nil {
				return err
			}
			var got api.Receipt
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			return e.Show(a.Body, func() { e.drawReceipt(got) })
		},
	}
	wait.declare(c.Flags(), false)
	return c
}

// drawReceipt prints a receipt for people.
func (e *env) drawReceipt(r api.Receipt) {
	instant := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return when.Precise(*t, e.Zone)
	}
	g := e.Grid()
	g.Fact("covers", "every event up to position "+strconv.FormatUint(r.Covers, 10))
	recorded := "no"
	if r.NotRecorded {
		recorded = "no, recording it failed; the receipt is still valid"
	}
	if r.Position > 0 {
		recorded = "at position " + strconv.FormatUint(r.Position, 10)
	}
	g.Fact("recorded", recorded)
	g.Fact("asked", instant(&r.AskedAt))
	g.Fact("took", render.Elapsed(time.Duration(r.TookMS)*time.Millisecond))
	g.Fact("longest lease", (time.Duration(r.LeaseMS) * time.Millisecond).String())
	g.Fact("barrier", strconv.FormatUint(r.Barrier, 10))
	g.End()
	if len(r.Nodes) == 0 {
		e.Printf("\nNo node could answer.\n")
		return
	}
	e.Printf("\n")
	g = e.Table(render.Column{Head: "NODE"}, render.Column{Head: "INSTANCE", Wide: true},
		render.Column{Head: "STOPPED BY"}, render.Column{Head: "AT", Keep: true}, render.Column{Head: "STALE UNTIL"})
	for _, n := range r.Nodes {
		how := map[string]string{"applied": "applying it", "given_up": "giving up its lease", "lease_ended": "the end of its lease"}[n.How]
		if how == "" {
			how = n.How
		}
		name, instance := n.Name, n.Instance
		if n.Instances > 0 {
			instance = strconv.Itoa(n.Instances) + " more"
			if len(n.Names) > 0 {
				const most = 4
				name = strings.Join(n.Names[:min(most, len(n.Names))], ", ")
				if n.Instances > most {
					name += ", …"
				}
			}
		}
		g.Row(name, instance, how, instant(n.At), e.staleUntil(n.StaleUntil))
	}
	g.End()
}
