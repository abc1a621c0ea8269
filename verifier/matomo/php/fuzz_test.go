package php_test

import (
	"encoding/json"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/matomo/matomotest"
	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// seeds adds the traps and the bodies of clients.
func seeds(f *testing.F) {
	for _, q := range queries {
		f.Add(q, "application/x-www-form-urlencoded", q)
	}
	for _, s := range append(bodies, clients...) {
		f.Add(s.query, s.contentType, s.body)
	}
}

// FuzzRead looks for requests that end the reader, or that it reads differently
// from the canonical form.
func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		s := sample{method: "POST", query: query, contentType: contentType, body: body}
		r, ok := s.received()
		if !ok {
			return
		}
		q, err := php.Read(r, php.Limits{})
		if err != nil {
			return
		}
		q.Apply(r)
		again, err := php.Read(r, php.Limits{})
		if err != nil {
			t.Fatalf("the canonical form of %q is refused: %v", s, err)
		}
		if a, b := shown(q), shown(again); a != b {
			t.Errorf("request %q is %s, and its canonical form is %s", s, a, b)
		}
	})
}

// shown writes what was read of a request.
func shown(q *php.Request) string {
	s := matomotest.ArrayOf(q.Query).String() + matomotest.ArrayOf(q.Post).String()
	for _, f := range q.Files {
		s += " " + f.Name + " " + f.Filename + " " + f.ContentType + " " + string(f.Data)
	}
	return s
}

// FuzzPHP looks for requests that PHP reads differently.
func FuzzPHP(f *testing.F) {
	u := matomotest.Start(f, matomotest.Options{})
	p := startParser(f)
	seeds(f)
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		checkQueries(t, p, []string{query})
		s := sample{method: "POST", query: "q=1", contentType: contentType, body: body}
		if _, ok := s.received(); ok {
			check(t, u, s)
		}
	})
}

// FuzzJSON looks for JSON that ends the reader, or that it reads differently after
// it was written.
func FuzzJSON(f *testing.F) {
	for _, s := range append(goodJSON, badJSON...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := php.DecodeJSON([]byte(s), php.Limits{})
		if err != nil {
			return
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		again, err := php.DecodeJSON(b, php.Limits{})
		if err != nil || showJSON(again) != showJSON(v) {
			t.Errorf("JSON %q is %s, and %s is %s, %v", s, showJSON(v), b, showJSON(again), err)
		}
	})
}
