package method

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tokenledger/tokenledger/events"
)

//go:embed methods.tsv
var builtin string

// header begins a file of methods.
const header = "method\trequired\teffect\tsites"

// Limits of a file of methods.
const (
	MaxFile     = 1 << 20 // bytes
	maxProblems = 16
)

// ErrBadTable reports a file of methods that cannot be used.
var ErrBadTable = errors.New("bad table of methods")

// Table has the methods that are known. It is immutable.
type Table struct {
	methods  map[string]*Method // by name
	password []string           // names of methods that take a password
	added    int
}

// Builtin is the table of Matomo's own methods.
var Builtin = mustBuiltin()

func mustBuiltin() *Table {
	t := &Table{methods: map[string]*Method{}}
	if err := t.add(builtin + widgets); err != nil {
		panic(err)
	}
	t.added = 0
	for _, name := range t.Names() {
		if t.methods[name].Required == Password {
			t.password = append(t.password, name)
		}
	}
	return t
}

// With returns the table and the methods of a file. The file has the lines "method",
// "required", "effect" and "sites", separated by tabs and named by its first line; a
// line that begins with # and an empty line are ignored. A line replaces the method
// of the same name, but one that takes a password stays refused. The error is
// [ErrBadTable], with every line that is wrong.
func (t *Table) With(file string) (*Table, error) {
	u := &Table{methods: maps.Clone(t.methods), password: t.password}
	if err := u.add(file); err != nil {
		return nil, err
	}
	return u, nil
}

// Added returns how many methods a file added or replaced.
func (t *Table) Added() int { return t.added }

// PasswordMethods returns the names of Matomo's methods that take a password instead
// of a token. They are never called from outside.
func (t *Table) PasswordMethods() []string { return t.password }

// Names returns the names of all methods, sorted.
func (t *Table) Names() []string { return slices.Sorted(maps.Keys(t.methods)) }

// Find returns the method of a name that [Clean] has returned, nil if it is unknown.
func (t *Table) Find(name string) *Method { return t.methods[name] }

func (t *Table) add(file string) error {
	var problems []error
	bad := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: line %d: "+format, append([]any{ErrBadTable, line}, args...)...))
	}
	if len(file) > MaxFile {
		return fmt.Errorf("%w: it is larger than %d bytes", ErrBadTable, MaxFile)
	}
	named, seen := false, map[string]bool{}
	for i, line := range strings.Split(file, "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case line == "" || line[0] == '#':
			continue
		case !named:
			named = true
			if line != header {
				bad(i+1, "want the names of the columns, separated by tabs: method, required, effect, sites")
				return errors.Join(problems...)
			}
			continue
		}
		m, err := parse(line)
		switch {
		case err != nil:
			bad(i+1, "%w", err)
		case seen[m.Name]:
			bad(i+1, "%s is there twice", m.Name)
		case t.methods[m.Name] != nil && t.methods[m.Name].locked():
			bad(i+1, "%s is always refused, or is checked by what it contains; remove the line", m.Name)
		default:
			seen[m.Name] = true
			t.methods[m.Name] = m
			t.added++
		}
	}
	if !named {
		bad(1, "the file is empty; want the names of the columns first")
	}
	if more := len(problems) - maxProblems; more > 0 {
		problems = append(problems[:maxProblems:maxProblems], fmt.Errorf("%w: and %d more lines", ErrBadTable, more))
	}
	return errors.Join(problems...)
}

// locked reports whether a file cannot replace a method.
func (m *Method) locked() bool { return m.Required == Password || m.Effect == Meta }

// parse reads one line of a table.
func parse(line string) (*Method, error) {
	f := strings.Split(line, "\t")
	const columns = 4
	if len(f) != columns {
		return nil, fmt.Errorf("%d columns; want 4, separated by tabs", len(f))
	}
	m := &Method{Name: f[0], Required: Required(f[1]), Effect: Effect(f[2])}
	switch {
	case !validName(m.Name) || Clean(m.Name) != m.Name:
		return nil, fmt.Errorf("%s is not a method, as in VisitsSummary.get, of at most %d characters",
			events.Quote(m.Name), maxName)
	case !known(requirements, f[1]):
		return nil, fmt.Errorf("required is %s; want one of %s", events.Quote(f[1]), list(requirements))
	case !known(effects, f[2]):
		return nil, fmt.Errorf("effect is %s; want one of %s", events.Quote(f[2]), list(effects))
	case m.Effect == Meta && m.Name != Bulk:
		return nil, fmt.Errorf("effect meta is only for %s", Bulk)
	}
	if f[3] == "-" {
		return m, nil
	}
	for p := range strings.SplitSeq(f[3], ",") {
		if p != SiteParameter && p != SitesParameter || slices.Contains(m.Sites, p) {
			return nil, fmt.Errorf("sites is %s; want idSite, idSites, both with a comma between, or -", events.Quote(f[3]))
		}
		m.Sites = append(m.Sites, p)
	}
	return m, nil
}

func list[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}
