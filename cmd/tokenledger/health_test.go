package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

// TestHealthOfStrangers asks other programs, and nodes that are not ready.
func TestHealthOfStrangers(t *testing.T) {
	hang := make(chan struct{})
	tests := []struct {
		name   string
		answer http.HandlerFunc
		code   exit.Code
		stdout string
		stderr string
	}{
		{
			name:   "ready",
			answer: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") },
			code:   exit.OK, stdout: "ready\n",
		},
		{
			name: "not ready",
			answer: func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "not ready: no \x1b[31mlease", http.StatusServiceUnavailable)
			},
			code: exit.Unavailable, stderr: "is not ready: no ",
		},
		{
			name:   "another program",
			answer: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "welcome") },
			code:   exit.Unavailable, stderr: "is not the metrics address of a node (HTTP 200)",
		},
		{
			name:   "another program that fails",
			answer: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "ok", http.StatusServiceUnavailable) },
			code:   exit.Unavailable, stderr: "is not the metrics address of a node (HTTP 503)",
		},
		{
			name:   "elsewhere",
			answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) },
			code:   exit.Unavailable, stderr: "is not the metrics address of a node (HTTP 302)",
		},
		{
			name:   "hangs",
			answer: func(http.ResponseWriter, *http.Request) { <-hang },
			code:   exit.Unavailable, stderr: "did not answer within 50ms",
		},
		{
			name: "hangs in the middle",
			answer: func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "ok")
				_ = http.NewResponseController(w).Flush()
				<-hang
			},
			code: exit.Unavailable, stderr: "did not answer",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.Handle("GET /readyz", tt.answer)
			mux.HandleFunc("GET /ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
			server := httptest.NewServer(mux)
			defer server.Close()
			timeout := "30s"
			if strings.HasPrefix(tt.name, "hangs") {
				timeout = "50ms"
				defer func() { hang <- struct{}{} }()
			}
			_, port, err := net.SplitHostPort(server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			// As serve does if it listens on every interface.
			for _, host := range []string{"0.0.0.0", "", "[::]"} {
				if timeout != "30s" && host != "" {
					continue
				}
				var stdout, stderr strings.Builder
				code := run(t.Context(), []string{"health", "--timeout", timeout, "--metrics-addr", host + ":" + port},
					strings.NewReader(""), &stdout, &stderr, nil)
				if code != int(tt.code) || stdout.String() != tt.stdout || !strings.Contains(stderr.String(), tt.stderr) ||
					strings.Contains(stderr.String(), "\x1b") {
					t.Errorf("health of %s:%s = %d, %q, %q; want %d, %q, what contains %q",
						host, port, code, stdout.String(), stderr.String(), tt.code, tt.stdout, tt.stderr)
				}
			}
		})
	}
}

// TestHealthNamesTheDefault names the address that answered if no node runs on
// the data folder.
func TestHealthNamesTheDefault(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for from, note := range map[string]string{
		client.ByDefault: "tokenledger: no node runs on the data folder /data; asked " + server.URL + ", the default address.\n",
		"/data/run.json": "",
		"--metrics-addr": "",
	} {
		var out, errs strings.Builder
		e := newEnv(nil, &out, &errs, nil)
		e.dataDir, e.timeout = "/data", durationFlag(time.Minute)
		if err := e.health(t.Context(), base, from, false); err != nil || out.String() != "ready\n" || errs.String() != note {
			t.Errorf("from %s: %v, %q, %q; want %q", from, err, out.String(), errs.String(), note)
		}
	}
}
