package ledger_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// anna creates the account of a person with a name and a mail address.
func (k *fixture) anna() events.AccountID {
	k.t.Helper()
	r, err := k.CreateAccount(k.t.Context(), k.root, "", ledger.CreateAccount{
		Login: "anna", Kind: "user", Person: ledger.Person{Name: "Anna Ek", Mail: "anna@example.org"},
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return r.Account.ID
}

// editPerson changes the fields that are not nil.
func (k *fixture) editPerson(key string, id events.AccountID, name, mail *string) ledger.AccountResult {
	k.t.Helper()
	r, err := k.EditAccount(k.t.Context(), k.root, key, string(id), 0, ledger.EditAccount{Name: name, Mail: mail})
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

// personIs fails the test unless an account has the personal data.
func (k *fixture) personIs(id events.AccountID, name, mail string) {
	k.t.Helper()
	got, err := k.GetAccount(k.t.Context(), k.root, string(id))
	if want := (ledger.Person{Name: name, Mail: mail}); err != nil || got.Person != want || got.Login != "anna" {
		k.t.Errorf("the account has %q, %+v (%v), want %+v", got.Login, got.Person, err, want)
	}
}

// TestEditPerson changes name and mail, each alone and both.
func TestEditPerson(t *testing.T) {
	k := newFixture(t)
	id := k.anna()
	const mail, name = events.PersonMail, events.PersonName
	for _, tt := range []struct {
		edit   ledger.EditAccount
		fields []events.PersonField
		want   ledger.Person
	}{
		{ledger.EditAccount{Name: ptr("Anna Berg")}, []events.PersonField{name}, ledger.Person{Name: "Anna Berg", Mail: "anna@example.org"}},
		{ledger.EditAccount{Mail: ptr("berg@example.org")}, []events.PersonField{mail}, ledger.Person{Name: "Anna Berg", Mail: "berg@example.org"}},
		{ledger.EditAccount{Name: ptr("Änna Ôtre")}, []events.PersonField{name}, ledger.Person{Name: "Änna Ôtre", Mail: "berg@example.org"}},
		{ledger.EditAccount{Mail: ptr("")}, []events.PersonField{mail}, ledger.Person{Name: "Änna Ôtre"}},
		{ledger.EditAccount{SelfService: ptr(false)}, nil, ledger.Person{Name: "Änna Ôtre"}},
		{ledger.EditAccount{Name: ptr(""), Mail: ptr("a@example.org"), SelfService: ptr(true)}, []events.PersonField{mail, name}, ledger.Person{Mail: "a@example.org"}},
		{ledger.EditAccount{Name: ptr(""), Mail: ptr("a@example.org")}, []events.PersonField{mail, name}, ledger.Person{Mail: "a@example.org"}},
		{ledger.EditAccount{Name: ptr(strings.Repeat("é", 100))}, []events.PersonField{name}, ledger.Person{Name: strings.Repeat("é", 100), Mail: "a@example.org"}},
	} {
		r, err := k.EditAccount(t.Context(), k.root, "", "ANNA", k.version(id), tt.edit)
		if err != nil {
			t.Fatal(err)
		}
		change := k.event(r.Position, string(id), events.KindAccountEdited).Change.(*events.AccountEdited)
		if !slices.Equal(change.Person, tt.fields) || change.Owner != nil || (change.SelfService == nil) != (tt.edit.SelfService == nil) {
			t.Errorf("the event of %+v is %+v", tt.edit, change)
		}
		if r.Account.Person != tt.want || r.Account.Login != "anna" || r.Account.Version != r.Position || r.Replayed {
			t.Errorf("answered with %q, %+v at %d, want %+v", r.Account.Login, r.Account.Person, r.Position, tt.want)
		}
		k.personIs(id, tt.want.Name, tt.want.Mail)
		list, _, err := k.ListAccounts(t.Context(), k.root, ledger.AccountFilter{Kind: "user"}, "", 10)
		if err != nil || len(list) != 1 || list[0].Person != tt.want {
			t.Errorf("listed as %+v, %v", list, err)
		}
	}
	// Service accounts have names too.
	if _, err := k.CreateAccount(t.Context(), k.root, "", ledger.CreateAccount{Login: "shop", Kind: "service"}); err != nil {
		t.Fatal(err)
	}
	if r, err := k.EditAccount(t.Context(), k.root, "", "shop", 0, ledger.EditAccount{Name: ptr("Shop"), Owner: ptr("anna")}); err != nil || r.Account.Name != "Shop" || r.Account.Owner != id {
		t.Errorf("a service account's name: %+v, %v", r.Account, err)
	}
}

func (k *fixture) version(id events.AccountID) ledger.Precondition {
	k.t.Helper()
	a, err := k.view.Account(id)
	if err != nil {
		k.t.Fatal(err)
	}
	return a.Version
}

func TestEditPersonRefused(t *testing.T) {
	k := newFixture(t)
	ctx := t.Context()
	id := k.anna()
	gone := k.account("gone")
	if _, err := k.EraseAccount(ctx, k.root, "", "gone", 0, ledger.Erasure{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.CreateAccount(ctx, k.root, "", ledger.CreateAccount{Login: "shop", Kind: "service"}); err != nil {
		t.Fatal(err)
	}
	secret := events.DefaultFormat.NewSecret(events.UserAccount).Reveal()
	name := func(s string) ledger.EditAccount { return ledger.EditAccount{Name: &s} }
	mail := func(s string) ledger.EditAccount { return ledger.EditAccount{Mail: &s} }
	herself := authz.Principal{Account: id, Session: events.NewSessionID(k.now.Now()), Authenticated: k.now.Now(), Inherit: true}
	nobody := authz.Principal{Account: k.account("nobody"), Scopes: []events.Scope{events.MustScope("admin:site/*"), events.ManageTokens}}
	for _, tt := range []struct {
		what    string
		as      authz.Principal
		account string
		seen    ledger.Precondition
		edit    ledger.EditAccount
		want    error
		says    string
	}{
		{"nothing", k.root, "anna", 0, ledger.EditAccount{}, ledger.ErrInvalid, "nothing to change"},
		{"name too long", k.root, "anna", 0, name(strings.Repeat("x", 201)), ledger.ErrInvalid, "name: is 201 bytes"},
		{"control character", k.root, "anna", 0, name("a\x00b"), ledger.ErrInvalid, "name: holds a control"},
		{"name of two lines", k.root, "anna", 0, name("a\nb"), ledger.ErrInvalid, "name: holds a control"},
		{"name that turns the line around", k.root, "anna", 0, name("\u202eanna"), ledger.ErrInvalid, "name: holds a control"},
		{"name in bad UTF-8", k.root, "anna", 0, name("\xff"), ledger.ErrInvalid, "name: holds a control"},
		{"name that is a secret", k.root, "anna", 0, name(secret), ledger.ErrInvalid, "name: holds a secret"},
		{"mail too long", k.root, "anna", 0, mail(strings.Repeat("x", 243) + "@example.org"), ledger.ErrInvalid, "mail: is 255 bytes"},
		{"mail with a line after it", k.root, "anna", 0, mail("a@example.org\r\nBcc: b@example.org"), ledger.ErrInvalid, "mail: must be a single address"},
		{"mail with a letter that looks like another", k.root, "anna", 0, mail("аnna@example.org"), ledger.ErrInvalid, "mail: contains letters outside ASCII"},
		{"two mails", k.root, "anna", 0, mail("a@example.org, b@example.org"), ledger.ErrInvalid, "mail: must be a single address"},
		{"good name, bad mail", k.root, "anna", 0, ledger.EditAccount{Name: ptr("Anna"), Mail: ptr("anna")}, ledger.ErrInvalid, "mail: must be a single address"},
		{"mail of a service", k.root, "shop", 0, mail("shop@example.org"), ledger.ErrInvalid, "a service account has none"},
		{"no mail of a service", k.root, "shop", 0, mail(""), ledger.ErrInvalid, "a service account has none"},
		{"bad owner beside a name", k.root, "anna", 0, ledger.EditAccount{Name: ptr("A"), Owner: ptr("anna")}, ledger.ErrInvalid, "owner: applies only to service accounts"},
		{"erased", k.root, string(gone), 0, name("Greta"), ledger.ErrEnded, "erased"},
		{"erased, by its login", k.root, "gone", 0, name("Greta"), ledger.ErrNotFound, ""},
		{"older version", k.root, "anna", 1, name("Anna"), ledger.ErrConflict, "version is"},
		{"oneself", k.root, "root", 0, name("Root"), ledger.ErrForbidden, "itself"},
		{"oneself, as a person", herself, "anna", 0, name("Anna"), ledger.ErrForbidden, "to change an account's owner, self-service, name or mail you need the permission superuser"},
		{"no permission", nobody, "anna", 0, name("Anna"), ledger.ErrForbidden, "superuser"},
		{"no permission, bad name", nobody, "anna", 0, name("a\nb"), ledger.ErrForbidden, "superuser"},
		{"superuser who has not proved who they are", authz.Principal{Account: nobody.Account, Session: herself.Session, Authenticated: k.now.Now().Add(-time.Hour), Scopes: k.root.Scopes}, "anna", 0, name("Anna"), ledger.ErrReauthRequired, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			k.unchanged(func() {
				_, err := k.EditAccount(ctx, tt.as, "", tt.account, tt.seen, tt.edit)
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("EditAccount = %v, want %v that says %q", err, tt.want, tt.says)
				}
				for _, text := range []*string{tt.edit.Name, tt.edit.Mail} {
					if err != nil && text != nil && len(*text) > 4 && strings.Contains(err.Error(), *text) {
						t.Errorf("the error repeats what was asked: %v", err)
					}
				}
			})
		})
	}
	k.personIs(id, "Anna Ek", "anna@example.org")
	// A caller who must not see an account does not learn whether it exists.
	var first string
	for _, account := range []string{"anna", string(id), "unknown", string(gone), string(events.NewAccountID(time.Now(), ""))} {
		_, err := k.EditAccount(ctx, nobody, "", account, 1, mail("x@example.org"))
		if first == "" && err != nil {
			first = err.Error()
		}
		if err == nil || err.Error() != first {
			t.Errorf("of %s: %v, want %s", account, err, first)
		}
	}
}

// TestEditPersonAgain retries a request with its key.
func TestEditPersonAgain(t *testing.T) {
	k := newFixture(t)
	id := k.anna()
	first := k.editPerson("key", id, ptr("Anna Berg"), nil)
	again := func(want string) {
		t.Helper()
		k.unchanged(func() {
			r := k.editPerson("key", id, ptr("Anna Berg"), nil)
			if !r.Replayed || r.Position != first.Position || r.Account.Name != want || r.Account.Mail != "anna@example.org" {
				t.Errorf("again: %+v at %d, replayed %t; want %s at %d", r.Account.Person, r.Position, r.Replayed, want, first.Position)
			}
		})
	}
	again("Anna Berg")
	k.restart() // as another process has it
	again("Anna Berg")
	k.unchanged(func() {
		for what, edit := range map[string]ledger.EditAccount{
			"another name":    {Name: ptr("Anna Lind")},
			"no name":         {Name: ptr("")},
			"a mail, too":     {Name: ptr("Anna Berg"), Mail: ptr("a@example.org")},
			"it for a mail":   {Mail: ptr("Anna.Berg@example.org")},
			"something else":  {SelfService: ptr(false)},
			"self-service on": {Name: ptr("Anna Berg"), SelfService: ptr(true)},
		} {
			if _, err := k.EditAccount(t.Context(), k.root, "key", string(id), 0, edit); !errors.Is(err, ledger.ErrKeyReused) {
				t.Errorf("%s with the key = %v, want ErrKeyReused", what, err)
			}
		}
	})
	// Later changes stay.
	k.editPerson("", id, ptr("Anna Lind"), nil)
	again("Anna Lind")
	k.personIs(id, "Anna Lind", "anna@example.org")
}

// TestPersonStaysOut searches the whole log and the ledger's log lines for
// personal data.
func TestPersonStaysOut(t *testing.T) {
	var logged bytes.Buffer // slog's handler locks it
	verbose := func(c *ledger.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	k := newFixture(t, verbose)
	id := k.anna()
	for _, edit := range []ledger.EditAccount{
		{Name: ptr("Greta Garbo")}, {Mail: ptr("greta@garbo.example")}, {Name: ptr("Greta Garbo"), Mail: ptr("garbo@example.org")},
	} {
		if _, err := k.EditAccount(t.Context(), k.root, "key of greta "+*cmpOr(edit.Mail, edit.Name), "anna", 0, edit); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.EditAccount(t.Context(), k.root, "", "anna", 0, ledger.EditAccount{Mail: ptr("greta@")}); err == nil {
		t.Fatal("a mail without a domain is taken")
	}
	for _, m := range k.log.Messages() {
		for _, trace := range []string{"greta", "garbo", "anna", "example"} {
			if bytes.Contains(bytes.ToLower(m.Data), []byte(trace)) || strings.Contains(m.Subject, trace) {
				t.Errorf("position %d holds %q: %s", m.Position, trace, m.Data)
			}
		}
	}
	if s := strings.ToLower(logged.String()); strings.Contains(s, "greta") || strings.Contains(s, "garbo") || strings.Contains(s, "example") {
		t.Errorf("logged: %s", s)
	}
	k.personIs(id, "Greta Garbo", "garbo@example.org")
}

func cmpOr(a, b *string) *string {
	if a != nil {
		return a
	}
	return b
}

// TestRequestTellsNothing tries to guess a request from its hash in the log, as
// an attacker who knows all of the request except the mail address.
func TestRequestTellsNothing(t *testing.T) {
	edit := ledger.EditAccount{Mail: ptr("greta@garbo.example")}
	seen := map[events.RequestHash]bool{}
	for range 2 {
		k := newFixture(t)
		id := k.anna()
		r, err := k.EditAccount(t.Context(), k.root, "key", "anna", 0, edit)
		if err != nil {
			t.Fatal(err)
		}
		guess, err := json.Marshal([]any{"edit account", id, edit})
		if err != nil {
			t.Fatal(err)
		}
		got := k.event(r.Position, string(id), events.KindAccountEdited).Digest
		if got == "" || got == events.HashRequest(guess) {
			t.Errorf("the log has %q of the request, want a hash that nobody can make without the directory", got)
		}
		seen[got] = true
	}
	if len(seen) != 2 {
		t.Error("two ledgers have the same hash of the same request, so it rests on nothing of theirs")
	}
}

// TestEditPersonAtOnce sends many edits concurrently. Each field has the value
// of the last edit in the log that changed it.
func TestEditPersonAtOnce(t *testing.T) {
	k := newFixture(t)
	id := k.anna()
	other := k.second()
	type edit struct {
		at         events.Position
		name, mail *string
	}
	var mu sync.Mutex
	var done []edit
	atOnce(8, func(i int) {
		l := k.Ledger
		if i%2 == 0 {
			l = other
		}
		for n := range 12 {
			e := edit{}
			text := strings.Repeat(string(rune('a'+i)), n+1)
			if i%4 < 2 {
				e.name = &text
			} else {
				mail := text + "@example.org"
				e.mail = &mail
			}
			r, err := l.EditAccount(t.Context(), k.root, "", string(id), 0, ledger.EditAccount{Name: e.name, Mail: e.mail})
			if errors.Is(err, ledger.ErrConflict) {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			e.at = r.Position
			mu.Lock()
			done = append(done, e)
			mu.Unlock()
		}
	})
	slices.SortFunc(done, func(a, b edit) int { return int(a.at) - int(b.at) })
	name, mail := "Anna Ek", "anna@example.org"
	for _, e := range done {
		if e.name != nil {
			name = *e.name
		} else {
			mail = *e.mail
		}
	}
	if len(done) < 2 {
		t.Fatalf("%d edits were carried out", len(done))
	}
	k.personIs(id, name, mail)
}

// second is another ledger on the same log, with its own connection.
func (k *fixture) second() *ledger.Ledger {
	k.t.Helper()
	other := *k
	other.cfg.Conn = k.log.Conn()
	other.open()
	k.t.Cleanup(func() {
		if err := other.Close(); err != nil {
			k.t.Error(err)
		}
	})
	return other.Ledger
}
