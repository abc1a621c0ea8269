package main

import "github.com/spf13/pflag"

// The groups in which help lists flags, in the order of help. Flags without a
// group come first.
const (
	groupSelect      = "Which ones"
	groupLabels      = "Account and labels"
	groupRights      = "Rights"
	groupLifetime    = "Lifetime"
	groupConstraints = "Constraints"
	groupSecret      = "Secret"
	groupLifetimes   = "Lifetimes"
	groupIssue       = "Who may create tokens"
	groupRefuse      = "What verifiers and sign-in refuse"
	groupListen      = "Addresses"
	groupLog         = "The log and its cluster"
	groupChecks      = "Checks and secrets"
	groupMatomo      = "Gateway in front of Matomo"
	groupUpkeep      = "Logging, upkeep and recovery"
	groupPaging      = "Paging"
	groupWait        = "Waiting"
	groupSafety      = "Safe retries and concurrent changes"
)

var flagGroups = []string{
	groupSelect, groupLabels, groupRights, groupLifetime, groupLifetimes, groupConstraints, groupSecret,
	groupIssue, groupRefuse,
	groupListen, groupLog, groupChecks, groupMatomo, groupUpkeep,
	groupPaging, groupWait, groupSafety,
}

// groupKey is the annotation of a flag that has its group.
const groupKey = "group"

// group puts flags into a group of help.
func group(flags *pflag.FlagSet, title string, names ...string) {
	for _, name := range names {
		if err := flags.SetAnnotation(name, groupKey, []string{title}); err != nil {
			panic(err) // the flag is declared a few lines above
		}
	}
}

// grouped returns the flags of a group that help shows, "" for those without one.
// The flag for help itself is not among them.
func grouped(flags *pflag.FlagSet, title string) *pflag.FlagSet {
	some := pflag.NewFlagSet("", pflag.ContinueOnError)
	some.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		of := ""
		if g := f.Annotations[groupKey]; len(g) > 0 {
			of = g[0]
		}
		if of == title && !f.Hidden && f.Name != "help" {
			some.AddFlag(f)
		}
	})
	return some
}
