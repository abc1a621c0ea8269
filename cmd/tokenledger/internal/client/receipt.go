package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tokenledger/tokenledger/ledger/api"
)

// AskReceipt asks for the receipt that covers a position, and waits up to wait
// for it. The error of a receipt that does not exist yet tells its progress; see
// [Progress].
func (c *Client) AskReceipt(ctx context.Context, position uint64, wait time.Duration) (*Answer, error) {
	r := Request{Method: http.MethodGet, Path: []string{"v1", "receipts", strconv.FormatUint(position, 10)}}
	if wait > 0 {
		r.Query, r.Linger = url.Values{"wait": {wait.String()}}, wait
	}
	return c.Do(ctx, r)
}

// AwaitReceipt waits up to wait for the receipt that covers a position. It
// returns the receipt, or its progress after that time.
func (c *Client) AwaitReceipt(ctx context.Context, position uint64, wait time.Duration) (*api.Receipt, error) {
	a, err := c.AskReceipt(ctx, position, wait)
	if r := Progress(err); r != nil {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	var r api.Receipt
	return &r, json.Unmarshal(a.Body, &r)
}

// Progress returns the progress of a receipt that does not exist yet, nil if the
// error is another.
func Progress(err error) *api.Receipt {
	if p := Problem(err); p != nil && p.Code == "not_found" {
		return p.Receipt
	}
	return nil
}
