package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/term"
	"github.com/tokenledger/tokenledger/events"
)

// help prints what a command does and how to call it, wrapped to the terminal.
func help(c *cobra.Command) {
	width := term.Width(c.OutOrStdout())
	about := c.Long
	if about == "" {
		about = c.Short + "."
	}
	_, _ = io.WriteString(c.OutOrStdout(), render.Wrap(about, width)+"\n\n")
	_, _ = io.WriteString(c.OutOrStdout(), usageText(c, width))
}

// usage prints how to call a command.
func usage(c *cobra.Command) error {
	_, err := io.WriteString(c.OutOrStderr(), usageText(c, term.Width(c.OutOrStderr())))
	return err
}

// usageText returns how to call a command, with its flags by purpose.
func usageText(c *cobra.Command, width int) string {
	var b strings.Builder
	isGroup := c.HasAvailableSubCommands()
	line := c.UseLine()
	if isGroup {
		line = c.CommandPath() + " COMMAND"
	}
	if c.Runnable() || isGroup {
		fmt.Fprintf(&b, "Usage:\n%s\n", render.Indent(line, width, "  ", "      "))
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlias:\n  %s\n", strings.Join(c.Aliases, ", "))
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	if !c.HasParent() {
		for _, g := range c.Groups() {
			listCommands(
				&b,
				g.Title,
				c,
				func(sub *cobra.Command) bool { return sub.GroupID == g.ID && sub.IsAvailableCommand() },
			)
		}
		listCommands(
			&b,
			"Other commands",
			c,
			func(sub *cobra.Command) bool { return sub.GroupID == "" && sub.IsAvailableCommand() },
		)
	} else {
		listCommands(&b, "Commands", c, (*cobra.Command).IsAvailableCommand)
	}
	listCommands(&b, "More help", c, (*cobra.Command).IsAdditionalHelpTopicCommand)
	listFlags(&b, "Flags", grouped(c.LocalFlags(), ""), width)
	for _, title := range flagGroups {
		listFlags(&b, title, grouped(c.LocalFlags(), title), width)
	}
	if c.HasParent() && !isGroup && c.Runnable() {
		every := grouped(c.InheritedFlags(), "")
		every.AddFlag(c.Flags().Lookup("help"))
		listFlags(&b, "Flags of every command", every, width)
	}
	return strings.TrimPrefix(b.String(), "\n")
}

func listFlags(w io.Writer, headline string, flags *pflag.FlagSet, width int) {
	flags.SortFlags = false
	if flags.HasFlags() {
		fmt.Fprintf(w, "\n%s:\n%s", headline, flags.FlagUsagesWrapped(width))
	}
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

// newHelpCmd returns the help command. It refuses unknown topics, other than
// cobra's.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND | TOPIC]",
		Short: "Show help about a command or a topic, such as exit-codes",
		Example: `  tokenledger help token create
  tokenledger help exit-codes`,
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef(c, "there is no help topic %s", events.Quote(strings.Join(args, " ")))
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
		ValidArgsFunction: func(
			c *cobra.Command, args []string, prefix string,
		) ([]cobra.Completion, cobra.ShellCompDirective) {
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
		return "; did you mean " + strings.Join(names, " or ")
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
