package credential_test

import (
	"net/http"
	"testing"

	"github.com/tokenledger/tokenledger/verifier/credential"
	"github.com/tokenledger/tokenledger/verifier/uri"
)

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
		{[]string{"Basic a"}, "/?token_auth=a", want{Secret: "a", Found: true, InURL: true}, want{}},
		{[]string{"Basic a"}, "/", want{}, want{}},
		{[]string{"Basic a", "Basic a"}, "/?token_auth=a", several, want{Found: true, Several: true}},
		{[]string{"Bearer"}, "/?token_auth=a", several, want{Found: true}},
		{[]string{"Bearer  a"}, "/?token_auth=a", want{Secret: "a", Found: true, InURL: true}, want{Secret: "a", Found: true}},
		{[]string{"Bearer\ta"}, "/?token_auth=a", several, want{Secret: "\ta", Found: true}},
		{[]string{"Bearer a", "Bearer a"}, "/", want{Found: true, Several: true}, want{Found: true, Several: true}},
		{[]string{"Bearer a", "Bearer a"}, "/?token_auth=a", several, want{Found: true, Several: true}},
		{nil, "/?token_auth=a&token_auth=a", several, want{}},
		{nil, "/?token.auth=a", several, want{}},
		{nil, "/?token_auth=", want{}, want{}},
		{nil, "/?token_auth", want{}, want{}},
		{nil, "/?token_auth=anonymous", want{}, want{}},
		{[]string{"Bearer a"}, "/?token_auth=", want{Secret: "a", Found: true}, want{Secret: "a", Found: true}},
		{[]string{"Bearer a"}, "/?token_auth=anonymous", want{Secret: "a", Found: true}, want{Secret: "a", Found: true}},
		{[]string{"Basic a"}, "/?token_auth=anonymous", want{}, want{}},
		// One reader takes the first of two values, another the last.
		{nil, "/?token_auth=&token_auth=a", several, want{}},
		{nil, "/?token_auth=a&token_auth=", several, want{}},
		{[]string{"Bearer a"}, "/?token_auth=anonymous&token_auth=a", several, want{Secret: "a", Found: true}},
		{[]string{"Bearer a"}, "/?token_auth=&token_auth[]=a", several, want{Secret: "a", Found: true}},
		{[]string{"Bearer a"}, "/?token_auth=ANONYMOUS", several, want{Secret: "a", Found: true}},
		{[]string{"Bearer a"}, "/?token_auth=+", several, want{Secret: "a", Found: true}},
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
