package matomo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/verifier"
)

// Remote asks verifiers over HTTP (POST /v1/verify). It keeps to one of them, and
// moves on to the next if that does not answer.
type Remote struct {
	urls  []string
	http  *http.Client
	audit func() string
	now   func() time.Duration
	first atomic.Uint32 // the one that answered last
}

// RemoteConfig configures a [Remote].
type RemoteConfig struct {
	URLs []string // of the verifiers, as in http://127.0.0.1:7601; required
	// Audit returns a token with the permission audit, with which verifiers tell
	// exact reasons. Without it, a token that is unknown and one that was revoked
	// look the same, and the tokens of sessions are refused. Nil means none.
	Audit func() string
	// Transport is for tests and for TLS. Nil means a new [http.Transport].
	Transport http.RoundTripper
}

// Limits of the questions.
const (
	// answerWithin is how old an answer may be when it is used. It is the age for
	// which the token of an answer may have been revoked before a receipt.
	answerWithin = time.Second
	maxAnswer    = 1 << 20
)

// NewRemote returns a checker. It does no I/O.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	r := &Remote{audit: cfg.Audit, now: clock.Boottime}
	for i, text := range cfg.URLs {
		u, err := url.Parse(text)
		if err == nil {
			err = CheckUpstream(u)
		}
		if err != nil {
			// The text is not repeated: it may have a password.
			return nil, fmt.Errorf("verifier %d of %d: want a URL such as http://127.0.0.1:7601", i+1, len(cfg.URLs))
		}
		r.urls = append(r.urls, strings.TrimSuffix(text, "/")+"/v1/verify")
	}
	if len(r.urls) == 0 {
		return nil, errors.New("name the URL of a verifier")
	}
	if r.audit == nil {
		r.audit = func() string { return "" }
	}
	transport := cfg.Transport
	if transport == nil {
		transport = &http.Transport{MaxIdleConnsPerHost: idleConns, IdleConnTimeout: idleTimeout}
	}
	r.http = &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a secret goes to no other server
		},
	}
	return r, nil
}

// Check implements [Checker].
func (r *Remote) Check(ctx context.Context, secret string, q *verifier.Request) Finding {
	ask := verifier.CheckRequest{
		Token: secret, Need: events.ScopeStrings(q.Need), Origin: q.Origin, Method: q.Method, Audience: q.Audience,
		InURL: q.InURL, AllScopes: true,
	}
	if q.Address.IsValid() {
		ask.Address = q.Address.String()
	}
	audit := r.audit()
	ask.Explain = audit != ""
	body, err := json.Marshal(ask)
	if err != nil {
		return Finding{Reason: verifier.Unavailable}
	}
	first := r.first.Load()
	for i := range r.urls {
		at := (first + uint32(i)) % uint32(len(r.urls))
		asked := r.now()
		answer, ok := r.ask(ctx, r.urls[at], audit, body)
		if !ok || r.now()-asked > answerWithin {
			continue
		}
		if at != first {
			r.first.CompareAndSwap(first, at)
		}
		f := answer.finding(audit != "")
		f.Still = func() bool { return r.now()-asked <= answerWithin }
		return f
	}
	return Finding{Reason: verifier.Unavailable}
}

// ask asks one verifier.
func (r *Remote) ask(ctx context.Context, to, audit string, body []byte) (a remoteAnswer, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return a, false
	}
	req.Header.Set("Content-Type", "application/json")
	if audit != "" {
		req.Header.Set("Authorization", "Bearer "+audit)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return a, false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(b, &a) != nil || a.Allowed == nil {
		return a, false
	}
	return a, true
}

// remoteAnswer is [verifier.CheckAnswer] as it is received.
type remoteAnswer struct {
	Allowed     *bool          `json:"allowed"`
	Reason      string         `json:"reason"`
	Lacking     string         `json:"lacking"`
	Scopes      []events.Scope `json:"scopes"`
	Inherit     bool           `json:"inherit"`
	Imported    bool           `json:"imported"`
	Expires     time.Time      `json:"expires_at"`
	ExpiresSoon bool           `json:"expires_soon"`
	RetryAfter  int            `json:"retry_after_s"`
}

// finding returns what an answer says. exact says that its reason is exact.
func (a *remoteAnswer) finding(exact bool) Finding {
	f := Finding{
		Reason: verifier.ParseReason(a.Reason), Lacking: a.Lacking, Retry: time.Duration(a.RetryAfter) * time.Second,
	}
	switch {
	case *a.Allowed:
		f.Reason, f.Scopes, f.Inherit, f.Imported = verifier.Allowed, a.Scopes, a.Inherit, a.Imported
		if a.ExpiresSoon {
			f.Expires = a.Expires
		}
	case f.Reason == verifier.Allowed: // it is none that this version knows
		f.Reason, f.Vague = verifier.Unknown, true
	case !exact && f.Reason != verifier.Scope && f.Reason != verifier.RateLimited && f.Reason != verifier.Unavailable:
		f.Vague = true
	}
	return f
}

// Close closes idle connections to the verifiers.
func (r *Remote) Close() { r.http.CloseIdleConnections() }
