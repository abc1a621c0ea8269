package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/authz"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/follow"
)

// handler is the API in this process, without a node around it: a real log, an
// index that follows it, and a caller who may do everything.
func handler(t testing.TB) (http.Handler, *ledgertest.Log) {
	t.Helper()
	log := ledgertest.Start(t)
	index, err := projector.Open(projector.Config{Dir: filepath.Join(t.TempDir(), "index")})
	if err != nil {
		t.Fatal(err)
	}
	follower, err := follow.New(follow.Config{Conn: log.Conn()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- follower.Run(ctx, 0, nil, index) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, index.Close()); err != nil {
			t.Error(err)
		}
	})
	l, err := ledger.Open(context.Background(), ledger.Config{Conn: log.Conn(), View: index, Epoch: log.Epoch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := l.Bootstrap(context.Background(), events.DefaultFormat.NewSecret(events.ServiceAccount)); err != nil {
		t.Fatal(err)
	}
	first, _, _ := index.Accounts("", 1)
	root := authz.Principal{Account: first[0].ID, Address: "192.0.2.1", Scopes: []events.Scope{events.Superuser}}
	if _, err := l.CreateAccount(context.Background(), root, "", ledger.CreateAccount{Login: "alice", Kind: "user", Grants: []string{"view:site/*"}}); err != nil {
		t.Fatal(err)
	}
	return api.New(api.Config{Ledger: l, Authenticate: func(context.Context, api.Credential) (authz.Principal, error) { return root, nil }}), log
}

// FuzzCreateToken sends bodies to POST /v1/tokens. Each answer has a documented
// form, and the log grows by one event exactly if a token was created.
func FuzzCreateToken(f *testing.F) {
	for _, s := range []string{
		`{"account":"alice","scopes":["view:site/1"]}`,
		`{"account":"alice","inherit":true,"app":"a","device":"b","format":"hex32","expires_in":"90d"}`,
		`{"account":"alice","scopes":["view:site/1"],"expires_in":60,"constraints":{"cidrs":["192.0.2.0/24"],"origins":["https://example.org"],"methods":["GET"],"audience":["site"],"header_only":true}}`,
		`{"account":"alice","scopes":["view:site/1"],"constraints":null,"expires_in":null}`,
		`{"account":"alice","scopes":["view:site/*","superuser"]}`, `{"account":null}`, `{}`, `[]`, ``, `{"account":"alice","scopes":[{}]}`,
		`{"Account":"alice","SCOPES":["view:site/1"]}`, `{"account":"alice","scopes":["view:site/1"],"expires_in":1e400}`,
		`{"account":"alice","scopes":["view:site/1"],"constraints":{"cidrs":["::ffff:192.0.2.0/120"]}}`,
		`{"account":"alice","scopes":["view:site/1"],"constraints":{"origins":["https://[::1"]}}`,
		`{"account":"acc_01jd3qk8z5n0v7m2x4c6b8a9ef","scopes":["view:site/1"]}`,
	} {
		f.Add([]byte(s))
	}
	h, log := handler(f)
	_, described := describe(f).find("POST /v1/tokens")
	codes := []string{"malformed_request", "invalid_request", "forbidden", "not_found", "body_too_large"}
	f.Fuzz(func(t *testing.T, body []byte) {
		log := log.For(t)
		before := log.Changes(log.End())
		r := httptest.NewRequest("POST", "/v1/tokens", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer x")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		a := answer{status: w.Code, header: w.Header(), raw: w.Body.Bytes()}
		a.into(t, &a.body)
		made := log.Changes(log.End()) - before
		if !slices.Contains(described, fmt.Sprint(a.status)) || a.status >= 500 {
			t.Errorf("%q: status %d: %s", body, a.status, a.raw)
		}
		if a.status == 201 {
			if made != 1 || !strings.HasPrefix(a.text("token", "id"), "tok_") || a.text("secret") == "" {
				t.Errorf("%q made %d events: %s", body, made, a.raw)
			}
			return
		}
		if made != 0 || !slices.Contains(codes, a.code()) {
			t.Errorf("%q made %d events: %d %s", body, made, a.status, a.raw)
		}
		checkProblem(t, a)
	})
}
