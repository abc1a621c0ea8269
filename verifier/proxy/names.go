package proxy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

// Names is the answer to GET [Prefix]?policy=NAME: which policies a proxy may ask
// for, and why NAME is none of them.
type Names struct {
	Policies []string `json:"policies"`
	// Problem is empty if the policy exists, or if none was asked for.
	Problem string `json:"problem,omitempty"`
}

// NamesOf returns the policies of a verifier with a configuration and a permission
// model. Asked is the policy as a proxy names it, such as need/view:site/3.
func NamesOf(configured map[string]Policy, model *events.Model, asked string) Names {
	return namesOf(withBuiltin(configured, model), model, asked)
}

func namesOf(policies map[string]Policy, model *events.Model, asked string) Names {
	n := Names{Policies: append(slices.Sorted(maps.Keys(policies)), needPolicy+"/SCOPE")}
	name, scope, tail := strings.Cut(asked, "/")
	_, known := policies[name]
	switch {
	case asked == "", known && !tail:
	case name == needPolicy && tail:
		if _, err := fill(scope, nil, model); err != nil {
			n.Problem = fmt.Sprintf("the scope %s does not exist: %v", events.Quote(scope), err)
		}
	default:
		n.Problem = fmt.Sprintf("there is no policy %s; there are %s", events.Quote(asked), strings.Join(n.Policies, ", "))
	}
	return n
}

// withBuiltin returns the configured policies and those of [Builtin] whose scopes
// the model has.
func withBuiltin(configured map[string]Policy, model *events.Model) map[string]Policy {
	all := map[string]Policy{}
	for name, p := range Builtin {
		if Validate(map[string]Policy{name: p}, model) == nil {
			all[name] = p
		}
	}
	maps.Copy(all, configured)
	return all
}

// serveNames answers [Prefix] itself, to proxies and to programs on this machine.
func (h *Handler) serveNames(w http.ResponseWriter, r *http.Request) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if (err != nil || !peer.Addr().Unmap().IsLoopback()) && !h.trusts(r.RemoteAddr) {
		http.Error(w, "only trusted proxies may ask which policies there are", http.StatusForbidden)
		return
	}
	b, err := json.Marshal(namesOf(h.policies, h.verifier.Model(), r.URL.Query().Get("policy")))
	if err != nil {
		http.Error(w, "cannot list the policies", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b)
}
