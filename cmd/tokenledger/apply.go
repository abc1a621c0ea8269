package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/manifest"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/ledger/api"
)

// applyFlags say which file to apply, and what may be done.
type applyFlags struct {
	file                          scopesFile
	dry, prune, yes, self, admins bool
	secrets                       string
	wait                          waitFlags
}

func (f *applyFlags) declare(flags *pflag.FlagSet) {
	f.file.flag = "file"
	flags.StringVarP(&f.file.path, "file", "f", "", "file of YAML or JSON; - for standard input")
	flags.BoolVar(&f.dry, "dry-run", false, "change nothing, and show what would change")
	flags.BoolVar(&f.prune, "prune", false,
		"revoke the tokens that the file does not list, of accounts whose tokens it lists")
	flags.BoolVar(&f.yes, "yes", false, "confirm that --prune revokes tokens, forever")
	flags.BoolVar(&f.self, "include-self", false, "let --prune revoke your own token too")
	declareAdmin(flags, &f.admins)
	flags.StringVar(&f.secrets, "secrets-dir", "",
		"write the secret of each new token to a new file in this folder, which only you can read")
	group(flags, groupSecret, "secrets-dir")
	f.wait.declare(flags, true)
}

func newApplyCmd(e *env) *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Make accounts, grants and tokens match a file", Args: takes(),
		Long: `Makes accounts, their grants and their tokens match a file of YAML or JSON, which
'tokenledger export' prints. What the file leaves out stays as it is: other
accounts, an account without the key grants, a token without expires_at. An empty
value removes: grants: [], owner: "".

  accounts:
    - login: shop
      kind: service            # or user
      owner: anna              # also name, mail, state: suspended
      grants: [view:site/3, track:site/3]
      tokens:
        - app: report          # app and device tell its tokens apart
          scopes: [view:site/3]    # or inherit: true
          expires_at: 2031-12-31   # or, for a new token, expires_in: 90d
          constraints: {cidrs: [192.0.2.0/24], header_only: true}

All mistakes of the file are reported together, with their lines, and nothing is
changed. Times without a zone are UTC. Accounts that you may not see count as absent.

Changes that take rights away come first, your own rights included, then accounts,
grants and tokens. Edits take effect only if the account or token is as it was read;
suspending, resuming and revoking always do. Your rights and the policy's lifetimes are
checked with each change. At the first refusal the command stops and says what was
done; repeat it to go on.

Only --prune revokes tokens: those that the file does not list, of accounts for
which it has the key tokens. It never touches root or accounts that the file does not
name. No account is erased or renamed.

The secret of one new token is shown once. Several need --secrets-dir, which gets a
file named LOGIN~APP~DEVICE for each, before the token is created. If the command is
killed in between, the file is left without a token: the next run changes nothing
until you move that file away.`,
		Example: `  tokenledger apply -f tokens.yaml --dry-run
  tokenledger apply -f tokens.yaml --secrets-dir secrets
  tokenledger apply -f tokens.yaml --prune --dry-run
  tokenledger apply -f tokens.yaml --prune --yes`,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case f.file.path == "":
				return usagef(c, "name the file with -f")
			case f.dry && f.yes:
				return exit.Inputf("--dry-run and --yes cannot be used together")
			case f.self && !f.prune, f.yes && !f.prune:
				return usagef(c, "--yes and --include-self work only with --prune")
			}
			if err := f.wait.check(c.Flags()); err != nil {
				return err
			}
			return e.apply(c.Context(), &f)
		},
	}
	f.declare(c.Flags())
	return c
}

// apply plans the changes, and makes them unless it is a dry run.
func (e *env) apply(ctx context.Context, f *applyFlags) error {
	text, name, err := f.file.read(ctx, e)
	if err != nil {
		return err
	}
	file, err := manifest.Parse([]byte(text))
	if err != nil {
		return e.badFile(name, err)
	}
	ledger, err := e.ledger(ctx)
	if err != nil {
		return err
	}
	state, err := readState(ctx, ledger, func(s *manifest.State) []api.Account { return s.Find(file) })
	if err != nil {
		return err
	}
	plan, err := manifest.Make(file, state, manifest.Options{Prune: f.prune, IncludeSelf: f.self, Now: time.Now()})
	if err != nil {
		return e.badFile(name, err)
	}
	if err := checkScopes(ctx, ledger, file); err != nil {
		return e.badFile(name, err)
	}
	if f.dry {
		return e.showPlan(plan)
	}
	if err := f.confirm(plan, file, state); err != nil {
		return err
	}
	return e.carry(ctx, f, ledger, plan)
}

// badFile returns the failure for the mistakes of a file.
func (e *env) badFile(name string, err error) error {
	var list manifest.Mistakes
	if !errors.As(err, &list) {
		return err
	}
	f := exit.Failf(exit.Usage, "bad_file", "%s has %d mistakes, so nothing was changed", name, len(list))
	if len(list) == 1 {
		f.Text = name + " has a mistake, so nothing was changed"
	}
	if e.Format.Machine() {
		problem, bad := json.Marshal(map[string]any{"code": f.Name, "detail": f.Text, "errors": list})
		f.Problem = problem
		return errors.Join(bad, f)
	}
	for _, m := range list {
		e.Note("%s: %s", render.Escape(name), render.Escape(m.String()))
	}
	return f
}

// readState reads all accounts, and the tokens of some.
func readState(
	ctx context.Context, ledger *client.Client, some func(*manifest.State) []api.Account,
) (*manifest.State, error) {
	s := &manifest.State{Tokens: map[string][]api.Token{}}
	var me api.Whoami
	if err := ledger.Get(ctx, []string{"v1", "whoami"}, &me); err != nil {
		return nil, err
	}
	s.Self = me.Token
	var err error
	r := client.Request{Path: []string{"v1", "accounts"}, Query: client.Query("erased", "false")}
	if s.Accounts, err = allOf[api.Account](ctx, ledger, r); err != nil {
		return nil, err
	}
	for _, a := range some(s) {
		r := client.Request{Path: []string{"v1", "tokens"}, Query: client.Query("account", a.ID)}
		if s.Tokens[a.ID], err = allOf[api.Token](ctx, ledger, r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// allOf reads a whole list.
func allOf[T any](ctx context.Context, ledger *client.Client, r client.Request) (list []T, err error) {
	err = ledger.Pages(ctx, r, client.Extent{All: true}, func(p client.Page) error {
		for _, raw := range p.Items {
			var item T
			if err := json.Unmarshal(raw, &item); err != nil {
				return err
			}
			list = append(list, item)
		}
		return nil
	})
	return list, err
}

// confirm refuses what the flags do not allow, before anything is changed.
func (f *applyFlags) confirm(plan *manifest.Plan, file *manifest.File, state *manifest.State) error {
	if pruned := plan.Pruned(); len(pruned) > 0 && !f.yes {
		names := make([]string, len(pruned))
		for i, s := range pruned {
			names[i] = s.Name + " (" + s.ID + ")"
		}
		return exit.Failf(exit.Usage, "needs_confirmation",
			"this revokes %s, forever: %s. Nothing was changed. To confirm, add --yes", tokens(len(names)),
			shortenWith(", ", names))
	}
	if n := len(plan.Secrets()); n > 1 && f.secrets == "" {
		return exit.Failf(exit.Usage, "needs_secrets_dir",
			"this creates %d tokens, whose secrets cannot be shown again. Nothing was changed. Name a folder for them with "+
				"--secrets-dir", n)
	}
	if f.admins {
		return nil
	}
	for i := range plan.Steps {
		s := &plan.Steps[i]
		if err := confirmScopes(false, s.Adds); err != nil {
			return exit.Failf(exit.Usage, "needs_confirmation", "%s: %s. Nothing was changed", s.Name, err)
		}
		if with := administers(state.GrantsOf(file, s.Account)); s.Inherits && with != "" {
			return exit.Failf(exit.Usage, "needs_confirmation",
				"%s: the token would inherit %s, so it could change the rights of others. To confirm, add --allow-admin. "+
					"Nothing was changed", s.Name, with)
		}
	}
	return nil
}

// showPlan prints what would be done.
func (e *env) showPlan(plan *manifest.Plan) error {
	body, err := applyAnswer(plan, true, 0, nil)
	if err != nil {
		return err
	}
	return e.Show(body, func() {
		for i := range plan.Steps {
			e.drawStep(&plan.Steps[i], "")
		}
		if len(plan.Steps) == 0 {
			e.Printf("no change\n")
		} else {
			e.Printf("\n%s would be made; nothing was changed\n", changes(len(plan.Steps)))
		}
		e.spared(plan)
	})
}

func changes(n int) string {
	if n == 1 {
		return "1 change"
	}
	return strconv.Itoa(n) + " changes"
}

func (e *env) drawStep(s *manifest.Step, done string) {
	for i, line := range s.Lines() {
		if i == 0 {
			line += done
		}
		e.Printf("%s\n", render.Escape(line))
	}
}

func (e *env) spared(plan *manifest.Plan) {
	if plan.Spared {
		e.Printf("your own token is not in the file and was left; --include-self revokes it too\n")
	}
}

// applied is a change in the answer for programs.
type applied struct {
	manifest.Step
	Done       bool   `json:"done"`
	Position   uint64 `json:"position,omitempty"`
	Secret     string `json:"secret,omitempty"`
	SecretFile string `json:"secret_file,omitempty"`
}

// applyAnswer returns the answer for programs: the changes, of which the first are
// done, with what is known of them.
func applyAnswer(plan *manifest.Plan, dry bool, done int, results []applied) ([]byte, error) {
	list := make([]applied, len(plan.Steps))
	copy(list, results)
	for i := range list {
		list[i].Step, list[i].Done = plan.Steps[i], i < done
	}
	return render.Encode(map[string]any{
		"changes": list, "done": done, "dry_run": dry, "self_spared": plan.Spared,
	})
}

// secretName returns the name of the file of a token's secret.
func secretName(s *manifest.Step) string {
	parts := []string{s.Account, s.App, s.Device}
	for len(parts) > 1 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	for i, part := range parts {
		parts[i] = fileEscape(part)
	}
	return strings.Join(parts, "~")
}

// fileEscape escapes what is not a letter, a digit or one of . _ - + @, so that two
// texts never share a name.
func fileEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if strings.IndexByte("._-+@", c) >= 0 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
