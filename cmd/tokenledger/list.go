package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// mostPage is the most items that the API puts on a page.
const mostPage = 500

// pageFlags say how much of a list is wanted.
type pageFlags struct {
	limit  int
	all    bool
	cursor string
}

func (p *pageFlags) declare(flags *pflag.FlagSet) {
	flags.IntVar(&p.limit, "limit", 100, "most items")
	flags.BoolVar(&p.all, "all", false, "all items")
	flags.StringVar(&p.cursor, "cursor", "", "go on from the next_cursor of an earlier list")
}

func (p *pageFlags) check(flags *pflag.FlagSet) error {
	switch {
	case p.limit < 1:
		return inputf("--limit: want one or more")
	case p.all && flags.Changed("limit"):
		return inputf("--all and --limit contradict each other")
	}
	return nil
}

// gridOf draws a list's items as rows.
type gridOf[T any] struct {
	header []string
	row    func(T) []string
}

type page struct {
	Items []json.RawMessage `json:"items"`
	Next  string            `json:"next_cursor,omitempty"`
}

// list prints as much of a list as is wanted. JSON lines come page by page, so
// that a long list needs no memory.
func list[T any](c *cobra.Command, e *env, r request, p pageFlags, g gridOf[T]) error {
	if err := p.check(c.Flags()); err != nil {
		return err
	}
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	return listFrom(c, e, ledger, r, p, g)
}

// listFrom is list with a client that is there already.
func listFrom[T any](c *cobra.Command, e *env, ledger *client, r request, p pageFlags, g gridOf[T]) error {
	if err := p.check(c.Flags()); err != nil {
		return err
	}
	ctx := c.Context()
	var got page
	err := ledger.pages(ctx, r, p, func(some page) error {
		if e.output == asLines {
			for _, item := range some.Items {
				if err := e.show(item, nil); err != nil {
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
	const more = "There are more: --all lists them, --limit more of them."
	if e.output == asLines {
		if got.Next != "" {
			_, _ = fmt.Fprintln(e.stderr, more) // nothing in the lines says so
		}
		return nil
	}
	if got.Items == nil {
		got.Items = []json.RawMessage{}
	}
	body, err := encode(got)
	if err != nil {
		return err
	}
	rows := make([]T, len(got.Items))
	for i, item := range got.Items {
		if err := json.Unmarshal(item, &rows[i]); err != nil {
			return err
		}
	}
	return e.show(body, func() {
		out := e.grid(g.header...)
		for _, row := range rows {
			out.row(g.row(row)...)
		}
		out.end()
		if got.Next != "" {
			e.note(more)
		}
	})
}

// encode is json.Marshal without its care for HTML, so that what came goes out
// as it was.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// pages reads a list page by page.
func (c *client) pages(ctx context.Context, r request, p pageFlags, each func(page) error) error {
	left := p.limit
	r.method, r.query = http.MethodGet, maps.Clone(r.query)
	if r.query == nil {
		r.query = url.Values{}
	}
	if p.cursor != "" {
		r.query.Set("cursor", p.cursor)
	}
	for {
		n := mostPage
		if !p.all {
			n = min(n, left)
		}
		r.query.Set("limit", strconv.Itoa(n))
		a, err := c.do(ctx, r)
		if err != nil {
			return err
		}
		var got page
		if err := json.Unmarshal(a.body, &got); err != nil {
			return err
		}
		if err := each(got); err != nil {
			return err
		}
		if left -= len(got.Items); got.Next == "" || !p.all && left <= 0 {
			return nil
		}
		if got.Next == r.query.Get("cursor") {
			return errors.New("the list does not end: a page came again")
		}
		r.query.Set("cursor", got.Next)
	}
}

// query makes a URL's query of names and values, leaving out empty ones.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}
