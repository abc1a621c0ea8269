package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tokenledger/tokenledger/events"
)

// usage prints how a command is called.
func usage(c *cobra.Command) error {
	var b strings.Builder
	group := c.HasAvailableSubCommands()
	line := c.UseLine()
	if group {
		line = c.CommandPath() + " COMMAND"
	}
	if c.Runnable() || group {
		fmt.Fprintf(&b, "Usage:\n  %s\n", line)
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	listCommands(&b, "Commands", c, (*cobra.Command).IsAvailableCommand)
	listCommands(&b, "More help", c, (*cobra.Command).IsAdditionalHelpTopicCommand)
	if flags := c.LocalFlags(); flags.HasAvailableFlags() {
		fmt.Fprintf(&b, "\nFlags:\n%s", flags.FlagUsages())
	}
	if flags := c.InheritedFlags(); flags.HasAvailableFlags() && c.Runnable() && !group {
		fmt.Fprintf(&b, "\nFlags of every command:\n%s", flags.FlagUsages())
	}
	_, err := io.WriteString(c.OutOrStderr(), strings.TrimPrefix(b.String(), "\n"))
	return err
}

func listCommands(w io.Writer, headline string, c *cobra.Command, want func(*cobra.Command) bool) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, sub := range c.Commands() {
		if !want(sub) {
			continue
		}
		if headline != "" {
			fmt.Fprintf(w, "\n%s:\n", headline)
			headline = ""
		}
		fmt.Fprintf(tw, "  %s\t%s\n", sub.Name(), sub.Short)
	}
	_ = tw.Flush() // to memory
}

// newHelpCmd differs from cobra's in that an unknown topic is an error.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND | TOPIC]",
		Short: "Help about a command or a topic, such as exit-codes",
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef(c, "there is no help about %s", events.Quote(strings.Join(args, " ")))
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var out []cobra.Completion
			for _, sub := range about.Commands() {
				if strings.HasPrefix(sub.Name(), prefix) && !sub.Hidden {
					out = append(out, cobra.CompletionWithDesc(sub.Name(), sub.Short))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// suggest names the commands that s may have been meant for.
func suggest(c *cobra.Command, s string) string {
	const likeness = 2 // letters that differ
	if c.SuggestionsMinimumDistance <= 0 {
		c.SuggestionsMinimumDistance = likeness
	}
	if names := c.SuggestionsFor(s); len(names) > 0 {
		return "; perhaps you mean " + strings.Join(names, " or ")
	}
	return ""
}

// takes checks the number of arguments against their names. A last name that
// ends in "..." stands for one or more.
func takes(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		many := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
		switch {
		case len(args) < len(names):
			return usagef(c, "%s needs %s", c.CommandPath(), strings.TrimSuffix(names[len(args)], "..."))
		case len(args) > len(names) && !many:
			return usagef(c, "%s does not take %s", c.CommandPath(), events.Quote(args[len(names)]))
		}
		return nil
	}
}
