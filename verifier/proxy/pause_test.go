package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/verifier"
	"github.com/tokenledger/tokenledger/verifier/proxy"
	"github.com/tokenledger/tokenledger/verifier/verifiertest"
)

// TestAnswerAfterPause changes the state between a decision and its answer, as
// in a pause of the process.
func TestAnswerAfterPause(t *testing.T) {
	need := []string{"need/view:site/3"}
	for _, tt := range []struct {
		name   string
		path   []string
		do     func(n *verifiertest.Node, id events.TokenID)
		status int
		deny   string
	}{
		{"nothing", need, func(*verifiertest.Node, events.TokenID) {}, http.StatusOK, ""},
		{"the lease ends", append(need, "site"), func(n *verifiertest.Node, _ events.TokenID) {
			n.Clock.Pass(verifier.DefaultLease)
		}, http.StatusServiceUnavailable, "unavailable"},
		{"the lease ends, and no rule matches the request", []string{"narrow"}, func(n *verifiertest.Node, _ events.TokenID) {
			n.Clock.Pass(verifier.DefaultLease)
		}, http.StatusServiceUnavailable, "unavailable"},
		{"the token is revoked, and the lease renewed", need, func(n *verifiertest.Node, id events.TokenID) {
			n.Clock.Pass(verifier.DefaultLease)
			n.Log.Revoke(id)
			n.Follow()
		}, http.StatusUnauthorized, "invalid_token"},
		{"the index goes on, and says so to the ledgers", need, func(n *verifiertest.Node, id events.TokenID) {
			n.Log.Revoke(id)
			n.Apply(n.Log.Messages[n.Index.Position():])
		}, http.StatusUnauthorized, "invalid_token"},
		{"an event of another token", need, func(n *verifiertest.Node, _ events.TokenID) {
			n.Log.Account("superuser")
			n.Apply(n.Log.Messages[n.Index.Position():])
		}, http.StatusOK, ""},
	} {
		for _, path := range tt.path {
			l := eventstest.NewLog(1)
			id, secret := l.Token(l.Account("superuser"), "view:site/3")
			n := verifiertest.Start(t, l, verifiertest.Options{})
			b := &verifiertest.Between{Lease: n.Lease, Do: func() { tt.do(n, id) }}
			v, err := verifier.New(verifier.Config{Index: n.Index, Lease: b, Now: n.Clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			h, err := proxy.New(proxy.Config{Verifier: v, Policies: map[string]proxy.Policy{
				"narrow": {Rules: []proxy.Rule{{Path: "/elsewhere", Need: []string{"view:site/3"}}}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, question(path, secret.Reveal(), func(r *http.Request) { r.Header.Set(proxy.HeaderUnavailable, "503") }))
			if b.Do != nil {
				t.Errorf("%s, %s: nothing happened", tt.name, path)
			}
			if w.Code != tt.status || w.Header().Get(proxy.HeaderDeny) != tt.deny {
				t.Errorf("%s, %s: %d %q, want %d %q", tt.name, path, w.Code, w.Header().Get(proxy.HeaderDeny), tt.status, tt.deny)
			}
			if got := w.Header().Get(proxy.HeaderToken); (got != "") != (tt.status == http.StatusOK) {
				t.Errorf("%s, %s: %d names token %q", tt.name, path, w.Code, got)
			}
		}
	}
}
