package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/bucket"
)

// DirectoryBucket holds what can be erased: the names of people, and what package
// signin keeps of them.
const (
	DirectoryBucket      = "DIRECTORY"
	DirectoryDescription = "logins of accounts, and what people prove to be theirs by; erasable"
)

// directory keeps the logins of accounts, apart from the log, which cannot
// forget.
//
//	login.<digest of the login in lower case> -> reservation
//	account.<id>                              -> person
type directory struct {
	bucket *bucket.Bucket
	kv     jetstream.KeyValue // the bucket's own
}

// person is what the directory knows of an account.
type person struct {
	Login string `json:"login"`
	Name  string `json:"name,omitempty"`
	Mail  string `json:"mail,omitempty"`
}

func openDirectory(ctx context.Context, js jetstream.JetStream, replicas int) (*directory, error) {
	b, err := bucket.Open(ctx, js, bucket.Config{
		Name: DirectoryBucket, Description: DirectoryDescription, Replicas: replicas,
	})
	if err != nil {
		return nil, fmt.Errorf("open the directory of logins: %w", err)
	}
	return &directory{bucket: b, kv: b.KV}, nil
}

// reservation says who has a login.
type reservation struct {
	Account events.AccountID  `json:"account"`
	Key     events.CommandKey `json:"key,omitempty"` // of the command that reserved it
}

// reserve takes a login, and returns who has it: r, or whoever came before.
func (d *directory) reserve(ctx context.Context, login string, r reservation) (reservation, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	for {
		_, err := d.kv.Create(ctx, loginKey(login), b)
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return r, unavailable(err)
		}
		// Nobody may have it all the same: it was let go in between, or it is on its
		// way to the log's copies, where nobody can read it yet.
		held, err := d.holder(ctx, login)
		if !errors.Is(err, ErrNotFound) {
			return held, err
		}
		select {
		case <-ctx.Done():
			return r, unavailable(ctx.Err())
		case <-time.After(settleWait):
		}
	}
}

// describe records what is known of an account.
func (d *directory) describe(ctx context.Context, id events.AccountID, p person) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if _, err := d.kv.Put(ctx, accountKey(id), b); err != nil {
		return unavailable(err)
	}
	return nil
}

// holder returns who has a login.
func (d *directory) holder(ctx context.Context, login string) (reservation, error) {
	var r reservation
	b, err := d.get(ctx, loginKey(login))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return r, fmt.Errorf("account with this login: %w", ErrNotFound)
	}
	if err != nil {
		return r, unavailable(err)
	}
	return r, json.Unmarshal(b, &r)
}

// person returns what is known of an account, nothing where it was erased.
func (d *directory) person(ctx context.Context, id events.AccountID) (person, error) {
	var p person
	b, err := d.get(ctx, accountKey(id))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return p, nil
	}
	if err != nil {
		return p, unavailable(err)
	}
	return p, json.Unmarshal(b, &p)
}

// erase deletes what is known of an account. Its login may be another's then.
func (d *directory) erase(ctx context.Context, id events.AccountID) error {
	p, err := d.person(ctx, id)
	if err != nil {
		return err
	}
	if p.Login != "" {
		switch held, err := d.holder(ctx, p.Login); {
		case err == nil && held.Account == id:
			if err := d.bucket.Remove(ctx, loginKey(p.Login)); err != nil {
				return err
			}
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		}
	}
	return d.bucket.Remove(ctx, accountKey(id))
}

// get reads a key, [jetstream.ErrKeyNotFound] where there is none. A copy that
// lags may not have it yet, so that is the leader's to say.
func (d *directory) get(ctx context.Context, key string) ([]byte, error) {
	e, err := d.kv.Get(ctx, key)
	if err == nil {
		return e.Value(), nil
	}
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, err
	}
	found, err := d.bucket.Get(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, jetstream.ErrKeyNotFound
	}
	return found.Value, err
}

// loginKey does not contain the login: keys are subjects, and may be listed.
func loginKey(login string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(login)))
	return "login." + hex.EncodeToString(sum[:])
}

func accountKey(id events.AccountID) string { return "account." + string(id) }

// checkLogin reports what is wrong with a login. Only ASCII is taken, so that
// two logins that look the same are the same.
func checkLogin(login string) error {
	const most = 100
	switch {
	case login == "":
		return invalid("login", "is required")
	case len(login) > most:
		return invalid("login", "is %d bytes long, and %d are the most", len(login), most)
	case events.LooksSecret(login):
		return invalid("login", "holds a secret; treat it as leaked if others saw it")
	case login == "." || login == "..":
		return invalid("login", "cannot stand in a path")
	case strings.HasPrefix(login, "acc_") || strings.HasPrefix(login, "tok_"):
		return invalid("login", "begins like an id")
	}
	for _, c := range []byte(login) {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@", rune(c)) {
			return invalid("login", "may hold letters and digits of ASCII and . _ - + @")
		}
	}
	return nil
}
