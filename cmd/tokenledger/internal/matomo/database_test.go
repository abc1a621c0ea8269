package matomo_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo"
	"github.com/tokenledger/tokenledger/cmd/tokenledger/internal/matomo/matomotest"
	"github.com/tokenledger/tokenledger/events"
)

const salt = "3f1a9c0d2b7e48f6a5c4d3e2f1b0a998"

var now = time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC)

// people are rows that every version can have: logins with all letters that Matomo
// allows, a superuser, sites that were deleted, capabilities, a permission of a plugin.
const people = `
INSERT INTO matomo_site (idsite, name) VALUES (1, 'one'), (2, 'It''s; two -- not a comment'), (3, 'three');
INSERT INTO matomo_access (login, idsite, access) VALUES
 ('anonymous', 1, 'view'), ('anna@example.org', 1, 'view'), ('anna@example.org', 2, 'write'), ('anna@example.org', 99, 'admin'),
 ('JÖRG.Straße', 3, 'admin'), ('jörg.straße', 3, 'tagmanager_write'), ('anna@example.org', 3, 'tagmanager_write'),
 ('anna@example.org', 2, 'tagmanager_publish_live_container'), ('anna@example.org', 1, 'plugin_power'),
 ('nobody', 1, 'admin'), ('anna@example.org', 1, 'noaccess');
`

func token(n int) string { return fmt.Sprintf("%032x", n) }

// fill fills the tables of a version.
func fill(s *matomotest.Server, database, version string) {
	s.Create(database, version)
	auth := func(string) string { return "" }
	column := ""
	if version == "3" {
		column = ", token_auth"
		auth = func(plain string) string { return ", '" + plain + "'" }
	}
	long := strings.Repeat("ä", 100)
	s.Exec("USE `" + database + "`; INSERT INTO matomo_user (login, email, superuser_access" + column + ") VALUES " +
		"('anonymous', 'noreply@example.org', 0" + auth("anonymous") + "), ('anna@example.org', 'anna@example.org', 0" + auth(token(1)) + "), " +
		"('jörg.straße', 'jörg@example.org', 0" + auth(token(2)) + "), ('root', 'root@example.org', 1" + auth(token(3)) + "), " +
		"('" + long + "', '', 0" + auth(token(4)) + "), ('o''hara\\\\', '', 0" + auth(token(5)) + ");" + people)
	if version == "3" {
		return
	}
	add := func(columns, values string) {
		s.Exec("INSERT INTO matomo_user_token_auth (login, description, password, hash_algo, date_created" + columns + ") VALUES " + values)
	}
	hash := func(n int) string { return matomotest.Hash(token(n), salt) }
	add(", system_token", "('anonymous', 'anonymous default token', '"+matomotest.Hash("anonymous", salt)+"', 'sha512', '2021-01-01', 0),"+
		"('root', 'archiver', '"+hash(90)+"', 'sha512', '2021-01-01', 1)")
	add(", last_used, date_expired", "('anna@example.org', 'Created by Matomo 4 migration', '"+hash(1)+"', '', '2021-02-03 04:05:06', '2024-05-06 07:08:09', NULL),"+
		"('ANNA@example.org', 'it''s \\\\ \"R&D\"\\n;', '"+hash(2)+"', 'sha512', '2022-01-01', NULL, '2027-01-01 00:00:00'),"+
		"('anna@example.org', 'expired', '"+hash(3)+"', 'sha512', '2022-01-01', NULL, '2026-03-04 05:06:07'),"+
		"('jorg.strasse', 'not the same here', '"+hash(4)+"', 'sha512', '2022-01-01', NULL, NULL),"+
		"('gone', 'of a deleted user', '"+hash(5)+"', 'sha512', '2022-01-01', NULL, NULL),"+
		"('root', 'secret "+token(7)+"', '"+hash(6)+"', 'sha512', '2022-01-01', NULL, NULL),"+
		"('root', 'other algorithm', '"+hash(8)+"', 'sha1024', '2022-01-01', NULL, NULL),"+
		"('root', 'no hash', 'abc', 'sha512', '2022-01-01', NULL, NULL)")
	switch version {
	case "5.0.0-b1":
		add(", post_only", "('root', 'post', '"+hash(20)+"', 'sha512', '2022-01-01', 1)")
	case "5":
		add(", secure_only", "('root', 'post', '"+hash(20)+"', 'sha512', '2022-01-01', 1)")
	case "6":
		add(", secure_only, access_level", "('root', 'post', '"+hash(20)+"', 'sha512', '2022-01-01', 1, NULL),"+
			"('root', 'viewer', '"+hash(21)+"', 'sha512', '2022-01-01', 0, 'view'), ('root', 'odd', '"+hash(22)+"', 'sha512', '2022-01-01', 0, 'dance')")
	}
}

// TestVersions reads the tables of every version, from the database and from dumps
// of it. Both have the same in them.
func TestVersions(t *testing.T) {
	s := matomotest.Start(t)
	for i, version := range matomotest.Versions {
		t.Run(version, func(t *testing.T) {
			database := fmt.Sprintf("matomo%d", i)
			fill(s, database, version)
			from := map[string]*matomo.Source{}
			config, err := matomo.ParseConfig([]byte(s.Config(database, salt)))
			if err != nil {
				t.Fatal(err)
			}
			dsn, err := config.DSN()
			if err != nil {
				t.Fatal(err)
			}
			if from["database"], err = matomo.Database(t.Context(), dsn, config.Prefix, now); err != nil {
				t.Fatal(err)
			}
			for name, options := range map[string][]string{
				"dump": nil, "dump with column names": {"--complete-insert"}, "dump with a row a statement": {"--skip-extended-insert"},
				"dump in hexadecimal of blobs": {"--hex-blob", "--skip-add-locks"},
			} {
				if from[name], err = matomo.Dump(bytes.NewReader(s.Dump(database, options...)), config.Prefix, now); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			for name, got := range from {
				if err := got.UseSalt(config.Salt, ""); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			for name, got := range from {
				check(t, name, version, got)
				if diff := cmp.Diff(from["database"], got, cmpopts.IgnoreUnexported(matomo.Source{}), cmpopts.SortSlices(func(a, b matomo.Token) bool {
					return bytes.Compare(a.Hash[:], b.Hash[:]) < 0
				}), cmpopts.SortSlices(func(a, b matomo.Skip) bool { return a.Name+a.Why < b.Name+b.Why })); diff != "" {
					t.Errorf("%s differs from the database: -database +dump\n%s", name, diff)
				}
			}
		})
	}
}

// check compares what was read with what [fill] wrote.
func check(t *testing.T, name, version string, s *matomo.Source) {
	t.Helper()
	wantUsers := []matomo.User{
		{Login: "anna@example.org", Mail: "anna@example.org", Grants: []string{"tagmanager_publish_live_container:site/2", "view:site/1", "write:site/2"}},
		{Login: "jörg.straße", Mail: "jörg@example.org", Grants: []string{"admin:site/3", "tagmanager_write:site/3"}},
		{Login: "root", Mail: "root@example.org", Grants: []string{"superuser"}, Superuser: true},
		{Login: strings.Repeat("ä", 100)},
	}
	if diff := cmp.Diff(wantUsers, s.Users, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: users -want +got\n%s", name, diff)
	}
	have := map[events.MatomoHash]matomo.Token{}
	for _, one := range s.Tokens {
		have[one.Hash] = one
	}
	of := func(n int) matomo.Token { return have[events.NewMatomoSalt(salt).Hash(token(n))] }
	if version == "3" {
		if len(have) != 4 || of(1).Login != "anna@example.org" || !of(1).Migrated || of(2).Login != "jörg.straße" {
			t.Errorf("%s: %d tokens: %+v", name, len(have), s.Tokens)
		}
		return
	}
	want := map[string]int{"4": 4, "5.0.0-b1": 5, "5": 5, "6": 6}[version]
	if len(have) != want {
		t.Errorf("%s: %d tokens, want %d: %+v", name, len(have), want, s.Tokens)
	}
	first := of(1)
	if !first.Migrated || !first.LastUsed.Equal(time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)) || !first.Created.Equal(time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)) || !first.Expires.IsZero() {
		t.Errorf("%s: the first token is %+v", name, first)
	}
	if second := of(2); second.Login != "anna@example.org" || !second.Expires.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) || second.Description != `it's \ "R&D"?;` {
		t.Errorf("%s: the second token is %+v", name, second)
	}
	if fourth := of(4); fourth.Login != "jörg.straße" {
		t.Errorf("%s: the token of a login that is compared the same is %+v", name, fourth)
	}
	if sixth := of(6); strings.Contains(sixth.Description, token(7)) {
		t.Errorf("%s: a description with a secret is imported: %+v", name, sixth)
	}
	if post := of(20); version != "4" && !post.HeaderOnly {
		t.Errorf("%s: the token that is not for URLs is %+v", name, post)
	}
	if viewer := of(21); version == "6" && !slices.Equal(viewer.Scopes(), []string{"view:site/*"}) {
		t.Errorf("%s: the token with an access level is %+v", name, viewer)
	}
	for _, skip := range s.Skipped {
		if strings.Contains(skip.Name+skip.Why, token(7)) {
			t.Errorf("%s: a report has a secret: %+v", name, skip)
		}
	}
	for _, want := range []string{"anonymous", "expired", "no such user", "deleted", "plugin", "without a role", "Matomo uses it itself", "of the kind", "no hash"} {
		if !slices.ContainsFunc(s.Skipped, func(k matomo.Skip) bool { return strings.Contains(k.Name+" "+k.Why, want) }) {
			t.Errorf("%s: nothing was left out for %q: %+v", name, want, s.Skipped)
		}
	}
}

// TestSalt checks right and wrong salts against the table.
func TestSalt(t *testing.T) {
	s := matomotest.Start(t)
	fill(s, "matomo", "5")
	read := func() *matomo.Source {
		t.Helper()
		got, err := matomo.Dump(bytes.NewReader(s.Dump("matomo")), "matomo_", now)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	right, wrong := events.NewMatomoSalt(salt), events.NewMatomoSalt(strings.ToUpper(salt))
	with := read()
	s.Exec("DELETE FROM matomo_user_token_auth WHERE login = 'anonymous'")
	without := read()
	for _, tt := range []struct {
		name  string
		from  *matomo.Source
		salt  events.MatomoSalt
		token string
		want  error
	}{
		{"right, by the anonymous token", with, right, "", nil},
		{"wrong, by the anonymous token", with, wrong, "", matomo.ErrWrongSalt},
		{"empty, by the anonymous token", with, events.NewMatomoSalt(""), "", matomo.ErrWrongSalt},
		{"right, by a token", without, right, token(1), nil},
		{"wrong, by a token", without, wrong, token(1), matomo.ErrWrongSalt},
		{"right, by an unknown token", without, right, token(99), matomo.ErrWrongSalt},
		{"right, by nothing", without, right, "", matomo.ErrNoCheck},
	} {
		if err := tt.from.UseSalt(tt.salt, tt.token); (err == nil) != (tt.want == nil) || err != nil && !strings.Contains(err.Error(), tt.want.Error()) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		} else if err != nil && (strings.Contains(err.Error(), salt) || strings.Contains(err.Error(), tt.token) && tt.token != "") {
			t.Errorf("%s: the error has a secret: %v", tt.name, err)
		}
	}
}

// TestDatabaseErrors connects in every wrong way. No error has the password.
func TestDatabaseErrors(t *testing.T) {
	s := matomotest.Start(t)
	s.Create("matomo", "5")
	s.Create("half", "5")
	s.Exec("USE half; ALTER TABLE matomo_user_token_auth DROP COLUMN password")
	const bad = "a-password-of-nobody"
	for name, tt := range map[string]struct{ dsn, prefix, says string }{
		"a wrong password":     {s.DSN("matomo", bad), "matomo_", "Access denied"},
		"another database":     {s.DSN("mysql", matomotest.Password), "matomo_", "denied"},
		"another prefix":       {s.DSN("matomo", matomotest.Password), "piwik_", "no table piwik_user"},
		"a prefix with SQL":    {s.DSN("matomo", matomotest.Password), "`; DROP TABLE x; --", "prefix"},
		"a table without hash": {s.DSN("half", matomotest.Password), "matomo_", "no column password"},
		"no server":            {strings.Replace(s.DSN("matomo", bad), s.Socket, s.Socket+"x", 1), "matomo_", "no such file"},
		"no port":              {matomotest.User + ":" + bad + "@tcp(127.0.0.1:1)/matomo", "matomo_", "refused"},
	} {
		dsn, err := matomo.ParseDSN(tt.dsn)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err = matomo.Database(ctx, dsn, tt.prefix, now)
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		} else if strings.Contains(err.Error(), bad) || strings.Contains(err.Error(), matomotest.Password) {
			t.Errorf("%s: the error has the password: %v", name, err)
		}
		if text := fmt.Sprintf("%v %+v %v", dsn, dsn, struct{ d matomo.DSN }{dsn}); strings.Contains(text, bad) {
			t.Errorf("%s: the DSN prints as %s", name, text)
		}
	}
	for _, text := range []string{"", "user:" + bad + "@", "user:" + bad + "@tcp(x)/", "user:" + bad + "@tcp(127.0.0.1:3306", bad} {
		if _, err := matomo.ParseDSN(text); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("ParseDSN(%q): %v", text, err)
		}
	}
}
