package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

// pageFlags say how much of a list is wanted.
type pageFlags struct{ client.Extent }

func (p *pageFlags) declare(flags *pflag.FlagSet) {
	flags.IntVar(&p.Limit, "limit", 100, "number of items to list")
	flags.BoolVar(&p.All, "all", false, "list all items")
	flags.StringVar(&p.Cursor, "cursor", "", "continue a list at its next_cursor")
	group(flags, groupPaging, "limit", "all", "cursor")
}

func (p *pageFlags) check(flags *pflag.FlagSet) error {
	switch {
	case p.Limit < 1:
		return exit.Inputf("--limit: must be 1 or more")
	case p.All && flags.Changed("limit"):
		return exit.Inputf("--all and --limit cannot be used together")
	}
	return nil
}

// gridOf draws a list's items as rows.
type gridOf[T any] struct {
	header []string
	row    func(T) []string
}

// listing is a list to print: where it is, how much of it is wanted, and how to
// draw it.
type listing[T any] struct {
	request client.Request
	pages   pageFlags
	grid    gridOf[T]
}

// list prints as much of a list as the flags say. It prints JSON lines page by
// page, so that a long list needs little memory.
func list[T any](c *cobra.Command, e *env, l listing[T]) error {
	if err := l.pages.check(c.Flags()); err != nil {
		return err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	return listFrom(c, e, ledger, l)
}

// listFrom is list with a given client.
func listFrom[T any](c *cobra.Command, e *env, ledger *client.Client, l listing[T]) error {
	if err := l.pages.check(c.Flags()); err != nil {
		return err
	}
	ctx := c.Context()
	var got client.Page
	err := ledger.Pages(ctx, l.request, l.pages.Extent, func(some client.Page) error {
		if e.Format == render.Lines {
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
	const more = "There are more: use --all for all of them, or a higher --limit."
	if e.Format == render.Lines {
		if got.Next != "" {
			// Nothing in the lines says so.
			_, _ = fmt.Fprintln(e.Stderr, more)
		}
		return nil
	}
	if got.Items == nil {
		got.Items = []json.RawMessage{}
	}
	body, err := render.Encode(got)
	if err != nil {
		return err
	}
	rows := make([]T, len(got.Items))
	for i, item := range got.Items {
		if err := json.Unmarshal(item, &rows[i]); err != nil {
			return err
		}
	}
	return e.Show(body, func() {
		out := e.Grid(l.grid.header...)
		for _, row := range rows {
			out.Row(l.grid.row(row)...)
		}
		out.End()
		if got.Next != "" {
			e.Note(more)
		}
	})
}

// showLines prints each item as a JSON line.
func (e *env) showLines(items []json.RawMessage) error {
	for _, item := range items {
		if err := e.Show(item, nil); err != nil {
			return err
		}
	}
	return nil
}
