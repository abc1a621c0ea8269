package embedded

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

func TestKeyIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.key")
	first, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if !nkeys.IsValidPublicUserKey(first.Public()) {
		t.Errorf("Public() = %q, want a user's key", first.Public())
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("the key has mode %04o, want 0600", got)
	}
	again, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if first.Public() != again.Public() {
		t.Error("loading the key gave another one")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the folder holds %v, want the key alone", entries)
	}
}

func TestKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.key")
	var public [8]string
	var wg sync.WaitGroup
	for i := range public {
		wg.Go(func() {
			k, err := LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			public[i] = k.Public()
		})
	}
	wg.Wait()
	for _, p := range public {
		if p != public[0] {
			t.Fatalf("the keys are %v, want one", public)
		}
	}
}

func seedOf(t *testing.T, prefix nkeys.PrefixByte) string {
	t.Helper()
	pair, err := nkeys.CreatePair(prefix)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return string(seed)
}

func TestKeyIsRefused(t *testing.T) {
	user, account := seedOf(t, nkeys.PrefixByteUser), seedOf(t, nkeys.PrefixByteAccount)
	pair, err := nkeys.FromSeed([]byte(user))
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, data string
		mode       os.FileMode
		want       string
	}{
		{"group reads", user, 0o650, "can read it (mode 0650)"},
		{"all read", user, 0o604, "every user can read it (mode 0604)"},
		{"group writes", user, 0o620, "can write it (mode 0620)"},
		{"empty", "", 0o600, "no user seed"},
		{"one short", user[:len(user)-1], 0o600, "no user seed"},
		{"one changed", user[:20] + flip(user[20]) + user[21:], 0o600, "no user seed"},
		{"two keys", user + "\n" + user, 0o600, "no user seed"},
		{"an account's", account, 0o600, "no user seed"},
		{"public half", public, 0o600, "no user seed"},
		{"something else", strings.Repeat("x", 1<<20), 0o600, "no user seed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(tt.data), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadOrCreateKey(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("LoadOrCreateKey = %v, want %q and the path", err, tt.want)
			}
			for _, seed := range []string{user, account} {
				if strings.Contains(err.Error(), seed[2:20]) {
					t.Errorf("the error quotes the seed: %v", err)
				}
			}
			left, err := os.ReadFile(path)
			if err != nil || string(left) != tt.data {
				t.Errorf("a refused file was changed (%v)", err)
			}
		})
	}
	if _, err := LoadOrCreateKey(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("LoadOrCreateKey of a folder = %v", err)
	}
	if _, err := LoadOrCreateKey(filepath.Join(t.TempDir(), "none", "key")); err == nil {
		t.Error("LoadOrCreateKey in a folder that does not exist = nil, want an error")
	}
}

func flip(b byte) string {
	if b == 'A' {
		return "B"
	}
	return "A"
}

func TestKeySurvivesSpaceAround(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("\n"+seedOf(t, nkeys.PrefixByteUser)+" \r\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(path); err != nil {
		t.Error(err)
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seed := strings.TrimSpace(string(data))

	type exported struct{ Key Key }
	type unexported struct{ key Key }
	type pointer struct{ key *Key }
	values := map[string]any{
		"key": k, "pointer": &k, "exported": exported{k}, "unexported": unexported{k}, "unexported pointer": &pointer{&k},
		"slice": []Key{k}, "map": map[string]Key{"k": k}, "config": Config{LedgerKey: k}, "server": &Server{key: k},
		"unexported slice": struct{ keys []Key }{[]Key{k}},
	}
	for name, v := range values {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		for _, form := range []string{seed, fmt.Sprintf("%x", seed), fmt.Sprintf("%X", seed), fmt.Sprint([]byte(seed))} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s prints the seed:\n%s", name, out.String())
			}
		}
	}
	if got := fmt.Sprintf("%v %s %+v", k, k, exported{k}); got != "[key] [key] {Key:[key]}" {
		t.Errorf("a key prints as %s", got)
	}
}

func TestZeroKeyConnectsNowhere(t *testing.T) {
	k := startKit(t)
	nc, err := nats.Connect("", Key{}.Option(), nats.InProcessServer(k))
	if err == nil {
		nc.Close()
		t.Error("Connect with the zero Key = nil, want an error")
	}
}
