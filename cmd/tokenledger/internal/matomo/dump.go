package matomo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// Dump reads an installation from a dump that mysqldump or mariadb-dump wrote: SQL
// with CREATE TABLE and INSERT statements, as they come. It reads the file once,
// keeps only the rows that an import needs, and refuses a dump that is cut off, that
// has a table twice, or that it cannot read with certainty.
func Dump(in io.Reader, prefix string, now time.Time) (*Source, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	p := &dumpReader{
		in: bufio.NewReaderSize(in, 1<<16), prefix: prefix, s: newSource(), tables: map[string][]string{}, line: 1,
	}
	if err := p.read(); err != nil {
		return nil, fmt.Errorf("line %d: %w", p.line, err)
	}
	if !p.complete {
		return nil, errors.New("the dump is cut off: it does not end with the line \"-- Dump completed\", by which mysqldump " +
			"says that it has written all; make a new dump, without --compact and --skip-comments")
	}
	for _, table := range []string{tableUser, tableAccess, tableSite} {
		if p.tables[table] == nil {
			return nil, fmt.Errorf("the dump has no table %s; is %s the prefix of the tables?", prefix+table, events.Quote(prefix))
		}
	}
	p.s.finish(now)
	return p.s, nil
}

// errCut reports a dump that ends in the middle of a statement.
var errCut = errors.New("the dump is cut off in the middle of a statement")

// maxValue is the longest value or name that is kept.
const maxValue = 64 << 10

type tokenKind uint8

const (
	endOfFile tokenKind = iota
	symbol              // one character
	word                // name, keyword or number, without quotes
	quoted              // name in backticks
	text                // string
)

type sqlToken struct {
	kind tokenKind
	s    string
}

func (t sqlToken) is(keyword string) bool { return t.kind == word && strings.EqualFold(t.s, keyword) }
func (t sqlToken) sign(c string) bool     { return t.kind == symbol && t.s == c }

// dumpReader reads the statements of a dump.
type dumpReader struct {
	in       *bufio.Reader
	prefix   string
	s        *Source
	tables   map[string][]string // table without prefix -> its columns in order
	line     int
	complete bool // the last thing that was read is the comment at the end of a dump
	skipping bool // values of the statement are not kept
}

// read reads all statements.
func (p *dumpReader) read() error {
	for {
		p.skipping = false
		t, err := p.next()
		if err != nil {
			return err
		}
		p.skipping = true
		switch {
		case t.kind == endOfFile:
			return nil
		case t.sign(";"):
			continue
		case t.is("CREATE"):
			err = p.create()
		case t.is("INSERT"), t.is("REPLACE"):
			err = p.insert()
		case t.is("LOAD"), t.is("UPDATE"), t.is("DELETE"), t.is("ALTER"), t.is("TRUNCATE"), t.is("RENAME"), t.is("DELIMITER"):
			err = p.other(t)
		default:
			err = p.end()
		}
		if err != nil {
			return err
		}
	}
}

// other refuses a statement that changes a table that is wanted. mysqldump writes
// ALTER TABLE only to switch keys off and on, inside comments.
func (p *dumpReader) other(first sqlToken) error {
	if first.is("DELIMITER") {
		return errors.New("the dump has DELIMITER; make it without routines, events and triggers")
	}
	p.skipping = false
	for {
		t, err := p.must()
		if err != nil {
			return err
		}
		if t.sign(";") {
			return nil
		}
		if (t.kind == word || t.kind == quoted) && p.wanted(t.s) != "" {
			return fmt.Errorf("a statement %s changes the table %s; only INSERT is read", strings.ToUpper(first.s), t.s)
		}
	}
}

// wanted returns a table's name without the prefix, empty if it is not read.
func (p *dumpReader) wanted(name string) string {
	table, ok := strings.CutPrefix(name, p.prefix)
	if !ok || columns[table] == nil {
		return ""
	}
	return table
}

// end reads up to the end of a statement.
func (p *dumpReader) end() error {
	for {
		t, err := p.must()
		if err != nil || t.sign(";") {
			return err
		}
	}
}

// must returns the next token of a statement.
func (p *dumpReader) must() (sqlToken, error) {
	t, err := p.next()
	if err == nil && t.kind == endOfFile {
		err = errCut
	}
	return t, err
}

// name reads the name of a table, perhaps with that of its database.
func (p *dumpReader) name() (string, error) {
	p.skipping = false
	defer func() { p.skipping = true }()
	t, err := p.must()
	if err != nil {
		return "", err
	}
	for {
		dot, err := p.peekByte()
		if err != nil || dot != '.' {
			return t.s, err
		}
		if _, err := p.must(); err != nil {
			return "", err
		}
		if t, err = p.must(); err != nil {
			return "", err
		}
	}
}

// create reads a CREATE statement, and remembers the columns of a wanted table.
func (p *dumpReader) create() error {
	t, err := p.must()
	if err != nil {
		return err
	}
	if !t.is("TABLE") {
		if t.sign(";") {
			return nil
		}
		return p.end()
	}
	name, err := p.name()
	for err == nil && slices.Contains([]string{"IF", "NOT", "EXISTS"}, strings.ToUpper(name)) {
		name, err = p.name()
	}
	if err != nil {
		return err
	}
	table := p.wanted(name)
	if table == "" {
		return p.end()
	}
	if p.tables[table] != nil {
		return fmt.Errorf("the table %s is there twice; make a dump of one database", name)
	}
	if p.tables[table], err = p.definition(); err != nil {
		return err
	}
	have := p.tables[table]
	return p.s.checkColumns(table, func(c string) bool { return index(have, c) >= 0 })
}

// definition reads the columns of a CREATE TABLE statement, and its end. Each line of
// the definition that begins with a name in backticks is a column.
func (p *dumpReader) definition() (list []string, err error) {
	p.skipping = false
	depth, first := 0, false
	list = []string{}
	for {
		t, err := p.must()
		switch {
		case err != nil:
			return nil, err
		case t.sign("("):
			depth++
			first = depth == 1
			continue
		case t.sign(")"):
			depth--
		case t.sign(",") && depth == 1:
			first = true
			continue
		case t.sign(";"):
			if depth != 0 {
				return nil, errors.New("a statement ends inside parentheses")
			}
			return list, nil
		case first && depth == 1 && t.kind == quoted:
			list = append(list, strings.ToLower(t.s))
		}
		first = false
	}
}

func index(list []string, s string) int {
	for i := range list {
		if list[i] == s {
			return i
		}
	}
	return -1
}

// insert reads an INSERT or REPLACE statement.
func (p *dumpReader) insert() error {
	for {
		name, err := p.name()
		if err != nil {
			return err
		}
		switch strings.ToUpper(name) {
		case "INTO", "IGNORE", "LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY":
			continue
		}
		table := p.wanted(name)
		if table == "" {
			return p.end()
		}
		if p.tables[table] == nil {
			return fmt.Errorf("rows of the table %s come before its CREATE TABLE; make the dump without --no-create-info", name)
		}
		return p.rows(table)
	}
}

// rows reads the rows of an INSERT statement.
func (p *dumpReader) rows(table string) error {
	p.skipping = false
	r := &dumpRow{names: p.tables[table]}
	t, err := p.must()
	if err != nil {
		return err
	}
	if t.sign("(") {
		r.names = []string{}
		for !t.sign(")") {
			if t, err = p.must(); err != nil {
				return err
			}
			if t.kind == quoted || t.kind == word {
				r.names = append(r.names, strings.ToLower(t.s))
			}
		}
		if t, err = p.must(); err != nil {
			return err
		}
		if err := p.s.checkColumns(table, func(c string) bool { return index(r.names, c) >= 0 }); err != nil {
			return err
		}
	}
	if !t.is("VALUES") && !t.is("VALUE") {
		return errors.New("an INSERT statement without VALUES")
	}
	for {
		if err := p.row(r); err != nil {
			return err
		}
		p.s.add(table, r)
		t, err := p.must()
		switch {
		case err != nil:
			return err
		case t.sign(";"):
			return nil
		case !t.sign(","):
			return errors.New("a row is not followed by a comma or the end of the statement")
		}
	}
}

// row reads one row.
func (p *dumpReader) row(r *dumpRow) error {
	r.values = r.values[:0]
	if t, err := p.must(); err != nil || !t.sign("(") {
		return orUnread(err)
	}
	for {
		v, err := p.value()
		if err != nil {
			return err
		}
		r.values = append(r.values, v)
		t, err := p.must()
		switch {
		case err != nil:
			return err
		case t.sign(")"):
			if len(r.values) != len(r.names) {
				return fmt.Errorf("a row has %d values for %d columns", len(r.values), len(r.names))
			}
			return nil
		case !t.sign(","):
			return errUnread
		}
	}
}

var errUnread = errors.New("a row has something else than strings, numbers and NULL")

func orUnread(err error) error {
	if err == nil {
		return errUnread
	}
	return err
}

// value reads a string, a number or NULL.
func (p *dumpReader) value() (dumpValue, error) {
	t, err := p.must()
	if err != nil {
		return dumpValue{}, err
	}
	switch {
	case t.kind == text:
		return dumpValue{t.s, true}, nil
	case t.is("NULL"):
		return dumpValue{}, nil
	case t.is("_binary") || t.is("_utf8mb4") || t.is("_utf8"):
		if t, err = p.must(); err == nil && t.kind == text {
			return dumpValue{t.s, true}, nil
		}
		return dumpValue{}, orUnread(err)
	case t.sign("-"):
		if t, err = p.must(); err == nil && t.kind == word && isNumber(t.s) {
			return dumpValue{"-" + t.s, true}, nil
		}
		return dumpValue{}, orUnread(err)
	case t.kind == word && isNumber(t.s):
		return dumpValue{t.s, true}, nil
	}
	return dumpValue{}, errUnread
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789.eE+") == "" && s[0] <= '9'
}

// dumpRow is a row of an INSERT statement.
type dumpRow struct {
	names  []string
	values []dumpValue
}

type dumpValue struct {
	s  string
	ok bool // not NULL
}

func (r *dumpRow) text(column string) (string, bool) {
	if i := index(r.names, column); i >= 0 {
		return r.values[i].s, r.values[i].ok
	}
	return "", false
}
