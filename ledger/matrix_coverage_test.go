package ledger_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// note records which rows and columns of the table a cell covers.
func (m *matrix) note(c who, x cell) {
	whole := x.on.account == "" && x.on.token == ""
	for _, column := range columns {
		held := m.is(c, column.name, x.on)
		// For a cell without an account or a token, the other relations count
		// as tried elsewhere.
		switch {
		case column.name == "admin" && x.on.token == "" && !x.on.toMake:
			held = has(c.scopes, "admin:site/3") && !has(c.scopes, "superuser")
		case column.name == "account-admin" && x.on.token == "" && !x.on.toMake:
			held = m.reaches(c, x.on.account) && !has(c.scopes, "superuser")
			if whole {
				held = has(c.scopes, "admin:site/3") && !has(c.scopes, "superuser")
			}
		case whole && column.name == "whole":
			held = c.inherit
		case column.name == "itself" && x.on.toMake:
			held = c.account == x.on.account
		case whole && column.name == "account", whole && column.name == "owner":
			held = c.account != "" && c.manages() && (column.name == "account" || c.account == "olga")
		case whole && column.name == "itself":
			held = c.token != ""
		}
		m.seen[fmt.Sprintf("%s, %s: %t", x.op, column.name, held)] = true
	}
	if c.session {
		m.seen[fmt.Sprintf("%s, a person re-authenticates: %t", x.op, c.recent)] = true
	} else {
		m.seen[fmt.Sprintf("%s, a token needs manage_tokens: %t", x.op, has(c.scopes, "manage_tokens"))] = true
	}
}

// complete compares the cells with authority.md. For each operation and column,
// a caller with the relation and one without it were tried. The reference has
// the same table.
func (m *matrix) complete() {
	m.t.Helper()
	b, err := os.ReadFile("authority.md")
	if err != nil {
		m.t.Fatal(err)
	}
	var head []string
	left := maps.Clone(table)
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") {
			continue
		}
		fields := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if head == nil {
			head = fields
			continue
		}
		op := fields[0]
		said, known := left[op]
		if !known {
			m.t.Errorf("the matrix does not have %q", op)
			continue
		}
		delete(left, op)
		for i, column := range head[1:] {
			if column == "can-i" { // a name of the operation
				continue
			}
			mark := fields[i+1] != ""
			for _, held := range []bool{true, false} {
				if at := fmt.Sprintf("%s, %s: %t", op, column, held); !m.seen[at] {
					m.t.Errorf("no cell was %s", at)
				}
			}
			has := slices.Contains(strings.Fields(said.by), column) || column == "a person re-authenticates" && said.reauth || column == "a token needs manage_tokens" && said.manage
			if has != mark {
				m.t.Errorf("%s, %s: authority.md says %t, the reference %t", op, column, mark, has)
			}
		}
	}
	for op := range left {
		m.t.Errorf("authority.md does not have %q", op)
	}
	for _, o := range []string{allowed, forbidden, noReauth, notFound, ended} {
		if m.ends[o] < 100 {
			m.t.Errorf("%d cells ended with %s; that shows little", m.ends[o], o)
		}
		delete(m.ends, o)
	}
	for o, n := range m.ends {
		m.t.Errorf("%d cells ended otherwise: %s", n, o)
	}
}
