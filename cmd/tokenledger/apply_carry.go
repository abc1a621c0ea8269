package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/client"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/manifest"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
	"github.com/tokenledger/tokenledger/events"
)

// carrier carries out a plan.
type carrier struct {
	e      *env
	f      *applyFlags
	ledger *client.Client
	plan   *manifest.Plan
	files  map[string]*secretFile // by the name of the token
	last   int                    // the last step that takes rights away, -1 for none
	proof  proven
	done   int
	list   []applied
}

// carry makes the changes of a plan, and prints them as they are made.
func (e *env) carry(ctx context.Context, f *applyFlags, ledger *client.Client, plan *manifest.Plan) error {
	c := &carrier{e: e, f: f, ledger: ledger, plan: plan, last: -1, list: make([]applied, len(plan.Steps))}
	for i, s := range plan.Steps {
		if s.Narrows {
			c.last = i
		}
	}
	defer c.close()
	if err := c.open(); err != nil {
		return err
	}
	done, err := plan.Carry(func(s *manifest.Step, r client.Request) (*client.Answer, error) {
		a, err := c.send(ctx, s, r)
		if err != nil {
			return nil, c.stopped(s, err)
		}
		err = c.show(s, a)
		c.done++
		return a, err
	})
	if show := c.showEnd(max(done, c.done)); show != nil {
		return show
	}
	if err != nil {
		return err
	}
	if c.last >= 0 {
		return f.wait.unproven(e, c.proof, "changes")
	}
	return nil
}

// open creates the files of the secrets, so that one that cannot be written stops
// everything before the first change.
func (c *carrier) open() error {
	c.files = map[string]*secretFile{}
	steps := c.plan.Secrets()
	if c.f.secrets == "" || len(steps) == 0 {
		return nil
	}
	if err := os.Mkdir(c.f.secrets, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return exit.Inputf("--secrets-dir: cannot create %s: %s. Nothing was done",
			c.f.secrets, exit.Cause(err, c.f.secrets))
	}
	for _, s := range steps {
		file := &secretFile{flag: "secrets-dir", path: filepath.Join(c.f.secrets, secretName(&s))}
		if _, err := os.Lstat(file.path); err == nil {
			return exit.Inputf("--secrets-dir: %s exists, but there is no token %s: the file is of a token that has ended, or "+
				"of an earlier run that was killed. Move the file away and run the command again. Nothing was done",
				file.path, s.Name)
		}
		if err := file.open(); err != nil {
			return err
		}
		c.files[s.Name] = file
	}
	return nil
}

func (c *carrier) close() {
	for _, file := range c.files {
		file.close()
	}
}

// send sends the request of a step. The last step that takes rights away waits until
// all of them are in force.
func (c *carrier) send(ctx context.Context, s *manifest.Step, r client.Request) (*client.Answer, error) {
	if c.done == c.last {
		a, got, err := c.f.wait.change(ctx, c.e, c.ledger, r)
		c.proof = got
		if err != nil && got.Position > 0 {
			c.list[c.done].Position = got.Position
			c.done++ // only the wait was interrupted
		}
		return a, err
	}
	file := c.files[s.Name]
	format, known := secretFormat(c.ledger)
	if !s.Secret || file == nil || !known {
		return c.ledger.Do(ctx, r)
	}
	// A secret that is in its file before the token exists cannot get lost.
	secret := format.NewSecret(events.AccountKind(s.AccountKind))
	digest := secret.Digest()
	s.Body["secret_digest"] = hex.EncodeToString(digest[:])
	if err := file.write(secret.Reveal()); err != nil {
		return nil, exit.Inputf("cannot write the secret to %s: %s", file.path, exit.Cause(err, file.path))
	}
	a, err := c.ledger.Do(ctx, r)
	var f *exit.Failure
	if errors.As(err, &f) {
		file.kept = f.Key != "" || f.Code == exit.Interrupted // the token may exist
	}
	return a, err
}

// show prints a step that was made, and puts its secret where it belongs.
func (c *carrier) show(s *manifest.Step, a *client.Answer) error {
	var got tokenAnswer
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return err
	}
	one := &c.list[c.done]
	one.Position = got.Position
	if c.e.Format.Tabular() {
		c.e.drawStep(s, " at position "+strconv.FormatUint(got.Position, 10))
	}
	if !s.Secret {
		return nil
	}
	file := c.files[s.Name]
	switch {
	case file != nil && file.kept:
		one.SecretFile = file.path
	case got.Secret == "":
		return c.e.noSecret(got)
	case file != nil:
		one.SecretFile = file.path
		if err := file.store(c.e, got.Secret); err != nil {
			return err
		}
	default:
		one.Secret = got.Secret
	}
	if c.e.Format.Tabular() {
		if file != nil {
			c.e.Printf("    The secret is in %s\n", render.Escape(file.path))
		} else {
			c.e.Printf("\nThe secret, shown only this once:\n%s\n\n", got.Secret)
		}
	}
	return nil
}

// showEnd prints the answer for programs, and for people how it ended.
func (c *carrier) showEnd(done int) error {
	body, err := applyAnswer(c.plan, false, done, c.list)
	if err != nil {
		return err
	}
	return c.e.Show(body, func() {
		switch n := len(c.plan.Steps); {
		case n == 0:
			c.e.Printf("no change\n")
		case done == n && c.proof.Receipt != nil:
			c.e.Printf("\n%s made%s\n", changes(n), receiptSummary(c.proof.Receipt, inForce))
		case done == n:
			c.e.Printf("\n%s made\n", changes(n))
		}
		c.e.spared(c.plan)
	})
}

// stopped adds to the refusal of a step what was done and what was not.
func (c *carrier) stopped(at *manifest.Step, err error) error {
	var f *exit.Failure
	if !errors.As(err, &f) {
		return err
	}
	rest := make([]string, 0, len(c.plan.Steps)-c.done)
	for i := range c.plan.Steps[c.done:] {
		rest = append(rest, c.plan.Steps[c.done+i].Title())
	}
	text := strings.TrimSuffix(strings.TrimSuffix(f.Text, ", or change it at any version with --force"), ".")
	text = strings.TrimPrefix(text, at.Action+" "+at.Kind+": ")
	f.Text = at.Title() + ": " + text + ". " + strconv.Itoa(c.done) + " of " + strconv.Itoa(len(c.plan.Steps)) +
		" changes were made"
	if len(rest) == 0 {
		return f
	}
	f.Text += "; not made: " + shortenWith(", ", rest)
	// The command has no flag for a key: repeating it is enough.
	if f.Key != "" {
		f.Text += ". It is unknown whether the first of these was made" + c.unknownSecret(at)
	}
	f.Key = ""
	if f.Code == exit.NotAllowed && at.Action == "create" && at.Kind == "account" {
		f.Text += ". If the account " + at.Name + " exists, you cannot see it"
	}
	narrows := func(s manifest.Step) bool { return s.Narrows }
	if c.f.wait.on && c.done <= c.last && slices.ContainsFunc(c.plan.Steps[:c.done], narrows) {
		f.Text += ". The command did not wait until the changes made are in force on every node"
	}
	f.Text += ". Run the command again to go on"
	return f
}

// unknownSecret says where the secret of a token is that may have been created.
func (c *carrier) unknownSecret(s *manifest.Step) string {
	switch file := c.files[s.Name]; {
	case !s.Secret:
		return ""
	case file != nil && file.kept:
		return "; if so, its secret is in " + file.path + ", else move that file away"
	}
	return "; if so, its secret is lost, and 'tokenledger token rotate' creates a new one"
}

// inScopes matches the place of a bad scope in a problem of the API.
var inScopes = regexp.MustCompile(`^body\.scopes\[([0-9]+)\]$`)

// checkScopes asks the ledger whether it knows the permissions of a file, so that one
// that it does not know is a mistake before anything is changed.
func checkScopes(ctx context.Context, ledger *client.Client, file *manifest.File) error {
	scopes, lines := file.Scopes()
	var wrong manifest.Mistakes
	for part := range slices.Chunk(scopes, events.MaxScopes) {
		_, err := ledger.Do(ctx, client.Request{
			Method: http.MethodPost, Path: []string{"v1", "can-i"}, Asks: true,
			Body: map[string]any{"verb": "create token", "scopes": part},
		})
		p := client.Problem(err)
		if p == nil {
			continue // the changes themselves are refused if something else is wrong
		}
		for _, field := range p.Errors {
			if m := inScopes.FindStringSubmatch(field.Location); m != nil {
				if i, err := strconv.Atoi(m[1]); err == nil && i < len(part) {
					wrong = append(wrong, manifest.Mistake{Line: lines[part[i]], Text: field.Message})
				}
			}
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}
