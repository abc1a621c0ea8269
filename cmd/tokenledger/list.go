package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
)

// pageFlags say how much of a list is wanted.
type pageFlags struct{ client.Extent }

func (p *pageFlags) declare(flags *pflag.FlagSet) {
	flags.IntVar(&p.Limit, "limit", 100, "number of items to list, 0 for no limit")
	flags.BoolVar(&p.All, "all", false, "list all items")
	flags.StringVar(&p.Cursor, "cursor", "", "continue a list at its next_cursor")
	allowEmpty(flags, "cursor") // the beginning
	group(flags, groupPaging, "limit", "all", "cursor")
}

func (p *pageFlags) check(flags *pflag.FlagSet) error {
	switch {
	case p.Limit < 0:
		return exit.Inputf("--limit: must be 0 or more")
	case p.All && flags.Changed("limit") && p.Limit > 0:
		return exit.Inputf("--all and --limit cannot be used together")
	}
	p.All = p.All || p.Limit == 0
	return nil
}

// column is a column of a list, and how its cells are drawn.
type column[T any] struct {
	render.Column
	cell func(T) string
}

// listing is a list to print: where it is, how much of it is wanted, and how to
// draw it.
type listing[T any] struct {
	request client.Request
	pages   pageFlags
	columns []column[T]
	order   order[T]
}

// order sorts a list, by a key of the flag --sort.
type order[T any] struct {
	given string
	keys  map[string]func(a, b T) int
}

func (o *order[T]) declare(e *env, c *cobra.Command) {
	names := slices.Sorted(maps.Keys(o.keys))
	c.Flags().StringVar(&o.given, "sort", "", "order of the list: "+strings.Join(names, ", ")+
		"; a - before it reverses the order (default by ID)")
	group(c.Flags(), groupPaging, "sort")
	e.completeFlag(c, "sort", oneOf(names...))
}

// compare returns the function that compares two items, nil for the ledger's own
// order.
func (o *order[T]) compare() (func(a, b T) int, error) {
	if o.given == "" {
		return nil, nil
	}
	name, reverse := strings.CutPrefix(o.given, "-")
	by, ok := o.keys[name]
	switch {
	case !ok:
		return nil, exit.Inputf("--sort: must be one of %s, perhaps after a -, not %s",
			strings.Join(slices.Sorted(maps.Keys(o.keys)), ", "), events.Quote(o.given))
	case reverse:
		return func(a, b T) int { return by(b, a) }, nil
	}
	return by, nil
}

// list prints as much of a list as the flags say.
func list[T any](c *cobra.Command, e *env, l listing[T]) error {
	if err := l.check(c); err != nil {
		return err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	return listFrom(c, e, ledger, l)
}

// check checks the flags.
func (l *listing[T]) check(c *cobra.Command) error {
	if err := l.pages.check(c.Flags()); err != nil {
		return err
	}
	if _, err := l.order.compare(); err != nil {
		return err
	}
	if l.order.given != "" && l.pages.Cursor != "" {
		return exit.Inputf("--sort and --cursor cannot be used together: a sorted list has no pages")
	}
	return nil
}

// listFrom is list with a given client. It prints lines page by page, so that a
// long list needs little memory, unless the list is sorted.
func listFrom[T any](c *cobra.Command, e *env, ledger *client.Client, l listing[T]) error {
	if err := l.check(c); err != nil {
		return err
	}
	compare, _ := l.order.compare() // checked
	lines := e.printsLines(c)
	extent := l.pages.Extent
	extent.All = extent.All || compare != nil
	var got client.Page
	err := ledger.Pages(c.Context(), l.request, extent, func(some client.Page) error {
		if lines && compare == nil {
			if err := e.showLines(some.Items); err != nil {
				return err
			}
			some.Items = nil
		}
		got.Items, got.Next = append(got.Items, some.Items...), some.Next
		return nil
	})
	if err != nil {
		return err
	}
	cut := false
	if compare != nil {
		if cut, err = sortPage(&got, compare, l.pages.Extent); err != nil {
			return err
		}
	}
	if lines {
		err = e.showLines(got.Items)
	} else {
		err = showPage(e, &got, l.columns)
	}
	if err == nil && (cut || got.Next != "") {
		e.more(lines)
	}
	return err
}

// more says that a list has more items. Nothing in lines says so, so it does in
// every format of lines.
func (e *env) more(lines bool) {
	const more = "There are more: use --limit 0 for all of them, or a higher --limit."
	if lines {
		_, _ = fmt.Fprintln(e.Stderr, more)
		return
	}
	e.Note(more)
}

// sortPage sorts a whole list and cuts it to an extent. It reports whether it left
// some out.
func sortPage[T any](p *client.Page, compare func(a, b T) int, extent client.Extent) (cut bool, err error) {
	type pair struct {
		raw  json.RawMessage
		item T
	}
	pairs := make([]pair, len(p.Items))
	for i, raw := range p.Items {
		pairs[i].raw = raw
		if err := json.Unmarshal(raw, &pairs[i].item); err != nil {
			return false, err
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return compare(a.item, b.item) })
	for i := range pairs {
		p.Items[i] = pairs[i].raw
	}
	if cut = !extent.All && len(p.Items) > extent.Limit; cut {
		p.Items = p.Items[:extent.Limit]
	}
	return cut, nil
}

// printsLines reports whether a list is printed item by item.
func (e *env) printsLines(c *cobra.Command) bool {
	return e.Format == render.Lines || e.Format == render.Name && !c.Flags().Changed("jq")
}

// showPage prints a list as a whole.
func showPage[T any](e *env, p *client.Page, columns []column[T]) error {
	if p.Items == nil {
		p.Items = []json.RawMessage{}
	}
	body, err := render.Encode(p)
	if err != nil {
		return err
	}
	return e.Show(body, func() { drawItems(e, p.Items, columns) })
}

// drawItems draws a table with a row for each item.
func drawItems[T any](e *env, items []json.RawMessage, columns []column[T]) {
	heads := make([]render.Column, len(columns))
	for i, c := range columns {
		heads[i] = c.Column
	}
	out := e.Table(heads...)
	for _, raw := range items {
		var item T
		if err := json.Unmarshal(raw, &item); err != nil {
			e.Stdout.Err = err // the list is not whole
			return
		}
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = c.cell(item)
		}
		out.Row(cells...)
	}
	out.End()
}

// showLines prints each item as a line.
func (e *env) showLines(items []json.RawMessage) error {
	for _, item := range items {
		if err := e.Show(item, nil); err != nil {
			return err
		}
	}
	return nil
}
