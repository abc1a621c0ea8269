package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/signin"
)

// TestChallenges checks the headers that the standards require in answers 401
// and 429.
func TestChallenges(t *testing.T) {
	for _, tt := range []struct {
		err          error
		status       int
		code         string
		header, want string
	}{
		{
			// RFC 9470 section 3.
			fmt.Errorf("x: %w", &ledger.ReauthError{Operation: "create a token", MaxAge: 5 * time.Minute}), 401, "reauth_required", "WWW-Authenticate",
			`Bearer realm="tokenledger", error="insufficient_user_authentication", error_description="re-authentication is required", max_age="300"`,
		},
		{signin.ErrFailed, 401, "sign_in_failed", "WWW-Authenticate", `Bearer realm="tokenledger"`},
		{signin.ErrSecondFactor, 401, "second_factor_required", "WWW-Authenticate", `Bearer realm="tokenledger"`},
		{signin.ErrNoSession, 401, "unauthenticated", "WWW-Authenticate", `Bearer realm="tokenledger", error="invalid_token"`},
		{&signin.TooManyError{After: 90*time.Second + 1}, 429, "too_many_attempts", "Retry-After", "91"},
		{signin.ErrBusy, 503, "unavailable", "Retry-After", "2"},
		{ledger.ErrUnavailable, 503, "unavailable", "Retry-After", "1"},
	} {
		p := problemFor(tt.err)
		w := httptest.NewRecorder()
		p.write(w, "id")
		if got := w.Header().Get(tt.header); w.Code != tt.status || p.Code != tt.code || got != tt.want {
			t.Errorf("%v: %d %s, %s: %s; want %d %s, %s", tt.err, w.Code, p.Code, tt.header, got, tt.status, tt.code, tt.want)
		}
	}
}

// TestBusy checks that a busy client is told when to retry.
func TestBusy(t *testing.T) {
	w := httptest.NewRecorder()
	busy().write(w, "id")
	if got := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || got != "1" {
		t.Errorf("status %d, Retry-After %q; want 429 and 1", w.Code, got)
	}
}

// TestIsSignIn admits two requests without a caller, in one spelling each.
func TestIsSignIn(t *testing.T) {
	for line, want := range map[string]bool{
		"POST /v1/session":            true,
		"POST /v1/password":           true,
		"POST /v1/session?x=1":        true,
		"GET /v1/session":             false,
		"PUT /v1/password":            false,
		"POST /v1/session/end":        false,
		"POST /v1/session/":           false,
		"POST /v1%2fsession":          false,
		"POST /v1/./session":          false,
		"POST /v1/session/../session": false,
		"POST /V1/session":            false,
		"post /v1/session":            false,
	} {
		var method, target string
		if _, err := fmt.Sscanf(line, "%s %s", &method, &target); err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(method, "http://example.org"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := isSignIn(r); got != want {
			t.Errorf("%s is sign-in: %t, want %t", line, got, want)
		}
	}
}
