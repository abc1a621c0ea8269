package client

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

// MaxPage is the most items that the API puts on a page.
const MaxPage = 500

// An Extent says how much of a list is wanted.
type Extent struct {
	Limit  int
	All    bool   // all items, whatever the limit
	Cursor string // continues an earlier list; empty for its beginning
}

// A Page is a part of a list.
type Page struct {
	Items []json.RawMessage `json:"items"`
	Next  string            `json:"next_cursor,omitempty"` // empty at the end of the list
}

// Pages reads a list and passes it on page by page.
func (c *Client) Pages(ctx context.Context, r Request, extent Extent, each func(Page) error) error {
	left := extent.Limit
	r.Method, r.Query = http.MethodGet, maps.Clone(r.Query)
	if r.Query == nil {
		r.Query = url.Values{}
	}
	if extent.Cursor != "" {
		r.Query.Set("cursor", extent.Cursor)
	}
	for {
		n := MaxPage
		if !extent.All {
			n = min(n, left)
		}
		r.Query.Set("limit", strconv.Itoa(n))
		a, err := c.Do(ctx, r)
		if err != nil {
			return err
		}
		var got Page
		if err := json.Unmarshal(a.Body, &got); err != nil {
			return err
		}
		if err := each(got); err != nil {
			return err
		}
		if left -= len(got.Items); got.Next == "" || !extent.All && left <= 0 {
			return nil
		}
		if got.Next == r.Query.Get("cursor") {
			return errors.New("the server sent the same page of the list twice")
		}
		r.Query.Set("cursor", got.Next)
	}
}
