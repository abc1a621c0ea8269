package main

import (
	"testing"

	"github.com/tokenledger/tokenledger/ledger/api"
)

func TestBuildName(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for want, b := range map[string]build{
		"devel":                              {Version: "devel"},
		"devel+0123456789ab":                 {Version: "devel", Commit: commit},
		"devel+0123456789ab.dirty":           {Version: "devel", Commit: commit, Modified: true},
		"v1.2.3+0123456789ab":                {Version: "v1.2.3", Commit: commit},
		"v0.0.0-20310102030405-0123456789ab": {Version: "v0.0.0-20310102030405-0123456789ab", Commit: commit},
		"v1.2.3+dirty":                       {Version: "v1.2.3+dirty", Modified: true},
	} {
		if got := b.name(); got != want {
			t.Errorf("%+v is named %q, want %q", b, got, want)
		}
	}
}

func TestMixOfVersions(t *testing.T) {
	n := func(name, version, state string) api.Node {
		return api.Node{Name: name, Version: version, State: state}
	}
	for _, tt := range []struct {
		nodes []api.Node
		want  string
	}{
		{nil, ""},
		{[]api.Node{n("a", "v1", "serving"), n("b", "v1", "serving"), n("c", "", "serving"), n("d", "v0", "gone")}, ""},
		{[]api.Node{n("a", "v2", "serving"), n("b", "v1", "silent"), n("c", "v1", "serving")}, "v1 (b, c), v2 (a)"},
	} {
		if got := mixOfVersions(tt.nodes); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
