package api_test

import (
	"fmt"
	"testing"
	"time"
)

// TestQueryAfterEnd revokes a token while its query waits. The query was
// authenticated before, but gets no answer.
func TestQueryAfterEnd(t *testing.T) {
	s := start(t)
	allowed := func() uint64 { return s.node.Verifier().Counts()["allowed"] }
	for _, ends := range []bool{true, false} {
		id, secret := s.token("root", "audit")
		query := fmt.Sprintf("GET /v1/receipts/%d?wait=20s", s.end()+2)
		before := allowed()
		answered := make(chan answer)
		go func() { answered <- s.do(query, nil, "Authorization: Bearer "+secret) }()
		for end := time.Now().Add(patience); allowed() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the query is not authenticated")
			}
		}
		want := 200
		if ends {
			want = 401
			s.must("POST /v1/tokens/"+id+"/revoke", m{})
		}
		s.token("root", "view:site/3")
		s.token("root", "view:site/3")
		a := <-answered
		if a.status != want {
			t.Errorf("ended %t: %d %s, want %d", ends, a.status, a.raw, want)
		}
		if ends && (a.code() != "unauthenticated" || a.header.Get("WWW-Authenticate") == "") {
			t.Errorf("%v %s", a.header, a.raw)
		}
	}
}
