package main

import (
	"github.com/spf13/pflag"
)

// importedFlags select imported tokens.
type importedFlags struct {
	source           string
	legacy, migrated bool
	unused           durationFlag
}

func (f *importedFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&f.source, "source", "", "tokens imported from the installation with this name, as in matomo")
	flags.BoolVar(&f.legacy, "legacy", false, "imported tokens that still have all rights of their account")
	flags.BoolVar(&f.migrated, "migrated", false, "imported tokens that Matomo 4 made of those of version 3")
	flags.Var(&f.unused, "unused-for",
		"imported tokens that Matomo, at the last import, had not seen in use for this long, as in 180d")
	group(flags, groupSelect, "source", "legacy", "migrated", "unused-for")
}

// given reports whether a flag selects tokens.
func (f *importedFlags) given(flags *pflag.FlagSet) bool {
	return flags.Changed("source") || f.legacy || f.migrated || f.unused != 0
}

func (f *importedFlags) query() []string {
	yes := func(b bool) string {
		if b {
			return "true"
		}
		return ""
	}
	return []string{
		"source", f.source, "legacy", yes(f.legacy), "migrated", yes(f.migrated), "unused_for", f.unused.String(),
	}
}

// body adds the flags to a request, and returns what they select in words.
func (f *importedFlags) body(body map[string]any) (words []string) {
	if f.source != "" {
		body["source"], words = f.source, append(words, "imported from "+f.source)
	}
	if f.legacy {
		body["legacy"], words = true, append(words, "imported and not narrowed")
	}
	if f.migrated {
		body["migrated"], words = true, append(words, "migrated from Matomo 3")
	}
	if f.unused != 0 {
		body["unused_for"], words = f.unused.String(), append(words, "not used in Matomo for "+f.unused.String())
	}
	return words
}
