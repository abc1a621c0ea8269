package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// remarkVersions says which nodes run which version, if there is more than one. A
// node that is gone does not count.
func (e *env) remarkVersions(nodes []api.Node) {
	if mix := mixOfVersions(nodes); mix != "" {
		e.Note("tokenledger: the nodes run different versions: %s. Update all of them.", render.Escape(mix))
	}
}

// mixOfVersions returns the versions of nodes with their names, empty if there is
// only one.
func mixOfVersions(nodes []api.Node) string {
	names := map[string][]string{}
	for _, n := range nodes {
		if n.Version != "" && n.State != "gone" && n.State != "retired" {
			names[n.Version] = append(names[n.Version], n.Name)
		}
	}
	if len(names) < 2 {
		return ""
	}
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(names)) {
		parts = append(parts, v+" ("+shortenWith(", ", names[v])+")")
	}
	return strings.Join(parts, ", ")
}
