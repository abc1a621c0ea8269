package credential_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/credential"
	"github.com/tokenledger/tokenledger/verifier/uri"
)

func TestBearer(t *testing.T) {
	tests := []struct {
		values []string
		secret string
		found  bool
	}{
		{nil, "", false},
		{[]string{"Bearer x"}, "x", true},
		{[]string{"bEARER x"}, "x", true},
		{[]string{"Bearer  x"}, " x", true},
		{[]string{"Bearer"}, "", true},
		{[]string{""}, "", true},
		{[]string{"Basic x"}, "", true},
		{[]string{"Bearerx"}, "", true},
		{[]string{"Bearer\tx"}, "", true},
		{[]string{"Bearer x", "Bearer x"}, "", true},
		{[]string{"Basic x", "Bearer x"}, "", true},
	}
	for _, tt := range tests {
		h := http.Header{}
		if tt.values != nil {
			h["Authorization"] = slices.Clone(tt.values)
		}
		if secret, found := credential.Bearer(h); secret != tt.secret || found != tt.found {
			t.Errorf("Bearer(%q) = %q, %t; want %q, %t", tt.values, secret, found, tt.secret, tt.found)
		}
	}
}

func TestFromRequest(t *testing.T) {
	type want = credential.Credential
	several := want{Found: true, InURL: true, Several: true}
	tests := []struct {
		auth     []string
		uri      string
		request  want
		inHeader want // read by FromHeader
	}{
		{nil, "/", want{}, want{}},
		{[]string{"Bearer a"}, "/", want{Secret: "a", Found: true}, want{Secret: "a", Found: true}},
		{nil, "/?token_auth=a", want{Secret: "a", Found: true, InURL: true}, want{}},
		{nil, "/?x&token%5Fauth=a", want{Secret: "a", Found: true, InURL: true}, want{}},
		{[]string{"Bearer a"}, "/?token_auth=a", want{Secret: "a", Found: true, InURL: true}, want{Secret: "a", Found: true}},
		{[]string{"Bearer a"}, "/?token_auth=b", several, want{Secret: "a", Found: true}},
		{[]string{"Basic a"}, "/?token_auth=a", several, want{Found: true}},
		{[]string{"Bearer a", "Bearer a"}, "/", want{Found: true, Several: true}, want{Found: true, Several: true}},
		{[]string{"Bearer a", "Bearer a"}, "/?token_auth=a", several, want{Found: true, Several: true}},
		{nil, "/?token_auth=a&token_auth=a", several, want{}},
		{nil, "/?token.auth=a", several, want{}},
		{nil, "/?token_auth=", several, want{}},
	}
	for _, tt := range tests {
		u, err := uri.Parse(tt.uri)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{"Authorization": tt.auth}
		if got := credential.FromRequest(h, u); got != tt.request {
			t.Errorf("FromRequest(%q, %s) = %+v, want %+v", tt.auth, tt.uri, got, tt.request)
		}
		if got := credential.FromHeader(h); got != tt.inHeader {
			t.Errorf("FromHeader(%q) = %+v, want %+v", tt.auth, got, tt.inHeader)
		}
	}
}
