package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/when"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newPolicyCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Show and change the rules for all tokens and sessions"}
	c.AddCommand(newPolicyShowCmd(e), newPolicySetCmd(e))
	return c
}

func newPolicyShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the policy", Args: takes(),
		Example: `  tokenledger policy show`,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.read(c, []string{"v1", "policy"}, func(a *client.Answer) error {
				var p api.PolicyInForce
				if err := json.Unmarshal(a.Body, &p); err != nil {
					return err
				}
				return e.Show(a.Body, func() { e.drawPolicy(p) })
			})
		},
	}
}

func newPolicySetCmd(e *env) *cobra.Command {
	var (
		p policyFlags
		f changeFlags
	)
	c := &cobra.Command{
		Use: "set", Short: "Change the policy",
		Long: `Changes what the flags name and keeps the rest. What the policy refuses, it also
refuses of tokens and sessions that exist already. Lifetimes apply to what is
created from then on. With --wait the command returns when no node uses the old
policy any more, and exits with 6 if that takes longer.`,
		Example: `  tokenledger policy set --max-lifetime 90d --token-issuers site_admins
  tokenledger policy set --legacy-until 2027-01-01 --url-refused --wait 45s`,
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := p.check(c); err != nil {
				return err
			}
			path := []string{"v1", "policy"}
			return e.change(c, change{
				flags: &f, noun: "change", read: path,
				request: func(_ context.Context, _ *client.Client, seen current) (client.Request, error) {
					// The API replaces the whole policy, so the fields that this
					// program does not know are sent back.
					p.apply(c.Flags(), seen.Policy)
					return client.Request{Method: http.MethodPut, Path: path, Body: seen.Policy}, nil
				},
				show: e.changedPolicy,
			})
		},
	}
	p.declare(c.Flags())
	f.declare(c.Flags())
	e.completeFlag(c, "token-issuers", oneOf("all", "site_admins", "superusers"))
	for _, name := range p.switches() {
		e.completeFlag(c, name, oneOf("on", "off"))
	}
	return c
}

// changedPolicy prints the answer to a command that changed the policy.
func (e *env) changedPolicy(a *client.Answer, got proven) error {
	var p api.PolicyInForce
	if err := json.Unmarshal(a.Body, &p); err != nil {
		return err
	}
	e.replayed(a)
	return e.Show(a.Body, func() {
		e.Printf("set at position %d%s\n\n", got.Position, receiptSummary(got.Receipt, inForce))
		e.drawPolicy(p)
	})
}

// policyFlags change parts of the policy. Each flag is named for its field.
type policyFlags struct {
	lengths map[string]*string
	on      map[string]*onOff
	issuers string
	until   string
	origins []string
	noCORS  bool
}

func (p *policyFlags) declare(flags *pflag.FlagSet) {
	p.lengths, p.on = map[string]*string{}, map[string]*onOff{}
	for _, f := range [][2]string{
		{"max-lifetime", "longest lifetime of a token, as in 90d or 1y; 0 for no limit"},
		{"default-lifetime", "default lifetime if none is given; 0 for the longest"},
		{"max-grace", "longest time that an old secret works after a rotation; 0 for none"},
		{"warn-before", "how long before its end a token counts as expiring soon; 0 for never"},
		{"session-idle", "how long a session may be unused; 0 for the default of 30m"},
		{"session-lifetime", "longest lifetime of a session; 0 for the default of 12h"},
	} {
		p.lengths[f[0]] = flags.String(f[0], "", f[1])
		flags.Lookup(f[0]).DefValue = ""
	}
	group(flags, groupLifetimes, "max-lifetime", "default-lifetime", "max-grace", "warn-before", "session-idle", "session-lifetime")
	flags.StringVar(&p.issuers, "token-issuers", "", "who can create and widen tokens: all, site_admins or superusers")
	flags.StringVar(
		&p.until,
		"legacy-until",
		"",
		`when verifiers begin to refuse secrets of 32 hexadecimal characters, `+
			`as in 2027-01-01 (UTC), "2027-01-01 06:00 UTC" or 2w; "" for never`,
	)
	for _, f := range [][2]string{
		{
			"site-admins-any-account",
			"let site admins create tokens of every account, not only of accounts within their sites",
		},
		{"legacy-refused", "refuse secrets of 32 hexadecimal characters from now on"},
		{"url-refused", "refuse tokens that were sent in a URL"},
		{"token-sign-in", "let a token open a session"},
	} {
		v := new(onOff)
		p.on[f[0]] = v
		v.declare(flags, f[0], f[1])
	}
	flags.StringSliceVar(&p.origins, "cors-origin", nil, "let scripts of pages of this origin call with a token and read the "+
		"answers, as in https://shop.example; replaces the list; repeat for more")
	flags.BoolVar(&p.noCORS, "no-cors", false, "let no scripts of pages of other origins call")
	group(flags, groupRefuse, "cors-origin", "no-cors")
	group(flags, groupIssue, "token-issuers", "site-admins-any-account")
	allowEmpty(flags, "legacy-until") // it removes the date
	group(flags, groupRefuse, "legacy-until", "legacy-refused", "url-refused", "token-sign-in")
}

// switches returns the names of the flags that are on or off.
func (p *policyFlags) switches() []string {
	return []string{"site-admins-any-account", "legacy-refused", "url-refused", "token-sign-in"}
}

// check checks the flags, before anything is sent.
func (p *policyFlags) check(c *cobra.Command) error {
	flags, named := c.Flags(), false
	for name, value := range p.lengths {
		if !flags.Changed(name) {
			continue
		}
		named = true
		if d, err := policyLength(*value); err != nil || d < 0 {
			return exit.Inputf(`--%s: must be a duration such as "36h", "90d", "2w" or "1y", or 0`, name)
		}
	}
	if p.until != "" {
		if _, err := when.Parse(p.until, time.Now(), when.Ahead); err != nil {
			return exit.Inputf("--legacy-until: %s", err)
		}
	}
	switch p.issuers {
	case "", "all", "site_admins", "superusers":
	default:
		return exit.Inputf("--token-issuers: must be all, site_admins or superusers")
	}
	for name := range p.on {
		named = named || flags.Changed(name)
	}
	if p.noCORS && len(p.origins) > 0 {
		return exit.Inputf("--cors-origin and --no-cors cannot be used together")
	}
	named = named || p.noCORS || len(p.origins) > 0
	if !named && !flags.Changed("legacy-until") && p.issuers == "" {
		return usagef(c, "give at least one flag that changes something")
	}
	return nil
}

// apply applies the flags to a policy, by the API's names, and keeps the rest.
func (p *policyFlags) apply(flags *pflag.FlagSet, policy map[string]any) {
	field := func(flag string) string { return strings.ReplaceAll(flag, "-", "_") }
	for name, value := range p.lengths {
		if !flags.Changed(name) {
			continue
		}
		if d, _ := policyLength(*value); d == 0 { // checked before
			delete(policy, field(name))
		} else {
			policy[field(name)] = d.String()
		}
	}
	if flags.Changed("max-lifetime") && !flags.Changed("default-lifetime") &&
		longer(policy["default_lifetime"], policy["max_lifetime"]) {
		delete(policy, "default_lifetime") // the default is then the new maximum
	}
	for name, value := range p.on {
		if flags.Changed(name) {
			policy[field(name)] = bool(*value)
		}
	}
	if p.issuers != "" {
		policy["token_issuers"] = p.issuers
	}
	if p.noCORS {
		delete(policy, "cors_origins")
	} else if len(p.origins) > 0 {
		policy["cors_origins"] = p.origins
	}
	if flags.Changed("legacy-until") {
		delete(policy, "legacy_until")
		if at, err := when.Parse(p.until, time.Now(), when.Ahead); err == nil {
			policy["legacy_until"] = at
		}
	}
}

// longer reports whether one duration of a policy is longer than another.
func longer(a, b any) bool {
	read := func(v any) time.Duration {
		s, _ := v.(string)
		d, _ := api.ParseDuration(s) // absent, or the API's own
		return d
	}
	return read(b) > 0 && read(a) > read(b)
}

// policyLength parses a duration or "0".
func policyLength(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	return when.Duration(s)
}

// drawPolicy prints the policy for people, with the defaults of what it does not
// set.
func (e *env) drawPolicy(p api.PolicyInForce) {
	g := e.Grid()
	length := func(name string, d *api.Duration, none string) {
		if d == nil {
			g.Fact(name, none)
			return
		}
		g.Fact(name, d.String())
	}
	yes := func(name string, on bool) { g.Fact(name, (*onOff)(&on).String()) }
	length("max lifetime", p.Policy.MaxLifetime, "no limit")
	length("default lifetime", p.Policy.DefaultLifetime, "the longest")
	length("max grace", p.Policy.MaxGrace, "none")
	length("warn before", p.Policy.WarnBefore, "never")
	g.Fact("token issuers", p.Policy.Issuers)
	yes("site admins: any account", p.Policy.AnyAccount)
	legacy := (*onOff)(&p.Policy.LegacyRefused).String()
	if at := e.TimePtr(p.Policy.LegacyUntil); at != "" && !p.Policy.LegacyRefused {
		legacy = "from " + at
	}
	g.Fact("legacy refused", legacy)
	yes("url refused", p.Policy.URLRefused)
	g.Fact("scripts of pages from", e.scopesText(p.Policy.CORSOrigins, "no other origin"))
	yes("token sign-in", p.Policy.TokenSignIn)
	length("session idle", p.Policy.SessionIdle, "30m")
	length("session lifetime", p.Policy.SessionLifetime, "12h")
	g.Fact("tokens revoked", e.cutOff(p.NotBefore, p.NotBeforePosition))
	g.Fact("version", strconv.FormatUint(p.Version, 10))
	g.End()
}
