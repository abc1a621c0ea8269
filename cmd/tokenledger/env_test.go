package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
)

func TestDefaultDataDir(t *testing.T) {
	for _, tt := range []struct {
		environ []string
		want    string
	}{
		{[]string{"XDG_DATA_HOME=/x", "HOME=/h"}, "/x/tokenledger"},
		{[]string{"XDG_DATA_HOME=x", "HOME=/h"}, "/h/.local/share/tokenledger"},
		{[]string{"HOME=/h"}, "/h/.local/share/tokenledger"},
		{[]string{"HOME="}, ""},
		{nil, ""},
	} {
		if got := newEnv(nil, nil, nil, tt.environ).defaultDataDir(); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.environ, got, tt.want)
		}
	}
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"nodes"}, nil, &errs, &errs, nil); code != int(exit.NotAllowed) || !strings.Contains(errs.String(), "--data") {
		t.Errorf("without a home: exit code %d, %q", code, errs.String())
	}
}
