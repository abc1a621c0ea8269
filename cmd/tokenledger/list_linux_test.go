package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

// wideTokens are tokens with long and wide labels, as the API lists them.
func wideTokens() string {
	var items []string
	for i, app := range []string{"mobile app for the whole family", "日本語アプリケーション", "📱"} {
		items = append(items, fmt.Sprintf(`{"id":"tok_01jd3qk8z5n0%c7m2x4c6b8a9ef","account":"acc_01jd3qk8z5n0v7m2x4c6b8a9ef",`+
			`"login":"anna+home@example.org","app":%q,"device":"タブレット in the kitchen","state":"account suspended",`+
			`"scopes":["view:site/1","view:site/2","write:site/3"],"effective_scopes":[],"version":7,`+
			`"created_at":"2020-01-02T03:04:05Z","changed_at":"2020-01-02T03:04:05Z","expires_at":"2020-02-02T03:04:05Z"}`, "abc"[i], app))
	}
	return `{"items":[` + strings.Join(items, ",") + `]}`
}

// TestListsFitTheTerminal lists tokens at terminals of many widths.
func TestListsFitTheTerminal(t *testing.T) {
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) { done(wideTokens())(w, r) })
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := func(t *testing.T, columns uint16, environ []string, args ...string) string {
		t.Helper()
		environ = append(os.Environ(), append(environ, "TOKENLEDGER_SERVER="+s.URL, "TOKENLEDGER_TOKEN_FILE="+file, "TZ=UTC")...)
		at := sitBefore(t, columns, true, environ, append([]string{"token", "list"}, args...)...)
		at.ends(exit.OK)
		return strings.ReplaceAll(at.screen.String(), "\r\n", "\n")
	}
	for _, tt := range []struct {
		columns uint16
		environ []string
		want    int
	}{{80, nil, 80}, {0, nil, 80}, {120, nil, 120}, {40, nil, 40}, {11, nil, 11}, {80, []string{"COLUMNS=60"}, 60}} {
		t.Run(fmt.Sprint(tt.columns, tt.environ), func(t *testing.T) {
			got := list(t, tt.columns, tt.environ)
			if strings.Count(got, "\n") != 4 || strings.Contains(got, "\x1b") {
				t.Errorf("got %q, want a header and three rows without colours", got)
			}
			for l := range strings.SplitSeq(got, "\n") {
				if n := render.Columns(l); n > tt.want {
					t.Errorf("%q takes %d columns, want at most %d", l, n, tt.want)
				}
			}
			if tt.want >= 80 && (!strings.Contains(got, "tok_01jd3qk8z5n0a7") || !strings.Contains(got, "years ago")) {
				t.Errorf("got\n%s, want ids that name a token, and times", got)
			}
		})
	}
	for _, form := range []string{"wide", "json", "name"} {
		got := list(t, 40, nil, "-o", form)
		if !strings.Contains(got, "tok_01jd3qk8z5n0a7m2x4c6b8a9ef") || form != "name" && !strings.Contains(got, "日本語アプリケーション") {
			t.Errorf("-o %s prints %q, want full values", form, got)
		}
	}
	got := list(t, 80, []string{"NO_COLOR=1", "TERM=xterm-256color"})
	if strings.Contains(got, "\x1b") {
		t.Errorf("with NO_COLOR it prints %q", got)
	}
}
