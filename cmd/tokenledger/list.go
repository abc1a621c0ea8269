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

// list prints as much of a list as the flags say. It prints JSON lines page by
// page, so that a long list needs little memory.
func list[T any](c *cobra.Command, e *env, r client.Request, p pageFlags, g gridOf[T]) error {
	if err := p.check(c.Flags()); err != nil {
		return err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	return listFrom(c, e, ledger, r, p, g)
}

// listFrom is list with a given client.
func listFrom[T any](
	c *cobra.Command,
	e *env,
	ledger *client.Client,
	r client.Request,
	p pageFlags,
	g gridOf[T],
) error {
	if err := p.check(c.Flags()); err != nil {
		return err
	}
	ctx := c.Context()
	var got client.Page
	err := ledger.Pages(ctx, r, p.Extent, func(some client.Page) error {
		if e.Format == render.Lines {
			for _, item := range some.Items {
				if err := e.Show(item, nil); err != nil {
					return err
				}
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
			_, _ = fmt.Fprintln(e.Stderr, more) // nothing in the lines says so
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
		out := e.Grid(g.header...)
		for _, row := range rows {
			out.Row(g.row(row)...)
		}
		out.End()
		if got.Next != "" {
			e.Note(more)
		}
	})
}
