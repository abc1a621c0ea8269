package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// The default wait is longer than the default lease, so that the lease of a node
// that is cut off ends in it. The longest wait is the API's.
const (
	defaultWait = 45 * time.Second
	longestWait = 2 * time.Minute
	// firstWait is the length of the first wait if a person watches: after it the
	// command shows which nodes it waits for.
	firstWait = time.Second
)

// waitFlags say how long to wait until a change is in force on every node.
type waitFlags struct {
	wait durationFlag
	none bool
	on   bool // wait by default; after check, whether to wait
}

func (w *waitFlags) declare(flags *pflag.FlagSet, on bool) {
	w.on = on
	help := "how long to wait until the change is in force on every node, up to 2m"
	if on {
		w.wait = durationFlag(defaultWait)
	} else {
		help += " (default no wait)"
	}
	flags.Var(&w.wait, "wait", help)
	flags.BoolVar(&w.none, "no-wait", false, "return as soon as the change is in the log")
	group(flags, groupWait, "wait", "no-wait")
}

// check checks the flags and sets on.
func (w *waitFlags) check(flags *pflag.FlagSet) error {
	given := flags.Changed("wait")
	switch {
	case w.none && given:
		return exit.Inputf("--wait and --no-wait cannot be used together")
	case time.Duration(w.wait) > longestWait:
		return exit.Inputf("--wait: must be at most 2m")
	}
	w.on = (w.on || given) && !w.none
	if w.on && w.wait == 0 {
		w.wait = durationFlag(defaultWait)
	}
	return nil
}

// length returns how long to wait, 0 for not at all.
func (w *waitFlags) length() time.Duration {
	if !w.on {
		return 0
	}
	return time.Duration(w.wait)
}

// proven is the part of an answer that waits need.
type proven struct {
	Position uint64       `json:"position"`
	Receipt  *api.Receipt `json:"receipt"`
}

// change sends a request, and waits until it is in force on every node if the
// flags say so. A person who watches sees which nodes the command waits for.
func (w *waitFlags) change(
	ctx context.Context,
	e *env,
	ledger *client.Client,
	r client.Request,
) (*client.Answer, proven, error) {
	wait := w.length()
	first := wait
	if e.watched() {
		first = min(wait, firstWait)
	}
	if first > 0 {
		if r.Query == nil {
			r.Query = url.Values{}
		}
		r.Query.Set("wait", first.String())
		r.Linger = first
	}
	var got proven
	a, err := ledger.Do(ctx, r)
	if err != nil {
		return nil, got, err
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return nil, got, err
	}
	if got.Receipt != nil && !got.Receipt.Complete && first < wait {
		stop := e.watch(got.Receipt)
		more, err := ledger.AwaitReceipt(ctx, got.Position, wait-first)
		stop()
		switch {
		case ctx.Err() != nil:
			return nil, got, exit.Failf(exit.Interrupted, "interrupted",
				"interrupted; the change stands, at position %d", got.Position)
		case err != nil:
			e.trace("the receipt cannot be asked for: %s", exit.Text(err))
		default:
			got.Receipt = more
		}
	}
	return a, got, nil
}

// watched reports whether a person reads standard error.
func (e *env) watched() bool {
	return e.Format.Tabular() && term.IsTerminal(e.Stderr) && e.vars["TERM"] != "dumb"
}

// watch shows on one line of standard error what a command waits for, until stop
// is called.
func (e *env) watch(r *api.Receipt) (stop func()) {
	if r == nil || !e.watched() {
		return func() {}
	}
	return e.Progress(func(since time.Duration) string { return "waiting for " + waitingFor(r, since) })
}

// waitingFor says which nodes a wait is for and until when, a time since after r
// was answered. All times are the ledger's, so clocks need not agree.
func waitingFor(r *api.Receipt, since time.Duration) string {
	answered := r.AskedAt.Add(time.Duration(r.TookMS)*time.Millisecond + since)
	left := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		d := max(0, t.Sub(answered)).Round(time.Second)
		return fmt.Sprintf("in %d s at the latest", int(d.Seconds()))
	}
	var nodes []string
	for _, n := range r.Nodes {
		if n.How == "waiting" {
			nodes = append(nodes, n.Name+": its lease ends "+left(n.Latest))
		}
	}
	switch {
	case len(nodes) > 0:
		return shortenWith("; ", nodes)
	case r.Latest != nil:
		return "the leases of unknown nodes to expire " + left(r.Latest)
	}
	return "a barrier in the log"
}

func shortenWith(between string, list []string) string {
	const most = 3
	if len(list) <= most+1 {
		return strings.Join(list, between)
	}
	return strings.Join(list[:most], between) + fmt.Sprintf("%sand %d more", between, len(list)-most)
}

// inForce says what a receipt proves of a change that ends nothing.
const inForce = "in force on every node"

// stopSummary counts how the nodes of a receipt stopped, as in "4 of 5 applied, 1
// lease ended".
func stopSummary(r *api.Receipt) string {
	if len(r.Nodes) == 0 {
		return "no node could answer"
	}
	count := map[string]int{}
	for _, n := range r.Nodes {
		count[n.How]++
	}
	parts := []string{fmt.Sprintf("%d of %d applied", count["applied"], len(r.Nodes))}
	for _, how := range []struct{ how, text string }{{"given_up", "gave up"}, {"lease_ended", "by the end of its lease"}} {
		if n := count[how.how]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, how.text))
		}
	}
	return strings.Join(parts, ", ")
}

// receiptSummary says in a clause what a receipt proves.
func receiptSummary(r *api.Receipt, outcome string) string {
	if r == nil {
		return ""
	}
	after := render.Elapsed(time.Duration(r.TookMS) * time.Millisecond)
	if !r.Complete {
		return fmt.Sprintf("; not on every node after %s (%s)", after, stopSummary(r))
	}
	recorded := fmt.Sprintf("receipt at position %d", r.Position)
	if r.Position == 0 {
		recorded = "the receipt is not recorded"
	}
	return fmt.Sprintf("; %s, after %s (%s; %s)", outcome, after, stopSummary(r), recorded)
}

// unproven returns the failure of a wait that ended too early, nil if the change is
// in force. What names the change.
func (w *waitFlags) unproven(e *env, got proven, what string) error {
	if !w.on {
		return nil
	}
	r := got.Receipt
	if r == nil {
		return exit.Failf(exit.Unavailable, "not_confirmed",
			"the %s stands, but the ledger did not answer whether it is in force on every node", what)
	}
	if r.Complete {
		e.stale(r)
		return nil
	}
	text := fmt.Sprintf("the %s stands, at position %d, but is not in force on every node yet", what, got.Position)
	if waiting := waitingFor(r, 0); waiting != "" {
		text += ". Waiting for " + waiting
	}
	return exit.Failf(exit.Unavailable, "not_in_time",
		"%s. To wait longer, run 'tokenledger receipt show %d --wait 1m'", text, got.Position)
}

// stale says which nodes continue to answer for some permissions.
func (e *env) stale(r *api.Receipt) {
	for _, n := range r.Nodes {
		for _, permission := range slices.Sorted(maps.Keys(n.StaleUntil)) {
			e.Note(
				"tokenledger: the configuration of %s lets it answer checks of %s without the log; it may still do so "+
					"with the old state until %s.",
				render.Escape(
					n.Name,
				),
				render.Escape(permission),
				e.Exact(n.StaleUntil[permission]),
			)
		}
	}
}

// staleUntil lists permissions with the times until which a node answers for them.
func (e *env) staleUntil(list map[string]time.Time) string {
	var out []string
	for _, permission := range slices.Sorted(maps.Keys(list)) {
		out = append(out, permission+" "+e.Exact(list[permission]))
	}
	return strings.Join(out, ", ")
}
