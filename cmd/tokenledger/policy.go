package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/ledger/api"
)

func newPolicyCmd(e *env) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Look at and change what holds for every token and session"}
	c.AddCommand(newPolicyShowCmd(e), newPolicySetCmd(e))
	return c
}

func newPolicyShowCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the policy", Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			a, err := ledger.Do(c.Context(), client.Request{Method: http.MethodGet, Path: []string{"v1", "policy"}})
			if err != nil {
				return err
			}
			var p api.PolicyInForce
			if err := json.Unmarshal(a.Body, &p); err != nil {
				return err
			}
			return e.Show(a.Body, func() { e.drawPolicy(p) })
		},
	}
}

func newPolicySetCmd(e *env) *cobra.Command {
	var (
		change  policyFlags
		version versionFlags
		wait    waitFlags
		key     keyFlag
	)
	c := &cobra.Command{
		Use: "set", Short: "Change the policy",
		Long: `Changes what is named, and leaves the rest. What the policy refuses it refuses of
tokens and sessions that exist too; longest lives are for what is made from then
on. With --wait the command ends when no node goes by the old policy any more; it
exits with 6 where that takes longer.`,
		Example: `  tokenledger policy set --max-life 90d --token-makers site_admins
  tokenledger policy set --plain-until 2027-01-01 --url-refused --wait 45s`,
		Args: takes(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := change.check(c); err != nil {
				return err
			}
			if err := version.check(); err != nil {
				return err
			}
			if err := wait.check(c.Flags()); err != nil {
				return err
			}
			key, err := key.key()
			if err != nil {
				return err
			}
			ledger, err := e.ledger(c.Context())
			if err != nil {
				return err
			}
			// The API replaces all of it, so fields that this program does not know
			// have to come through.
			var seen struct {
				Policy  map[string]any `json:"policy"`
				Version uint64         `json:"version"`
			}
			if err := ledger.Get(c.Context(), []string{"v1", "policy"}, &seen); err != nil {
				return err
			}
			change.apply(c.Flags(), seen.Policy)
			a, got, err := wait.change(c.Context(), e, ledger, client.Request{
				Method: http.MethodPut, Path: []string{"v1", "policy"}, Body: seen.Policy, Key: key, IfMatch: version.ifMatch(seen.Version),
			})
			if err != nil {
				return err
			}
			var p api.PolicyInForce
			if err := json.Unmarshal(a.Body, &p); err != nil {
				return err
			}
			e.replayed(a)
			if err := e.Show(a.Body, func() {
				e.Printf("set at position %d%s\n\n", got.Position, effect(got.Receipt, inForce))
				e.drawPolicy(p)
			}); err != nil {
				return err
			}
			return wait.unproven(e, got, "change")
		},
	}
	change.declare(c.Flags())
	version.declare(c.Flags())
	wait.declare(c.Flags(), false)
	key.declare(c.Flags())
	e.completeFlag(c, "token-makers", oneOf("all", "site_admins", "superusers"))
	for _, name := range change.switches() {
		e.completeFlag(c, name, oneOf("on", "off"))
	}
	return c
}

// policyFlags change parts of the policy. Each flag is named for its field.
type policyFlags struct {
	lengths map[string]*string
	on      map[string]*onOff
	makers  string
	until   string
}

func (p *policyFlags) declare(flags *pflag.FlagSet) {
	p.lengths, p.on = map[string]*string{}, map[string]*onOff{}
	for _, f := range [][2]string{
		{"max-life", "the longest that a token may live, as in 90d; 0 for ever"},
		{"default-life", "how long a token lives whose maker does not say; 0 for as long as it may"},
		{"max-grace", "the longest that an old secret works after a rotation; 0 for not at all"},
		{"warn-before", "how long before its end a token counts as expiring soon; 0 for never"},
		{"session-idle", "for how long a session may rest; 0 for the usual 30m"},
		{"session-life", "the longest that a session may be; 0 for the usual 12h"},
	} {
		p.lengths[f[0]] = flags.String(f[0], "", f[1])
		flags.Lookup(f[0]).DefValue = ""
	}
	flags.StringVar(&p.makers, "token-makers", "", "who makes and widens tokens: all, site_admins or superusers")
	flags.StringVar(&p.until, "plain-until", "", `when secrets of 32 hexadecimal characters end, as in 2027-01-01 (in UTC) or 2027-01-01T06:00:00Z; "" for never`)
	for _, f := range [][2]string{
		{"site-admins-any-account", "let admins of a site make tokens of every account, not only of those within their sites: on or off"},
		{"plain-refused", "refuse secrets of 32 hexadecimal characters from now on: on or off"},
		{"url-refused", "refuse tokens that travelled in a URL: on or off"},
		{"token-sign-in", "let a token begin a session: on or off"},
	} {
		v := new(onOff)
		p.on[f[0]] = v
		v.declare(flags, f[0], f[1])
	}
}

// switches returns the names of the flags that are on or off.
func (p *policyFlags) switches() []string {
	return []string{"site-admins-any-account", "plain-refused", "url-refused", "token-sign-in"}
}

// check reports what is wrong with the flags, before anything is sent.
func (p *policyFlags) check(c *cobra.Command) error {
	flags, named := c.Flags(), false
	for name, value := range p.lengths {
		if !flags.Changed(name) {
			continue
		}
		named = true
		if d, err := policyLength(*value); err != nil || d < 0 {
			return exit.Inputf(`--%s: want a length of time such as "36h" or "90d", or 0`, name)
		}
	}
	if p.until != "" {
		if _, err := policyTime(p.until); err != nil {
			return exit.Inputf("--plain-until: want a day such as 2027-01-01, or a time such as 2027-01-01T06:00:00Z")
		}
	}
	switch p.makers {
	case "", "all", "site_admins", "superusers":
	default:
		return exit.Inputf("--token-makers: want all, site_admins or superusers")
	}
	for name := range p.on {
		named = named || flags.Changed(name)
	}
	if !named && !flags.Changed("plain-until") && p.makers == "" {
		return usagef(c, "name something to change")
	}
	return nil
}

// apply puts what the flags say into a policy, by the API's names, and leaves
// the rest of it.
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
	if flags.Changed("max-life") && !flags.Changed("default-life") && longer(policy["default_life"], policy["max_life"]) {
		delete(policy, "default_life") // which then is as long as a token may live
	}
	for name, value := range p.on {
		if flags.Changed(name) {
			policy[field(name)] = bool(*value)
		}
	}
	if p.makers != "" {
		policy["token_makers"] = p.makers
	}
	if flags.Changed("plain-until") {
		delete(policy, "plain_until")
		if at, err := policyTime(p.until); err == nil {
			policy["plain_until"] = at
		}
	}
}

// longer reports whether one of a policy's lengths of time is more than another.
func longer(a, b any) bool {
	read := func(v any) time.Duration {
		s, _ := v.(string)
		d, _ := api.ParseDuration(s) // absent, or written by this program or by the API
		return d
	}
	return read(b) > 0 && read(a) > read(b)
}

// policyLength reads a length of time, or 0.
func policyLength(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	return api.ParseDuration(s)
}

// policyTime reads a day or a time.
func policyTime(s string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day, nil
	}
	return time.Parse(time.RFC3339, s)
}

// drawPolicy prints the policy for people, with what is meant where it says
// nothing.
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
	length("max life", p.Policy.MaxLife, "for ever")
	length("default life", p.Policy.DefaultLife, "as long as it may")
	length("max grace", p.Policy.MaxGrace, "none")
	length("warn before", p.Policy.WarnBefore, "never")
	g.Fact("token makers", p.Policy.Makers)
	yes("site admins: any account", p.Policy.AnyAccount)
	plain := (*onOff)(&p.Policy.PlainRefused).String()
	if at := e.TimePtr(p.Policy.PlainUntil); at != "" && !p.Policy.PlainRefused {
		plain = "from " + at
	}
	g.Fact("plain refused", plain)
	yes("url refused", p.Policy.URLRefused)
	yes("token sign-in", p.Policy.TokenSignIn)
	length("session idle", p.Policy.SessionIdle, "30m")
	length("session life", p.Policy.SessionLife, "12h")
	g.Fact("tokens before", e.TimePtr(p.TokensBefore))
	g.Fact("tokens until", positionOrNone(p.TokensUntil))
	g.Fact("version", strconv.FormatUint(p.Version, 10))
	g.End()
}
