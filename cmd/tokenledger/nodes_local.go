package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ops/node"
)

// localNodes shows what the node on the data folder knows by itself.
func (e *env) localNodes(ctx context.Context) error {
	socket, err := e.config().LocalNode()
	if err != nil {
		return err
	}
	path := strings.Split(strings.Trim(node.LocalNodesPath, "/"), "/")
	a, err := socket.Do(ctx, client.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return err
	}
	var got node.LocalNodes
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	return e.Show(a.Body, func() { e.drawLocal(got) })
}

// drawLocal draws the node as facts, the ledgers as rows, and then what is missing.
func (e *env) drawLocal(got node.LocalNodes) {
	self := got.Self
	state := "serving"
	if !self.Ready {
		state = "not ready: " + self.Why
	}
	g := e.Grid()
	g.Fact("name", self.Name)
	g.Fact("roles", strings.Join(self.Roles, ","))
	g.Fact("state", state)
	g.Fact("position", strconv.FormatUint(uint64(self.Position), 10))
	if self.LeaseMS > 0 {
		g.Fact("lease", render.Elapsed(time.Duration(self.LeaseMS)*time.Millisecond)+" left")
	}
	if c := self.Copy; c != nil {
		g.Fact("copy of the log", fmt.Sprintf("%s %d-%d", c.State, c.First, c.Last))
	}
	g.Fact("log server", got.Server)
	g.Fact("version", self.Version)
	g.End()
	if len(got.Ledgers) == 0 {
		return
	}
	e.Printf("\n")
	table := e.Grid("LEDGER", "STATE")
	var missing []string
	for _, l := range got.Ledgers {
		state := l.State
		if l.Name == got.Leader {
			state += ", leads"
		}
		if l.State == "missing" {
			missing = append(missing, l.Name)
		}
		table.Row(l.Name, state)
	}
	table.End()
	switch here := len(got.Ledgers) - len(missing); {
	case len(missing) == 0:
	case 2*here > len(got.Ledgers):
		e.Note("tokenledger: no connection with %s; the others are a majority.", render.Escape(strings.Join(missing, ", ")))
	default:
		e.Note("tokenledger: no connection with %s; without a majority (%d of %d) no command is carried out, and checks "+
			"are refused once the leases have expired.",
			render.Escape(strings.Join(missing, ", ")), len(got.Ledgers)/2+1, len(got.Ledgers))
	}
}
