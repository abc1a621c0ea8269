package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events/disk"
)

// Key is the key with which a role connects. Its seed is never printed, whatever the
// verb. The zero Key cannot connect.
type Key struct {
	// Behind a pointer, because fmt does not reach Format on a Key in an
	// unexported field, and would print what the Key holds.
	b *keyBody
}

type keyBody struct {
	pair   nkeys.KeyPair
	public string
}

// LoadOrCreateKey reads the key in the file at path. If the file does not exist it
// creates a key there, readable by the owner only. Several processes that do this at
// once get the same key.
func LoadOrCreateKey(path string) (Key, error) {
	k, err := loadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createKey(path); err != nil {
			return Key{}, fmt.Errorf("create key %s: %w", path, err)
		}
		return LoadKey(path)
	}
	if err != nil {
		return Key{}, fmt.Errorf("load key %s: %w", path, err)
	}
	return k, nil
}

// ruleOf returns the rule that a caller gave, or the zero rule.
func ruleOf(rule []disk.SecretRule) disk.SecretRule {
	if len(rule) > 0 {
		return rule[0]
	}
	return disk.SecretRule{}
}

// LoadKey reads the key in the file at path, which the rule must accept.
func LoadKey(path string, rule ...disk.SecretRule) (Key, error) {
	k, err := loadKey(path, rule...)
	if err != nil {
		return Key{}, fmt.Errorf("load key %s: %w", path, err)
	}
	return k, nil
}

func loadKey(path string, rule ...disk.SecretRule) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, err
	}
	if !info.Mode().IsRegular() {
		return Key{}, errors.New("not a file")
	}
	if err := ruleOf(rule).Check(path, info); err != nil {
		return Key{}, fmt.Errorf("%w: replace the key if somebody may have read it, then set mode 0600", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return Key{}, err
	}
	defer clear(data)
	// Errors from here on are not returned: they might quote the seed.
	malformed := errors.New(
		"holds no user seed (58 characters, beginning with SU): restore the file, or remove it to get a new key",
	)
	seed := bytes.TrimSpace(data)
	prefix, raw, err := nkeys.DecodeSeed(seed)
	if err != nil || prefix != nkeys.PrefixByteUser {
		return Key{}, malformed
	}
	clear(raw)
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return Key{}, malformed
	}
	public, err := pair.PublicKey()
	if err != nil {
		return Key{}, malformed
	}
	return Key{&keyBody{pair, public}}, nil
}

// createKey saves a new key at path, unless there is one by now.
func createKey(path string) error {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return err
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return err
	}
	// Another process may have made the key meanwhile.
	if err := disk.Create(path, append(bytes.Clone(seed), '\n')); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Public returns the public half, which the server knows. It is empty for the zero Key.
func (k Key) Public() string {
	if k.b == nil {
		return ""
	}
	return k.b.public
}

// Sign signs data with the key (Ed25519). Anybody with the public half can verify the
// signature.
func (k Key) Sign(data []byte) ([]byte, error) {
	if k.b == nil {
		return nil, errors.New("sign: no key")
	}
	return k.b.pair.Sign(data)
}

// Option signs the server's challenge with the key.
func (k Key) Option() nats.Option {
	if k.b == nil {
		return func(*nats.Options) error { return errors.New("connect: no key") }
	}
	return nats.Nkey(k.b.public, k.b.pair.Sign)
}

func (k Key) Format(s fmt.State, _ rune)   { io.WriteString(s, "[key]") }
func (k Key) LogValue() slog.Value         { return slog.StringValue("[key]") }
func (k Key) MarshalText() ([]byte, error) { return []byte("[key]"), nil }
