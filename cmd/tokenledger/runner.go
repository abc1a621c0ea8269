package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
)

// changeFlags are the flags of a command that changes one thing. A command that
// does not declare some of them leaves them at zero: no wait, any version.
type changeFlags struct {
	version versionFlags
	wait    waitFlags
	key     keyFlag
}

// declare adds all of the flags.
func (f *changeFlags) declare(flags *pflag.FlagSet) {
	f.version.declare(flags)
	f.wait.declare(flags, false)
	f.key.declare(flags)
}

// current is what a change needs to know of the thing before it.
type current struct {
	ID          string         `json:"id"`
	Login       string         `json:"login"`
	Account     string         `json:"account"`
	State       string         `json:"state"`
	Version     uint64         `json:"version"`
	Constraints constraints    `json:"constraints"`
	Policy      map[string]any `json:"policy"`
}

// A change is what a command that changes one thing does.
type change struct {
	flags *changeFlags
	noun  string // names the change in errors: "revocation"
	// read is the path of the thing, which is read first. The change then takes
	// effect only if the thing still has the version that was read. Nil changes
	// it at any version.
	read []string
	// request returns the request, without its key and version.
	request func(ctx context.Context, ledger *client.Client, seen current) (client.Request, error)
	// show prints the answer.
	show func(a *client.Answer, got proven) error
}

// change runs a command that changes one thing. It fails if the change stands but
// the wait for its receipt ended too early.
func (e *env) change(c *cobra.Command, ch change) error {
	f := ch.flags
	if err := f.version.check(); err != nil {
		return err
	}
	if err := f.wait.check(c.Flags()); err != nil {
		return err
	}
	key, err := f.key.key()
	if err != nil {
		return err
	}
	ctx := c.Context()
	ledger, err := e.ledger(ctx)
	if err != nil {
		return err
	}
	var seen current
	if ch.read != nil {
		if err := ledger.Get(ctx, ch.read, &seen); err != nil {
			return err
		}
	}
	r, err := ch.request(ctx, ledger, seen)
	if err != nil {
		return err
	}
	r.Key, r.IfMatch = key, f.version.ifMatch(seen.Version)
	a, got, err := f.wait.change(ctx, e, ledger, r)
	if err != nil {
		return err
	}
	if err := ch.show(a, got); err != nil {
		return err
	}
	return f.wait.unproven(e, got, ch.noun)
}

// read runs a command that shows one thing.
func (e *env) read(c *cobra.Command, path []string, show func(a *client.Answer) error) error {
	ledger, err := e.ledger(c.Context())
	if err != nil {
		return err
	}
	a, err := ledger.Do(c.Context(), client.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return err
	}
	return show(a)
}
