package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// web sends the requests of this package. Callers set the timeouts.
var web = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second}}

// Request is a request to a node.
type Request struct {
	Method      string
	URL         string
	Secret      string          // of the caller's token; empty for none
	Key         string          // idempotency key; empty for none
	MinPosition events.Position // minimum position of the answer; 0 for none
	Body        any             // as JSON; nil for none
	Into        any             // also receives the decoded answer; nil for none
}

// Answer is an answer of a node, success or problem.
type Answer struct {
	Status int
	Header http.Header

	Token struct {
		ID string `json:"id"`
	} `json:"token"`
	Account json.RawMessage `json:"account"` // an object from the API, an id from a verifier
	Secret  string          `json:"secret"`

	Position events.Position `json:"position"`

	Receipt *Receipt `json:"receipt"`

	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`

	Code    string          `json:"code"` // of a problem
	Detail  string          `json:"detail"`
	Version events.Position `json:"version"` // current version of the record, in a conflict

	Items []json.RawMessage `json:"items"` // of a list
}

// Receipt is a receipt of the API.
type Receipt struct {
	Complete bool            `json:"complete"`
	Covers   events.Position `json:"covers"`
	Position events.Position `json:"position"`
	Nodes    []struct {
		Name string `json:"name"`
		How  string `json:"how"`
	} `json:"nodes"`
}

// How returns, by the name of the node, how each process stopped answering
// without the change.
func (r *Receipt) How(node string) (ways []string) {
	for _, n := range r.Nodes {
		if n.Name == node {
			ways = append(ways, n.How)
		}
	}
	return ways
}

// About returns the id of the record that a command changed.
func (a Answer) About() string {
	var account struct {
		ID string `json:"id"`
	}
	if a.Token.ID != "" || json.Unmarshal(a.Account, &account) != nil {
		return a.Token.ID
	}
	return account.ID
}

// Proof returns the position that the receipt in the answer covers, or false if
// there is no receipt.
func (a Answer) Proof() (events.Position, bool) {
	if a.Receipt == nil || !a.Receipt.Complete {
		return 0, false
	}
	return a.Receipt.Covers, true
}

// String describes the answer without secrets.
func (a Answer) String() string {
	s := fmt.Sprintf("status %d, position %d", a.Status, a.Position)
	for _, more := range []string{a.Code, a.Reason, a.Detail} {
		if more != "" {
			s += ", " + more
		}
	}
	if a.Receipt != nil {
		s += fmt.Sprintf(", receipt %+v", *a.Receipt)
	}
	return s
}

// Send sends a request once. An error means that no answer arrived.
func Send(ctx context.Context, r Request) (Answer, error) {
	var content io.Reader
	if r.Body != nil {
		b, err := json.Marshal(r.Body)
		if err != nil {
			return Answer{}, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, content)
	if err != nil {
		return Answer{}, err
	}
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Secret != "" {
		req.Header.Set("Authorization", "Bearer "+r.Secret)
	}
	if r.Key != "" {
		req.Header.Set("Idempotency-Key", r.Key)
	}
	if r.MinPosition != 0 {
		req.Header.Set("Ledger-Min-Position", fmt.Sprint(r.MinPosition))
	}
	resp, err := web.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("%s %s: status %d, and the body cannot be read: %w", r.Method, r.URL, resp.StatusCode, err)
	}
	if r.Into != nil {
		return a, json.Unmarshal(b, r.Into)
	}
	return a, nil
}

// Check asks a node about a secret.
func (n *Node) Check(ctx context.Context, secret string, need ...string) (Answer, error) {
	return Send(
		ctx,
		Request{
			Method: http.MethodPost,
			URL:    n.Verify + "/v1/verify",
			Body:   map[string]any{"token": secret, "need": need},
		},
	)
}

// getJSON reads JSON from a URL.
func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// Metric returns the value of a Prometheus metric of the node.
func (n *Node) Metric(ctx context.Context, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(text), 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", n.Name, name)
}
