package matomo

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/directory"
)

// The tables, without their prefix.
const (
	tableUser   = "user"
	tableAccess = "access"
	tableSite   = "site"
	tableToken  = "user_token_auth"
)

// columns are the ones that are read of each table. Not every version has all.
var columns = map[string][]string{
	tableUser:   {"login", "email", "superuser_access", "token_auth"},
	tableAccess: {"login", "idsite", "access"},
	tableSite:   {"idsite"},
	tableToken: {
		"idusertokenauth", "login", "description", "password", "hash_algo", "system_token", "last_used",
		"date_created", "date_expired", "post_only", "secure_only", "access_level",
	},
}

// Migrated is the description of the tokens that Matomo 4 made of those of version 3.
const Migrated = "Created by Matomo 4 migration"

// Source is what was read of an installation.
type Source struct {
	Schema  string // versions of Matomo that have these tables
	Users   []User
	Tokens  []Token
	Skipped []Skip
	// Rows counts the rows that were read of each table.
	Rows map[string]int

	anonymous []events.MatomoHash // hashes of the user anonymous
	hashes    map[events.MatomoHash]bool

	users  []*userRow
	exact  map[string]*userRow   // login -> user
	folded map[string][]*userRow // login as Matomo compares it -> users
	access []accessRow
	sites  map[string]bool
	tokens []tokenRow
}

// User is a user to import.
type User struct {
	Login     string
	Mail      string
	Grants    []string // scopes
	Superuser bool
}

// Token is a token to import.
type Token struct {
	ID          string // of the row; empty in Matomo 2 and 3
	Login       string // of a user in Users
	Hash        events.MatomoHash
	Description string
	Created     time.Time // zero if unknown
	LastUsed    time.Time // zero if never or unknown
	Expires     time.Time // zero for never
	HeaderOnly  bool
	Level       string // view, write or admin; empty if it inherits
	Migrated    bool
}

// Scopes returns the scopes that narrow the token, none if it inherits.
func (t *Token) Scopes() []string {
	if t.Level == "" {
		return nil
	}
	return []string{t.Level + ":site/*"}
}

// Skip is something that is not imported, and why.
type Skip struct {
	What string `json:"what"` // user, access or token
	Name string `json:"name"` // of the user or the token
	Why  string `json:"why"`
	// Note means that nothing was expected to be imported.
	Note bool `json:"note,omitempty"`
}

type userRow struct {
	User
	plain   string // token of Matomo 2 and 3
	hasRole map[string]bool
	grants  map[string]bool
	bad     bool
}

type accessRow struct{ login, site, access string }

type tokenRow struct {
	Token
	hash, algo string
	system     bool
	expired    bool // at the zero date
	badExpiry  bool
}

func newSource() *Source {
	return &Source{
		Rows: map[string]int{}, hashes: map[events.MatomoHash]bool{},
		exact: map[string]*userRow{}, folded: map[string][]*userRow{}, sites: map[string]bool{},
	}
}

// row is one row of a table.
type row interface {
	// text returns the value of a column, and false if it is NULL or not there.
	text(column string) (string, bool)
}

func get(r row, column string) string {
	s, _ := r.text(column)
	return s
}

func yes(r row, column string) bool { n, _ := strconv.Atoi(get(r, column)); return n != 0 }

// add adds a row of a table.
func (s *Source) add(table string, r row) {
	s.Rows[table]++
	switch table {
	case tableUser:
		u := &userRow{
			User:  User{Login: get(r, "login"), Mail: get(r, "email"), Superuser: yes(r, "superuser_access")},
			plain: get(r, "token_auth"), hasRole: map[string]bool{}, grants: map[string]bool{},
		}
		s.users = append(s.users, u)
		s.exact[u.Login] = u
		form := fold(u.Login)
		s.folded[form] = append(s.folded[form], u)
	case tableAccess:
		s.access = append(s.access, accessRow{get(r, "login"), get(r, "idsite"), get(r, "access")})
	case tableSite:
		s.sites[get(r, "idsite")] = true
	case tableToken:
		s.tokens = append(s.tokens, readToken(r))
	}
}

func readToken(r row) tokenRow {
	t := tokenRow{
		Token: Token{
			ID: get(r, "idusertokenauth"), Login: get(r, "login"), Description: get(r, "description"),
			HeaderOnly: yes(r, "secure_only") || yes(r, "post_only"), Level: get(r, "access_level"),
		},
		hash: get(r, "password"), algo: get(r, "hash_algo"), system: yes(r, "system_token"),
	}
	t.Migrated = t.Description == Migrated
	t.Created, _ = readTime(get(r, "date_created"))
	t.LastUsed, _ = readTime(get(r, "last_used"))
	if text, ok := r.text("date_expired"); ok {
		var err error
		t.Expires, err = readTime(text)
		t.badExpiry = err != nil
		t.expired = t.Expires.IsZero() // Matomo compares it with now
	}
	return t
}

// readTime reads a DATETIME, which Matomo keeps in UTC. It is zero for the zero date.
func readTime(s string) (time.Time, error) {
	if s == "" || strings.HasPrefix(s, "0000-00-00") {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateTime, s)
	if err != nil || t.Year() < 1970 {
		return time.Time{}, errors.New("not a time")
	}
	return t, nil
}

// fold returns the form in which Matomo's database compares logins.
func fold(login string) string { return directory.Fold(strings.TrimRight(login, " ")) }

// user returns the user with a login. A login that is only spelled the same by the
// database's rules must be that of one user.
func (s *Source) user(login string) *userRow {
	if u := s.exact[login]; u != nil {
		return u
	}
	if same := s.folded[fold(login)]; len(same) == 1 {
		return same[0]
	}
	return nil
}

// finish makes users and tokens of the rows.
func (s *Source) finish(now time.Time) {
	s.Schema = "4 to 6"
	if s.Rows[tableToken] == 0 && slices.ContainsFunc(s.users, func(u *userRow) bool { return u.plain != "" }) {
		s.Schema = "2 or 3"
	}
	s.finishUsers()
	s.finishAccess()
	for _, u := range s.users {
		if u.bad {
			continue
		}
		u.Grants = slices.Sorted(maps.Keys(u.grants))
		if u.Superuser {
			u.Grants = []string{events.Superuser.String()}
		}
		if len(u.Grants) > events.MaxScopes {
			u.bad = true
			s.skip("user", u.Login, "it has access to %d sites; an account can have %d grants", len(u.Grants), events.MaxScopes)
			continue
		}
		s.Users = append(s.Users, u.User)
	}
	slices.SortFunc(s.Users, func(a, b User) int { return strings.Compare(a.Login, b.Login) })
	for i := range s.tokens {
		s.finishToken(&s.tokens[i], now)
	}
}

const anonymous = "anonymous"

func (s *Source) finishUsers() {
	for _, u := range s.users {
		switch same := s.folded[fold(u.Login)]; {
		case u.Login == anonymous:
			u.bad = true
			s.note("user", u.Login, "it is not a person; the gateway decides what is public")
		case len(same) > 1:
			u.bad = true
			s.skip("user", u.Login, "the ledger, and some collations of Matomo's database, take %s and %s for one login; rename one",
				quote(same[0].Login), quote(same[1].Login))
		default:
			if err := directory.CheckLogin(u.Login); err != nil {
				u.bad = true
				s.skip("user", u.Login, "the ledger cannot have this login: %s", err)
			}
		}
	}
}

// permissions are the values of access that become scopes, and whether each is a
// role. A capability counts only beside a role.
var permissions = map[string]bool{
	"view": true, "write": true, "admin": true,
	"tagmanager_write": false, "tagmanager_publish_live_container": false, "tagmanager_use_custom_templates": false,
}

func (s *Source) finishAccess() {
	known := s.access[:0]
	for _, a := range s.access {
		u := s.user(a.login)
		role, ok := permissions[a.access]
		name := fmt.Sprintf("%s: %s on site %s", display(a.login), display(a.access), display(a.site))
		switch {
		case u != nil && u.Login == anonymous:
			s.note("access", name, "the user anonymous is not imported")
		case u == nil:
			s.skip("access", name, "there is no such user")
		case a.access == "noaccess":
			// Older versions of Matomo write this for no access.
		case !s.sites[a.site]:
			s.note("access", name, "the site was deleted")
		case !ok:
			s.skip("access", name, "the permission model has no such permission; it comes from a plugin")
		default:
			if role {
				u.hasRole[a.site] = true
			}
			known = append(known, a)
		}
	}
	for _, a := range known {
		u := s.user(a.login)
		if !permissions[a.access] && !u.hasRole[a.site] {
			s.skip("access", fmt.Sprintf("%s: %s on site %s", display(a.login), a.access, display(a.site)),
				"a capability without a role has no effect in Matomo")
			continue
		}
		u.grants[a.access+":site/"+a.site] = true
	}
}

func (s *Source) finishToken(t *tokenRow, now time.Time) {
	name := fmt.Sprintf("%s of %s", quote(t.Description), quote(t.Login))
	if t.ID != "" {
		name = "row " + display(t.ID) + ", " + name
	}
	hash, err := events.ParseMatomoHash(t.hash)
	u := s.user(t.Login)
	if fold(t.Login) == anonymous && err == nil {
		s.anonymous = append(s.anonymous, hash)
	}
	if err == nil {
		s.hashes[hash] = true
	}
	switch {
	case fold(t.Login) == anonymous:
		s.note("token", name, "the user anonymous has no token")
	case t.system:
		s.note("token", name, "Matomo uses it itself")
	case err != nil:
		s.skip("token", name, "it has no hash that this version knows")
	case t.algo != "" && t.algo != "sha512":
		s.skip("token", name, "its hash is of the kind %s", quote(t.algo))
	case u == nil:
		s.skip("token", name, "there is no such user")
	case u.bad:
		s.skip("token", name, "the user is not imported")
	case t.badExpiry:
		s.skip("token", name, "its end cannot be read")
	case t.expired || !t.Expires.IsZero() && !now.Before(t.Expires):
		s.note("token", name, "it has expired")
	case t.Level != "" && !permissions[t.Level]:
		s.skip("token", name, "the access level %s is unknown", quote(t.Level))
	default:
		t.Hash, t.Login = hash, u.Login
		if slices.ContainsFunc(s.anonymous, func(h events.MatomoHash) bool { return h == hash }) {
			s.skip("token", name, "it has the hash of the user anonymous")
			return
		}
		t.Description = s.label(name, t.Description)
		s.Tokens = append(s.Tokens, t.Token)
	}
}

// label returns a description as the ledger can keep it. A text that the log may not
// hold is replaced: the token itself is wanted.
func (s *Source) label(name, text string) string {
	const limit = 100 // bytes, of a label
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if events.LooksSecret(clean) {
		s.note("token", "a token", "its description holds something like a secret, and is left out")
		return "imported from Matomo"
	}
	for len(clean) > limit {
		_, size := utf8.DecodeLastRuneInString(clean)
		clean = clean[:len(clean)-size]
	}
	if clean != text {
		s.note("token", name, "its description was changed to fit")
	}
	return clean
}

// usePlain hashes the plain tokens of Matomo 2 and 3, and forgets them.
func (s *Source) usePlain(salt events.MatomoSalt) {
	if s.Schema != "2 or 3" {
		return
	}
	for _, u := range s.users {
		switch name := "that of " + quote(u.Login); {
		case u.Login == anonymous || u.plain == "":
		case u.bad:
			s.skip("token", name, "the user is not imported")
		case !events.IsMatomoShape(u.plain):
			s.skip("token", name, "it is not 32 lower-case hexadecimal characters")
		default:
			s.Tokens = append(s.Tokens, Token{
				Login: u.Login, Hash: salt.Hash(u.plain), Description: "Matomo 3 token", Migrated: true,
			})
		}
	}
	for _, u := range s.users {
		u.plain = ""
	}
}

// ErrWrongSalt reports a salt that is not the installation's.
var ErrWrongSalt = errors.New("the salt does not fit the table of tokens; is this config.ini.php that of this database?")

// ErrNoCheck reports that the table cannot tell whether a salt is right.
var ErrNoCheck = errors.New("the table does not have the token of the user anonymous, by which the salt is checked; " +
	"name a file with a token that works now (--check-token-file)")

// UseSalt checks the salt against the table, by the token of the user anonymous or by a
// token that works (empty for none), and takes over the plain tokens of Matomo 2 and
// 3, which it hashes.
func (s *Source) UseSalt(salt events.MatomoSalt, token string) error {
	if s.Schema == "2 or 3" {
		s.usePlain(salt)
		return s.checkPlain(salt, token)
	}
	if token != "" {
		if !s.hashes[salt.Hash(token)] {
			return fmt.Errorf("the token in --check-token-file is not in the table with this salt: %w", ErrWrongSalt)
		}
		return nil
	}
	if len(s.tokens) == 0 {
		return nil // nothing to import, and nothing to check by
	}
	want := salt.Hash(anonymous)
	if s.hashes[want] {
		return nil
	}
	if len(s.anonymous) > 0 {
		return ErrWrongSalt
	}
	return ErrNoCheck
}

// checkPlain checks that a token is one of those that were hashed.
func (s *Source) checkPlain(salt events.MatomoSalt, token string) error {
	if token == "" || slices.ContainsFunc(s.Tokens, func(t Token) bool { return t.Hash == salt.Hash(token) }) {
		return nil
	}
	return errors.New("the token in --check-token-file is not in the table")
}

func (s *Source) skip(what, name, why string, args ...any) {
	s.Skipped = append(s.Skipped, Skip{What: what, Name: name, Why: fmt.Sprintf(why, args...)})
}

func (s *Source) note(what, name, why string) {
	s.Skipped = append(s.Skipped, Skip{What: what, Name: name, Why: why, Note: true})
}

// quote returns a text of the database for a message.
func quote(s string) string { return events.Quote(s) }

// display is quote without quotes for plain texts.
func display(s string) string {
	if q := events.Quote(s); q != `"`+s+`"` || s == "" {
		return q
	}
	return s
}
