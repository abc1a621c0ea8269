package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// personWritten matches a write of an account's personal data.
func personWritten(m ledgertest.Message) bool {
	return !m.Answer && strings.HasPrefix(m.Subject, "$KV.DIRECTORY.account.")
}

// personRead matches the read on which a change rests.
func personRead(m ledgertest.Message) bool {
	return !m.Answer && m.Subject == "$JS.API.STREAM.MSG.GET.KV_DIRECTORY" && strings.Contains(string(m.Data), ".account.")
}

// personAnswered matches the answer to a write or read of personal data.
func personAnswered(m ledgertest.Message) bool {
	return m.Answer && strings.HasPrefix(m.Subject, "$KV.DIRECTORY.account.")
}

// halt begins a command and returns when its first matching message is held
// back. The returned function releases the message and waits until the command
// has ended.
func (k *fixture) halt(match func(ledgertest.Message) bool, do func() error) (goOn func()) {
	k.t.Helper()
	k.link.Rule(ledgertest.First(1, ledgertest.Hold, match))
	done := make(chan error, 1)
	go func() { done <- do() }()
	k.until("the message to hold back", func() bool { return k.link.Held() == 1 })
	return func() {
		k.t.Helper()
		k.link.Rule(nil)
		k.link.Release()
		if err := <-done; err != nil {
			k.t.Error(err)
		}
	}
}

// knownOf returns the directory's records of an account and of the login anna.
func (k *fixture) knownOf(id events.AccountID) (list []string) {
	k.t.Helper()
	js, err := jetstream.New(k.log.Conn())
	if err != nil {
		k.t.Fatal(err)
	}
	stream, err := js.Stream(k.t.Context(), "KV_DIRECTORY")
	if err != nil {
		k.t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for seq := max(1, state.FirstSeq); seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(k.t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			k.t.Fatal(err)
		}
		all := m.Subject + " " + string(m.Data)
		if strings.Contains(all, string(id)) || strings.Contains(strings.ToLower(all), "anna") {
			list = append(list, all)
		}
	}
	return list
}

// TestEditPersonOrder delays the directory write of one edit until a later edit
// is done.
func TestEditPersonOrder(t *testing.T) {
	t.Parallel()
	for _, match := range []struct {
		what string
		m    func(ledgertest.Message) bool
	}{{"reading", personRead}, {"writing", personWritten}, {"answer", personAnswered}} {
		for _, tt := range []struct {
			what                                   string
			name1, mail1, name2, mail2, name, mail *string
		}{
			{what: "the same field", name1: ptr("First"), name2: ptr("Second"), name: ptr("Second")},
			{what: "one field each", name1: ptr("First"), mail2: ptr("second@example.org"), name: ptr("First"), mail: ptr("second@example.org")},
			{what: "one of two", name1: ptr("First"), mail1: ptr("first@example.org"), mail2: ptr(""), name: ptr("First"), mail: ptr("")},
			{what: "taken away before", name1: ptr(""), name2: ptr("Second"), name: ptr("Second")},
		} {
			t.Run(match.what+" "+tt.what, func(t *testing.T) {
				t.Parallel()
				k := newFixture(t)
				id := k.anna()
				other := k.second()
				var first, second ledger.AccountResult
				goOn := k.halt(match.m, func() (err error) {
					first, err = k.EditAccount(t.Context(), k.root, "first", "anna", 0, ledger.EditAccount{Name: tt.name1, Mail: tt.mail1})
					return err
				})
				second, err := other.EditAccount(t.Context(), k.root, "", "anna", 0, ledger.EditAccount{Name: tt.name2, Mail: tt.mail2})
				if err != nil {
					t.Fatal(err)
				}
				goOn()
				if first.Position >= second.Position {
					t.Fatalf("the edits stand at %d and %d", first.Position, second.Position)
				}
				want := ledger.Person{Name: "Anna Ek", Mail: "anna@example.org"}
				if tt.name != nil {
					want.Name = *tt.name
				}
				if tt.mail != nil {
					want.Mail = *tt.mail
				}
				k.personIs(id, want.Name, want.Mail)
				// A late retry of the first changes nothing.
				k.unchanged(func() {
					if again := k.editPerson("first", id, tt.name1, tt.mail1); !again.Replayed || again.Position != first.Position || again.Account.Person != want {
						t.Errorf("the first one again: %+v at %d", again.Account.Person, again.Position)
					}
				})
				k.personIs(id, want.Name, want.Mail)
			})
		}
	}
}

// TestEditPersonUnfinished loses the directory write that follows the event.
// The answer says so, and the same request completes it, unless another edit
// followed.
func TestEditPersonUnfinished(t *testing.T) {
	t.Parallel()
	for _, lost := range []struct {
		what string
		m    func(ledgertest.Message) bool
	}{{"readings", personRead}, {"writes", personWritten}, {"answers to writes", personAnswered}} {
		for _, since := range []string{"nothing", "name", "mail", "erased"} {
			t.Run(lost.what+" since "+since, func(t *testing.T) {
				t.Parallel()
				k := newFixture(t, resigned)
				id := k.anna()
				k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
					if lost.m(m) {
						return ledgertest.Lose
					}
					return ledgertest.Pass
				})
				edit := ledger.EditAccount{Name: ptr("Anna Berg")}
				_, err := k.EditAccount(t.Context(), k.root, "key", string(id), 0, edit)
				k.link.Rule(nil)
				at := k.log.End()
				if lost.what == "answers to writes" {
					// The next read finds it written.
					if err != nil {
						t.Fatal(err)
					}
				} else if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprintf("stored at position %d, but", at)) {
					t.Fatalf("EditAccount = %v, want ErrUnavailable that says what was stored", err)
				} else {
					k.personIs(id, "Anna Ek", "anna@example.org")
				}
				k.event(at, string(id), events.KindAccountEdited)
				name, mail := "Anna Berg", "anna@example.org"
				switch since {
				case "name":
					name = "Anna Lind"
					k.editPerson("", id, &name, nil)
				case "mail":
					mail = "lind@example.org"
					k.editPerson("", id, nil, &mail)
				case "erased":
					if _, err := k.EraseAccount(t.Context(), k.root, "", string(id), 0, ledger.Erasure{}); err != nil {
						t.Fatal(err)
					}
					name, mail = "", ""
				}
				k.unchanged(func() {
					r, err := k.EditAccount(t.Context(), k.root, "key", string(id), 0, edit)
					if err != nil || !r.Replayed || r.Position != at || r.Account.Name != name || r.Account.Mail != mail {
						t.Errorf("the same request again = %+v at %d, %v; want %s and %s at %d", r.Account.Person, r.Position, err, name, mail, at)
					}
				})
				if since == "erased" {
					if left := k.knownOf(id); len(left) > 0 {
						t.Errorf("the directory has %q", left)
					}
					return
				}
				k.personIs(id, name, mail)
			})
		}
	}
}

// TestCreateTwiceDuringEdit sends a creation twice. It delays the directory
// write of one request until the account was created and edited.
func TestCreateTwiceDuringEdit(t *testing.T) {
	t.Parallel()
	for _, erase := range []bool{false, true} {
		t.Run(fmt.Sprintf("erased %t", erase), func(t *testing.T) {
			t.Parallel()
			k := newFixture(t)
			other := k.second()
			create := ledger.CreateAccount{Login: "anna", Kind: "user", Person: ledger.Person{Name: "Anna Ek", Mail: "anna@example.org"}}
			var late ledger.AccountResult
			goOn := k.halt(personWritten, func() (err error) {
				late, err = k.CreateAccount(t.Context(), k.root, "key", create)
				return err
			})
			made, err := other.CreateAccount(t.Context(), k.root, "key", create)
			if err != nil {
				t.Fatal(err)
			}
			id := made.Account.ID
			if _, err := other.EditAccount(t.Context(), k.root, "", string(id), 0, ledger.EditAccount{Name: ptr("Anna Berg")}); err != nil {
				t.Fatal(err)
			}
			if erase {
				if _, err := other.EraseAccount(t.Context(), k.root, "", string(id), 0, ledger.Erasure{}); err != nil {
					t.Fatal(err)
				}
			}
			goOn()
			if late.Account.ID != id || !late.Replayed {
				t.Errorf("the late one is answered with %s, replayed %t; want %s", late.Account.ID, late.Replayed, id)
			}
			if !erase {
				k.personIs(id, "Anna Berg", "anna@example.org")
				return
			}
			if left := k.knownOf(id); len(left) > 0 {
				t.Errorf("the directory has %q", left)
			}
		})
	}
}
