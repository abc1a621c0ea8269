package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/exit"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/render"
)

// importCounts count accounts or tokens by the result of their import.
type importCounts struct {
	Read      int `json:"read"` // rows in Matomo
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	Ended     int `json:"ended_in_ledger"` // they were revoked, and stay so
	Deleted   int `json:"deleted_in_matomo"`
	Skipped   int `json:"skipped"` // as expected: expired, anonymous, Matomo's own
	Refused   int `json:"refused"`
}

// importedToken is a token in a report.
type importedToken struct {
	ID       string     `json:"id,omitempty"` // empty in a dry run that would create it
	Login    string     `json:"login"`
	App      string     `json:"app"`
	LastUsed *time.Time `json:"last_used"`
}

// importReport says what an import did, or would do.
type importReport struct {
	Source   string       `json:"source"`
	Schema   string       `json:"matomo"`
	DryRun   bool         `json:"dry_run"`
	Accounts importCounts `json:"accounts"`
	Tokens   importCounts `json:"tokens"`
	// Problems are what was not imported though it should be, and Notes what was
	// left out as expected.
	Problems []matomo.Skip `json:"problems"`
	Notes    []matomo.Skip `json:"notes"`
	// Migrated tokens come from Matomo 3, and may follow from an old password. Unused
	// ones were not used for UnusedFor.
	Migrated  []importedToken `json:"migrated"`
	Unused    []importedToken `json:"unused"`
	UnusedFor string          `json:"unused_for"`
	Deleted   []importedToken `json:"deleted_in_matomo"`
	Emptied   []string        `json:"accounts_deleted_in_matomo"`
	TooMany   string          `json:"not_ended,omitempty"` // why none of Deleted was revoked

	tooMany *exit.Failure
	unused  time.Duration
	now     time.Time
}

func newImportReport(f *matomoFlags, s *matomo.Source) *importReport {
	r := &importReport{
		Source: f.source, Schema: s.Schema, DryRun: f.dry, Problems: []matomo.Skip{}, Notes: []matomo.Skip{},
		Migrated: []importedToken{}, Unused: []importedToken{}, Deleted: []importedToken{}, Emptied: []string{},
		unused: time.Duration(f.unused), now: time.Now(),
	}
	if r.unused == 0 {
		r.unused = 180 * 24 * time.Hour
	}
	r.UnusedFor = r.unused.String()
	r.Accounts.Read, r.Tokens.Read = s.Rows["user"], s.Rows["user_token_auth"]
	return r
}

func (r *importReport) problem(what, name, why string) {
	r.Problems = append(r.Problems, matomo.Skip{What: what, Name: name, Why: why})
}

// about lists a token that was imported, if its owner should look at it.
func (r *importReport) about(t *matomo.Token, id string) {
	shown := importedToken{ID: id, Login: t.Login, App: t.Description}
	used := t.Created
	if !t.LastUsed.IsZero() {
		used, shown.LastUsed = t.LastUsed, &t.LastUsed
	}
	if t.Migrated {
		r.Migrated = append(r.Migrated, shown)
	}
	if !used.IsZero() && r.now.Sub(used) >= r.unused {
		r.Unused = append(r.Unused, shown)
	}
}

func (r *importReport) deleted(id, app, login string) {
	r.Deleted = append(r.Deleted, importedToken{ID: id, App: app, Login: login})
}

func (r *importReport) emptied(login string) { r.Emptied = append(r.Emptied, login) }

// finish adds what the reading left out.
func (r *importReport) finish(s *matomo.Source) {
	for _, k := range s.Skipped {
		counts := &r.Accounts
		switch k.What {
		case "token":
			counts = &r.Tokens
		case "access":
			counts = &importCounts{}
		}
		if k.Note {
			r.Notes = append(r.Notes, k)
			counts.Skipped++
		} else {
			r.Problems = append(r.Problems, k)
			counts.Refused++
		}
	}
	if r.tooMany != nil {
		r.TooMany = r.tooMany.Text
	}
	byLogin := func(a, b importedToken) int { return strings.Compare(a.Login+"\x00"+a.App, b.Login+"\x00"+b.App) }
	slices.SortFunc(r.Migrated, byLogin)
	slices.SortFunc(r.Unused, byLogin)
}

// changed reports whether the pass changed something.
func (r *importReport) changed() bool {
	of := func(c importCounts) int { return c.Created + c.Updated + c.Deleted }
	return of(r.Accounts)+of(r.Tokens) > 0
}

// failure is how the command ends.
func (r *importReport) failure() error {
	if r.tooMany != nil {
		return r.tooMany
	}
	return nil
}

// showImport prints a report.
func (e *env) showImport(r *importReport) error {
	body, err := render.Encode(r)
	if err != nil {
		return err
	}
	return e.Show(body, func() { e.drawImport(r) })
}

func (e *env) drawImport(r *importReport) {
	done := "imported from"
	if r.DryRun {
		done = "would be imported from"
	}
	e.Printf("%s %s (tables of Matomo %s)\n\n", done, render.Escape(r.Source), r.Schema)
	e.Printf("%-10s %8s %8s %8s %10s %8s %8s %8s\n", "", "IN TABLE", "NEW", "UPDATED", "UNCHANGED", "DELETED", "LEFT OUT", "PROBLEMS")
	for _, line := range []struct {
		name string
		c    importCounts
	}{{"accounts", r.Accounts}, {"tokens", r.Tokens}} {
		c := line.c
		e.Printf("%-10s %8d %8d %8d %10d %8d %8d %8d\n", line.name, c.Read, c.Created, c.Updated, c.Unchanged, c.Deleted,
			c.Skipped, c.Refused)
	}
	if r.Tokens.Ended > 0 {
		e.Printf("\n%s revoked in the ledger before, and stay so\n", tokens(r.Tokens.Ended))
	}
	e.drawSkips("Not imported", r.Problems)
	e.drawSkips("Left out", r.Notes)
	e.drawImported("From Matomo 3; they may follow from old passwords: rotate or revoke them (token revoke --migrated)", r.Migrated)
	e.drawImported("Not used for "+spanText(r.unused)+" (token revoke --unused-for)", r.Unused)
	e.drawImported("Matomo no longer has", r.Deleted)
	if len(r.Emptied) > 0 {
		e.Printf("\nUsers that Matomo no longer has: %s\n", render.Escape(shortenWith(", ", r.Emptied)))
	}
	if r.DryRun {
		e.Printf("\nnothing was changed\n")
	}
}

// mostShown is how many lines of each list a person is shown; -o json has all.
const mostShown = 20

func (e *env) drawSkips(title string, list []matomo.Skip) {
	if len(list) == 0 {
		return
	}
	e.Printf("\n%s:\n", title)
	for i, s := range list {
		if i == mostShown {
			e.Printf("  and %d more; -o json lists them\n", len(list)-i)
			return
		}
		e.Printf("  %s %s: %s\n", s.What, render.Escape(s.Name), render.Escape(s.Why))
	}
}

func (e *env) drawImported(title string, list []importedToken) {
	if len(list) == 0 {
		return
	}
	e.Printf("\n%s:\n", title)
	for i, t := range list {
		if i == mostShown {
			e.Printf("  and %d more; -o json lists them\n", len(list)-i)
			return
		}
		used := ""
		if t.LastUsed != nil {
			used = ", last used " + t.LastUsed.Format(time.DateOnly)
		}
		e.Printf("  %s\n", render.Escape(fmt.Sprintf("%s %q of %s%s", t.ID, t.App, t.Login, used)))
	}
}

// spanText shows a time in days, if it is some.
func spanText(d time.Duration) string {
	if day := 24 * time.Hour; d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}
