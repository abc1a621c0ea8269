package events_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tokenledger/tokenledger/events"
)

func TestNewIDs(t *testing.T) {
	now := time.Now()
	token, account, event := events.NewTokenID(now, ""), events.NewAccountID(now, ""), events.NewEventID(now)
	if got, err := events.ParseTokenID(string(token)); err != nil || got != token {
		t.Errorf("ParseTokenID(%s) = %s, %v", token, got, err)
	}
	if got, err := events.ParseAccountID(string(account)); err != nil || got != account {
		t.Errorf("ParseAccountID(%s) = %s, %v", account, got, err)
	}
	if got, err := events.ParseEventID(string(event)); err != nil || got != event {
		t.Errorf("ParseEventID(%s) = %s, %v", event, got, err)
	}
	if got := events.TokenIDFrom(token.Bytes()); got != token {
		t.Errorf("TokenIDFrom(%s.Bytes()) = %s", token, got)
	}
	if got := events.AccountIDFrom(account.Bytes()); got != account {
		t.Errorf("AccountIDFrom(%s.Bytes()) = %s", account, got)
	}
	seen := map[events.TokenID]bool{}
	for range 1000 {
		seen[events.NewTokenID(now, "")] = true
	}
	if len(seen) != 1000 {
		t.Errorf("1000 ids of one instant are %d", len(seen))
	}
}

func TestParseID(t *testing.T) {
	parsers := map[string]func(string) error{
		"tok_": func(s string) error { _, err := events.ParseTokenID(s); return err },
		"acc_": func(s string) error { _, err := events.ParseAccountID(s); return err },
		"evt_": func(s string) error { _, err := events.ParseEventID(s); return err },
	}
	const body = "01k5y8z3v0a1b2c3d4e5f6g7h8"
	for prefix, parse := range parsers {
		if err := parse(prefix + body); err != nil {
			t.Errorf("%s%s: %v", prefix, body, err)
		}
		bad := map[string]string{ // what -> id
			"nothing":               "",
			"prefix":                prefix,
			"no prefix":             body,
			"capitals":              prefix + strings.ToUpper(body),
			"one short":             prefix + body[1:],
			"one long":              prefix + body + "0",
			"letter outside":        prefix + "u" + body[1:],
			"l for 1":               prefix + body[:9] + "l" + body[10:],
			"past the last":         prefix + "8" + body[1:],
			"space":                 " " + prefix + body,
			"line break":            prefix + body + "\n",
			"NUL":                   prefix + body[:25] + "\x00",
			"wildcard":              prefix + body[:24] + ".>",
			"prefix in capitals":    strings.ToUpper(prefix) + body,
			"fullwidth digit":       prefix + "０" + body[3:],
			"path":                  prefix + "../../../../../../etc/pass",
			"secret":                goodSecret,
			"secret after a prefix": prefix + goodSecret,
			"old secret":            goodHex,
		}
		for other := range parsers {
			if other != prefix {
				bad["id of another kind, "+other] = other + body
			}
		}
		for what, s := range bad {
			err := parse(s)
			if !errors.Is(err, events.ErrBadID) {
				t.Errorf("%s as %s: %v, want ErrBadID", what, prefix, err)
				continue
			}
			if len(s) > 8 && strings.Contains(err.Error(), s) {
				t.Errorf("%s as %s: the error repeats it: %v", what, prefix, err)
			}
			if strings.Contains(what, "secret") && !strings.Contains(err.Error(), "leaked") {
				t.Errorf("%s as %s: %v, want a word of what to do", what, prefix, err)
			}
			if kind, found := strings.CutPrefix(what, "id of another kind, "); found && !strings.Contains(err.Error(), kind) {
				t.Errorf("%s as %s: %v, want it to name %s", what, prefix, err, kind)
			}
		}
	}
}

func TestShards(t *testing.T) {
	now := time.Now()
	used := map[string]bool{}
	for i := range 2000 {
		key := events.NewCommandKey(goldenAccount, string(rune('a'+i%26))+strings.Repeat("x", i))
		shard := events.ShardFor(key)
		used[shard] = true
		if shard != events.ShardFor(key) || len(shard) != 2 {
			t.Fatalf("ShardFor(%s) = %q, and then %q", key, shard, events.ShardFor(key))
		}
		token, account := events.NewTokenID(now, shard), events.NewAccountID(now, shard)
		for _, id := range []string{string(token), string(account)} {
			if !strings.HasSuffix(id, shard) {
				t.Fatalf("id %s is not in shard %s", id, shard)
			}
		}
		if _, err := events.ParseTokenID(string(token)); err != nil {
			t.Fatalf("an id in shard %s: %v", shard, err)
		}
		e := golden(&events.TokenResumed{})
		e.About = string(token)
		if want := "ledger.token." + shard + ".resumed"; e.Subject() != want {
			t.Fatalf("an event of %s goes to %s, want %s", token, e.Subject(), want)
		}
	}
	if len(used) < 800 { // of 1024; 2000 throws miss some 145
		t.Errorf("2000 keys fall in %d shards", len(used))
	}
	if got := events.ShardFor(""); got != "" {
		t.Errorf("ShardFor(no key) = %q, want none", got)
	}
	random := map[string]bool{}
	for range 200 {
		id := string(events.NewTokenID(now, ""))
		random[id[len(id)-2:]] = true
	}
	if len(random) < 100 {
		t.Errorf("200 tokens without a key fall in %d shards", len(random))
	}
}

func TestOrderOfIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Custom(func(t *rapid.T) events.TokenID {
			return events.TokenIDFrom([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")))
		})
		a, b := id.Draw(t, "a"), id.Draw(t, "b")
		x, y := a.Bytes(), b.Bytes()
		if got, want := strings.Compare(string(a), string(b)), bytes.Compare(x[:], y[:]); got != want {
			t.Fatalf("%s against %s is %d, and their bytes %d", a, b, got, want)
		}
		if _, err := events.ParseTokenID(string(a)); err != nil {
			t.Fatal(err)
		}
	})
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var ids []string
	for i := range 50 {
		ids = append(ids, string(events.NewTokenID(start.Add(time.Duration(i)*time.Millisecond), "")))
	}
	if !slices.IsSorted(ids) {
		t.Errorf("ids made one after another are not in order: %v", ids)
	}
}

func TestSubjects(t *testing.T) {
	for _, tt := range []struct {
		name, subject, line, filter string
	}{
		{"tokenledger.token.revoked.v1", "ledger.token.h8.revoked", "ledger.token.h8", "ledger.token.h8.*"},
		{"tokenledger.account.granted.v1", "ledger.account.hg.granted", "ledger.account.hg", "ledger.account.hg.*"},
		{"tokenledger.policy.tokens_revoked.v1", "ledger.policy.tokens_revoked", "ledger.policy", "ledger.policy.*"},
	} {
		e := goldens[tt.name]
		if got := e.Subject(); got != tt.subject {
			t.Errorf("%s: Subject = %s, want %s", tt.name, got, tt.subject)
		}
		if got, err := events.ShardOf(tt.subject); err != nil || got != tt.line {
			t.Errorf("ShardOf(%s) = %s, %v; want %s", tt.subject, got, err, tt.line)
		}
		if got := events.ShardFilter(e.Change.Kind().Noun(), e.About); got != tt.filter {
			t.Errorf("%s: ShardFilter = %s, want %s", tt.name, got, tt.filter)
		}
	}
	if got := events.ShardFilter(events.NounPolicy, ""); got != "ledger.policy.*" {
		t.Errorf("ShardFilter(policy) = %s", got)
	}
	for _, bad := range []string{"", "ledger", "lease.node.a", "tail.ledger.token.h8.revoked", "ledgers.token.h8.revoked", goodSecret} {
		if got, err := events.ShardOf(bad); err == nil || strings.Contains(err.Error(), goodSecret) {
			t.Errorf("ShardOf(%q) = %q, %v; want an error that does not repeat a secret", bad, got, err)
		}
	}
}
