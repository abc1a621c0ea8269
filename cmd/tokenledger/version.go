package main

import (
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

// version is set when a release is built: -ldflags "-X main.version=v1.2.3".
var version string

// build describes this program.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // files differed from the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

var buildVersion = sync.OnceValue(func() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	return b
})

func newVersionCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: takes(),
		Example: `  tokenledger version -o json`,
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
