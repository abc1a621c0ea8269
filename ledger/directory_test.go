package ledger_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/bucket"
	"github.com/tokenledger/tokenledger/ledger/ledgertest"
)

// TestLoginLetGoMeanwhile takes a login that is released between two reads: the
// first read finds a record, the second finds none. The same happens while a
// reservation is being replicated.
func TestLoginLetGoMeanwhile(t *testing.T) {
	t.Parallel()
	k := newFixture(t)
	js, err := jetstream.New(k.log.Conn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KV_DIRECTORY")
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "DIRECTORY")
	if err != nil {
		t.Fatal(err)
	}
	// Reserved, but of no account.
	const login = "$KV.DIRECTORY.login."
	taken, asked := "", 0
	k.link.Rule(func(m ledgertest.Message) ledgertest.Fate {
		switch {
		case m.Answer:
		case strings.HasPrefix(m.Subject, login) && taken == "":
			taken = strings.TrimPrefix(m.Subject, "$KV.DIRECTORY.")
			if _, err := kv.Create(t.Context(), taken, []byte(`{"account":"`+string(k.root.Account)+`"}`)); err != nil {
				t.Error(err)
			}
		case strings.HasSuffix(m.Subject, ".STREAM.MSG.GET.KV_DIRECTORY") && taken != "" && strings.Contains(string(m.Data), taken):
			// The first request tells a tombstone from a record; the second
			// reads the record.
			if asked++; asked != 2 {
				break
			}
			if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$KV.DIRECTORY."+taken)); err != nil {
				t.Error(err)
			}
		}
		return ledgertest.Pass
	})
	a, err := k.CreateAccount(t.Context(), k.root, "", ledger.CreateAccount{Login: "carol", Kind: "user"})
	if err != nil || a.Account.Login != "carol" {
		t.Fatalf("CreateAccount = %+v, %v, want carol", a.Account, err)
	}
	if asked < 2 {
		t.Error("the login was not let go between the two requests, so this shows nothing")
	}
}

// TestDirectoryLost opens a ledger whose log has events and whose directory, or
// key of requests, is lost. Open fails, and creates nothing in its place.
func TestDirectoryLost(t *testing.T) {
	t.Parallel()
	for what, lose := range map[string]func(*testing.T, jetstream.JetStream) error{
		"the bucket": func(t *testing.T, js jetstream.JetStream) error { return js.DeleteStream(t.Context(), "KV_DIRECTORY") },
		"the key of requests": func(t *testing.T, js jetstream.JetStream) error {
			kv, err := js.KeyValue(t.Context(), "DIRECTORY")
			if err != nil {
				return err
			}
			return kv.Delete(t.Context(), "request-key")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			k := newFixture(t)
			js, err := jetstream.New(k.log.Conn())
			if err != nil {
				t.Fatal(err)
			}
			if err := lose(t, js); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if l, err := ledger.Open(t.Context(), k.cfg); !errors.Is(err, bucket.ErrLost) {
					if err == nil {
						l.Close()
					}
					t.Fatalf("Open = %v, want ErrLost", err)
				}
			}
		})
	}
}
