package main

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

// The Makefile sets these: -ldflags "-X main.version=v1.2.3 -X main.commit=… -X
// main.date=2031-12-31T18:00:00Z". What is not set is from the version control
// that go build saw.
var version, commit, date string

// build describes this program.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"`     // of the commit
	Modified bool   `json:"modified,omitempty"` // files differed from the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// shortCommit is how much of a commit tells it from others.
const shortCommit = 12

var buildVersion = sync.OnceValue(func() build {
	b := build{
		Version: version, Commit: commit, Date: date,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version = cmp.Or(b.Version, info.Main.Version)
		stamped := b.Commit != ""
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = cmp.Or(b.Commit, s.Value)
			case "vcs.time":
				b.Date = cmp.Or(b.Date, s.Value)
			case "vcs.modified":
				b.Modified = s.Value == "true" && !stamped
			}
		}
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	// git describe says so, where the Makefile asks it.
	if clean, dirty := strings.CutSuffix(b.Commit, "-dirty"); dirty {
		b.Commit, b.Modified = clean, true
	}
	return b
})

// name returns the version as nodes report it: with the commit, if the version does
// not say it, so that two builds differ.
func (b build) name() string {
	short := b.Commit[:min(shortCommit, len(b.Commit))]
	name := b.Version
	if short != "" && !strings.Contains(name, short) {
		name += "+" + short
	}
	if b.Modified && !strings.Contains(name, "dirty") {
		name += ".dirty"
	}
	return name
}

func newVersionCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: takes(),
		Example: `  tokenledger version
  tokenledger version -o json`,
		RunE: func(*cobra.Command, []string) error {
			b := buildVersion()
			body, err := render.Encode(b)
			if err != nil {
				return err
			}
			return e.Show(body, func() {
				e.Printf("tokenledger %s", b.Version)
				if b.Commit != "" {
					e.Printf(" (%s", b.Commit)
					if at, err := time.Parse(time.RFC3339, b.Date); err == nil {
						e.Printf(" of %s", e.Exact(at))
					}
					if b.Modified {
						e.Printf(", modified")
					}
					e.Printf(")")
				}
				e.Printf(" %s %s\n", b.Go, b.Platform)
			})
		},
	}
}
