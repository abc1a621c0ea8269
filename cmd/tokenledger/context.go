package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

func newContextCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: "context", Short: "Give clusters names, and choose one",
		Long: `A context is a name for a cluster: the URLs of its ledgers, and optionally its
verifier and the file of a token. The contexts are in contexts.yaml in the
configuration folder ($XDG_CONFIG_HOME/tokenledger or ~/.config/tokenledger). The
file holds no secret. Each context has a session of its own: 'tokenledger login'
signs in to the current one.

The current context applies to every command that names no --context, --server or
--data.`,
	}
	c.AddCommand(newContextAddCmd(e), newContextUseCmd(e), newContextListCmd(e), newContextShowCmd(e),
		newContextRemoveCmd(e))
	return c
}

func newContextAddCmd(e *env) *cobra.Command {
	var verifier string
	var replace bool
	c := &cobra.Command{
		Use: "add NAME --server URL", Short: "Add a context, or replace one", Args: takes("a name"),
		Example: `  tokenledger context add prod --server https://l1.example.org:7600 \
    --server https://l2.example.org:7600 --server https://l3.example.org:7600
  tokenledger context add deploy --server https://l1.example.org:7600 \
    --token-file /etc/deploy/token`,
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if err := client.CheckContextName(name); err != nil {
				return err
			}
			if len(e.servers.list) == 0 {
				return usagef(c, "--server is missing: give the URL of each ledger")
			}
			for _, address := range append(slices.Clone(e.servers.list), verifier) {
				if address == "" {
					continue
				}
				if err := client.CheckServer(address); err != nil {
					return err
				}
			}
			all, err := client.ReadContexts(e.contextsFile())
			if err != nil {
				return err
			}
			if _, exists := all.All[name]; exists && !replace {
				return exit.Failf(exit.Conflict, "exists", "there is a context %q already; to replace it, add --replace", name)
			}
			added := client.Context{
				Name: name, Servers: e.servers.list, Verifier: verifier, Fingerprint: string(e.fingerprint),
			}
			for _, address := range append(slices.Clone(e.servers.list), verifier) {
				if added.Fingerprint != "" && strings.HasPrefix(address, "http:") {
					return exit.Inputf("--server-fingerprint: %s has no certificate to compare. Use https, or leave the "+
						"fingerprint out", address)
				}
			}
			if e.tokenFile == "-" {
				return exit.Inputf("--token-file: a context keeps the name of a file; it cannot keep standard input")
			}
			if file := string(e.tokenFile); file != "" {
				if added.TokenFile, err = filepath.Abs(file); err != nil {
					return err
				}
			}
			all.All[name] = added
			if err := all.Write(); err != nil {
				return err
			}
			return e.showContext(added, all.Current == name)
		},
	}
	c.Flags().StringVar(&verifier, "verifier", "", "URL of the verifier that 'tokenledger verify' asks")
	c.Flags().BoolVar(&replace, "replace", false, "replace the context of that name")
	return c
}

func newContextUseCmd(e *env) *cobra.Command {
	var none bool
	c := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one",
		Example: `  tokenledger context use prod
  tokenledger context use --none`,
		Args: func(c *cobra.Command, args []string) error {
			if none {
				return takes()(c, args)
			}
			return takes("a context's name, or --none")(c, args)
		},
		ValidArgsFunction: e.first(e.contexts),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := client.ReadContexts(e.contextsFile())
			if err != nil {
				return err
			}
			if none {
				all.Current = ""
				return all.Write()
			}
			named, err := all.Get(args[0])
			if err != nil {
				return err
			}
			all.Current = named.Name
			if err := all.Write(); err != nil {
				return err
			}
			return e.showContext(named, true)
		},
	}
	c.Flags().BoolVar(&none, "none", false, "use no context")
	return c
}

func newContextListCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the contexts", Args: takes(),
		Example: `  tokenledger context list
  tokenledger context list -o name`,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := client.ReadContexts(e.contextsFile())
			if err != nil {
				return err
			}
			items := []json.RawMessage{}
			for _, name := range all.Names() {
				item, err := render.Encode(all.All[name])
				if err != nil {
					return err
				}
				items = append(items, item)
			}
			if e.printsLines(c) {
				return e.showLines(items)
			}
			body, err := render.Encode(map[string]any{"items": items, "current": all.Current})
			if err != nil {
				return err
			}
			return e.Show(body, func() { drawItems(e, items, e.contextColumns(all.Current)) })
		},
	}
}

// contextColumns returns the columns of the list of contexts.
func (e *env) contextColumns(current string) []column[client.Context] {
	type cc = column[client.Context]
	return []cc{
		{render.Column{Keep: true}, func(c client.Context) string {
			if c.Name == current {
				return "*"
			}
			return ""
		}},
		{render.Column{Head: "NAME", Keep: true}, func(c client.Context) string { return c.Name }},
		{render.Column{Head: "SERVERS"}, func(c client.Context) string { return render.Shorten(c.Servers) }},
		{render.Column{Head: "VERIFIER", Wide: true}, func(c client.Context) string { return c.Verifier }},
		{render.Column{Head: "TOKEN FILE"}, func(c client.Context) string { return c.TokenFile }},
	}
}

func newContextShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "Show a context, or the current one",
		Example: `  tokenledger context show
  tokenledger context show prod`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: e.first(e.contexts),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := client.ReadContexts(e.contextsFile())
			if err != nil {
				return err
			}
			name := all.Current
			if len(args) > 0 {
				name = args[0]
			}
			if name == "" {
				return exit.Failf(exit.NotFound, "no_context", "there is no current context; choose one with 'tokenledger context use'")
			}
			named, err := all.Get(name)
			if err != nil {
				return err
			}
			return e.showContext(named, name == all.Current)
		},
	}
}

func newContextRemoveCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove a context", Args: takes("a context's name"),
		Long: `Removes a context. Its session is not ended: sign out first, with 'tokenledger
logout --context NAME'.`,
		Example:           `  tokenledger context remove prod`,
		ValidArgsFunction: e.first(e.contexts),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := client.ReadContexts(e.contextsFile())
			if err != nil {
				return err
			}
			named, err := all.Get(args[0])
			if err != nil {
				return err
			}
			if delete(all.All, named.Name); all.Current == named.Name {
				all.Current = ""
			}
			if err := all.Write(); err != nil {
				return err
			}
			body, err := render.Encode(named)
			if err != nil {
				return err
			}
			return e.Show(body, func() { e.Printf("removed\n") })
		},
	}
}

// showContext prints a context.
func (e *env) showContext(c client.Context, current bool) error {
	body, err := render.Encode(c)
	if err != nil {
		return err
	}
	return e.Show(body, func() {
		g := e.Grid()
		g.Fact("name", c.Name)
		if current {
			g.Fact("current", "yes")
		}
		g.Fact("servers", strings.Join(c.Servers, ", "))
		g.Fact("verifier", c.Verifier)
		g.Fact("token file", c.TokenFile)
		g.Fact("fingerprint", c.Fingerprint)
		g.Fact("session", e.configFile("sessions", c.Name))
		g.End()
	})
}

// contexts completes the names of contexts.
func (e *env) contexts(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, err := client.ReadContexts(e.contextsFile())
	if err != nil {
		return nil, noFiles
	}
	return slices.DeleteFunc(all.Names(), func(name string) bool { return !strings.HasPrefix(name, prefix) }), noFiles
}
